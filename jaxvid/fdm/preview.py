"""Sample clips during training: short completions of test videos."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.core.video import to_uint8
from jaxvid.data.sources import open_source
from jaxvid.fdm.process import DiffusionConfig, make_process
from jaxvid.fdm.sampler import call_noise, denoise_window
from jaxvid.fdm.unet import Frames

STEPS = "50"  # respacing of previews


def preview_video(setup, params) -> np.ndarray:
    """Two test videos completed with the given parameters, as upstream's sample logging does.

    A third of the K frames is observed. The first video's frames are consecutive, the second's
    spread over the clip. Returns uint8 (k, 2h, 2w, 3): truth on the left, samples on the right.
    """
    size = setup.train.max_frames
    source = open_source(setup.data, "test")
    spread = np.linspace(0, source.frames - 1, size).astype(np.int32)
    indices = np.stack([np.arange(size, dtype=np.int32), spread])
    videos = np.stack([source[i % len(source)][rows] for i, rows in enumerate(indices)])
    observed = np.broadcast_to(np.arange(size) < max(1, size // 3), (2, size))
    frames = Frames(indices, observed.astype(np.float32), (~observed).astype(np.float32))
    clean = videos.astype(np.float32) / 127.5 - 1
    found = to_uint8(np.asarray(_complete(setup.network, setup.diffusion)(params, clean, frames)))
    found = np.where(observed[..., None, None, None], videos, found)
    return rearrange(np.stack([videos, found]), "side b t h w c -> t (b h) (side w) c")


@functools.lru_cache
def _complete(network, diffusion: DiffusionConfig):
    respacing = STEPS if diffusion.steps > int(STEPS) else ""
    process = make_process(DiffusionConfig(**{**vars(diffusion), "respacing": respacing}))

    def complete(params, clean, frames):
        keys = jax.random.split(jax.random.key(0), clean.shape[0])
        noise = call_noise(keys, 0, clean.shape[1:])
        found = denoise_window(
            network, process, params, jnp.asarray(clean), frames, noise, method="ddim"
        )
        return jnp.clip(found, -1, 1)

    return jax.jit(complete)
