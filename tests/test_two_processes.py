"""Two processes that join through a coordinator, as hosts do, train together and share requests."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_fdm
from test_kill_resume import check_equal, complete, manifest

from jaxvid.core import checkpoint

ROOT = Path(__file__).parents[1]
TRAIN = [
    *(sys.executable, "scripts/train.py", f"--config={ROOT}/configs/fdm_demo_train.py:tiny"),
    *("--config.network.image_size=16", "--config.data.size=16", "--config.train.log_every=1"),
    *("--config.network.channel_mult=(1,1)", "--config.network.attention_at=(1,)"),
]


def environments(count: int) -> list[dict[str, str]]:
    """Of so many processes that find each other."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"JAX_PLATFORMS": "cpu"}
    if count == 1:
        return [shared]
    shared |= {"JAXVID_COORDINATOR": f"localhost:{port}", "JAXVID_PROCESSES": str(count)}
    return [shared | {"JAXVID_PROCESS_INDEX": str(index)} for index in range(count)]


def together(command: list[str]) -> list[str]:
    """Runs the command in two processes of one device each; returns what they print."""
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | {"JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in environments(2)
    ]
    try:
        texts = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(texts)
    return texts


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The log and the parameters of one process with two devices."""
    folder = tmp_path_factory.mktemp("alone")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    command = [*TRAIN, f"--config.run.output={folder}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


def losses(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in csv.DictReader((folder / "log.csv").open())]


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path, alone):
    """They stop in the middle and go on; only the order of sums over devices may differ."""
    command = [*TRAIN, f"--config.run.output={tmp_path}"]
    together([*command, "--config.train.steps=3"])
    assert "resuming at update 3" in together(command)[0]
    assert checkpoint.latest_step(tmp_path / "checkpoints") == 6
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=1e-3)
    found, wanted = (checkpoint.restore(folder / "ema_0.998") for folder in (tmp_path, alone))
    for leaf, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(leaf, other, atol=1e-4)


@pytest.mark.slow
def test_two_processes_share_the_requests(tmp_path):
    command = small_fdm.command(tmp_path)
    complete(command, tmp_path / "alone")
    texts = together(command.format(output=tmp_path / "shared").split())
    assert all("6 done" in text for text in texts), texts
    check_equal(tmp_path / "shared", tmp_path / "alone")
    assert {row["share"] for row in manifest(tmp_path / "shared").rows()} == {"0/2", "1/2"}


READ_ALONE = """
import sys
import jax
import ml_dtypes
import numpy as np
from jaxvid.core import checkpoint, distributed

distributed.start()
tree = {"text": {"kernel": np.eye(3, dtype=ml_dtypes.bfloat16)}, "blocks": (np.ones(2),)}
checkpoint.save(sys.argv[1], tree, {})
if jax.process_index() == 1:
    kernel = checkpoint.restore(sys.argv[1], part="text")["kernel"]
    assert kernel.dtype == "bfloat16" and (kernel == np.eye(3)).all()
    blocks = checkpoint.restore(sys.argv[1])["blocks"]["0"]
    assert type(blocks) is np.ndarray and (blocks == 1).all()
assert (checkpoint.restore(sys.argv[1], tree)["blocks"][0] == 1).all()
"""


@pytest.mark.slow
def test_one_of_two_processes_reads_a_checkpoint(tmp_path):
    """As the one that lacks words does; what they do together later is not hindered by it."""
    together([sys.executable, "-c", READ_ALONE, str(tmp_path / "saved")])
