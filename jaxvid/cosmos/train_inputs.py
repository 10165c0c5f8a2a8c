"""What a training run reads instead of videos and captions: latents and words, made once.

The frames and the text of a sample are always the same, so the VAE and the text encoder work
before training, one after the other, and leave the devices to the network. What they make is kept
on disk: 52 MB for a sample of seven cameras at full size, 1 MB for a text.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence

import jax
import numpy as np

from jaxvid.core.array_cache import ArrayCache
from jaxvid.core.distributed import agreed
from jaxvid.core.mesh import MeshConfig, make_mesh, over_data
from jaxvid.cosmos import prompts
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.text import TOKENS
from jaxvid.cosmos.train_data import SCALER, Clip, Folder, Shapes, texts
from jaxvid.cosmos.train_setup import Setup, vae_identity
from jaxvid.cosmos.words import NOTHING, Words
from jaxvid.wan import vae, vae_keys
from jaxvid.wan.vae import VaeConfig


class Inputs:
    """Latents and words of the samples of a run."""

    def __init__(self, setup: Setup, source: Folder | Shapes):
        self.setup, self.source = setup, source
        self.cache = ArrayCache(setup.prepared)
        self.texts = [texts(setup.data, caption) for caption in source.captions]
        self._words: Words | None = None

    def prepare(self) -> None:
        """Makes what is not kept yet; all processes share the work, and the folder.

        Raises:
          ValueError: a video that does not fit, or a text without an embedding.
        """
        every = list(dict.fromkeys(text for one in self.texts for text in one))
        for note in prompts.cut_notes(self.setup.text, every):
            print(note, flush=True)
        with agreed():
            self._keep_words([NOTHING, *every])
        with agreed():
            missing = [i for i in _share(range(len(self.source))) if self._kept(i) is None]
            for note in self.source.check(missing):
                print(note, flush=True)
            self._keep_latents(missing)

    def latents(self, i: int) -> np.ndarray:
        """(2, v, t, h, w, c) of a sample's video and of its control."""
        return self._found(self._kept(i), f"latents of sample {i}")

    def words(self, i: int, dropped: bool) -> np.ndarray:
        """(v, 512, c) of a sample's texts, or of no text at all.

        They are what the blocks attend to; where the text projection is trained as well, they are
        the encoder's embeddings.
        """
        return np.stack([self._words[NOTHING if dropped else text] for text in self.texts[i]])

    @property
    def words_shape(self) -> tuple[int, int]:
        """Words and channels of one view's text."""
        return TOKENS, self._reader.text_width

    def _found(self, array: np.ndarray | None, what: str) -> np.ndarray:
        if array is None:
            raise ValueError(
                f"the {what} are not in {self.setup.prepared}: nothing may be deleted there during "
                "a run, and all processes must share the folder"
            )
        return array

    @functools.cached_property
    def _video_source(self) -> list:
        data = self.setup.data
        size = [data.frames, data.height, data.width]
        return [vae_identity(self.setup), *size, data.ids, SCALER.name]

    def _kept(self, i: int) -> np.ndarray | None:
        key = json.dumps([self._video_source, self.source.identity(i)])
        return self.cache.read(key, mapped=True)

    @property
    def _reader(self) -> DitConfig:
        """The network as it is handed texts: with the projection among what is trained, without."""
        network = self.setup.network
        if self.setup.train.part != "all" or not network.text_in:
            return network
        return dataclasses.replace(network, text_in=0, text_width=network.text_in)

    def _keep_words(self, texts: Sequence[str | None]) -> None:
        setup, whole = self.setup, self.setup.train.part == "all"
        folder = setup.text.config.embeddings if whole else setup.prepared
        self._words = Words(setup.text, setup.models, self._reader, texts, folder)
        missing = self._words.missing(texts if whole else _share(texts))
        if missing:
            print(f"embedding {len(missing)} texts", flush=True)
            self._words.make(missing)

    def _keep_latents(self, missing: Sequence[int]) -> None:
        if not missing:
            return
        setup = self.setup
        mesh = make_mesh(MeshConfig(), jax.local_devices())
        params = vae_keys.load_or_draw(setup.models, setup.vae, mesh)
        with jax.set_mesh(mesh):
            for number, i in enumerate(missing):
                if number % 10 == 0:
                    print(f"encoding videos: sample {number} of {len(missing)}", flush=True)
                found = encode(setup.vae, params, self.source.clip(i), mesh)
                key = json.dumps([self._video_source, self.source.identity(i)])
                self.cache.write(key, found.astype(setup.models.dtype))


def _share(items: Sequence) -> Sequence:
    """What this process makes; the others make the rest."""
    return items[jax.process_index() :: jax.process_count()]


def encode(config: VaeConfig, params, clip: Clip, mesh) -> np.ndarray:
    """(2, v, t, h, w, c) float32 latents of a clip's video and control, a view on each device."""
    frames = np.concatenate([clip.video, clip.control])
    devices = mesh.shape["data"]
    missing = np.zeros((-len(frames) % devices, *frames.shape[1:]), frames.dtype)
    frames = np.concatenate([frames, missing])
    found = []
    for start in range(0, len(frames), devices):
        part = jax.device_put(frames[start : start + devices], over_data(mesh))
        found.append(np.asarray(_encode(config, params, part)))
    whole = np.concatenate(found)[: 2 * len(clip.video)]
    return whole.reshape(2, len(clip.video), *whole.shape[1:])


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: VaeConfig, params, frames):
    x = frames.astype(config.dtype) / 127.5 - 1  # in that type, as upstream computes it
    return vae.encode(config, params, x, step=1)
