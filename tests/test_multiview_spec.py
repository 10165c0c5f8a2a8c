"""What is made of finished control videos: overlays, the multiview spec, the contact sheet."""

import numpy as np
import pytest

from jaxvid.core.video import read_video, write_video
from jaxvid.scenario import multiview, overlay
from jaxvid.scenario.scene import CAMERAS


def test_footage_is_taken_at_the_times_of_the_control(tmp_path):
    levels = np.arange(10, 130, 10, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / "f.mp4", np.tile(levels, (1, 32, 32, 3)), fps=10)
    write_video(tmp_path / "c.mp4", np.zeros((9, 32, 32, 3), np.uint8), fps=30)
    count = overlay.write_overlay(tmp_path / "c.mp4", tmp_path / "f.mp4", tmp_path / "o.mp4", 9)
    found = read_video(tmp_path / "o.mp4").mean(axis=(1, 2, 3))
    assert count == 9
    np.testing.assert_allclose(found, np.repeat([40, 50, 60, 70], [2, 3, 3, 1]), atol=2)


def test_footage_that_ends_too_early_is_refused(tmp_path):
    for name in "fc":
        write_video(tmp_path / f"{name}.mp4", np.zeros((2, 16, 16, 3), np.uint8), fps=30)
    with pytest.raises(ValueError, match="ends before frame 5"):
        overlay.write_overlay(tmp_path / "c.mp4", tmp_path / "f.mp4", tmp_path / "o.mp4", first=5)


@pytest.mark.parametrize("fps, rate", [(30, 10), (24, 12), (10, 10), (25, 5), (7, 7), (60, 10)])
def test_the_spec_has_a_rate_that_divides_the_videos(fps, rate):
    spec, _ = multiview.multiview_spec("clip", {CAMERAS[0]: "a.mp4"}, fps, 300)
    assert spec["fps"] == rate


def test_the_spec_says_what_will_not_run():
    _, notes = multiview.multiview_spec("clip", {"camera_roof": "a.mp4"}, 29.97, 300)
    assert len(notes) == 3


@pytest.mark.parametrize("count", range(1, 8))
def test_the_contact_sheet_takes_any_number_of_cameras(count):
    pictures = {name: np.full((36, 64, 3), 90, np.uint8) for name in CAMERAS[-count:]}
    sheet = multiview.contact_sheet(pictures | {"camera_roof": np.full((64, 64, 3), 90, np.uint8)})
    assert (sheet == 90).all(axis=-1).sum() > 0.9 * 480 * (270 * count + 480)
