"""Runs over several hosts, and a compilation cache that outlives a process."""

import os
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

# Variables that srun (of several tasks) and OpenMPI's mpiexec set: how many processes there are.
LAUNCHERS = {"SLURM_PROCID": "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE"}


def start(coordinator: str = "", processes: int = 0, index: int = -1) -> None:
    """Joins the processes of a multi-host run; alone, does nothing.

    Under `srun` and `mpiexec` with several tasks the launcher says who they are. Elsewhere give all
    three values, as arguments or as JAXVID_COORDINATOR (host:port), JAXVID_PROCESSES and
    JAXVID_PROCESS_INDEX. Tasks of a SLURM array are separate runs and are not joined.

    Raises:
      ValueError: some but not all of the three values are given.
    """
    coordinator = coordinator or os.environ.get("JAXVID_COORDINATOR", "")
    processes = processes or int(os.environ.get("JAXVID_PROCESSES", 0))
    if index < 0:
        index = int(os.environ.get("JAXVID_PROCESS_INDEX", -1))
    given = (bool(coordinator), processes > 0, index >= 0)
    if any(given) and not all(given):
        raise ValueError(
            "a multi-host run needs coordinator, processes and process index; "
            f"got {coordinator!r}, {processes}, {index}"
        )
    if all(given):
        jax.distributed.initialize(coordinator, processes, index)
    elif any(
        rank in os.environ and int(os.environ.get(count, 1)) > 1
        for rank, count in LAUNCHERS.items()
    ):
        jax.distributed.initialize()


def keep_compilations(folder: str | os.PathLike = "") -> Path:
    """Keeps compiled programs in `folder`: $JAX_COMPILATION_CACHE_DIR, else the user's cache.

    A later run of the same program on the same hardware starts from there.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "jaxvid" / "compiled"
    folder = Path(folder or os.environ.get("JAX_COMPILATION_CACHE_DIR", default)).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return folder


def whole(a) -> np.ndarray:
    """The array with the parts of all processes; every process calls it."""
    if jax.process_count() == 1:
        return np.asarray(a)
    return np.asarray(multihost_utils.process_allgather(a, tiled=True))
