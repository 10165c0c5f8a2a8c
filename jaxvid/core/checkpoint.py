"""Checkpoints: a tree of arrays plus a JSON note, whole or absent (only Orbax importer).

A checkpoint is a folder: Orbax's files and `jaxvid.json`, the note. It is written under a hidden
name beside its place and renamed at the end, so a folder with a note is always complete.
Training keeps one checkpoint per step in `<folder>/step_<number>`; wherever a checkpoint is read,
such a folder of steps stands for its latest step.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import operator
import os
import re
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as classic
from orbax.checkpoint import v1 as ocp

from jaxvid.core.distributed import agreed
from jaxvid.core.stored_tree import abstract, decode, encode, host, named, nest

NOTE = "jaxvid.json"
HIDDEN = ".saving-"
STEP = re.compile(rf"(?:{re.escape(HIDDEN)})?step_(\d{{8,}})(?:\.old)?")  # as `_complete` finds it


def save(path, tree, info: dict, overwrite: bool = False) -> None:
    """Writes `tree` and the JSON-able `info` to the folder `path`; every process calls it.

    Leaves may be jax arrays in any sharding, PRNG keys, numpy arrays and plain numbers; containers
    may be dicts, tuples, lists and named tuples (they are stored as nested dicts).

    Raises:
      ValueError: `path` is taken (by anything but a checkpoint, or without `overwrite`), or a leaf
        is empty or no number.
      OSError: it cannot be written; ENOSPC if the disk has no room.
    """
    path = _absolute(path)
    _check_free(path, overwrite)
    note = json.dumps(info, indent=1)
    stored = nest({name: encode(name, leaf) for name, leaf in named(tree)})
    hidden = _hidden(path)
    first = jax.process_index() == 0
    with agreed():
        if first:
            with _orbax_errors(f"cannot write the checkpoint {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
            _check_room(path, stored)
            _clear(hidden)  # what a killed process left
    try:
        with _orbax_errors(f"cannot write the checkpoint {path}"):
            ocp.save(hidden, stored)
    except (ValueError, OSError):
        _clear(hidden)
        raise
    with agreed():
        if first:
            with open(hidden / NOTE, "w") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            _move(hidden, path)


def restore(path, like=None, part: str = ""):
    """Reads the tree saved at `path`; every process calls it if `like` is given.

    Args:
      path: a checkpoint, or a folder of training steps (its latest is taken).
      like: the tree to fill. A leaf is a `jax.ShapeDtypeStruct` (its sharding says where the
        array goes, its dtype what it is cast to; without a sharding: the default device), an
        array, PRNG key or number (to be given back as the same kind). None gives nested dicts of
        numpy arrays, with tuples as dicts "0", "1", ... and PRNG keys as their uint32 data.
      part: name of the subtree to read, e.g. "params"; `like` describes that subtree only.

    Raises:
      ValueError: no complete checkpoint there, or its names or shapes differ from `like`.
    """
    path = _find(path)
    stored = dict(named(_metadata(path)))
    prefix = tuple(part.split("/")) if part else ()
    inside = {name: leaf for name, leaf in stored.items() if name[: len(prefix)] == prefix}
    if not inside:
        tops = sorted({name[0] for name in stored})
        raise ValueError(f"{path} holds no {part!r}; it holds {', '.join(tops)}")
    if like is None:
        wanted = {name: host(leaf) for name, leaf in inside.items()}
        load = _load if jax.process_count() == 1 else _load_alone
        return load(path, wanted, prefix)
    wanted = {prefix + name: leaf for name, leaf in named(like)}
    _check_match(path, {n: leaf.shape for n, leaf in inside.items()}, wanted)
    tree = dict(named(_load(path, {n: abstract(leaf) for n, leaf in wanted.items()}, prefix)))
    leaves = [decode(tree[name], leaf) for name, leaf in named(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def shapes(path, part: str = ""):
    """Nested dict of `jax.ShapeDtypeStruct`, what `restore(path, part=part)` would read."""
    path = _find(path)
    tree = _metadata(path)
    for key in part.split("/") if part else ():
        if not isinstance(tree, dict) or key not in tree:
            raise ValueError(f"{path} holds no {part!r}")
        tree = tree[key]
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


def read_info(path) -> dict:
    """The note saved with the checkpoint; raises ValueError if no complete one is there."""
    path = _find(path)
    try:
        info = json.loads((path / NOTE).read_text())
    except ValueError as error:
        raise ValueError(f"{path / NOTE} is not valid JSON: {error}") from error
    if not isinstance(info, dict):
        raise ValueError(f"{path} is damaged: {NOTE} holds no settings; use another copy")
    return info


def fingerprint(path) -> str:
    """Hex digest that tells saved checkpoints apart; cheap, as it reads names and sizes only.

    Orbax gives each data file a fresh random name, so the list of files identifies one save, and
    a copy of the folder keeps its fingerprint.
    """
    path = _find(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in files]
    return hashlib.sha256("\n".join(lines).encode() + (path / NOTE).read_bytes()).hexdigest()


def identity(path) -> str:
    """Tells a model apart without reading it, be it of ours or of another project; "" for "".

    Ours has its fingerprint; others have names, sizes and times: of the file, of all files of a
    folder, or of an index (`.index.json`) and the shards beside it.

    Raises:
      ValueError: nothing is there.
    """
    if not str(path):
        return ""
    found = _absolute(path)
    if _complete(found) or not found.exists():
        return fingerprint(found)
    files = found.iterdir() if found.is_dir() else [found]
    if found.name.endswith(".index.json"):
        files = [found, *found.parent.glob("*.safetensors")]
    stats = [(file.name, file.stat()) for file in sorted(files) if file.is_file()]
    return " ".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def save_step(folder, step: int, tree, info: dict, keep: int | None = None) -> None:
    """Saves training step `step`; afterwards only the `keep` latest steps stay (None: all).

    A step that was saved before is replaced, since a resumed run reaches it again.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep={keep} would delete what was just saved: use 1 or more, or None")
    save(step_path(folder, step), tree, {"step": step, **info}, overwrite=True)
    if keep is not None and jax.process_index() == 0:
        _thin(_absolute(folder), steps(folder)[-keep:])


def _thin(folder: Path, kept: list[int]) -> None:
    """Removes the steps before those that are kept, also halves of them that a kill left."""
    for path in folder.iterdir():
        step = _step_of(path.name)
        if step is not None and step < kept[0]:
            (path / NOTE).unlink(missing_ok=True)  # first, so that no half is taken for whole
            shutil.rmtree(path)


def latest_step(folder) -> int | None:
    """The largest complete step saved under `folder`, None if there is none."""
    return max(steps(folder), default=None)


def steps(folder) -> list[int]:
    """All complete steps under `folder`, in order; also those that a kill left half renamed."""
    found = {_step_of(note.parent.name) for note in _absolute(folder).glob(f"*/{NOTE}")}
    return sorted(found - {None})


def _step_of(name: str) -> int | None:
    match = STEP.fullmatch(name)
    return int(match[1]) if match else None


def step_path(folder, step: int) -> Path:
    """Where `save_step` puts a step."""
    return _absolute(folder) / f"step_{step:08d}"


def _absolute(path) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _find(path) -> Path:
    """The complete checkpoint that `path` stands for."""
    path = _absolute(path)
    if found := _complete(path):
        return found
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}")
    if path.is_file():
        raise ValueError(
            f"{path} is a file, not a checkpoint folder: convert it first with scripts/convert.py"
        )
    raise ValueError(f"{path} is not a complete checkpoint: it has no {NOTE}")


def _complete(path: Path) -> Path | None:
    hidden = _hidden(path)
    for place in (path, hidden, _old(hidden)):  # a kill between two renames leaves only the others
        if (place / NOTE).is_file():
            return place
    latest = latest_step(path) if path.is_dir() else None
    return None if latest is None else _complete(step_path(path, latest))


def _check_free(path: Path, overwrite: bool) -> None:
    if path.is_file():
        raise ValueError(f"{path} is a file: a checkpoint needs a folder")
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not (path / NOTE).is_file():
        raise ValueError(f"{path} holds other files: choose a new or empty folder")
    if not overwrite:
        raise ValueError(f"{path} holds a checkpoint already: choose another folder or overwrite")


def _check_room(path: Path, stored) -> None:
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(stored))
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        reason = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, reason, str(path))


def _clear(hidden: Path) -> None:
    path = hidden.with_name(hidden.name.removeprefix(HIDDEN))
    if not path.exists() and _old(hidden).exists():
        _old(hidden).rename(path)  # a kill came before the new one was in its place
    for rest in (hidden, _old(hidden), hidden.with_name(hidden.name + ".orbax-checkpoint-tmp")):
        shutil.rmtree(rest, ignore_errors=True)


def _hidden(path: Path) -> Path:
    return path.with_name(HIDDEN + path.name)


def _old(hidden: Path) -> Path:
    return hidden.with_name(hidden.name + ".old")


def _move(hidden: Path, path: Path) -> None:
    """Puts the finished folder in place; one that was there goes only now."""
    old = _old(hidden)
    if path.exists():
        path.rename(old)
    hidden.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _check_match(path: Path, stored: dict, wanted: dict) -> None:
    missing = [name for name in wanted if name not in stored]
    extra = [name for name in stored if name not in wanted]
    if missing or extra:
        raise ValueError(
            f"{path} is of another model: it lacks {_list(missing)} and has {_list(extra)} too many"
        )
    for name, leaf in wanted.items():
        shape = abstract(leaf).shape
        if shape != stored[name]:
            here = "/".join(name)
            raise ValueError(f"{path} is of another model: {here} is {stored[name]}, not {shape}")


def _list(names, limit: int = 5) -> str:
    shown = ", ".join("/".join(name) for name in names[:limit])
    return f"{len(names)} arrays" + (f" ({shown}{', ...' * (len(names) > limit)})" if names else "")


def _metadata(path: Path) -> dict:
    """Names, shapes and types of the stored arrays, nested as they are stored."""
    with _orbax_errors(f"{path} is damaged"):
        tree = ocp.metadata(path).metadata
    if not tree:
        raise ValueError(f"{path} is damaged: Orbax cannot read its list of arrays")
    return tree


def _load(path: Path, wanted: dict, prefix: tuple[str, ...]):
    context = ocp.Context()
    context.pytree.loading.partial_load = bool(prefix)
    with _orbax_errors(f"{path} is damaged"), context:
        tree = ocp.load(path, nest(wanted))
    return functools.reduce(operator.getitem, prefix, tree)


def _load_alone(path: Path, wanted: dict, prefix: tuple[str, ...]):
    """The same in some of several processes: those need not know of it that do not read.

    By Orbax's older interface, as the newer one numbers what it does, and waits for ever if the
    processes' numbers differ.
    """
    index, tree = jax.process_index(), nest(wanted)
    options = classic.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"alone_{index}"
    )
    arguments = classic.args.PyTreeRestore(
        tree,
        restore_args=classic.checkpoint_utils.construct_restore_args(tree),
        partial_restore=bool(prefix),
    )
    handler = classic.PyTreeCheckpointHandler(multiprocessing_options=options)
    with (
        _orbax_errors(f"{path} is damaged"),
        classic.Checkpointer(handler, multiprocessing_options=options) as reader,
    ):
        (folder,) = (file.parent for file in path.glob("*/_METADATA"))
        tree = reader.restore(folder, arguments)
    return functools.reduce(operator.getitem, prefix, tree)


@contextlib.contextmanager
def _orbax_errors(what: str):
    """Turns Orbax's pages of traceback into one line, and keeps it from logging them."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (ValueError, OSError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0][:200]
        if "No space left" in str(error) or "RESOURCE_EXHAUSTED" in str(error):
            raise OSError(errno.ENOSPC, f"{what}: the disk is full") from error
        raise ValueError(f"{what}: {reason}") from error
    finally:
        logger.setLevel(level)
