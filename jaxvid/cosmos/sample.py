"""The sampler of Cosmos: guidance, given frames, and the steps from noise to latents.

The network enters as a function `network(x, timestep, guided)` of latents x (b, v, t, h, w, c) and
a timestep () float32. It returns the velocities for the prompt and, if `guided`, for the negative
prompt (else None). Upstream: `multiview_vid2vid_model_control_vace_rectified_flow.py`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import solvers
from jaxvid.cosmos import schedule

Network = Callable  # see above
Kind = Literal["guided", "plain", "reused"]  # both velocities, one of them, that of the step before


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How latents are made of noise; the defaults are the release's.

    What saves time is off by default; `python -m jaxvid.cosmos.savings` tells what it changes.
    """

    solver: Literal["unipc", "euler", "renoise"] = "unipc"  # renoise: of distilled networks
    shift: float = 5.0  # of the noise levels
    step_list: tuple[int, ...] = ()  # of a distilled network, e.g. (1000, 750, 500, 250)
    guidance_from: float = 1.0  # noise level at which guidance begins, and
    guidance_to: float = 0.0  # where it ends; the passes with the negative prompt are saved outside
    evaluate_every: int = 1  # steps; those between take the velocity of the step before

    def __post_init__(self):
        if not self.shift > 0:
            raise ValueError(f"sampler.shift={self.shift} must be positive")
        if not 0 <= self.guidance_to <= self.guidance_from <= 1:
            raise ValueError(
                f"sampler.guidance_from={self.guidance_from} and guidance_to={self.guidance_to}: "
                "use noise levels with 1 >= guidance_from >= guidance_to >= 0"
            )
        if self.evaluate_every < 1:
            raise ValueError(f"sampler.evaluate_every={self.evaluate_every} must be at least 1")
        if self.step_list:
            schedule.listed(self.step_list, self.shift)
            if self.solver == "unipc" and self.step_list[0] == 1000:
                raise ValueError(
                    f"sampler.step_list={self.step_list} begins with pure noise, where UniPC is "
                    "not defined: use sampler.solver=renoise or euler"
                )


class Step(NamedTuple):
    """One step of the solver."""

    kind: Kind
    timestep: np.float32  # that the network is told
    row: solvers.Rows  # of this step


class Given(NamedTuple):
    """Frames that are not made: clean (b, v, t, h, w, c) latents, mask (b, v, t), 1 = given."""

    clean: jax.Array
    mask: jax.Array


def plan_steps(config: SamplerConfig, steps: int, guidance: float) -> list[Step]:
    """The steps of a sample.

    Args:
      steps: their number, unless config.step_list says which they are.
      guidance: see `guide`; at 0 the negative prompt plays no part and is not looked at.
    """
    listed = config.step_list
    levels = (schedule.listed(listed, config.shift) if listed
              else schedule.shifted(steps, config.shift))  # fmt: skip
    rows = solvers.SOLVERS[config.solver](levels.sigmas)
    found = []
    for i, sigma in enumerate(levels.sigmas[:-1]):
        inside = config.guidance_to <= sigma <= config.guidance_from
        kind = "guided" if guidance and inside else "plain"
        if i % config.evaluate_every and i < len(rows.sigma) - 1:
            kind = "reused"
        row = jax.tree.map(lambda a, i=i: a[i], rows)
        found.append(Step(kind, np.float32(levels.timesteps[i]), row))
    return found


def guide(positive, negative, guidance: float):
    """Classifier-free guidance as Cosmos-Transfer2.5 counts it: 3 is a usual scale of 4.

    The usual form is negative + scale (positive - negative) with scale = guidance + 1; Predict2.5
    has that one.
    """
    return positive + guidance * (positive - negative)


def velocities(network: Network, x, timestep, given: Given, noise, guided: bool):
    """Velocities for the prompt and, if `guided`, for the negative one (else None).

    The network sees given frames clean; their velocity leads to them from `noise`, which x is
    made of.
    """
    mask = given.mask[..., None, None, None]
    found = network(given.clean * mask + x * (1 - mask), timestep, guided)
    exact = (noise - given.clean) * mask
    return tuple(v if v is None else exact + v.astype(jnp.float32) * (1 - mask) for v in found)


def velocity(network: Network, guidance: float, kind: Kind, x, timestep, given: Given, noise):
    """The velocity of a step that is not `reused`."""
    positive, negative = velocities(network, x, timestep, given, noise, kind == "guided")
    return positive if negative is None else guide(positive, negative, guidance)


def sample(
    velocity_at: Callable, advance: Callable, steps: list[Step], noise, given: Given, fresh=None
) -> Iterator[solvers.State]:
    """Yields the state after each step; the last one's `x` are the latents.

    A loop over compiled steps and no scan, so that a run can tell how far it is, and stop.

    Args:
      velocity_at: `velocity` without its first two arguments, compiled.
      advance: solvers.step, compiled.
      noise: (b, v, t, h, w, c) standard normal.
      fresh: gives such noise for the number of a step; for the solver `renoise`.
    """
    state, speed = solvers.begin(noise), None
    for i, step in enumerate(steps):
        if step.kind != "reused":
            speed = velocity_at(step.kind, state.x, step.timestep, given, noise)
        noise = fresh(i) if step.row.fresh else noise
        state = advance(state, speed, step.row, noise if step.row.fresh else None)
        yield state
