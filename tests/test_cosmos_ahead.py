"""scripts/plan.py's programs for Cosmos: work of the released size, tiny programs compiled."""

import math
from pathlib import Path

import jax
import pytest

from jaxvid.core import ahead, flops
from jaxvid.core.config import load_config, override
from jaxvid.cosmos import ahead as cosmos

CONFIGS = Path(__file__).parents[1] / "configs"
RANDOM = ["models.random=True", "text.random=True", "text.tokenizer=data/tokenizer_qwen"]


def config(name, *changes):
    found = load_config(str(CONFIGS / name))
    override(found, changes)
    return found


def test_a_step_of_seven_views_has_the_published_work(monkeypatch):
    """11.46 PFLOP for each pass of guidance; nothing is compiled."""
    monkeypatch.chdir(CONFIGS.parent)
    program = next(cosmos.programs(config("cosmos_multiview.py", *RANDOM), jax.devices()[:1]))
    with jax.set_mesh(program.mesh):
        found = flops.count(program.function.trace(*program.arguments).jaxpr.jaxpr)
    assert found["bfloat16"] + found["float32"] == pytest.approx(2 * 1.146e16, rel=0.05)


def test_tiny_programs_of_a_chunk(monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    settings = config("cosmos_multiview.py:tiny", "mesh.seq=2")
    programs = list(cosmos.programs(settings, jax.devices()[:2]))
    names = [program.name.split(",")[0] for program in programs]
    assert names[:3] == [cosmos.STEP, cosmos.ENCODE, cosmos.DECODE] and len(names) == 5
    for program in programs[1:]:  # their arguments fit
        with jax.set_mesh(program.mesh):
            program.function.trace(*program.arguments)
    report = ahead.compile_report(programs[0])
    assert report["collectives"]["all-gather"]["count"] > 0
    assert len(ahead.row(report)) == len(ahead.HEAD)


@pytest.mark.parametrize("part", ["control", "all", "lora"])
def test_an_update_shares_out_parameters_and_moments(part, monkeypatch):
    """Of the released size on 8 devices: what a device holds is an eighth; nothing is compiled."""
    monkeypatch.chdir(CONFIGS.parent)
    settings = config("cosmos_train.py", *RANDOM, f"train.part={part}")
    (program,) = cosmos.programs(settings, jax.devices())
    leaves = jax.tree.leaves(program.arguments[:2])
    whole = sum(a.size * a.dtype.itemsize for a in leaves)
    local = sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in leaves)
    assert local == pytest.approx(whole / 8, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["control", "all", "lora"])
def test_a_tiny_update(part, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    changes = ["mesh.data=1", "mesh.seq=8", f"train.part={part}", "train.batch_size=1"]
    (program,) = cosmos.programs(config("cosmos_train.py:tiny", *changes), jax.devices())
    report = ahead.compile_report(program)
    assert report["collectives"]["all-gather"]["count"] > 0
