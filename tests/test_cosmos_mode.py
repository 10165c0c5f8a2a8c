"""The multiview mode with small random networks: devices, chunks, files, resume.

Tests share numbers of views and devices, so that few programs are compiled.
"""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from script import load
from small_multiview import ROOT, arguments, config, write_spec, write_videos

from jaxvid.core import torch_file
from jaxvid.core.config import load_config, override
from jaxvid.core.random_tree import draw
from jaxvid.core.video import probe, read_video
from jaxvid.core.views import VIEWS
from jaxvid.cosmos import conditions, files, generate, model, outputs, planning
from jaxvid.cosmos.dit import DitConfig, tiny
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.runs.requests import Chunk, Snapshot
from jaxvid.wan import vae, vae_keys
from jaxvid.wan.vae import VaeConfig

TWO = ("front_wide", "rear")


script = load("sample")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("multiview")
    write_videos(found)
    write_videos(found, kind="input")
    return found


def spec(folder, views=VIEWS, inputs=False, name="clip.json", **changes):
    found = write_videos(folder, views)
    for view, paths in write_videos(folder, views, kind="input").items():
        if inputs:
            found[view] |= paths
    return write_spec(folder, found, name, **changes)


def made(path, devices=1, **changes) -> tuple[dict, list]:
    """All frames by output name, and the items of the call."""
    mode = CosmosMode(config(sampling__specs=f"('{path}',)", **changes))
    (request,) = mode.requests()
    generator = generate.load(mode.settings, [request], jax.devices()[:devices])
    items = list(generator.generate([request]))
    return together(items), items


def together(items) -> dict:
    found = {}
    for item in items:
        if isinstance(item, Chunk) and item.name != "arguments":
            found.setdefault(item.name, []).append(item.frames)
    return {name: np.concatenate(parts, axis=-4) for name, parts in found.items()}


@functools.cache
def reference(path, **changes):
    return made(path, **changes)[0]


def check_same(found, wanted):
    """The same but for the order of sums, which can turn a level that is nearly between two."""
    assert list(found) == list(wanted)
    for name, frames in wanted.items():
        off = np.abs(found[name].astype(int) - frames)
        assert off.max() <= 1 and (off > 0).mean() < 0.01, name


@pytest.mark.parametrize(
    ("devices", "mesh"),
    [
        (8, {}),
        pytest.param(2, {}, marks=pytest.mark.slow),
        pytest.param(4, {}, marks=pytest.mark.slow),
        pytest.param(7, {}, marks=pytest.mark.slow),
        pytest.param(7, {"view": 7, "seq": 1}, marks=pytest.mark.slow),
        pytest.param(8, {"view": 4, "seq": 2}, marks=pytest.mark.slow),
        pytest.param(8, {"data": 2, "seq": 4}, marks=pytest.mark.slow),
        pytest.param(4, {"data": 2, "view": 2, "seq": 1}, marks=pytest.mark.slow),
    ],
)
def test_seven_views_on_any_devices(folder, devices, mesh):
    path = spec(folder)
    mesh = {f"mesh__{axis}": n for axis, n in mesh.items()}
    check_same(made(path, devices, **mesh)[0], reference(path))


@pytest.mark.slow
def test_three_views_on_two_devices(folder):
    path = spec(folder, ("front_wide", "rear", "cross_left"), name="three.json")
    check_same(made(path, 2)[0], reference(path))


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [0, 3])
def test_both_passes_of_guidance_together(folder, guidance):
    path = spec(folder, ("rear",), name=f"{guidance}.json", guidance=guidance)
    wanted = reference(path)
    check_same(made(path, 1, sampling__guidance_passes="together")[0], wanted)
    check_same(made(path, 2, mesh__data=2, mesh__seq=1)[0], wanted)


def test_the_order_of_views_in_the_spec_changes_nothing(folder):
    path = spec(folder, TWO, inputs=True, num_conditional_frames=1)
    value = json.loads(path.read_text())
    swapped = folder / "swapped.json"
    swapped.write_text(json.dumps(dict(reversed(value.items()))))
    one, other = (CosmosMode(config(sampling__specs=f"('{p}',)")).requests()[0]
                  for p in (path, swapped))  # fmt: skip
    assert one == other and list(one.options["views"]) == list(other.options["views"])


def test_long_videos_go_on_where_they_were(folder):
    """3 chunks of 3 frames that share 1; what a later call makes of a Snapshot is the same."""
    long = {"enable_autoregressive": True, "num_chunks": 3, "inputs": True}
    path = spec(folder, TWO, name="long.json", num_conditional_frames=1, **long)
    settings = {"sampling__files": "('combined', 'views', 'grid', 'control_grid')"}
    found, items = made(path, **settings)
    assert {name: frames.shape for name, frames in found.items()} == {
        "combined": (2, 7, 16, 32, 3),
        "front_wide": (7, 16, 32, 3),
        "rear": (7, 16, 32, 3),
        "grid": (7, 48, 96, 3),
        "control_grid": (7, 64, 32, 3),
    }
    np.testing.assert_array_equal(found["combined"][1], found["rear"])
    np.testing.assert_array_equal(found["grid"], outputs.square_grid(found["combined"]))
    controls = read_video(folder / "control_rear_7_10_32.mp4").astype(int)
    assert np.abs(found["control_grid"][:, 16:32] - controls).mean() < 8
    places = [i for i, item in enumerate(items) if isinstance(item, Snapshot)]
    assert [items[i].info for i in places] == [{"chunk": 0}, {"chunk": 1}]
    mode = CosmosMode(config(sampling__specs=f"('{path}',)", **settings))
    (request,) = mode.requests()
    generator = generate.load(mode.settings, [request], jax.devices()[:1])
    assert generator.resumable([request])
    snapshot = items[places[0]]
    rest = generator.resume([request], snapshot.info, lambda like: snapshot.tree)
    again = together(rest)
    for name, frames in together(items[places[0] :]).items():
        np.testing.assert_array_equal(again[name], frames)


def test_chunks_without_overlap_go_on_too(folder):
    long = {"enable_autoregressive": True, "chunk_overlap": 0, "seed": 2}
    path = spec(folder, TWO, name="apart.json", **long)
    found, items = made(path)
    assert found["rear"].shape == (6, 16, 32, 3)
    (place,) = [i for i, item in enumerate(items) if isinstance(item, Snapshot)]
    assert all(a.size for a in jax.tree.leaves(items[place].tree))
    mode = CosmosMode(config(sampling__specs=f"('{path}',)"))
    (request,) = mode.requests()
    generator = generate.load(mode.settings, [request], jax.devices()[:1])
    rest = generator.resume([request], items[place].info, lambda like: items[place].tree)
    np.testing.assert_array_equal(together(rest)["rear"], found["rear"][3:])


def test_given_frames_come_through(folder):
    """Not quite: the first level is 0.9998 of noise, but the sample starts as all noise."""
    path = spec(folder, TWO, inputs=True, num_conditional_frames=1, name="given.json")
    mode = CosmosMode(config(sampling__specs=f"('{path}',)"))
    (request,) = mode.requests()
    generator = generate.load(mode.settings, [request], jax.devices()[:1])
    video = generate.Video(generator, request)
    past = video.begin()
    assert past.shape == (2, 1, 16, 32, 3)
    found = together(generator.generate([request]))
    wanted = generator.decode(generator.encode(past))
    assert np.abs(found["rear"][:1].astype(int) - wanted[1]).max() <= 3


@pytest.mark.slow
def test_upstreams_noise_and_pixels(folder):
    path = spec(folder, TWO, name="one.json")
    ours = reference(path)["front_wide"]
    two = [made(path, sampling__upstream_ranks=n)[0]["front_wide"] for n in (1, 2)]
    assert all(np.abs(frames.astype(int) - ours).max() > 9 for frames in two)
    assert np.abs(two[0].astype(int) - two[1]).max() > 9
    cut = made(path, sampling__pixels="truncate")[0]["front_wide"]
    assert set(np.unique(ours.astype(int) - cut)) == {0, 1}


def checked_prompt(prompt: str) -> str:
    return "no roads" if "road" in prompt else ""


def checked_video(frames: np.ndarray) -> np.ndarray:
    return np.zeros_like(frames)


def test_checks_of_prompts_and_videos(folder):
    path = spec(folder, TWO, name="one.json")
    here = "test_cosmos_mode"
    with pytest.raises(ValueError, match="refused by test_cosmos_mode:checked_prompt: no roads"):
        made(path, safety__prompt=f"{here}:checked_prompt")
    found, _ = made(path, safety__video=f"{here}:checked_video")
    assert not found["front_wide"].any()
    mode = CosmosMode(config(sampling__specs=f"('{path}',)", safety__video=f"{here}:checked_video"))
    (request,) = mode.requests()
    assert request.options["safety"] == {"prompt": "off", "video": f"{here}:checked_video"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"safety__prompt": "nowhere:check"}, "safety.prompt=nowhere:check cannot be loaded"),
        ({"safety__video": "os"}, "has to be module:function"),
        ({"safety__video": "os:sep"}, "is no function"),
        ({"sampling__specs": "()"}, "sampling.specs is empty"),
        ({"sampling__height": 18}, "height=18 and width=32 have to be multiples of 4, e.g. 16x32"),
        ({"sampling__files": "('mosaic',)"}, "'mosaic' is none of combined"),
        ({"sampling__upstream_ranks": 3}, "upstream_ranks=3 cannot share 2 latent frames"),
        ({"network__channels": 6}, "makes 6 channels of latents, the VAE has 4"),
        ({"network__text_in": 20}, "reads embeddings 20 wide, the text encoder makes them 16"),
        ({"mesh__data": 4}, "mesh.data=4"),
        ({"models__random": False}, "config.network gives the sizes of a random network"),
    ],
)
def test_settings_that_do_not_fit(folder, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        CosmosMode(config(**({"sampling__specs": f"('{spec(folder)}',)"} | changes)))
    assert "\n" not in str(error.value)


def test_files_that_are_not_there(tmp_path):
    settings = script.parse_arguments([f"--config={ROOT}/configs/cosmos_multiview.py"])[0]
    with pytest.raises(ValueError, match=r"models.transformer=.*there is no such file; see"):
        CosmosMode(settings)


def test_mistakes_of_upstream_can_be_had(folder):
    """Frames given for each view are then those of the controls, if no others are given."""
    long = {"enable_autoregressive": True, "inputs": True, "name": "faults.json"}
    path = spec(folder, TWO, **long)
    value = json.loads(path.read_text())
    for name in TWO:
        value[name]["num_conditional_frames_per_view"] = 1
    path.write_text(json.dumps(value))
    for faults, wanted in ((False, "input"), (True, "control")):
        mode = CosmosMode(config(sampling__specs=f"('{path}',)", sampling__upstream_faults=faults))
        assert mode.requests()[0].options["given_from"] == wanted


def test_the_plan_counts_the_arithmetic_of_the_specification():
    found = [planning.forward_flops(DitConfig(), views, 28800) for views in (1, 2, 4, 7)]
    np.testing.assert_allclose(found, [3.33e14, 1.10e15, 3.94e15, 1.146e16], rtol=5e-3)


def test_the_plan_tells_what_will_happen(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = spec(folder, name="plan.json", enable_autoregressive=True, num_chunks=9)
    words = arguments(sampling__specs=f"('{path}',)", run__output=tmp_path / "out")
    assert (
        script.sample([*words, f"--config.text.tokenizer={ROOT}/data/tokenizer_qwen", "--plan"])
        == 0
    )
    told = capsys.readouterr().out
    for part in (
        "7 frames asked, 7 rounded, 7 produced (7 views (front_wide, cross_right",
        "3 chunks of 3 frames that share 1",
        "448 tokens over seq 8",
        "2 steps, 4 passes a chunk, one after the other",
        "no frame is given",
        "num_chunks=9, the controls last for 3",
    ):
        assert part in told, told
    assert not (tmp_path / "out").exists()


def test_flags_of_ours_go_with_upstreams(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    path = spec(folder, TWO, name="line.json")
    words = [w for w in arguments() if "sampling.specs" not in w]
    line = ["-i", str(path), "-o", str(tmp_path / "out"), "--overwrite", "--shard", "0/2"]
    assert script.sample([*words, *line, "--plan"]) == 0
    assert "clip" in capsys.readouterr().out


def test_the_script_writes_upstreams_files(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = spec(folder, name="script.json")
    words = arguments(sampling__specs=f"('{path}',)", run__output=tmp_path,
                      sampling__files="('combined', 'views', 'grid')")  # fmt: skip
    assert script.sample(words) == 0
    views = {f"clip_{name}.mp4" for name in (*VIEWS, "grid")}
    assert {p.name for p in (tmp_path / "clip").iterdir()} == {"clip.json", "clip.mp4", *views}
    info = probe(tmp_path / "clip/clip.mp4")
    assert (info.frames, info.fps, info.height, info.width) == (21, 10, 16, 32)
    row = json.loads((tmp_path / "manifest.jsonl").read_text())
    assert row["status"] == "done" and row["options"]["safety"] == {"prompt": "off", "video": "off"}
    saved = json.loads((tmp_path / "clip/clip.json").read_text())
    assert saved["rear"]["control_path"] == str(folder / "control_rear_7_10_32.mp4")
    assert script.sample(words) == 0  # done already


def write_files(folder) -> dict[str, str]:
    """Upstream's files of a small network and VAE, and embeddings of all texts: config fields."""
    network = tiny(depth=2, channels=16, text_in=24, control_every=1, dtype="float32")
    coder = VaeConfig(width=4, blocks=1, multipliers=(1, 1), halve_time=(True,))
    params = draw(model.abstract_parameters(network), 0, "float32")
    release = files.revert(params, {"network": dataclasses.asdict(network)})
    torch_file.save_pt(folder / "model.pt", release)
    settings = {"num_max_modalities": 2, "vace_block_every_n": 1, "num_heads": 2}
    (folder / "net.json").write_text(json.dumps(settings))
    drawn = draw(vae.abstract_parameters(coder), 0, "float32")
    torch_file.save_pt(folder / "tokenizer.pth", vae_keys.revert(drawn, {}))
    random = np.random.default_rng(0)
    texts = ("A road.", conditions.EMPTY, conditions.NEGATIVE)
    rows = {text: random.normal(size=(512, 24)).astype(np.float32) for text in texts}
    np.savez(folder / "texts.npz", **rows)
    return {
        "models.transformer": folder / "model.pt",
        "models.settings": folder / "net.json",
        "models.vae": folder / "tokenizer.pth",
        "models.dtype": "float32",
        "text.encoder": "",
        "text.dtype": "float32",
        "text.precomputed": f"('{folder}/texts.npz',)",
    }


@pytest.fixture
def files_mode(folder, tmp_path):
    """Makes the mode with those files."""
    path = spec(folder, TWO, name="files.json")
    settings = {
        "sampling.specs": f"('{path}',)", "sampling.height": 16, "sampling.width": 32,
        "sampling.latent_frames": 2, "sampling.files": "('views',)", "overrides.num_steps": 2,
    } | write_files(tmp_path)  # fmt: skip

    def mode(**changes):
        config = load_config(f"{ROOT}/configs/cosmos_multiview.py")
        fields = settings | {name.replace("__", "."): value for name, value in changes.items()}
        override(config, [f"{name}={value}" for name, value in fields.items()])
        return CosmosMode(config)

    return mode


@pytest.mark.slow
def test_upstreams_files_make_a_video(files_mode):
    mode = files_mode()
    (request,) = mode.requests()
    generator = generate.load(mode.settings, [request], jax.devices()[:1])
    frames = together(generator.generate([request]))["rear"]
    assert frames.shape == (3, 16, 32, 3) and frames.std() > 5


def test_upstreams_files_are_described_and_told_apart(files_mode, tmp_path):
    good = files_mode()
    assert good.settings.network.depth == 2 and good.settings.vae.width == 4
    assert len(good.provenance().checkpoint) == 64
    for changes, message in (
        ({"models__transformer": tmp_path / "tokenizer.pth"}, "models.transformer=.*not a Cosmos"),
        ({"models__vae": tmp_path / "model.pt"}, "models.vae=.*model.pt: "),
        ({"text__precomputed": "()"}, "text.encoder and text.precomputed are empty"),
        ({"models__settings": tmp_path / "no.json"}, "is no JSON file"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            files_mode(**changes)
        assert "\n" not in str(error.value)
