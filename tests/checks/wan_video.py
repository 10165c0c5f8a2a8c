"""Goldens of video files in and frames resized, as upstream's loaders do."""

import numpy as np
from einops import rearrange

from jaxvid.core import video
from jaxvid.wan.resize import resize, resize_uint8


def check_clip(case):
    (path,), decoded = case.folder.glob("*.mp4"), case.io["decoded"]
    info = video.probe(path)
    assert info.frames == case.config["frames"] == len(decoded)
    assert [info.height, info.width] == case.config["size_hw"]
    assert info.fps == case.config["fps"]
    case.close(video.read_video(path, scaler=video.FFMPEG_SCALER), decoded)
    for index in np.random.default_rng(0).permutation(len(decoded)):
        frame = video.read_video(path, index, 1, video.FFMPEG_SCALER)[0]
        case.close(frame, decoded[index], f"frame {index}")


def check_resize(case):
    frames = rearrange(case.io["x"], "t c h w -> t h w c")
    for height, width in case.config["sizes"]:
        size = f"{height}x{width}"
        smooth = rearrange(resize(frames, height, width), "t h w c -> t c h w")
        case.close(smooth, case.io[f"f32_{size}"], size)
        levels = rearrange(resize_uint8(frames, height, width), "t h w c -> t c h w")
        apart = np.abs(levels.astype(int) - case.io[f"u8_{size}"])
        assert apart.max() <= case.config["atol_u8"], size
        assert np.mean(apart > 0) <= case.config["max_fraction_of_u8_mismatches"], size


CHECKS = {"wan_vae/video_io_clip": check_clip, "wan_vae/video_io_resize": check_resize}
