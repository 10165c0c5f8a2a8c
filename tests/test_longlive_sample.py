"""LongLive as users run it: the script on tiny networks, devices and batches, pushed prompts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import script
import small_longlive
import yaml

from jaxvid.core.video import probe, read_video, to_uint8
from jaxvid.longlive import benchmark, models, rollout, sample, shapes
from jaxvid.longlive.live import Live
from jaxvid.longlive.mode import LongLiveMode
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.requests import Chunk, Snapshot
from jaxvid.wan import vae

ROOT = small_longlive.ROOT
INTERACTIVE = {
    "sampling.prompts": ROOT / "data/prompts/interactive.jsonl",
    "sampling.switch_frames": "(2, 6)",
}
EVERY = jax.devices()
CONDITIONAL = {"sampling.prompts": ROOT / "data/prompts/video_conditional.jsonl"}


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Of eight; and paths of the configs are relative to the repository."""
    monkeypatch.chdir(ROOT)
    devices(monkeypatch, 1)


def devices(monkeypatch, count: int):
    monkeypatch.setattr(jax, "devices", lambda *_: EVERY[:count])


def run(output: Path, **changes) -> dict[str, np.ndarray]:
    """Runs the script; returns its videos by file name."""
    argv = small_longlive.arguments(run__output=output, **changes)
    assert script.load("sample").sample(argv) == 0
    return {path.name: read_video(path) for path in output.rglob("*.mp4")}


def rows(output: Path) -> list[dict]:
    return Manifest(output).rows()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Videos of the two prompts of the shipped file, each made in a call of its own."""
    output = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        devices(patch, 1)
        return output, run(output)


def test_text_to_video(texts):
    output, videos = texts
    assert sorted(videos) == ["video_0000-0.mp4", "video_0001-0.mp4"]
    for video in videos.values():
        assert video.shape == (15, 16, 32, 3)  # 8 latent frames of a VAE that halves time once
        assert video.std() > 1
    assert not np.array_equal(*videos.values())
    assert probe(output / "videos/video_0000-0.mp4").fps == 16
    assert (output / "index.html").is_file()
    first = ROOT.joinpath("data/prompts/text.txt").read_text().split("\n")[0]
    assert rows(output)[0]["options"]["prompt"] == first


def test_a_done_run_loads_nothing(texts, monkeypatch, capsys):
    monkeypatch.setattr(sample, "load", None)
    run(texts[0])
    assert "0 to make, 2 already done" in capsys.readouterr().out


def test_prompts_take_over(tmp_path, capsys):
    """What comes before a switch is as without it, what comes after is not."""
    videos = run(tmp_path / "a", **INTERACTIVE, sampling__limit=1, sampling__names="index")
    assert list(videos) == ["rank0-0-0_regular.mp4"]
    plan = capsys.readouterr().out
    assert "prompt 2 from latent frame 3 (pixel frame 5) instead of 2" in plan
    assert "prompt 3 from latent frame 6 (pixel frame 11)" in plan
    prompts = json.loads((ROOT / "data/prompts/interactive.jsonl").read_text().split("\n")[0])
    plain = run(tmp_path / "b", sampling__prompt=(prompts["prompts"][0],))
    (switched,), (same,) = videos.values(), plain.values()
    assert np.abs(switched[:5].astype(int) - same[:5]).mean() < 2  # of two encoded files
    assert np.abs(switched[5:].astype(int) - same[5:]).mean() > 2


def test_a_video_is_continued(tmp_path, capsys):
    videos = run(tmp_path, **CONDITIONAL)
    assert "7 of 8 frames of the clip are used, 4 latent" in capsys.readouterr().out
    (video,) = videos.values()
    assert video.shape == (15, 16, 32, 3)
    (row,) = rows(tmp_path)
    assert row["inputs"]["clip"]["path"].endswith("maze_walk.mp4")
    assert row["options"]["prompt1"] and row["options"]["prompt2"]


def test_killed_and_resumed(texts, tmp_path):
    """SIGKILL while the second video is being made; the files end as if nothing had happened."""
    command = [sys.executable, "scripts/sample.py", *small_longlive.arguments(run__output=tmp_path)]
    environ = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("videos/*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(rows(tmp_path)) <= 1
    run(tmp_path)
    for file in ("video_0000-0.mp4", "video_0001-0.mp4"):
        after, before = (folder / "videos" / file for folder in (tmp_path, texts[0]))
        difference = read_video(after).astype(int) - read_video(before)
        assert np.abs(difference).max() <= 2  # two processes, one with one device of its own
    assert not list(tmp_path.glob(".unfinished-*"))


def generate(changes: dict, monkeypatch, count: int) -> dict[str, np.ndarray]:
    """All videos by request id, uint8 before encoding."""
    devices(monkeypatch, count)
    mode = LongLiveMode(small_longlive.config(**changes))
    requests = mode.requests()
    generator = mode.load(requests)
    found = {}
    for start in range(0, len(requests), generator.batch_size):
        batch = requests[start : start + generator.batch_size]
        for item in generator.generate(batch):
            if isinstance(item, Chunk):
                found.setdefault(batch[item.index].id, []).append(item.frames)
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


SWITCHED = {
    "sampling.prompt": ("A cat sleeps.", "The cat wakes up."),
    "sampling.switch_frames": "(3,)",
    "sampling.num_samples": 2,
}


@pytest.fixture(scope="module")
def alone():
    """Two samples, each made alone on one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return generate(SWITCHED, patch, 1)


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (2, {"sampling.batch_size": 3, "sampling.decoder": "separate"}),
        (8, {"mesh.data": 2, "mesh.seq": 2, "mesh.tensor": 2}),
    ],
    ids=["padded batch, decoder on its own device", "eight devices"],
)
def test_same_videos_on_any_devices_and_in_any_batch(alone, monkeypatch, count, changes):
    found = generate(SWITCHED | changes, monkeypatch, count)
    assert found.keys() == alone.keys() == {"video_0000-0", "video_0000-1"}
    for name, video in found.items():
        assert np.abs(video.astype(int) - alone[name]).max() <= 1  # the order of sums differs
    assert np.abs(alone["video_0000-0"].astype(int) - alone["video_0000-1"]).max() > 3


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_compiles_after_the_second_block(monkeypatch, count):
    """On eight devices; the decoder has one more program for the first."""
    devices(monkeypatch, 8)
    changes = {"mesh.data": 2, "mesh.seq": 2, "mesh.tensor": 2}
    changes |= {"sampling.latent_frames": 3 * count, "sampling.checkpoint_blocks": 0}
    mode = LongLiveMode(small_longlive.config(**changes, sampling__prompt="A tram."))
    requests = mode.requests()
    blocks = mode.load(requests).blocks(requests, mode.settings.length(0))
    found = []
    for _ in blocks:
        programs = rollout.advance._cache_size(), sample.decode_block._cache_size()
        sizes = [array.nbytes for array in jax.live_arrays()]  # which is not to keep them
        found.append((*programs, len(sizes), sum(sizes)))
    assert len(found) == count
    assert len({*found[1:-1]}) == 1  # and the devices hold no more than at the start


def test_blocks_are_the_whole_video_decoded_at_once(alone):
    """What is cut from the last block changes nothing either."""
    mode = LongLiveMode(small_longlive.config(**SWITCHED))
    request = mode.requests()[0]
    generator = mode.load([request])
    length = mode.settings.length(0)
    latents = [piece.latents for piece in generator.pieces([request], length)]
    latents = jnp.concatenate(latents, axis=1)
    assert latents.shape[1] == 9
    whole = jax.jit(vae.decode, static_argnums=0)(mode.settings.vae, generator.vae, latents[:, :8])
    video = alone[request.id]
    assert np.abs(to_uint8(whole[0]).astype(int) - video).max() <= 1


def test_pushed_prompts_take_over_as_scheduled_ones_do(alone):
    """The stream is a block ahead: after the first piece, the third block can change next."""
    mode = LongLiveMode(small_longlive.config(**SWITCHED))
    request = mode.requests()[0]
    first, second = request.options["prompts"]
    generator, length = mode.load([request]), mode.settings.length(0)
    live = Live(generator, first, request.id, latent_frames=9)
    pieces = [next(live)]
    live.push(second)
    pieces += live
    assert live.prompts == [(0, first), (6, second)]
    same = np.concatenate(pieces)[:5] == alone[request.id][:5]
    assert same.all()  # the first block; here the prompt came a block later than there
    request.options["switch_frames"] = [6]
    scheduled = np.concatenate([p[0] for p in generator.blocks([request], length)])
    np.testing.assert_array_equal(np.concatenate(pieces)[: len(scheduled)], scheduled)
    with pytest.raises(ValueError, match="the prompt is empty"):
        live.push(" ")


def test_clips_of_the_next_call_do_not_replace_those_of_this_one(monkeypatch):
    mode = LongLiveMode(small_longlive.config(**CONDITIONAL))
    generator, (request, *_) = sample.Generator(mode.settings, {}), mode.requests()
    read = []
    monkeypatch.setattr(sample, "_read_clip", lambda path, length: read.append(path))
    for _ in range(2):
        generator.prefetch([request])
    for _ in range(2):
        generator._frames(request.inputs["clip"], mode.settings.length(4))
    assert len(read) == 2


def test_each_piece_is_handed_out_when_the_next_one_is_being_decoded():
    began = []

    def decode(piece, past):
        began.append((piece, past))
        return np.full((1, 2), piece), True, piece

    pieces = [sample.Piece(number, number) for number in (1, 2, 3)]
    seen = [(int(frames[0, 0]), len(began)) for frames in sample.decoded(iter(pieces), decode)]
    assert seen == [(1, 2), (2, 3), (3, 3)]
    assert began == [(1, None), (2, 1), (3, 2)]
    with pytest.raises(ValueError, match="NaN"):
        list(sample.decoded(iter(pieces), lambda *_: (None, False, None)))


def test_upstream_files_and_config(tmp_path):
    """Their YAML and weights, a LoRA among them, in bfloat16; the name of the video is theirs."""
    files = small_longlive.write_files(tmp_path)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("A red tram.\nA harbour.\n")
    content = {
        "denoising_step_list": [1000, 500], "warp_denoising_step": True, "num_frame_per_block": 3,
        "model_name": "Wan2.1-T2V-1.3B", "global_sink": True, "context_noise": 0, "seed": 0,
        "model_kwargs": {"local_attn_size": 6, "timestep_shift": 5.0, "sink_size": 3},
        "data_path": str(prompts), "output_folder": str(tmp_path / "videos"), "inference_iter": 0,
        "num_output_frames": 6, "use_ema": False, "num_samples": 1, "save_with_index": True,
        "generator_ckpt": files["transformer"], "lora_ckpt": files["lora"],
        "adapter": {"type": "lora", "rank": 4, "alpha": 4, "dropout": 0.0, "verbose": False},
    }  # fmt: skip
    config = tmp_path / "longlive_inference.yaml"
    config.write_text(yaml.safe_dump(content))
    more = {"height": 16, "width": 32}
    argv = [f"--upstream_config={config}"]
    argv += [f"--config.models.{name}={files[name]}" for name in ("vae", "text_encoder")]
    argv += [f"--config.models.tokenizer={files['tokenizer']}"]
    argv += [f"--config.models.embeddings={tmp_path / 'embeddings'}"]
    argv += [f"--config.sampling.{name}={value}" for name, value in more.items()]
    assert script.load("sample").sample(argv) == 0
    (video,) = (tmp_path / "videos").glob("*.mp4")
    assert video.name == "rank0-0-0_lora.mp4" and read_video(video).std() > 1
    assert len(list((tmp_path / "embeddings").iterdir())) == 1


def test_benchmark_runs_every_stage_of_a_block():
    """Each on what the one before has left, as often as asked for; the video goes on."""
    settings = LongLiveMode(small_longlive.config(sampling__checkpoint_blocks=1)).settings
    generator = benchmark._loaded(settings, models.embed(settings, ["A tram."]))
    blocks = benchmark.Blocks(generator, "A tram.")
    blocks.start()
    stages = (blocks.denoise, blocks.cache_write, blocks.decode, blocks.to_host, blocks.write)
    for stage in (*stages, *stages, blocks.next, blocks.next):
        stage()
    assert blocks.frames.shape == (1, 6, 16, 32, 3) and blocks.writing.result() is None
    assert blocks.file[0].frames == 4 * 6
    assert int(blocks.state.frame) == blocks.first + 3
    names = (benchmark.DENOISE, benchmark.WRITE, benchmark.DECODE, benchmark.WHOLE)
    figures = blocks.derived({n: {"median": 0.5 - 0.1 * i} for i, n in enumerate(names)})
    assert figures["pixel frames per second, end to end"] == pytest.approx(6 / 0.2)
    assert figures["denoising, seconds"] == pytest.approx(0.1)
    assert blocks.facts()["tflop"][benchmark.DENOISE] > 0


def test_what_a_resumed_video_reads_is_what_the_other_kept(monkeypatch):
    """Shapes, types and places of the state and of the decoder's past, on eight devices."""
    devices(monkeypatch, 8)
    changes = {"mesh.data": 2, "mesh.seq": 2, "mesh.tensor": 2, "sampling.checkpoint_blocks": 1}
    mode = LongLiveMode(small_longlive.config(**changes, sampling__prompt="A tram."))
    requests = mode.requests()
    generator, length = mode.load(requests), mode.settings.length(0)
    found = generator.blocks(requests, length)
    kept = next(item for item in found if isinstance(item, Snapshot)).tree
    like = {
        "state": shapes.state(mode.settings, generator.mesh, 2, length.made),
        "past": shapes.decoder_past(mode.settings, generator.decoder_mesh, 2),
    }
    assert jax.tree.structure(kept) == jax.tree.structure(like)
    for array, wanted in zip(*map(jax.tree.leaves, (kept, like)), strict=True):
        assert (array.shape, array.dtype) == (wanted.shape, wanted.dtype)
        assert array.sharding.is_equivalent_to(wanted.sharding, array.ndim)
