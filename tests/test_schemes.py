"""Sampling schemes beyond the goldens: checks, own ones, refinement, optimal frames, pictures."""

import json

import numpy as np
import pytest

from jaxvid.fdm import frames, marking, naming, optimal, scheme, timesteps, visualise
from jaxvid.fdm.scheme import SCHEMES, Scheme, register
from jaxvid.fdm.schemes import is_adaptive, make_scheme, validate
from jaxvid.metrics import carla

SETTINGS = {"T": 30, "n_obs": 10, "max_frames": 8, "step_size": 4}


@pytest.fixture
def registered():
    """Forgets the schemes that a test registers."""
    saved = dict(SCHEMES)
    yield
    SCHEMES.clear()
    SCHEMES.update(saved)


def strided(T, n_obs, max_frames, step_size):
    for first in range(n_obs, T, step_size):
        yield [0, first - 1], list(range(first, min(first + step_size, T)))


class EveryOther(Scheme):
    """As FDM's README describes an own scheme."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = 0

    def next_indices(self):
        missing = [i for i in range(self._video_length) if i not in self._done_frames]
        self.calls += 1
        return sorted(self._done_frames)[-2:], missing[::2][: self._max_T - 2]


@pytest.mark.parametrize("own", [strided, EveryOther])
def test_own_scheme(own, registered):
    register("own")(own)
    steps = validate("own", **SETTINGS)
    assert {i for step in steps for i in step.latent} == set(range(10, 30))
    assert all(step.frames <= 8 for step in steps)


def test_own_scheme_may_revisit_frames(registered):
    @register("gibbs")
    class Gibbs(Scheme):
        sweeps = 3

        def is_done(self):
            return self._current_step == self.sweeps * 5

        def next_indices(self):
            first = self._num_obs + 4 * (self._current_step % 5)
            return [0, first - 1], list(range(first, first + 4))

    assert [s.latent[0] for s in validate("gibbs", **SETTINGS)] == [10, 14, 18, 22, 26] * 3


@pytest.mark.parametrize(
    "steps, complaint",
    [
        ([([20], [10])], r"observes frames \[20\] before they exist"),
        ([([0], [30])], r"generates frames \[30\] of a video of 30"),
        ([([0], [10, 10])], "generates a frame twice"),
        ([([0], [])], "generates no frame"),
        ([([0], list(range(10, 18)))], "needs 9 frames in one call, more than max_frames=8"),
        ([([0], [10])], "never generates frames"),
    ],
)
def test_own_scheme_mistakes(steps, complaint, registered):
    register("own")(lambda T, n_obs, max_frames, step_size: iter(steps))
    with pytest.raises(ValueError, match=complaint):
        validate("own", **SETTINGS)


def test_endless_scheme_is_stopped(registered):
    def endless(T, n_obs, max_frames, step_size):
        while True:
            yield [0], [10]

    register("own")(endless)
    with pytest.raises(ValueError, match="no end after 400 steps"):
        validate("own", **SETTINGS)


@pytest.mark.parametrize(
    "name, changes, complaint",
    [
        ("autoregg", {}, "did you mean 'autoreg'"),
        ("nonsense-xyz", {}, "use one of"),
        ("autoreg", {"n_obs": 30}, "n_obs=30 leaves none of T=30 .* at most 29"),
        ("autoreg", {"n_obs": -1}, "n_obs=-1 must be at least 0"),
        ("autoreg", {"step_size": 8}, "room for 0 observed frames .* at most 7"),
        ("long-range", {"step_size": 7}, "room for 1 observed .* at most 6"),
        ("hierarchy-2", {"step_size": 1}, "use at least 2"),
        ("adaptive-hierarchy-2", {"step_size": 1}, "use at least 2"),
        ("hierarchy-4", {"T": 24, "n_obs": 0, "step_size": 7}, "out of room; max_frames=9 works"),
        ("like-google", {"max_frames": 5}, "generates no frame"),
        ("google", {"max_frames": 20}, "before they exist.*n_obs of about 36"),
        ("ho-et-al-for-vis", {"max_frames": 20}, "made for T=64"),
        ("exp-past", {"T": 300, "step_size": 7}, "more than max_frames=8"),
        ("goal-directed-hierarchy-2", {}, "max_frames"),
        ("goal-directed-autoreg", {"n_obs": 26}, "leaves none to generate"),
    ],
)
def test_settings_that_cannot_work(name, changes, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        make_scheme(name, **(SETTINGS | changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_every_scheme_completes_a_video(name):
    settings = {"T": 300, "n_obs": 36, "max_frames": 20, "step_size": 10}
    settings |= {"T": 64, "n_obs": 1} if name.startswith("ho-") else {}
    settings |= {"T": 30, "n_obs": 10} if name.startswith("baby") else {}
    steps = validate(name, **settings)
    given = SCHEMES[name](settings["T"], settings["n_obs"], 20, 10).observed_frames
    assert given | {i for s in steps for i in s.latent} == set(range(settings["T"]))


def test_exponential_past_ends_at_the_end():
    assert validate("exp-past", 31, 10, 8, 4)[-1].latent == [30]


def test_goal_frames_are_given():
    goal = make_scheme("goal-directed-autoreg", 30, 4, 12, 4)
    next(goal)
    assert goal.observed_frames == {0, 1, 2, 3, 25, 26, 27, 28, 29}


def test_goal_hierarchy_shrinks_its_step_where_upstream_fails():
    settings = ("goal-directed-hierarchy-2", 60, 10, 20, 12)
    with pytest.raises(ValueError, match="not in list"):
        list(make_scheme(*settings, upstream=True))
    latent = [i for step in make_scheme(*settings) for i in step.latent]
    assert sorted(latent) == list(range(10, 55))


def test_adaptive_scheme_does_not_hang_without_a_second_frame():
    settings = ("adaptive-hierarchy-2", 40, 1, 12, 5)
    embed = np.random.default_rng(0).normal(size=(2, 40, 3))
    with pytest.raises(scheme.NoTermination):
        list(make_scheme(*settings, embed=embed, upstream=True))
    steps = list(make_scheme(*settings, embed=embed))
    assert sorted(i for s in steps for i in s.latent) == list(range(1, 40))


def test_adaptive_scheme_embeds_each_frame_once():
    seen = []

    def embed(indices):
        seen.extend(indices)
        return np.random.default_rng(len(seen)).normal(size=(2, len(indices), 3))

    with pytest.raises(ValueError, match="needs `embed`"):
        make_scheme("adaptive-autoreg", **SETTINGS)
    steps = list(make_scheme("adaptive-autoreg", **SETTINGS, embed=embed))
    assert sorted(seen) == list(range(26)) and len(steps[0].rows(2)) == 2
    assert is_adaptive("adaptive-autoreg+refine") and not is_adaptive("autoreg")


BASES = ("autoreg", "hierarchy-2", "adaptive-autoreg", "goal-directed-mixed")


@pytest.mark.parametrize("base", BASES)
def test_refinement_visits_every_frame_again(base):
    plain = validate(base, **SETTINGS)
    steps = validate(base + "+refine-2", **SETTINGS)
    assert steps[: len(plain)] == plain
    again = [i for step in steps[len(plain) :] for i in step.latent]
    end = 29 if base.startswith("goal") else 30
    assert again == [*range(10, end)] * 2
    first = steps[len(plain)]
    assert first.latent == [10, 11, 12, 13] and first.observed == [8, 9, 14, 15]


def test_refinement_ends_with_its_sweeps():
    refined = make_scheme("autoreg+refine", **SETTINGS)
    assert len(list(refined)) == 10 and next(refined, None) is None


def error_by_distance(step, observed, latent, videos, times):
    """Frames near the latent ones are worth most."""
    miss = sum(min(abs(i - j) for j in observed) for i in latent)
    return np.full(len(videos), miss) + times * 0.0


SEARCH = {"videos": 50, "num_timesteps": 20, "grid": 2, "subset_size": 4}


def test_optimal_search_is_greedy():
    chosen = optimal.choose_frames(0, [5, 8], set(range(5)) | {9}, 5, error_by_distance, **SEARCH)
    assert chosen == [0, 4, 9]


def test_optimal_search_goes_on_after_a_kill(tmp_path):
    steps, path = validate("autoreg", **SETTINGS), tmp_path / "optimal_schedule.json"
    calls = []

    def counted(*args):
        calls.append(args[:2])
        return error_by_distance(*args)

    def killed(*args):
        if len(calls) == 30:
            raise KeyboardInterrupt
        return counted(*args)

    with pytest.raises(KeyboardInterrupt):
        optimal.optimal_observations(steps, range(10), 8, killed, path, **SEARCH)
    before = len(calls)
    schedule = optimal.optimal_observations(steps, range(10), 8, counted, path, **SEARCH)
    resumed, calls[:] = len(calls) - before, []
    fresh = optimal.optimal_observations(
        steps, range(10), 8, counted, tmp_path / "fresh" / "a.json", **SEARCH
    )
    assert schedule == fresh == optimal.load_schedule(path)
    assert resumed < len(calls) <= before + resumed


def test_optimal_search_by_array_tasks(tmp_path):
    steps, path = validate("autoreg", **SETTINGS), tmp_path / "optimal_schedule.json"
    kind = {"kind": "linspace-t-force-nearby"}
    for number in range(len(steps)):
        assert not path.exists()
        schedule = optimal.optimal_observations(
            steps, range(10), 8, error_by_distance, path, only=[number], **SEARCH, **kind
        )
    assert optimal.load_schedule(path) == schedule
    optimal_steps = validate("autoreg", **SETTINGS, optimal=schedule)
    assert [s.observed for s in optimal_steps] == list(schedule.values())
    assert [s.latent for s in optimal_steps] == [s.latent for s in steps]


def test_optimal_schedule_of_upstream(tmp_path):
    path = tmp_path / "optimal_schedule.pt"
    optimal.save_schedule(path, {0: [1, 2], 1: [3]})
    assert optimal.load_schedule(path) == {0: [1, 2], 1: [3]}


def test_optimal_mistakes(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="not an optimal schedule"):
        optimal.load_schedule(tmp_path / "a.json")
    with pytest.raises(ValueError, match="there is no optimal schedule"):
        optimal.load_schedule(tmp_path / "b.pt")
    with pytest.raises(ValueError, match="has no step 1"):
        validate("autoreg", **SETTINGS, optimal={0: [9]})
    with pytest.raises(ValueError, match="before they exist"):
        validate("autoreg", **SETTINGS, optimal={0: [20]})
    with pytest.raises(ValueError, match="chooses its own frames"):
        validate("adaptive-autoreg", **SETTINGS, optimal={0: [9]})
    with pytest.raises(ValueError, match="'random-t'"):
        optimal.choose_frames(0, [5], {1}, 5, error_by_distance, **SEARCH, kind="random-t")
    with pytest.raises(ValueError, match="not a multiple"):
        optimal.choose_frames(0, [5], {1}, 5, error_by_distance, **(SEARCH | {"subset_size": 3}))


DISTRIBUTIONS = (
    "differently-spaced-groups", "consecutive-groups", "one-group", "uniform", "autoregressive-3",
    "linspace-0-36-10", "linspace-no-obs-0-36-10",
)  # fmt: skip


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("random_padding", [True, False])
def test_training_frames(distribution, random_padding):
    options = {"distribution": distribution, "random_padding": random_padding, "marginal": True}
    sets = frames.sample_frames(0, 5, range(64), 40, 10, **options)
    again = frames.sample_frames(0, 5, range(32, 64), 40, 10, **options)
    length = sets.frame_indices.shape[1]
    assert length <= 10 and (length == 10 or not random_padding)
    np.testing.assert_array_equal(sets.frame_indices[32:, :1], again.frame_indices[:, :1])
    roles = sets.obs_mask + sets.latent_mask + sets.kinda_mask
    assert set(np.unique(roles)) <= {0.0, 1.0} and sets.latent_mask.any(1).all()
    assert not (roles[sets.other]).any() and sets.other.any() <= random_padding
    assert sets.kinda_mask.any() == ("groups" in distribution)


def test_training_frames_of_a_whole_clip():
    sets = frames.sample_frames(
        0, 0, range(64), 10, 10, distribution="differently-spaced-groups-no-marg"
    )
    np.testing.assert_array_equal(sets.obs_mask + sets.latent_mask, 1)
    np.testing.assert_array_equal(sets.frame_indices, np.tile(np.arange(10), (64, 1)))


MISTAKES = (
    "uniform-3", "linspace-0-36", "groups", "autoregressive-x", "autoregressive-10",
    "linspace-0-40-10", "differently-spaced-groups-no-marg",
)  # fmt: skip


@pytest.mark.parametrize("distribution", MISTAKES)
def test_unknown_distribution(distribution):
    with pytest.raises(ValueError):
        frames.sample_frames(0, 0, [0], 40, 10, distribution=distribution)


def test_training_frames_need_long_clips():
    with pytest.raises(ValueError, match="max_frames=41 exceeds the T=40"):
        frames.sample_frames(0, 0, [0], 40, 41)


def test_timestep_sampling_is_unbiased():
    weights = np.array([1.0, 2.0, 5.0])
    times, factors = timesteps.sample_timesteps(np.random.default_rng(0), weights, 30_000)
    for t in range(3):  # every timestep keeps its share of the loss
        assert factors[times == t].sum() / 30_000 == pytest.approx(1 / 3, rel=0.03)


def test_names():
    with pytest.raises(ValueError, match="training step"):
        naming.results_folder("checkpoints/a/ema_0.9999_latest.pt")
    with pytest.raises(ValueError, match="resolved"):
        naming.run_name("autoreg", 10, 7, None, 36)
    folder = naming.results_folder("checkpoints/run/ema_0.9999")
    assert str(folder) == "results/run/ema_0.9999"
    assert naming.sample_name(12, 3) == "sample_0012-3.npy"
    picture = naming.picture_name("autoreg", 8, 4, 30, 0)
    assert picture == "sample_vis_autoreg_uncond_T=30_sampling_4_out_of_8.png"
    picture = naming.picture_name("long-range", 8, 4, 30, 10, index=1, refactored=True)
    assert picture == "vis_long-range_sampling-30-given-10_4-8-chunks_index-1.png"


def test_pictures():
    steps = validate("autoreg", **SETTINGS)
    picture = visualise.schedule_picture(steps, 30, range(10))
    assert picture.shape == (5 * 5 + 1, 30 * 5 + 1, 3)
    cells = picture[3::5, 3::5]
    assert cells[0, 0].tolist() == [50, 50, 50] and cells[0, 9].tolist() == [50, 50, 255]
    assert cells[0, 10].tolist() == [255, 69, 0] and cells[0, 14].tolist() == [255] * 3
    assert not picture[::5].any() and not picture[:, ::5].any()
    small = visualise.schedule_picture(steps, 30, range(10), small=True)
    assert small.shape == (11, 30, 3) and not small[::2].any()
    assert small[1, [0, 9, 10, 14]].tolist() == [[50, 0, 0], [255, 0, 0], [50, 0, 255], [0, 0, 0]]


def test_pixels_round():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(marking.quantise(marking.normalise(pixels)), pixels)
    assert marking.quantise([-1.2, 1.2]).tolist() == [0, 255]


def test_carla_heads():
    heads = np.arange(12.0).reshape(2, 3, 2)
    logits = np.array([[0, 1, 0], [3, 1, 0]])
    assert carla.coordinates(logits, heads).tolist() == [[2, 3], [6, 7]]
