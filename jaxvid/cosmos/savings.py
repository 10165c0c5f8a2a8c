"""What the options that save time change: python -m jaxvid.cosmos.savings

Makes one chunk with the random network of configs/cosmos_multiview.py:tiny, without an option and
with each of them, and prints passes, time and likeness of the frames. A trained network can do
better or worse; the command takes `--config` and `--config.field=value` to measure on yours.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np

from jaxvid.core.config import override, parse_arguments
from jaxvid.core.program import main
from jaxvid.cosmos import generate, requests
from jaxvid.cosmos.planning import passes_of
from jaxvid.cosmos.setup import sampling_settings
from jaxvid.runs.requests import Chunk

CONFIG = "configs/cosmos_multiview.py:tiny"
SMALL = (  # of that config: one chunk, and as many steps as the release takes
    "sampling.specs=('data/multiview/crossing.json',)",
    "sampling.height=40",
    "sampling.width=64",
    "overrides.num_steps=35",
)
OPTIONS = (
    (),
    ("sampler.guidance_to=0.8",),
    ("sampler.guidance_from=0.95", "sampler.guidance_to=0.5"),
    ("sampler.evaluate_every=2",),
    ("sampler.evaluate_every=3",),
    ("overrides.num_steps=18",),
    ("sampler.solver=euler",),
    ("sampler.solver=renoise", "sampler.step_list=(1000, 750, 500, 250)", "overrides.guidance=0"),
)


def table(argv: Sequence[str]) -> list[str]:
    """A line for each set of options."""
    lines, wanted = ["passes  seconds  PSNR  options"], None
    for options in OPTIONS:
        frames, passes, seconds = _made(argv, options)
        wanted = frames if wanted is None else wanted
        error = ((frames.astype(float) - wanted) ** 2).mean()
        likeness = f"{10 * np.log10(255**2 / error):4.1f}" if error else "   -"
        lines.append(f"{passes:6}  {seconds:7.1f}  {likeness}  {' '.join(options) or 'none'}")
    return lines


def _made(argv: Sequence[str], options: Sequence[str]) -> tuple[np.ndarray, int, float]:
    """All frames of the first sample, passes through the network and seconds without compiling."""
    own = any(word.startswith("--config=") for word in argv)
    config, _ = parse_arguments(argv if own else [f"--config={CONFIG}", *argv])
    override(config, [*(() if own else SMALL), *options, "sampling.files=('combined',)"])
    settings = sampling_settings(config)
    request = requests.requests(settings)[0]
    generator = generate.load(settings, [request])
    for _ in range(2):  # the first time compiles
        start, frames = time.monotonic(), []
        for item in generator.generate([request]):
            if isinstance(item, Chunk) and item.name == "combined":
                frames.append(item.frames)
        seconds = time.monotonic() - start
    return np.concatenate(frames, axis=-4), passes_of(settings, request), seconds


def _main(argv: list[str]) -> int:
    print("\n".join(table(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main(_main))
