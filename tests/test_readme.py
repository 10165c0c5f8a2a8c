"""README's commands run, and what it names exists."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from jaxvid.core.mesh import MeshConfig
from jaxvid.cosmos import sample_config as multiview
from jaxvid.cosmos import train as cosmos
from jaxvid.cosmos import train_data
from jaxvid.cosmos.multirun import MultirunConfig
from jaxvid.cosmos.prompts import PromptConfig
from jaxvid.cosmos.safety import SafetyConfig
from jaxvid.cosmos.sample import SamplerConfig
from jaxvid.cosmos.spec import Overrides
from jaxvid.data.sources import DataConfig
from jaxvid.fdm.flags import SAMPLING, TRAINING
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig
from jaxvid.fdm.schemes import SCHEMES, FunctionScheme, make_scheme
from jaxvid.fdm.train import TrainConfig
from jaxvid.fdm.unet import UNetConfig
from jaxvid.longlive import sample_config as longlive
from jaxvid.longlive import train_config
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.metrics.evaluate import EvaluateConfig
from jaxvid.runs import training_settings
from jaxvid.runs.config import RunConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NEEDS = "download|gpu|slurm|two hosts|hours|minutes|a quiet machine"  # for a command not to run
MINUTES = "needs: minutes"  # or to run in a slow test only
INSTALL = ("main-job", "tests")  # begin with an installation
SECTIONS = {
    "data": (DataConfig, train_data.DataConfig, train_config.DataConfig),
    "diffusion": (DiffusionConfig,),
    "mesh": (MeshConfig,),
    "metrics": (EvaluateConfig,),
    "models": (longlive.ModelConfig, multiview.ModelConfig),
    "multirun": (MultirunConfig,),
    "network": (UNetConfig,),
    "overrides": (Overrides,),
    "rollout": (RolloutConfig,),
    "run": (RunConfig, training_settings.RunConfig),
    "safety": (SafetyConfig,),
    "sampler": (SamplerConfig,),
    "sampling": (SampleConfig, longlive.SampleConfig, multiview.SampleConfig),
    "text": (PromptConfig,),
    "train": (TrainConfig, cosmos.TrainConfig, train_config.TrainConfig),
}


class Block(NamedTuple):
    """A fenced block; `marker` is the text of the comment line just before it."""

    section: str
    marker: str
    language: str
    text: str


def blocks(readme: str) -> list[Block]:
    pattern = re.compile(
        r"""^\#\#\ (?P<section>.*)$
        | (?:^<!--\ (?P<marker>.*)\ -->\n)? ^```(?P<language>\w*)\n (?P<text>(?:.*\n)*?) ^```$""",
        re.MULTILINE | re.VERBOSE,
    )
    found, section = [], ""
    for match in pattern.finditer(readme):
        if match["section"]:
            section = match["section"]
        else:
            found.append(Block(section, match["marker"] or "", match["language"], match["text"]))
    return found


BLOCKS = blocks(README)


def test_quick_start_has_exactly_the_two_commands():
    quick = [block for block in BLOCKS if block.section == "Quick start"]
    assert [(block.marker, block.language) for block in quick] == [(m, "bash") for m in INSTALL]
    for block in quick:
        assert len(block.text.strip().splitlines()) == 1
        assert block.text.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_other_blocks_are_commands_that_run_or_say_what_they_need():
    for block in BLOCKS:
        assert block.language in ("bash", "python"), block
        needs = re.fullmatch(rf"needs: ({NEEDS})", block.marker)
        assert block.marker in ("", *INSTALL) or needs, block.marker


@pytest.fixture
def clone(tmp_path):
    """What the commands find in a clone, with this Python as `python` and `.venv/bin/python`."""
    for name in ("configs", "scripts", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def runnable(block: Block) -> str:
    """What of a block runs here: all, nothing, or what follows the installation."""
    elsewhere = block.marker.startswith("needs:") and block.marker != MINUTES
    if block.language != "bash" or elsewhere or block.marker == "tests":
        return ""
    return block.text.rpartition("&&")[2] if block.marker == "main-job" else block.text


def run(block: Block, clone: Path) -> None:
    """Runs what can run of a block, as a newcomer would."""
    settings = {
        "PATH": f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(clone / "compiled"),
    }
    others = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "JAX", "XLA_"))}
    start = time.monotonic()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", runnable(block)],
        cwd=clone,
        env=others | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(f"{time.monotonic() - start:.1f} s: {block.text.strip()}")
    assert done.returncode == 0, f"{block.text}\n{done.stdout}"


def test_the_commands_run_in_their_order(clone):
    """From "Training" on they need nothing of those before, so the halves run side by side."""
    second = next(i for i, block in enumerate(BLOCKS) if block.section == "Training")

    def run_all(part: list[Block]):
        for block in filter(runnable, part):
            if block.marker != MINUTES:
                run(block, clone)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_all, (BLOCKS[:second], BLOCKS[second:])))
    for folder in ("demo", "two", "strided", "mine"):
        assert list((clone / "outputs" / folder / "videos").glob("*.mp4")), folder
        assert (clone / "outputs" / folder / "index.html").is_file()


@pytest.mark.slow
def test_the_commands_that_take_minutes_run(clone):
    for block in BLOCKS:
        if block.marker == MINUTES:
            run(block, clone)


def test_the_python_example_is_a_scheme():
    (example,) = [block.text for block in BLOCKS if block.language == "python"]
    before = set(SCHEMES)
    exec(example, {})
    (name,) = set(SCHEMES) - before
    steps = list(make_scheme(name, T=30, n_obs=4, max_frames=8, step_size=4))
    assert sorted(i for step in steps for i in step.latent) == list(range(4, 30))
    del SCHEMES[name]


def test_the_table_has_every_scheme():
    table = README[README.index("### Schemes") : README.index("### A scheme of your own")]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    named = {name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)}
    named |= {"hierarchy-3", "hierarchy-4"}  # of "hierarchy-2 ... hierarchy-5"
    assert named == {name for name, cls in SCHEMES.items() if shipped(cls)}


def shipped(scheme: type) -> bool:
    """Not registered by a test."""
    return scheme.__module__.startswith("jaxvid.") and not issubclass(scheme, FunctionScheme)


def test_the_settings_it_names_exist():
    pattern = rf"(?<![\w./-])(?:--config\.)?({'|'.join(SECTIONS)})\.([a-zA-Z_]\w*)"
    inline = re.findall(r"`([^`\n]+)`", README)
    commands = [block.text for block in BLOCKS if block.language == "bash"]
    for text in (*inline, *commands):
        for section, field in re.findall(pattern, text):
            known = {f.name for cls in SECTIONS[section] for f in dataclasses.fields(cls)}
            assert field in known, f"{section}.{field}"


def test_it_says_what_becomes_of_each_flag_of_fdm():
    text = README[README.index("## Coming from FDM") :]
    parts = text[text.index("Sampling:") : text.index("Files:")].split("Training:")
    for part, flags in zip(parts, (SAMPLING, TRAINING), strict=True):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        named = {name for row in rows for name in re.findall(r"`--(\w+)", row)}
        assert named == set(flags) - {"checkpoint_path"}
        for name, flag in flags.items():
            section, _, field = flag.field.partition(".")
            short = f"the same names in `{section}`" if name == field else flag.field
            found = [row for row in rows if re.search(rf"`--{name}\b", row)]
            assert any(flag.field in row or short in row for row in found) or not found, name


def test_the_files_it_links_to_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"(?<![\w/.-])((?:configs|scripts)/\w+\.py)", README):
        assert (ROOT / path).is_file(), path


@pytest.fixture
def continuous_integration(tmp_path):
    """Runs `.ci/run` beside another README."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")

    def run(readme: str):
        (tmp_path / "README.md").write_text(readme)
        return subprocess.run(
            [tmp_path / ".ci" / "run"], input="typed\n", capture_output=True, text=True
        )

    return run


def test_ci_runs_the_command_after_the_tests_marker(continuous_integration):
    marked = '<!-- tests -->\n```bash\necho "CI=$CI here=$(ls) input=$(cat)" && {}\n```\n'
    readme = f"<!-- main-job -->\n```bash\nfalse\n```\n{marked}\n```bash\nfalse\n```\n"
    done = continuous_integration(readme.format("true"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("CI=true here=README.md input=\n")
    assert continuous_integration(readme.format("exit 5")).returncode == 5


@pytest.mark.parametrize("readme", ["", "<!-- tests -->\n", "<!-- tests -->\n```bash\n```\n"])
def test_ci_fails_without_the_command(continuous_integration, readme):
    done = continuous_integration(readme)
    assert done.returncode == 1
    assert "README.md has no fenced command" in done.stderr
