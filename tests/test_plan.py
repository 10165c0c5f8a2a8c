"""scripts/plan.py: targets, counting of work and of collectives, tiny programs, bad input."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from script import load

from jaxvid.core import ahead, flops
from jaxvid.core.attention import attention
from jaxvid.core.config import load_config, override
from jaxvid.core.hlo import collectives
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.longlive import ahead as longlive

ROOT = Path(__file__).parents[1]
TINY = "--config=configs/longlive.py:tiny"


def script(*flags):
    command = [sys.executable, "scripts/plan.py", TINY, *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def work(function, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    return flops.count(jax.jit(function).trace(*arrays).jaxpr.jaxpr)


def test_products_in_loops_and_branches_count_as_often_as_they_run():
    def function(x, w):
        step = lambda x, _: (x @ w, None)  # noqa: E731
        x = jax.lax.scan(step, x, None, length=5)[0]
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x)

    assert work(function, (3, 8), (8, 8)) == {"bfloat16": 6 * 2 * 3 * 8 * 8}


def test_convolutions_count_their_taps():
    def function(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    assert work(function, (2, 8, 8, 5), (3, 3, 5, 7)) == {"bfloat16": 2 * 2 * 4 * 4 * 7 * 9 * 5}


@pytest.mark.parametrize("implementation", ["xla", "cudnn"])
def test_attention_counts_the_same_with_and_without_a_kernel(implementation):
    if implementation == "cudnn":
        pytest.importorskip("jax_cuda12_plugin")

    def function(q, k):
        return attention(q, k, k, implementation=implementation)

    found = work(function, (2, 16, 3, 8), (2, 32, 3, 8))
    assert found["bfloat16"] == 4 * 2 * 16 * 32 * 3 * 8
    assert found[flops.BATCHED] == (2 if implementation == "xla" else 0)


def test_work_of_all_devices_counts():
    """Attention over a split sequence, by hand on each device, is as much as on one."""
    mesh = make_mesh(MeshConfig(data=2, seq=2, tensor=2))
    shape = (2, 16, 4, 8)
    whole = work(lambda q: attention(q, q, q), shape)
    with jax.set_mesh(mesh):
        assert work(lambda q: attention(q, q, q), shape) == whole


def test_collectives_in_loops_count_every_time():
    mesh = make_mesh(MeshConfig(data=8))
    place = NamedSharding(mesh, P(None, "data"))

    def function(x):
        def step(total, _):
            return jax.lax.with_sharding_constraint(jnp.sin(total) @ x.T @ x, place), None

        return jax.lax.scan(step, x, None, length=7)[0]

    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=place)
    found = collectives(jax.jit(function).lower(x).compile().as_text())
    assert found["all-reduce"] == {"count": 7, "megabytes": round(7 * 16 * 16 * 4 / 1e6, 3)}


def test_asynchronous_collectives_count_what_comes_out():
    text = """
ENTRY %main (p: bf16[5,8]) -> bf16[40,8] {
  %s = (bf16[5,8]{1,0}, bf16[40,8]{1,0}) all-gather-start(%p), dimensions={0}
  ROOT %d = bf16[40,8]{1,0} all-gather-done(%s)
}"""
    assert collectives(text) == {"all-gather": {"count": 1, "megabytes": round(640 / 1e6, 3)}}


def test_a_loop_of_a_tpu_says_its_length_in_its_condition():
    text = """
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = f32[8]{0:T(256)} all-reduce(%x), to_apply=%add
}
%condition (p: (s32[], f32[8])) -> pred[] {
  %limit.1 = s32[]{:T(128)} constant(30)
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit.1), direction=LT
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%condition, body=%body
}"""
    assert collectives(text)["all-reduce"]["count"] == 30


@pytest.mark.parametrize(
    "target, words",
    [
        ("h100:8", "unknown target 'h100'"),
        ("h200", "'' is not a shape; write it as in h200:8"),
        ("h200:0", "'0' is not a shape"),
        ("h200:2x8x", "'2x8x' is not a shape"),
        ("v5e:", "write it as in v5e:2x4"),
    ],
)
def test_wrong_targets(target, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        ahead.target_devices(target)


@pytest.mark.parametrize(
    "target, package, extra", [("h200:8", "jax_cuda12_plugin", "gpu"), ("v5e:2x4", "libtpu", "tpu")]
)
def test_a_missing_extra_is_named(target, package, extra):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ValueError, match=rf"needs .*pip install 'jaxvid\[{extra}\]'"):
        ahead.target_devices(target)


@pytest.mark.parametrize("target, count", [("h200:8", 8), ("h200:2x4", 8), ("h200:1x1x2", 2)])
def test_gpus_that_are_not_there(target, count):
    pytest.importorskip("jax_cuda12_plugin")
    assert len(ahead.target_devices(target)) == count


def test_floor():
    one = ahead.floor_seconds({"bfloat16": 141.5e12, "float32": 0}, "NVIDIA H200", 1)
    assert one == pytest.approx(0.143, rel=1e-3)
    assert ahead.floor_seconds({"bfloat16": 1, "float32": 0}, "cpu", 1) is None


def test_a_full_block_has_the_flops_of_the_paper_size():
    """28.3 TFLOP per pass, five passes; a recache of 12 frames 113.3; nothing is compiled."""
    config = load_config(str(ROOT / "configs" / "longlive.py"))
    override(config, ["models.random=True", "models.lora="])
    for program in longlive.programs(config, jax.devices()[:1]):
        expected = {longlive.BLOCK: 141.5, longlive.SWITCH: 113.3, longlive.DECODE: 40.7}
        if program.name in expected:
            with jax.set_mesh(program.mesh):
                jaxpr = program.function.trace(*program.arguments).jaxpr.jaxpr
            found = flops.count(jaxpr)
            total = (found["bfloat16"] + found["float32"]) / 1e12
            assert total == pytest.approx(expected[program.name], rel=0.05), program.name


def test_the_block_of_a_tiny_network_is_compiled_and_keeps_its_cache_in_place():
    config = load_config(str(ROOT / "configs" / "longlive.py:tiny"))
    override(config, ["mesh.data=1", "mesh.seq=2"])
    program = next(longlive.programs(config, jax.devices()[:2]))
    report = ahead.compile_report(program)
    assert report["mesh"] == {"seq": 2} and report["floor_seconds"] is None
    assert report["collectives"]
    memory = report["donated_gb"], report["outputs_gb"]
    assert 0 < memory[0] <= memory[1]
    assert len(ahead.row(report)) == len(ahead.HEAD)


def test_the_script_writes_a_table_and_figures(tmp_path):
    output = tmp_path / "plan.json"
    done = script(f"--output={output}")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(output.read_text())["targets"]
    assert found["target"] == "here" and len(found["programs"]) == 4
    for report in found["programs"]:
        assert report["program"] in done.stdout and report["tflop"]["float32"] > 0
    assert found["together"]["total_gb"] > 0


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--speed=fast", "unknown argument --speed=fast"),
        ("--config.mesh.seq=7", "does not use exactly"),
        ("--config.sampling.width=100", "100 pixels do not fit the transformer: use a multiple"),
        ("--config.sampling.decoder=separate", "needs a target of 2 devices or more"),
        ("--config.mode=none", "'none' is not one of cosmos, fdm, longlive"),
        ("--only=everything", "there are 'block: denoising, cache write', 'block: VAE decode'"),
        ("--output=README.md/plan.json", "--output"),
    ],
)
def test_wrong_input(monkeypatch, flag, words):
    if "separate" in flag:
        monkeypatch.setattr(ahead, "target_devices", lambda target: jax.devices()[:1])
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=re.escape(words)):
        load("plan").plan([TINY, flag])


def test_wrong_input_is_one_line():
    done = script("--target=h100:8")
    assert done.returncode == 2
    assert "unknown target" in done.stderr and len(done.stderr.strip().splitlines()) == 1
