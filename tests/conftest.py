"""All tests run on the CPU with 8 devices and exact float32 products.

Programs compiled once are shared by all tests of a run, their worker processes and the scripts
they start, through JAX's persistent cache in a folder that vanishes with the run. Most run only a
few times, so XLA is told not to spend long on making them fast.
"""

import os
import shutil
import tempfile
from pathlib import Path

CACHE = "JAX_COMPILATION_CACHE_DIR"
_own = "" if CACHE in os.environ else tempfile.mkdtemp(prefix="jaxvid-tests-")
os.environ[CACHE] = os.environ.get(CACHE) or _own  # workers and scripts inherit it
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # likewise; before JAX is imported

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_compilation_cache_dir", os.environ[CACHE])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture
def at_root(monkeypatch):
    """In the repository's root, where the configs' relative paths begin."""
    monkeypatch.chdir(Path(__file__).parents[1])


def pytest_unconfigure():
    if _own:
        shutil.rmtree(_own, ignore_errors=True)
