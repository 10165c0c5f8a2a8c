"""What a mode makes of one video after another in one process."""

from pathlib import Path

import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_plan, fake_requests
from ml_collections import ConfigDict

from jaxvid.core.files import InputError
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.runs.clips import Clips
from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import Provenance
from jaxvid.runs.runner import run

CONFIG = ConfigDict({"mode": "fake", "clip": "", "run": {"output": "", "shard": ""}})


@pytest.fixture
def root(tmp_path):
    """Two short "videos" and a long one."""
    for name, text in {"a": "short", "b": "short", "c": "long"}.items():
        (tmp_path / f"{name}.mp4").write_text(text)
    return tmp_path


class FakeMode:
    """Counts how often parameters are loaded; a clip's text decides the number of frames."""

    loads = 0

    def __init__(self, config):
        self.output, self.clip = config.run.output, config.clip
        try:
            self.frames = 4 if "long" in Path(self.clip).read_text() else 2
        except OSError as error:
            raise InputError("no such clip") from error

    def requests(self):
        fake = FakeConfig(requests=1, frames=self.frames, size=16)
        return fake_requests(fake, {"clip": self.clip})

    def load(self, requests):
        FakeMode.loads += 1
        return FakeGenerator(FakeConfig(frames=self.frames, size=16, seconds=0))

    def provenance(self):
        return Provenance()

    @staticmethod
    def take_clip(config, path):
        config.clip = path

    def take_over(self, generator, requests):
        return generator.config.frames == self.frames


def make(mode, config, load):
    requests = mode.requests()
    print(fake_plan(FakeConfig(), requests).lines())
    return run(load, requests, RunConfig(**config.run), Provenance())


def test_clips_share_one_generator(root):
    clips = Clips(FakeMode, CONFIG, make)
    FakeMode.loads = 0
    answers = [clips(str(root / f"{n}.mp4"), str(root / n)) for n in ("a", "b", "a", "c")]
    assert [a["skipped"] for a in answers] == [False, False, True, False]
    assert not any(a["code"] for a in answers) and FakeMode.loads == 2
    assert (root / "b" / "clip_0000" / "samples.npy").exists()
    with pytest.raises(ValueError, match="nothing of a single video"):
        Clips(object, CONFIG, make)
    with pytest.raises(ValueError, match=r"control videos .*, which a clip is not .*:multirun"):
        Clips(CosmosMode, CONFIG, make)


def test_a_mistake_in_the_settings_is_told_from_a_bad_clip(root):
    clips = Clips(FakeMode, CONFIG, make)
    videos = [str(root / f"{name}.mp4") for name in ("gone", "a", "b", "c")]
    found = clips.describe(videos)
    assert found == clips.describe(videos[1:]) != clips.describe(videos[:1])
    assert found == clips.describe(videos[::-1])  # a clip of another length comes first
    changed = lambda **fields: Clips(FakeMode, ConfigDict(CONFIG.to_dict() | fields), make)  # noqa: E731
    assert found != changed(dark=1).describe(videos)
    for section in ({"max_failures": -1}, {"shards": ""}):
        with pytest.raises(ValueError, match=r"max_failures=-1|shards is not a field"):
            changed(run=section).describe(videos)

    class Wrong(FakeMode):
        def requests(self):
            raise ValueError("no checkpoint")

    with pytest.raises(ValueError, match="no checkpoint"):
        Clips(Wrong, CONFIG, make).describe(videos)
