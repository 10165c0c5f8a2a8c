"""The words that Cosmos' blocks attend to: made once of each text, and kept.

They are the projected embeddings of a text. At full size they have 1 MB and an embedding 103 MB,
which is therefore never kept unless the network wants it as it is.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxvid.core.array_cache import ArrayCache
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.cosmos import networks, precomputed, programs, prompts
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.prompts import PromptSettings
from jaxvid.cosmos.sample_config import ModelConfig
from jaxvid.cosmos.text import TOKENS

NOTHING = None  # stands for the text that is left out, whose embedding is zeros


class Words(Mapping):
    """The (512, c) words of each text, read when they are asked for.

    Of a network that projects nothing they are the embeddings; given ones are then read from their
    files.
    """

    def __init__(
        self,
        text: PromptSettings,
        models: ModelConfig,
        network: DitConfig,
        texts: Sequence[str | None],
        folder: str | Path,
    ):
        """No embedding is made yet, see `make`.

        Args:
          folder: keeps them; "" for memory.
        Raises:
          ValueError: see prompts.sources.
        """
        self._text, self._models, self._network = text, models, network
        self._cache = ArrayCache(folder) if folder else None
        self._memory: dict[str | None, np.ndarray] = {}
        sources = prompts.sources(text, [t for t in texts if t is not NOTHING])
        if NOTHING in texts:
            sources[NOTHING] = [text.config.dtype]
        how = [self._projection_name(), self._width] if self._cache else []
        self._keys = {t: json.dumps([source, *how]) for t, source in sources.items()}
        self._given = {}
        if not network.text_in:
            self._given = precomputed.find(text.config.precomputed, list(self._keys))

    def __getitem__(self, text: str | None) -> np.ndarray:
        if text in self._given:
            return self._checked(prompts.read_given(self._text, self._given[text], text))
        found = self._found(text)
        if found is None:
            raise ValueError(
                f"the words of {precomputed.short(text or '')} are not in {self._cache.folder}: "
                "nothing may be deleted there during a run, and processes that train together must "
                "share it; the same command again makes them"
            )
        return found

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def missing(self, texts: Sequence[str | None]) -> list[str | None]:
        """Those of the texts that are to be made."""
        return [t for t in texts if t not in self._given and self._found(t) is None]

    def make(self, texts: Sequence[str | None]) -> None:
        """Makes the words of texts; the encoder and the projection are gone when it returns.

        Raises:
          ValueError: see prompts.embeddings; an embedding that the network does not read.
        """
        if not texts:
            return
        project = self._projection()
        if NOTHING in texts:
            zeros = np.zeros((TOKENS, self._width), self._text.config.dtype)
            self._keep(NOTHING, project(zeros))
        named = [t for t in texts if t is not NOTHING]
        for text, embedding in prompts.embeddings(self._text, named):
            self._keep(text, project(self._checked(embedding)))

    @property
    def _width(self) -> int:
        """Channels of an embedding."""
        return self._network.text_in or self._network.text_width

    def _checked(self, embedding: np.ndarray) -> np.ndarray:
        if embedding.shape[-1] != self._width:
            raise ValueError(
                f"embeddings of prompts are {embedding.shape[-1]} wide, the transformer reads "
                f"{self._width}: give those of its text encoder"
            )
        return embedding

    def _found(self, text: str | None) -> np.ndarray | None:
        if not self._cache:
            return self._memory.get(text)
        words = self._cache.read(self._keys[text], mapped=True)
        fits = words is not None and words.shape == (TOKENS, self._network.text_width)
        return words if fits else None

    def _keep(self, text: str | None, words: np.ndarray) -> None:
        if self._cache:
            self._cache.write(self._keys[text], words)
        else:
            self._memory[text] = words

    def _projection(self) -> Callable[[np.ndarray], np.ndarray]:
        """Makes words of an embedding, on one device as the encoder does."""
        if not self._network.text_in:
            return np.asarray
        mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
        with jax.set_mesh(mesh):
            projection = networks.text_projection(self._models, self._network)
            params = {"text": jax.tree.map(jnp.asarray, projection)}

        def project(embedding: np.ndarray) -> np.ndarray:
            with jax.set_mesh(mesh):
                return np.asarray(programs.text_context(self._network, params, embedding))

        return project

    def _projection_name(self) -> str:
        """Tells projections apart by their numbers, which checkpoints of one base share.

        What a checkpoint has is remembered, so that it is read once.
        """
        models, network = self._models, self._network
        if not network.text_in:
            return ""
        sizes = [network.text_in, network.text_width, models.dtype]
        key = json.dumps(["projection", networks.transformer_identity(models), *sizes])
        digest = self._cache.read(key)
        if digest is None:
            digest = np.frombuffer(_digest(networks.text_projection(models, network)), np.uint8)
            self._cache.write(key, digest)
        return digest.tobytes().hex()


def _digest(params: Mapping) -> bytes:
    """SHA-256 of names, types and numbers."""
    found = hashlib.sha256()
    for name, array in sorted(flatten_dict(params, sep="/").items()):
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8))
    return found.digest()
