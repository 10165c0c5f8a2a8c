"""Scripts as modules, so that a test need not start a process."""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


@functools.cache
def load(name: str) -> ModuleType:
    """The script of that name in scripts/."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def convert(*flags) -> int:
    """Runs scripts/convert.py; raises ValueError for wrong input."""
    return load("convert").main([str(flag) for flag in flags])
