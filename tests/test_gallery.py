"""The results page, in a real browser where there is one."""

import dataclasses
import json
import time
from pathlib import Path

import browser
import pytest
from fake_mode import FakeConfig, FakeGenerator, draw, fake_requests

from jaxvid.core.video import write_video
from jaxvid.runs import gallery
from jaxvid.runs.config import RunConfig
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.runner import run

HOSTILE = '</script><img src=x onerror="window.hacked=1"><!-- {{data}} & "quotes" \u2028 é'
FAKE = FakeConfig(requests=4, frames=30, size=48, seconds=0, broken=("clip_0003",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four results: one with an input, one with a hostile prompt, one failed."""
    root = tmp_path_factory.mktemp("gallery #1 100%")
    requests = fake_requests(FAKE)
    control = root / "inputs" / "clip & 'co'?.mp4"
    write_video(control, draw(requests[0], FAKE)[::-1], fps=10)
    requests[0].inputs["control"] = str(control)
    requests[1].options["prompt"] = HOSTILE
    output = root / "out"
    run(lambda: FakeGenerator(FAKE), requests, RunConfig(output=str(output)))
    (output / "metrics.json").write_text(json.dumps({"clip_0000": {"psnr": 23.14159}}))
    gallery.write(Manifest(output))
    return output


@pytest.fixture
def page(folder, tmp_path):
    if browser.PROGRAM is None:
        pytest.skip("no Chromium")
    opened = browser.Browser(tmp_path)
    opened.open(folder / "index.html")
    yield opened
    opened.close()


def test_page_needs_nothing_from_elsewhere(folder):
    text = (folder / "index.html").read_text()
    assert "http:" not in text and "https:" not in text
    assert str(folder.parent) not in text  # the folder can be moved
    assert text.count("</script>") == 2 and "\u2028" not in text


def test_media_paths_are_relative_and_quoted():
    item = gallery.describe("input", "a", "/x/in/a #1%.mp4", None, Path("/x/out"))
    assert item["src"] == "./../in/a%20%231%25.mp4" and item["type"] == "video"
    assert gallery.describe("output", "a", "/x/out/javascript:x.npy", 3, Path("/x/out")) == {
        "kind": "output",
        "label": "a",
        "type": "file",
        "path": "javascript:x.npy",
        "src": "./javascript%3Ax.npy",
        "frames": None,
    }


def test_page_shows_everything_and_runs_nothing_foreign(page):
    page.wait("cards.every(card => card.player)")
    text = page.evaluate("document.body.innerText")
    for expected in ("4 of 4 results, 1 failed", "clip_0000", "psnr 23.14", "seed 2", HOSTILE[:40]):
        assert expected in text
    assert "RuntimeError: cannot draw clip_0003" in text and "Traceback" not in text
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    page.wait("[...document.querySelectorAll('video')].every(video => video.readyState >= 2)")
    assert page.evaluate("document.querySelectorAll('video').length") == 4
    assert page.evaluate("document.querySelectorAll('.broken').length") == 0


def test_videos_of_a_card_play_together(page):
    page.wait("cards[0].player && cards[0].player.videos.every(v => v.readyState >= 2)")
    page.evaluate("cards[0].player.play()")
    page.wait("cards[0].player.videos[0].currentTime > 0.5")
    page.evaluate("cards[0].player.videos[1].currentTime = 0")  # out of step on purpose
    times = "cards[0].player.videos.map(video => video.currentTime)"
    deadline = time.monotonic() + 20
    while abs(page.evaluate(f"{times}.reduce((a, b) => a - b)")) > 0.1:
        assert time.monotonic() < deadline, "the videos did not find together again"
    page.evaluate("cards[0].player.pause(); cards[0].player.seek(1.05); cards[0].player.step(1)")
    assert page.evaluate(times) == pytest.approx([1.15, 1.15])  # the middle of frame 11
    assert page.evaluate("cards[0].player.clock.textContent") == "11 / 30"


def test_play_all_starts_videos_that_are_still_loading(page):
    page.evaluate("get('play').click(); draw(); get('play').click()")
    page.wait("cards.slice(0, 3).every(c => c.player && c.player.videos[0].currentTime > 0.2)")


def test_search_and_filter(page):
    shown = "cards.map(card => rows[card.dataset.row].id)"
    page.evaluate("get('search').value = 'NUMBER 2'; get('search').oninput()")
    assert page.evaluate(shown) == ["clip_0002"]
    page.evaluate("get('search').value = ''; get('status').value = 'failed'; draw()")
    assert page.evaluate(shown) == ["clip_0003"]


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium")
def test_a_thousand_results_open_quickly(tmp_path):
    output = tmp_path / "out"
    fake = dataclasses.replace(FAKE, requests=1, broken=())
    run(lambda: FakeGenerator(fake), fake_requests(fake), RunConfig(output=str(output)))
    manifest = Manifest(output)
    row = manifest.rows()[0]
    with open(manifest.path, "w") as file:
        file.writelines(json.dumps(row | {"id": f"clip_{n:04}"}) + "\n" for n in range(1000))
    gallery.write(manifest)
    opened = browser.Browser(tmp_path / "profile")
    begin = time.monotonic()
    opened.open(output / "index.html")
    seconds = time.monotonic() - begin
    assert opened.evaluate("rows.length") == 1000
    assert opened.evaluate("document.querySelectorAll('video').length") < 20
    opened.evaluate("turn(41)")
    assert opened.evaluate("get('page').textContent") == "42 / 42"
    opened.close()
    assert seconds < 10  # under 1 s on an idle machine
