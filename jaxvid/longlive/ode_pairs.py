"""ODE pairs: points of the way from noise to video along a bidirectional model's flow.

A causal generator learns from them to say where the way ends (Self-Forcing's first stage). Ours
are a folder of `.npz` files, one video each, and `pairs.json`; upstream's are an LMDB of float16.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import flow
from jaxvid.core.files import atomic_path

NOTE = "pairs.json"


@dataclasses.dataclass(frozen=True)
class PairsConfig:
    """How pairs are made; the defaults are Self-Forcing's."""

    steps: int = 48  # of Euler's method
    shift: float = 8.0  # of the table of noise levels
    guidance: float = 6.0  # 1 is the conditional prediction alone

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")

    def kept(self, step_list: Sequence[int]) -> list[int]:
        """Which Euler steps start at the noise levels of a warped step list.

        Raises:
          ValueError: none does for one of them.
        """
        found = [(flow.STEPS - step) * self.steps / flow.STEPS for step in step_list]
        if missing := [step for step, n in zip(step_list, found, strict=True) if n != int(n)]:
            raise ValueError(
                f"{self.steps} Euler steps do not pass the level of step {missing[0]}: "
                f"use a multiple of {len(step_list)} steps"
            )
        return [int(n) for n in found]


def trajectory(velocity: Callable, config: PairsConfig, noise, step_list: Sequence[int]):
    """Points of the way, (b, p + 1, t, h, w, c) float32 for p entries of the step list, then clean.

    Args:
      velocity: maps x (b, t, h, w, c) and () timestep to (conditional, unconditional) velocities.
      noise: (b, t, h, w, c) standard normal.
    """
    sigmas = jnp.asarray(flow.noise_levels(config.shift, config.steps))

    def step(x, levels):
        sigma, after = levels
        with_text, without = velocity(x, flow.STEPS * sigma)
        guided = without + config.guidance * (with_text - without)
        return flow.euler_step(x, guided, sigma, after), x

    x, path = jax.lax.scan(step, noise, (sigmas, jnp.append(sigmas[1:], 0.0)))
    kept = path[jnp.asarray(config.kept(step_list))]
    return jnp.moveaxis(jnp.concatenate([kept, x[None]]), 0, 1)


def write_note(
    folder: Path, config: PairsConfig, step_list: Sequence[int], origin: Mapping
) -> None:
    """States how the pairs of a folder are made; ValueError if it has others.

    origin: what they are made of, JSON values by name.
    """
    note = {"step_list": list(step_list), **dataclasses.asdict(config), **origin}
    path = folder / NOTE
    found = json.loads(path.read_text()) if path.exists() else note
    if others := [name for name in note if found.get(name) != note[name]]:
        raise ValueError(
            f"{folder} holds pairs made with other settings: {', '.join(others)}, see {path}; "
            "use those, or another --output"
        )
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(note, indent=1))


def write_pair(path: Path, latents, prompt: str) -> None:
    """One video's points, (p + 1, t, h, w, c), as float16."""
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, latents=np.asarray(latents, np.float16), prompt=np.array(prompt))


class PairFiles:
    """A folder of ours."""

    def __init__(self, folder: Path):
        self.folder, self.paths = folder, sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        return len(self.paths)

    def note(self) -> Mapping:
        path = self.folder / NOTE
        return json.loads(path.read_text()) if path.exists() else {}

    def names(self) -> list[str]:
        return [path.name for path in self.paths]

    def prompt(self, index: int) -> str:
        return str(self._read(index, "prompt"))

    def latents(self, index: int) -> np.ndarray:
        """(p + 1, t, h, w, c)"""
        return self._read(index, "latents")

    def _read(self, index: int, name: str) -> np.ndarray:
        path = self.paths[index]
        try:
            with np.load(path, allow_pickle=False) as file:
                return file[name]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(f"{path} is no ODE pair: {error}") from error


class PairDatabase:
    """Upstream's LMDB: `latents_shape`, `latents_{i}_data` and `prompts_{i}_data`.

    Latents are (p + 1, t, c, h, w).
    """

    def __init__(self, folder: Path):
        try:
            import lmdb  # an extra: only upstream's pairs need it
        except ImportError:
            raise ValueError(
                f"data.pairs={folder} is an LMDB, which needs: pip install 'jaxvid[lmdb]'"
            ) from None
        self.folder = folder
        self.file = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        self.shape = tuple(map(int, self._get("latents_shape").split()))

    def __len__(self) -> int:
        return self.shape[0]

    def note(self) -> Mapping:
        return {}

    def names(self) -> list[str]:
        return [str(i) for i in range(len(self))]

    def prompt(self, index: int) -> str:
        return self._get(f"prompts_{index}_data").decode()

    def latents(self, index: int) -> np.ndarray:
        found = np.frombuffer(self._get(f"latents_{index}_data"), np.float16)
        return np.moveaxis(found.reshape(self.shape[1:]), -3, -1)

    def _get(self, key: str) -> bytes:
        with self.file.begin() as reader:
            value = reader.get(key.encode())
        if value is None:
            raise ValueError(f"{self.folder} is no LMDB of ODE pairs: it has no {key}")
        return value


class Pairs:
    """The data set of ODE regression; `shape` is that of a video's latents (t, h, w, c)."""

    def __init__(self, path: str, step_list: Sequence[int], shift: float, shape: Sequence[int]):
        """Raises ValueError for pairs of other noise levels or sizes, or none."""
        if not path:
            raise ValueError("data.pairs is empty: make a folder of them with scripts/ode_pairs.py")
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ValueError(
                f"data.pairs={folder}: there is no such folder; scripts/ode_pairs.py makes it"
            )
        database = (folder / "data.mdb").exists()
        self.source = PairDatabase(folder) if database else PairFiles(folder)
        if not len(self.source):
            raise ValueError(f"data.pairs={folder} holds no pairs: no .npz file and no data.mdb")
        note = self.source.note()
        wanted = {"step_list": list(step_list), "shift": shift}
        for name, value in wanted.items():
            if name in note and note[name] != value:
                raise ValueError(
                    f"data.pairs={folder} has {name}={note[name]}, the training {value}: "
                    "set rollout.steps and train.ode_shift to theirs"
                )
        self.shape = (len(step_list) + 1, *shape)
        self._latents(0)

    def __len__(self) -> int:
        return len(self.source)

    def describe(self) -> str:
        return f"{len(self)} ODE pairs from {self.source.folder}"

    def listing(self) -> list[str]:
        return [json.dumps(self.source.note()), *self.source.names()]

    def prompts(self, index: int) -> tuple[str]:
        return (self.source.prompt(index),)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.asarray(self._latents(index), np.float32)

    def _latents(self, index: int) -> np.ndarray:
        found = self.source.latents(index)
        if found.shape != self.shape:
            name = self.source.names()[index]
            raise ValueError(
                f"data.pairs={self.source.folder} has latents {found.shape} (points, frames, "
                f"rows, columns, channels) in pair {name}, the training is for {self.shape}"
            )
        return found
