"""Runs of several processes, joined or not, and a compilation cache that outlives a process."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

TEXT_STEP = 4096  # bytes; texts between processes are filled up, so that few lengths are compiled
LONGEST_ERROR = 1000  # bytes


class Launcher(NamedTuple):
    """Variables that a launcher sets for each of its tasks."""

    rank: str
    count: str
    local_rank: str
    local_counts: str  # of all hosts, as in SLURM "2(x3),1", or of this one
    host: str


LAUNCHERS = (
    Launcher(
        *("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
        *("SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID"),
    ),
    Launcher(*(f"OMPI_COMM_WORLD_{n}" for n in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")), ""),
)


def process(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Index and number of the processes that were started together, joined or not; alone (0, 1).

    Under `srun` and `mpiexec` with several tasks the launcher says who they are, elsewhere
    JAXVID_PROCESSES and JAXVID_PROCESS_INDEX. Tasks of a SLURM array are separate runs.

    Raises:
      ValueError: one of the two variables without the other, or an index out of range.
    """
    names = "JAXVID_PROCESS_INDEX", "JAXVID_PROCESSES"
    given = [environ.get(name, "") for name in names]
    if any(given):
        index, count = (int(text) if text.isdecimal() else -1 for text in given)
        if not 0 <= index < count:
            raise ValueError(
                f"{names[0]}={given[0]!r} and {names[1]}={given[1]!r}: give both, 0 to n-1 and n"
            )
        return index, count
    launcher = _launcher(environ)
    return (int(environ[launcher.rank]), int(environ[launcher.count])) if launcher else (0, 1)


def _launcher(environ: Mapping[str, str]) -> Launcher | None:
    """The launcher of several tasks that started this process."""
    for launcher in LAUNCHERS:
        if launcher.rank in environ and int(environ.get(launcher.count, 1)) > 1:
            return launcher
    return None


def start(join: bool = True) -> None:
    """Joins the processes of `process()` to one JAX run; alone, does nothing.

    Without a launcher that says where the first process is, JAXVID_COORDINATOR (host:port) does.
    Processes that are not to be joined only take their part of the host's GPUs.

    Raises:
      ValueError: several processes and no coordinator.
    """
    index, count = process()
    if count > 1 and join:
        coordinator = os.environ.get("JAXVID_COORDINATOR", "")
        if coordinator:
            jax.distributed.initialize(coordinator, count, index)
        elif _launcher(os.environ):
            jax.distributed.initialize()
        else:
            raise ValueError(
                "a run of several processes needs JAXVID_COORDINATOR, host:port of the first one"
            )
    if gpus := own_gpus():  # JAX takes one for each task of a launcher, however many there are
        jax.config.update("jax_cuda_visible_devices", gpus)


def own_gpus(environ: Mapping[str, str] = os.environ) -> str:
    """Which of the GPUs that this process sees are its own: "all", or numbers such as "2,3".

    Tasks that a launcher starts on one host share its GPUs evenly, unless it has given each its
    own already. "" if no launcher started several tasks.
    """
    launcher = _launcher(environ)
    if launcher is None:
        return ""
    counts = []
    for tasks, hosts in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ[launcher.local_counts]):
        counts += [int(tasks)] * int(hosts or 1)
    tasks = counts[int(environ[launcher.host]) if launcher.host else 0]
    rank = int(environ[launcher.local_rank])
    seen = environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = len(seen.split(",")) if seen else tasks
    if tasks == 1 or gpus < tasks:
        return "all"
    return ",".join(map(str, range(rank * gpus // tasks, (rank + 1) * gpus // tasks)))


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
    """The array with the parts of all processes; every process that has a part calls it."""
    if jax.process_count() == 1 or (isinstance(a, jax.Array) and a.is_fully_addressable):
        return np.asarray(a)
    return np.asarray(multihost_utils.process_allgather(a, tiled=True))


def own_rows(count: int) -> range:
    """Which rows of a batch over `data` this process gives to `make_array_from_process_local_data`.

    That lays the rows of one process after those of another; count: a multiple of the processes.
    """
    each = count // jax.process_count()
    return range(jax.process_index() * each, (jax.process_index() + 1) * each)


def place(tree, places):
    """Arrays of the host, equal in all processes, on the devices of `places`.

    Every process fills its own devices; nothing travels between them.

    Args:
      tree: pytree of numpy arrays.
      places: a sharding for all of them, or a tree of shardings.
    """

    def put(array, place):
        if place.is_fully_addressable:
            return jax.device_put(array, place)
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    if isinstance(places, jax.sharding.Sharding):
        return jax.tree.map(lambda array: put(array, places), tree)
    return jax.tree.map(put, tree, places)


def told(value):
    """The JSON value that the first process has, in all of them; every process calls it."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(-(-length // TEXT_STEP) * TEXT_STEP, np.uint8)
    if jax.process_index() == 0:
        buffer[:length] = np.frombuffer(text, np.uint8)
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(buffer)[:length]))


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """What raises in one process raises in all; every process of the run goes through it.

    Else the others would wait for it for ever, in the next computation that they share.

    Raises:
      ValueError: what went wrong in another process.
    """
    error = None
    try:
        yield
    except Exception as found:
        error = found
    if jax.process_count() > 1:
        text = f"{type(error).__name__}: {error}".encode()[:LONGEST_ERROR] if error else b""
        buffer = np.frombuffer(text.ljust(LONGEST_ERROR, b"\0"), np.uint8)
        texts = [bytes(row).rstrip(b"\0") for row in multihost_utils.process_allgather(buffer)]
        wrong = [(i, text.decode(errors="replace")) for i, text in enumerate(texts) if text]
        if wrong and error is None:
            raise ValueError("process {}: {}".format(*wrong[0]))
    if error is not None:
        raise error
