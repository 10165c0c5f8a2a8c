"""The CSV logs of training: what a resumed run keeps, and damaged files."""

import csv

import pytest

from jaxvid.runs.step_table import StepTable


def rows(path):
    return list(csv.DictReader(path.open(newline="")))


@pytest.fixture
def path(tmp_path):
    """A file with rows of updates 10, 20 and 30."""
    table = StepTable(tmp_path / "log.csv", 0)
    for step in (10, 20, 30):
        table.append({"step": step, "loss": 1 / step})
    return tmp_path / "log.csv"


def test_a_resumed_run_drops_what_it_repeats(path):
    table = StepTable(path, 20)
    table.append({"step": 25, "loss": 0.5})
    assert [row["step"] for row in rows(path)] == ["10", "20", "25"]
    assert rows(path)[0]["loss"] == "0.1"
    StepTable(path, 0)
    assert not path.exists()


def test_a_row_is_added_without_writing_the_others_again(path):
    before = path.read_bytes()
    table = StepTable(path, 30)
    assert path.read_bytes() == before
    file = path.stat().st_ino
    table.append({"step": 40, "loss": 0.25})
    assert path.stat().st_ino == file and path.read_bytes().startswith(before)


def test_a_new_column_is_empty_above(path):
    table = StepTable(path, 30)
    table.append({"step": 40, "loss": 0.2, "critic_loss": 3.0})
    table.append({"step": 50, "critic_loss": 2.0})
    assert [row["critic_loss"] for row in rows(path)] == ["", "", "", "3.0", "2.0"]
    assert rows(path)[-1]["loss"] == ""


@pytest.mark.parametrize("cut", [1, 2, 5, 12])
def test_a_last_line_that_was_cut_off_is_no_row(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    StepTable(path, 30).append({"step": 40, "loss": 0.25})
    assert [row["step"] for row in rows(path)] == ["10", "20", "40"]


@pytest.mark.parametrize(
    "content",
    [
        b"loss\n1.0\n",
        b"step,loss\nten,1\n",
        b"step,loss\n1,2,3\n",
        b"step,loss\n1\n",
        b"\xff\xfe\n\n",
    ],
)
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"log.csv is no log of updates, or a damaged one: mend"):
        StepTable(path, 5)
    assert path.read_bytes() == content
