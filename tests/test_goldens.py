"""Runs every golden case found under $JAXVID_GOLDENS (default: tests/goldens)."""

import dataclasses
import functools
import importlib
import json
import os
import pkgutil
from pathlib import Path

import checks
import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(os.environ.get("JAXVID_GOLDENS", Path(__file__).parent / "goldens"))


@dataclasses.dataclass(frozen=True)
class Case:
    """One folder with a case.json; arrays keep upstream's layouts (mostly channels first)."""

    folder: Path

    @functools.cached_property
    def config(self) -> dict:
        return self.json("case.json")

    @functools.cached_property
    def io(self) -> dict:
        return load_file(self.folder / "io.safetensors")

    @functools.cached_property
    def constructor_kwargs(self) -> dict:
        source = self.config.get("constructor_kwargs_from")
        if source is None:
            return self.config["constructor_kwargs"]
        return json.loads((self.folder / source).read_text())["constructor_kwargs"]

    def json(self, name: str):
        return json.loads((self.folder / name).read_text())

    def weights(self) -> dict:
        """Upstream's state dict of the case or of the neighbour (file or folder) it names."""
        if "weights_from" in self.config.get("config", {}):
            neighbour = self.folder.parent / self.config["config"]["weights_from"]
            return load_file(neighbour / "weights.safetensors")
        return load_file(self.folder / self.config.get("weights_from", "weights.safetensors"))

    def weight_files(self) -> list[Path]:
        """The same tensors in one or two kinds of files."""
        names = {self.config.get("weights_from", "weights.safetensors"), "weights.pt"}
        files = [self.folder / name for name in names if (self.folder / name).is_file()]
        assert files, f"{self.folder} has no weights"
        return files

    def group(self, prefix: str) -> dict:
        """The arrays whose names start with `prefix/`, without it."""
        start = prefix + "/"
        return {name[len(start) :]: a for name, a in self.io.items() if name.startswith(start)}

    def close(self, actual, desired, name=""):
        """Compares at the case's own tolerances."""
        tolerances = {"rtol": self.config["rtol"], "atol": self.config["atol"]}
        np.testing.assert_allclose(actual, desired, **tolerances, err_msg=name)


def all_checks() -> dict:
    modules = (
        importlib.import_module(f"checks.{m.name}") for m in pkgutil.iter_modules(checks.__path__)
    )
    return {kind: check for module in modules for kind, check in module.CHECKS.items()}


CHECKS = all_checks()
CASES = sorted(path.parent for path in ROOT.rglob("case.json"))


def test_there_are_cases():
    assert CASES, f"no case.json under {ROOT}"


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_case(folder):
    case = Case(folder)
    kind = case.config["kind"]
    assert kind in CHECKS, f"no check for kind {kind!r}; known: {sorted(CHECKS)}"
    CHECKS[kind](case)
