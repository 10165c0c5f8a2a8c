"""Evaluation results on disk: upstream's pickle, and JSON with the protocol of every number.

`<name>.pkl` is a dict of arrays as upstream writes it: ssim, psnr, lpips (videos, samples,
frames after the observed ones) and fvd (samples,). `<name>.json` adds what they mean.
"""

import contextlib
import fcntl
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxvid.core.files import atomic_path, read_json
from jaxvid.metrics.samples import Samples
from jaxvid.metrics.summary import HIGHER_IS_BETTER
from jaxvid.runs.gallery import METRICS

UNKNOWN = {"origin": "a pickle without a protocol, perhaps upstream's"}


class ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, numbers and numpy arrays; refuses everything else."""

    ALLOWED = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *(
            (f"numpy.{core}.{module}", name)
            for core in ("core", "_core")
            for module, name in (
                ("multiarray", "_reconstruct"),
                ("multiarray", "scalar"),
                ("numeric", "_frombuffer"),
            )
        ),
        ("_codecs", "encode"),
    )

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_pickle(path: str | Path) -> dict[str, np.ndarray]:
    """A dict of arrays from a metrics or ELBO pickle; {} if there is no file."""
    path = Path(path)
    if not path.is_file():
        return {}
    try:
        with open(path, "rb") as file:
            values = ArrayUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a pickle of arrays ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, not a dict")
    return {name: np.asarray(value) for name, value in values.items()}


def read_protocol(path: str | Path) -> dict:
    """The protocols in a results JSON, {metric: {...}}; {} if there is no file."""
    path = Path(path)
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())["protocol"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ValueError(f"{path} is not a results file of jaxvid; delete or move it") from None


def check_same_protocol(ours: dict, theirs: dict, where: str) -> None:
    """Raises ValueError if a metric in both mappings was measured in different ways.

    ours, theirs: {metric: {field: value}}. The message names the fields.
    """
    for metric in sorted(set(ours) & set(theirs)):
        a, b = ours[metric], theirs[metric]
        if UNKNOWN in (a, b):
            continue
        fields = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
        if fields:
            differences = ", ".join(f"{f} {short(a.get(f))} vs {short(b.get(f))}" for f in fields)
            raise ValueError(f"{where}: {metric} was measured differently ({differences})")


def short(value) -> str:
    """A value in a message, cut to a readable length."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def merge_pickle(path: Path, new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds metrics to a pickle; those that another process stored meanwhile are kept."""
    with locked(path.parent):
        merged = {**new, **read_pickle(path)}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            # Protocol 4 can be read by the Python versions that upstream runs on.
            pickle.dump(merged, file, protocol=4)
    return merged


def write_sample_means(samples: Samples, results: dict[str, np.ndarray]) -> None:
    """Adds the mean over frames of each sample to `metrics.json`, which the gallery shows."""
    path = samples.folder / METRICS
    known = {m: values.mean(axis=2) for m, values in results.items() if m in HIGHER_IS_BETTER}
    with locked(samples.folder):
        means = read_json(path) if path.exists() else {}
        for row, files in enumerate(samples.files.values()):
            for column, file in enumerate(files):
                found = {m: float(a[row, column]) for m, a in known.items()}
                finite = {m: value for m, value in found.items() if np.isfinite(value)}
                means[file.stem] = means.get(file.stem, {}) | finite
        write_json(path, means)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other evaluations of the same folder waiting; leaves no lock file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict) -> None:
    """Writes JSON atomically; infinities and NaN become strings, which strict readers accept."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=2) + "\n")


def plain(value):
    """Numbers, lists and dicts that JSON can hold."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    return value


def compare(paths: list[str | Path]) -> dict[str, dict[str, dict]]:
    """Summaries of several result files side by side: {metric: {file: summary}}.

    Raises:
      ValueError: a metric was measured under different protocols, naming the fields.
    """
    first = read_protocol(paths[0])
    table: dict[str, dict[str, dict]] = {}
    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"there is no results file {path}")
        check_same_protocol(first, read_protocol(path), f"{paths[0]} and {path}")
        for metric, summary in json.loads(Path(path).read_text())["summary"].items():
            table.setdefault(metric, {})[str(path)] = summary
    return table
