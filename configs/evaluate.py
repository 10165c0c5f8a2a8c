"""Metrics of an evaluation folder (samples/sample_0003-0.npy, ... and model_config.json).

python scripts/evaluate.py --config=configs/evaluate.py --eval_dir=FOLDER --modes psnr ssim
"""

from ml_collections import ConfigDict

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> ConfigDict:
    """`tiny` judges what configs/fdm_demo.py:tiny makes, without weights to download."""
    config = ConfigDict()
    config.mode = "evaluate"
    config.metrics = dict(
        eval_dir="",  # required; --eval_dir
        dataset="",  # name of the ground truth; "" = the one in model_config.json
        partition="test",
        modes=("all",),  # psnr, ssim, lpips, fvd (all four: all); rooms; elbo
        obs_length=36,  # observed frames, left out by all metrics but fvd
        T=None,  # frames to evaluate; None = all of the samples
        num_samples=None,  # samples per video; None = as many as the first video has
        batch_size=None,  # videos per call of I3D; None = 16 mazes, 8 minerl, 4 others, 1 on CPUs
        pixels="paper",  # rounding before fvd: paper, refactored (both truncate) or exact
        ssim_data_range=2.0,  # as published; 1.0 is the conventional choice
        lpips_net="alex",  # as published; or vgg
        lpips_weights="",  # folder of converted weights; "" = checkpoints/lpips_<net>
        i3d_weights="checkpoints/i3d",
        fvd_window=512,  # frames per call of I3D; fewer need less memory, with the same result
        elbo_postfix="",  # which ELBO files: _ddim, _respace<string>
        plots=True,  # metric over frame index (needs matplotlib)
    )
    # Where the ground truth is, see jaxvid/data/sources.py; size and frames: of the samples.
    config.data = dict(
        root="", prepared="", frames=None, size=None, resize="", seed=0, test_videos=None
    )
    # Mode elbo: sampling config whose missing ELBO files to compute; "" = only report those there.
    config.elbo = dict(sampling="")
    if variant == "tiny":
        config.metrics.update(
            eval_dir="outputs/tiny", dataset="videos", modes=("psnr", "ssim"), obs_length=4
        )
        config.data.update(root="data/clips", resize="center_crop")
    elif variant:
        raise ValueError(f"configs/evaluate.py has no variant {variant!r}; known: {VARIANTS}")
    return config
