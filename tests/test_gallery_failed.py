"""What the results page shows of a failure that has neither videos nor a variant."""

import browser
import pytest

from jaxvid.runs import gallery


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium")
def test_no_play_bar_without_videos_and_no_empty_options(tmp_path):
    row = {"id": "a", "status": "failed", "error": "", "options": {"uid": "a", "variant": ""}}
    gallery.write_page(tmp_path / "index.html", [gallery.card(row, tmp_path, tmp_path, {})])
    page = browser.Browser(tmp_path / "profile")
    try:
        page.open(tmp_path / "index.html")
        page.wait("cards[0].player")
        facts = page.evaluate("get('results').querySelector('.facts').textContent")
        assert facts == "failed \u00b7 uid a"
        bar = "document.querySelector('article .bar')"
        assert page.evaluate(f"getComputedStyle({bar}).display") == "none"
        page.evaluate("cards[0].player.add(document.createElement('video'))")
        assert page.evaluate(f"getComputedStyle({bar}).display") == "flex"
    finally:
        page.close()
