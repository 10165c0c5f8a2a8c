"""Who the processes of a run are, which GPUs they take, and how a leader leads them."""

import jax
import numpy as np
import pytest
import script
from ml_collections import ConfigDict

from jaxvid.core import distributed
from jaxvid.runs import together
from jaxvid.runs.config import RunConfig

SLURM = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "7", "SLURM_LOCALID": "1"}
SLURM |= {"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "2"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
OPEN_MPI |= {"OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
OURS = {"JAXVID_PROCESS_INDEX": "0", "JAXVID_PROCESSES": "3"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, (0, 1)),
        (SLURM, (5, 7)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, (0, 1)),  # of an array, or sbatch without srun
        (OPEN_MPI, (1, 2)),
        (SLURM | OURS, (0, 3)),
    ],
)
def test_processes(environ, found):
    assert distributed.process(environ) == found


@pytest.mark.parametrize(
    "environ",
    [
        {"JAXVID_PROCESSES": "2"},
        OURS | {"JAXVID_PROCESS_INDEX": "3"},
        OURS | {"JAXVID_PROCESSES": "x"},
    ],
)
def test_processes_that_cannot_be(environ):
    with pytest.raises(ValueError, match="give both, 0 to n-1 and n"):
        distributed.process(environ)


@pytest.mark.parametrize(
    ("environ", "gpus"),
    [
        ({}, ""),
        (SLURM, "1"),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, "2,3"),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "1"}, "all"),  # the launcher has shared them out
        (SLURM | {"SLURM_NODEID": "3"}, "all"),  # alone on its host
        (OPEN_MPI, "all"),
    ],
)
def test_tasks_of_a_host_share_its_gpus(environ, gpus):
    assert distributed.own_gpus(environ) == gpus


def test_a_run_of_several_needs_a_place_to_meet(monkeypatch):
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JAXVID_COORDINATOR", raising=False)
    with pytest.raises(ValueError, match="needs JAXVID_COORDINATOR"):
        distributed.start()
    distributed.start(join=False)
    assert jax.process_count() == 1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_each_process_has_the_rows_that_its_devices_get(monkeypatch, processes):
    """However many there are, together they give the rows in order."""
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    rows = []
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        rows += distributed.own_rows(8)
    assert rows == list(range(8))


def test_requests_are_divided_or_made_together(monkeypatch):
    sample = script.load("sample")
    for name, value in (OURS | {"JAXVID_PROCESS_INDEX": "1"}).items():
        monkeypatch.setenv(name, value)
    assert sample.this_process(RunConfig(output="a")) == (1, 3)
    assert sample.this_process(RunConfig(output="a", hosts="together")) == (0, 1)
    run = {"hosts": "together"}
    assert sample.together(ConfigDict({"mode": "longlive", "run": run}))
    assert not sample.together(ConfigDict({"mode": "longlive", "run": {"hosts": "divide"}}))
    with pytest.raises(ValueError, match="a request of fdm is made by one process"):
        sample.together(ConfigDict({"mode": "fdm", "run": run}))


def test_a_leader_leaves_nobody_waiting(monkeypatch):
    """Those who wait for an order are dismissed; those in the middle of one cannot be told."""
    words = []
    monkeypatch.setattr(together, "told", words.append)
    leader = together.Leader(active=True)
    with leader.order(batch=["a"]):
        pass
    leader.dismiss()
    assert words == [{"batch": ["a"]}, None]
    with pytest.raises(KeyboardInterrupt), leader.order():
        raise KeyboardInterrupt
    leader.dismiss()
    assert words[2:] == [{}]
    alone = together.Leader(active=False)
    with alone.order(batch=[]):
        alone.dismiss()
    assert len(words) == 3


def test_alone_everything_stays_here():
    assert distributed.told({"a": [1]}) == {"a": [1]}
    place = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    found = distributed.place({"x": np.arange(3)}, place)
    assert found["x"].sharding == place and distributed.whole(found["x"]).tolist() == [0, 1, 2]
    with pytest.raises(OSError, match="gone"), distributed.agreed():
        raise OSError("gone")
