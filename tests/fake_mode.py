"""A mode that draws cheap pictures: the same interface as a real one, without a network.

python tests/fake_mode.py --output=out --requests=12
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import Provenance, hash_json
from jaxvid.runs.plan import Frames, Plan, print_plan
from jaxvid.runs.requests import Chunk, Request, Snapshot, Stage
from jaxvid.runs.runner import run
from jaxvid.runs.survey import survey

OUTPUTS = {"video": "video.mp4", "gif": "video.gif", "samples": "samples.npy", "info": "info.json"}


@dataclasses.dataclass(frozen=True)
class FakeConfig:
    requests: int = 12
    frames: int = 24
    size: int = 32
    chunk: int = 8  # frames handed over at a time
    batch_size: int = 4
    seconds: float = 0.01  # pretended work for each chunk
    read_seconds: float = 0.0  # pretended reading of inputs
    broken: tuple[str, ...] = ()  # ids whose batch raises after the first chunk
    dark: int = 0  # a setting that changes the frames
    snapshots: int = 0  # after every so many chunks; 0: none


class FakeGenerator:
    """Frames follow from (seed, id) alone, as the contract of a mode demands."""

    def __init__(self, config: FakeConfig):
        self.config, self.batch_size, self.devices = config, config.batch_size, "none"
        self.calls = []  # ids of each call
        self.prefetched = []

    def group(self, request: Request) -> int:
        return request.options["frames"]

    def prefetch(self, requests: list[Request]):
        time.sleep(self.config.read_seconds)
        self.prefetched.append([request.id for request in requests])

    def resumable(self, requests: list[Request]) -> bool:
        return self.config.snapshots > 0

    def resume(self, requests: list[Request], info: dict, restore):
        like = {"tint": jax.ShapeDtypeStruct((), np.uint8)}
        yield from self.generate(requests, info["start"], np.asarray(restore(like)["tint"]))

    def generate(self, requests: list[Request], first: int = 0, tint=None):
        """Frames get a tint that only a snapshot tells, if there are any."""
        tint = np.uint8(0) if tint is None else tint
        assert len({self.group(request) for request in requests}) == 1
        assert len(requests) <= self.batch_size
        self.calls.append([request.id for request in requests])
        total, every = requests[0].options["frames"], self.config.snapshots * self.config.chunk
        for start in range(first, total, self.config.chunk):
            if every and start and start % every == 0 and start != first:
                yield Snapshot({"tint": tint}, {"start": start})
            yield Stage(f"drawing frame {start}/{total}", start / total)
            time.sleep(self.config.seconds)
            tint = tint + np.uint8(every > 0)
            for index, request in enumerate(requests):
                frames = draw(request, self.config)[start : start + self.config.chunk] + tint
                for name in ("video", "gif", "samples"):
                    if name in request.outputs:
                        yield Chunk(index, name, frames)
            broken = [request.id for request in requests if request.id in self.config.broken]
            if broken:
                raise RuntimeError(f"cannot draw {broken[0]}")
        for index, request in enumerate(requests):
            if "info" in request.outputs:
                yield Chunk(index, "info", {"id": request.id, "frames": total})


def draw(request: Request, config: FakeConfig) -> np.ndarray:
    """A drifting random texture, uint8 (t, h, w, 3)."""
    rng = np.random.default_rng([request.seed, *request.id.encode()])
    image = rng.integers(0, 256 - config.dark, (config.size, config.size, 3), dtype=np.uint8)
    return np.stack([np.roll(image, n, axis=1) for n in range(request.options["frames"])])


def fake_requests(config: FakeConfig, inputs: dict[str, str] | None = None) -> list[Request]:
    return [
        Request(
            id=f"clip_{n:04}",
            seed=n,
            inputs=dict(inputs or {}),
            outputs={
                name: f"clip_{n:04}/{file}"
                for name, file in OUTPUTS.items()
                if not (name == "gif" and config.snapshots)  # which cannot be gone on with
            },
            options={"fps": 10, "frames": config.frames, "prompt": f"number {n}"},
        )
        for n in range(config.requests)
    ]


def fake_plan(config: FakeConfig, requests: list[Request]) -> Plan:
    frames = tuple(Frames(r.id, config.frames, config.frames, config.frames) for r in requests)
    return Plan(frames, 1e6 * len(requests), 2**20, None, compilations=1)


def provenance(config: FakeConfig) -> Provenance:
    return Provenance(config=hash_json({"dark": config.dark, "size": config.size}))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", action="store_true")
    for cls in (RunConfig, FakeConfig):
        for field in dataclasses.fields(cls):
            kinds = {bool: parse_bool, int: int, float: float, tuple[str, ...]: str.split}
            read = kinds.get(field.type, str)
            parser.add_argument(f"--{field.name}", type=read, default=field.default)
    args = parser.parse_args(argv)
    pick = lambda cls: cls(**{f.name: getattr(args, f.name) for f in dataclasses.fields(cls)})  # noqa: E731
    try:
        config, fake = pick(RunConfig), pick(FakeConfig)
        requests = fake_requests(fake)
        if args.plan:
            print_plan(fake_plan(fake, requests), survey(requests, config, provenance(fake)))
            return 0
        return run(lambda _: FakeGenerator(fake), requests, config, provenance(fake)).exit_code
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse_bool(text: str) -> bool:
    return {"True": True, "False": False}[text]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
