"""The ELBO of test videos under a scheme, in bits (upstream `scripts/video_nll.py`)."""

import functools
import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.core.files import atomic_path
from jaxvid.core.noise import request_key
from jaxvid.data.sources import open_source
from jaxvid.fdm import diffusion, marking, naming, schemes
from jaxvid.fdm.model import identity, load_model, network
from jaxvid.fdm.process import make_process
from jaxvid.fdm.requests import result_settings, video_indices
from jaxvid.fdm.sample_config import Settings
from jaxvid.fdm.sampler import call_noise
from jaxvid.fdm.unet import Frames
from jaxvid.runs.fingerprint import hash_json

TERMS = ("total_bpd", "prior_bpd", "vb", "xstart_mse", "mse")


def gather_step(videos, observed: Sequence[Sequence[int]], latent: Sequence[Sequence[int]], size=0):
    """True frames and masks of one call, rows padded with zero frames at index 0.

    Args:
      videos: (b, n, h, w, c) true frames.
      observed, latent: one list of indices per video.
      size: frames to pad to; 0: the longest row.
    Returns:
      (b, t, h, w, c) frames and their Frames. Padding has no mask and, as upstream has it, takes
      part in the temporal normalisation; beyond the longest row it does not exist.
    """
    rows = [[*seen, *made] for seen, made in zip(observed, latent, strict=True)]
    longest = max(map(len, rows))
    size = max(size, longest)
    indices = np.array([row + [0] * (size - len(row)) for row in rows], np.int32)
    place = np.arange(size)
    counts = np.array([[len(o), len(row)] for o, row in zip(observed, rows, strict=True)])
    seen = place < counts[:, :1]
    used = place < counts[:, 1:]
    clean = np.take_along_axis(np.asarray(videos), rearrange(indices, "b t -> b t 1 1 1"), 1)
    clean = clean * used[:, :, None, None, None]
    exists = np.broadcast_to(place < longest, used.shape)
    masks = (mask.astype(np.float32) for mask in (seen, used & ~seen, exists))
    seen, predicted, exists = masks
    return clean.astype(np.float32), Frames(indices, seen, predicted, None, exists)


def evaluate_elbo(settings: Settings) -> list[Path]:
    """Writes `elbos/elbo_<video>.pkl` for each video asked for.

    Files that are there are kept, unless the note `<file>.json` beside one says that it was made
    from another checkpoint or with other settings; upstream's have no note.

    A file is a dict of arrays over the calls of the scheme: the terms of
    diffusion.bits_per_dimension, summed over timesteps and multiplied by the frames of the call,
    so that their sum over calls counts each predicted frame once.

    Raises:
      ValueError: an adaptive scheme (its calls depend on samples), or see video_indices.
    """
    sampling = settings.sampling
    if schemes.is_adaptive(sampling.scheme):
        raise ValueError(f"the scheme {sampling.scheme!r} depends on samples and has no ELBO")
    source = open_source(settings.data, sampling.split)
    wanted = video_indices(settings, source)
    name = functools.partial(
        naming.elbo_name, ddim=sampling.method == "ddim", respacing=sampling.respacing
    )
    paths = {i: settings.folder / "elbos" / name(i) for i in wanted}
    origin = _origin(settings)
    todo = [i for i in wanted if not _is_done(paths[i], origin)]
    params = load_model(settings.checkpoint).params if todo else None
    terms = _make_terms(settings)
    for start in range(0, len(todo), sampling.batch_size):
        batch = todo[start : start + sampling.batch_size]
        full = batch + batch[-1:] * (sampling.batch_size - len(batch))
        videos = marking.normalise(np.stack([source[i] for i in full]))
        keys = jnp.stack([request_key(sampling.seed, f"elbo_{i}") for i in full])
        found = [
            terms(params, keys, number, *_call(settings, videos, step))
            for number, step in enumerate(settings.steps())
        ]
        for row, i in enumerate(batch):
            values = {t: np.array([np.asarray(f[t])[row] for f in found]) for t in TERMS}
            _write(paths[i], values, origin)
            print(f"elbo of video {i}: {paths[i]}", flush=True)
    return list(paths.values())


def _call(settings: Settings, videos, step):
    rows = step.rows(len(videos))
    latent = [list(step.latent)] * len(videos)
    return gather_step(videos, rows, latent, settings.max_frames)


def _make_terms(settings: Settings):
    process = make_process(settings.diffusion)

    @jax.jit
    def terms(params, keys, number, clean, frames: Frames):
        times = jnp.asarray(process.network_timesteps)

        def denoise(x, step):
            return network(settings.network, params, x, clean, times[step], frames)

        steps = jnp.repeat(jnp.arange(process.steps)[::-1, None], clean.shape[0], 1)
        noise = call_noise(keys, number, clean.shape[1:])
        found = diffusion.bits_per_dimension(
            process, denoise, clean, frames.latent, noise, steps, settings.sampling.clip
        )
        # The means divide by the padded length; times that length they are sums over frames.
        return {
            term: (value.sum(1) if value.ndim == 2 else value) * clean.shape[1]
            for term, value in found.items()
        }

    return terms


def _origin(settings: Settings) -> dict:
    """What the values of a file depend on: the checkpoint, and a hash of the settings."""
    fields = result_settings(settings)
    for field in ("video", "video_size", "pixels"):
        del fields["sampling"][field]
    return {"checkpoint": identity(settings.checkpoint), "settings": hash_json(fields)}


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _is_done(path: Path, origin: dict) -> bool:
    """Whether the file is there and is not known to come from elsewhere."""
    if not path.exists():
        return False
    if not _note(path).exists():
        print(f"{path}: kept, without a note of what made it", flush=True)
        return True
    if json.loads(_note(path).read_text()) == origin:
        return True
    print(f"{path}: from another checkpoint or other settings, made again", flush=True)
    return False


def _write(path: Path, terms: dict, origin: dict) -> None:
    path.unlink(missing_ok=True)  # an old file never stands beside the new note
    with atomic_path(_note(path)) as temporary:
        temporary.write_text(json.dumps(origin))
    with atomic_path(path) as temporary:
        temporary.write_bytes(pickle.dumps(terms))
