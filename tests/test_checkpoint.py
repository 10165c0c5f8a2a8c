"""Checkpoints come back exactly, are whole or absent, and refuse what does not fit in one line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core import checkpoint
from jaxvid.core.files import disk_full


def training_state():
    params = {
        "conv": {"kernel": jnp.linspace(0, 1, 12).reshape(4, 3)},
        "b": jnp.ones(3, jnp.bfloat16),
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    return {
        "params": params,
        "ema": {"0.9999": params, "0.99": params},
        "opt": tx.init(params),
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(0, impl="rbg"), 4),
        "step": 7,
        "loss": 0.1,
        "flag": True,
        "scale": np.float32(2.5),
        "count": np.int64(2**40),
        "host": np.arange(3) * 2**40,
        "none": None,
        "list": [np.array([1e300]), ()],
    }


def assert_same(actual, desired):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert type(a) is type(b)
        if hasattr(b, "dtype"):
            assert a.dtype == b.dtype
            if jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
        else:
            assert a == b


def test_training_state_comes_back_exactly(tmp_path):
    state = training_state()
    checkpoint.save(tmp_path / "a", state, {"config": {"x": 1}})
    assert_same(checkpoint.restore(tmp_path / "a", like=state), state)
    assert checkpoint.read_info(tmp_path / "a") == {"config": {"x": 1}}


def test_restores_from_abstract_state(tmp_path):
    state = training_state()["opt"]
    checkpoint.save(tmp_path / "a", state, {})
    assert_same(checkpoint.restore(tmp_path / "a", like=jax.eval_shape(lambda: state)), state)


def test_restores_numpy_without_like(tmp_path):
    checkpoint.save(tmp_path / "a", {"x": (jnp.ones(2), 3)}, {})
    tree = checkpoint.restore(tmp_path / "a")
    assert set(tree["x"]) == {"0", "1"} and type(tree["x"]["0"]) is np.ndarray
    assert tree["x"]["1"] == 3


def test_restores_a_part(tmp_path):
    state = training_state()
    checkpoint.save(tmp_path / "a", state, {})
    like = jax.eval_shape(lambda: state["params"])
    assert_same(checkpoint.restore(tmp_path / "a", like, part="ema/0.9999"), state["params"])
    assert checkpoint.shapes(tmp_path / "a", "ema/0.99")["b"].shape == (3,)
    with pytest.raises(ValueError, match="holds no 'model'"):
        checkpoint.restore(tmp_path / "a", part="model")


def test_changes_sharding_and_dtype_on_the_way(tmp_path):
    mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    x = jnp.arange(64.0).reshape(8, 8)
    rows, columns = NamedSharding(mesh, P("data")), NamedSharding(mesh, P(None, "tensor"))
    key = jax.device_put(jax.random.key(1), NamedSharding(mesh, P()))
    checkpoint.save(tmp_path / "a", {"x": jax.device_put(x, rows), "key": key}, {})
    like = {"x": jax.ShapeDtypeStruct((8, 8), jnp.bfloat16, sharding=columns), "key": key}
    got = checkpoint.restore(tmp_path / "a", like)
    assert got["x"].sharding == columns and got["x"].dtype == jnp.bfloat16
    assert got["key"].sharding == key.sharding
    np.testing.assert_array_equal(got["x"].astype(jnp.float32), x)


def test_is_small_on_disk(tmp_path):
    values = np.random.default_rng(0).normal(size=(400, 5000)).astype(np.float32)
    checkpoint.save(tmp_path / "a", {str(i): row for i, row in enumerate(values)}, {})
    size = sum(file.stat().st_size for file in (tmp_path / "a").rglob("*") if file.is_file())
    assert size < 8.2e6  # the 2M float32 values are 8.0e6 bytes


def test_paths_may_be_relative_or_in_the_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint.save("a", {"x": 1}, {})
    assert checkpoint.restore("~/a")["x"] == 1


def test_keeps_the_latest_steps(tmp_path):
    for step in (1, 2, 30, 4):
        checkpoint.save_step(tmp_path, step, {"x": step}, {"name": "n"}, keep=2)
    assert checkpoint.steps(tmp_path) == [4, 30]
    assert checkpoint.restore(checkpoint.step_path(tmp_path, 4), {"x": 0}) == {"x": 4}
    assert checkpoint.read_info(tmp_path) == {"step": 30, "name": "n"}  # stands for the latest
    assert checkpoint.latest_step(tmp_path / "nowhere") is None


def test_latest_step_ignores_unfinished_ones(tmp_path):
    checkpoint.save_step(tmp_path, 3, {"x": 1}, {})
    shutil.copytree(checkpoint.step_path(tmp_path, 3), checkpoint.step_path(tmp_path, 9))
    (checkpoint.step_path(tmp_path, 9) / checkpoint.NOTE).unlink()
    assert checkpoint.latest_step(tmp_path) == 3
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        checkpoint.restore(checkpoint.step_path(tmp_path, 9), {"x": 0})


def test_fingerprint_tells_saves_apart_and_survives_a_copy(tmp_path):
    for name in "ab":
        checkpoint.save(tmp_path / name, {"x": np.arange(5000.0)}, {})
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    a, b, copy = (checkpoint.fingerprint(tmp_path / name) for name in ("a", "b", "copy"))
    assert a == copy != b


SAVE_FOREVER = """
import sys, numpy as np, jax
from jaxvid.core import checkpoint
from jaxvid.core.files import disk_full
jax.config.update("jax_platforms", "cpu")
for step in range(10000):
    tree = {str(i): np.full((200, 200), step, np.float32) for i in range(20)}
    checkpoint.save(sys.argv[1], tree, {"step": step}, overwrite=True)
    print(step, flush=True)
"""


def test_a_killed_save_leaves_the_previous_checkpoint(tmp_path):
    path = tmp_path / "a"
    for delay in (0.0, 0.02, 0.05):
        command = [sys.executable, "-c", SAVE_FOREVER, str(path)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        for _ in range(2):
            child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if not path.exists():  # killed between the two renames: the old one is still there, whole
            path = path.with_name(checkpoint.HIDDEN + "a.old")
        values = {float(v.flat[0]) for v in checkpoint.restore(path).values()}
        assert values == {checkpoint.read_info(path)["step"]}
        path = tmp_path / "a"


@pytest.mark.parametrize(
    "names", [(".saving-one",), (".saving-one.old",), (".saving-one.old", "and the new one")]
)
def test_a_kill_between_the_renames_loses_nothing(tmp_path, names):
    """Only the finished new one, only the old one, or both lie under hidden names."""
    checkpoint.save(tmp_path / "one", {"x": 1}, {})
    (tmp_path / "one").rename(tmp_path / names[0])
    if len(names) == 2:
        checkpoint.save(tmp_path / "two", {"x": 2}, {})
        (tmp_path / "two").rename(tmp_path / ".saving-one")
    assert checkpoint.restore(tmp_path / "one", {"x": 0}) == {"x": len(names)}
    checkpoint.save(tmp_path / "one", {"x": 3}, {}, overwrite=True)
    assert checkpoint.restore(tmp_path / "one", {"x": 0}) == {"x": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def saved(folder):
    checkpoint.save(folder / "a", {"x": np.ones((2, 3)), "y": np.arange(4000.0)}, {})
    return folder / "a"


def damage(folder):
    path = saved(folder)
    for file in path.rglob("d/*"):
        file.write_bytes(file.read_bytes()[:30])
    return path


def wrong_note(folder):
    (saved(folder) / checkpoint.NOTE).write_text("{")
    return folder / "a"


def without_data(folder):
    shutil.rmtree(saved(folder) / "state")
    return folder / "a"


def a_file(folder):
    (folder / "model.pt").write_bytes(b"PK")
    return folder / "model.pt"


SHAPE = {"x": np.ones((3, 2)), "y": np.arange(4000.0)}
BAD_READS = {
    "missing": (lambda f: f / "nowhere", None, "there is no checkpoint"),
    "empty folder": (lambda f: f, None, "not a complete checkpoint"),
    "a file": (a_file, None, "convert it first"),
    "damaged data": (damage, None, "is damaged"),
    "no data": (without_data, None, "is damaged"),
    "bad note": (wrong_note, "info", "not valid JSON"),
    "name missing": (saved, {**SHAPE, "z": 1}, r"lacks 1 arrays \(z\)"),
    "name too many": (saved, {"x": 1}, r"has 1 arrays \(y\) too many"),
    "other shape": (saved, SHAPE, r"x is \(2, 3\), not \(3, 2\)"),
}


@pytest.mark.parametrize("case", BAD_READS)
def test_bad_reads_give_one_line(tmp_path, case):
    make, like, message = BAD_READS[case]
    path = make(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        checkpoint.read_info(path) if like == "info" else checkpoint.restore(path, like)
    assert "\n" not in str(error.value)


BAD_LEAVES = {
    "text": ({"x": "hello"}, "x is no number"),
    "empty": ({"x": {"y": np.zeros((0, 3))}}, r"x/y has shape \(0, 3\)"),
    "same name": ({"a": {"b": 1}, "a.b": 2}, "same name"),
}


@pytest.mark.parametrize("case", BAD_LEAVES)
def test_bad_leaves_give_one_line(tmp_path, case):
    tree, message = BAD_LEAVES[case]
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path / "a", tree, {})
    assert not list(tmp_path.iterdir())


def test_refuses_to_replace(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(ValueError, match="holds a checkpoint already"):
        checkpoint.save(path, {"x": 1}, {})
    (tmp_path / "note.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="holds other files"):
            checkpoint.save(tmp_path, {"x": 1}, {}, overwrite=overwrite)
    with pytest.raises(ValueError, match="is a file"):
        checkpoint.save(tmp_path / "note.txt", {"x": 1}, {})
    with pytest.raises(ValueError, match="use 1 or more"):
        checkpoint.save_step(tmp_path, 1, {"x": 1}, {}, keep=0)
    checkpoint.save(path, {"x": 1}, {"new": True}, overwrite=True)
    assert json.loads((path / checkpoint.NOTE).read_text()) == {"new": True}


def test_a_full_disk_gives_one_line(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="0 MB are free") as error:
        checkpoint.save(tmp_path / "a", {"x": np.ones(4000)}, {})
    assert disk_full(error.value)


@pytest.mark.parametrize("place", [".saving-step_00000007", ".saving-step_00000007.old"])
def test_a_step_killed_between_two_renames_counts(tmp_path, place):
    checkpoint.save_step(tmp_path, 7, {"x": np.ones(3)}, {}, keep=1)
    checkpoint.step_path(tmp_path, 7).rename(tmp_path / place)
    assert checkpoint.latest_step(tmp_path) == 7
    assert checkpoint.restore(tmp_path)["x"].tolist() == [1, 1, 1]
    half = checkpoint.step_path(tmp_path, 5)
    half.mkdir()
    (half / "array").write_bytes(b"x")
    checkpoint.save_step(tmp_path, 8, {"x": np.ones(3)}, {}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000008"]


TWO = """
import sys, jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxvid.core import checkpoint
from jaxvid.core.files import disk_full
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[2], num_processes=2, process_id=int(sys.argv[3]))
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
make = jax.jit(lambda: (jax.numpy.arange(8.0), jax.random.key(5)), out_shardings=(rows, whole))
x, key = make()
state = {"x": x, "key": key, "step": 3, "host": np.arange(3)}
for step in (1, 2):
    checkpoint.save_step(sys.argv[1], step, state, {}, keep=1)
got = checkpoint.restore(checkpoint.step_path(sys.argv[1], 2), state)
assert got["x"].sharding == rows and got["step"] == 3
for mine, saved in zip(got["x"].addressable_shards, x.addressable_shards):
    assert (np.asarray(mine.data) == np.asarray(saved.data)).all()
assert jax.random.key_data(got["key"]).addressable_data(0).tolist() == [0, 5]
assert checkpoint.steps(sys.argv[1]) == [2]
"""


def test_two_processes_save_and_restore(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    commands = [[sys.executable, "-c", TWO, str(tmp_path), address, str(i)] for i in range(2)]
    children = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    errors = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], errors
    tree = checkpoint.restore(tmp_path)
    assert tree["x"].tolist() == list(range(8)) and tree["host"].tolist() == [0, 1, 2]


def test_identity_tells_files_of_others_apart(tmp_path):
    """Ours by its fingerprint; an index by its shards, too."""
    assert checkpoint.identity("") == ""
    checkpoint.save(tmp_path / "ours", {"a": np.zeros(3)}, {})
    assert checkpoint.identity(tmp_path / "ours") == checkpoint.fingerprint(tmp_path / "ours")
    index, shard = tmp_path / "model.safetensors.index.json", tmp_path / "model-1.safetensors"
    index.write_text("{}")
    shard.write_bytes(b"1")
    before = checkpoint.identity(index), checkpoint.identity(tmp_path)
    shard.write_bytes(b"22")
    after = checkpoint.identity(index), checkpoint.identity(tmp_path)
    assert before[0] != after[0] and before[1] != after[1]
    with pytest.raises(ValueError, match="there is no checkpoint"):
        checkpoint.identity(tmp_path / "nothing")
