"""Figures published for FDM, to stand beside ours.

100 test videos, 36 observed frames, 20 frames per call, 10 new ones per step, 1000 ancestral
steps, EMA 0.9999 (notebooks/rebuttal_plots.ipynb of wsgharvey/video-diffusion). Errors are
std / sqrt(n - 1) over 5 samples; CARLA has 1 sample.
"""

DATASETS = ("mazes_cwvae", "minerl", "carla_no_traffic")

# scheme: (mean, error or None) for each of DATASETS.
FVD = {
    "autoreg": ((86.4, 2.6), (280.9, 10.2), (221.8, None)),
    "long-range": ((64.5, 1.9), (267.0, 4.0), (212.7, None)),
    "hierarchy-2": ((53.1, 1.1), (274.9, 7.7), (119.6, None)),
    "hierarchy-3": ((53.7, 1.9), (311.4, 6.8), (148.8, None)),
    "adaptive-hierarchy-2": ((55.0, 1.4), (315.8, 8.9), (116.9, None)),
    "like-google": ((54.3, None), (252.3, None), (143.8, None)),
    "VDM baseline": ((66.7, 1.5), (271.2, 8.8), (169.3, None)),
    "CWVAE baseline": ((836.7, None), (1572.7, None), (1161.3, None)),
}
# The public CARLA checkpoint, from the README of plai-group/flexible-video-diffusion-modeling.
FVD_RELEASE = {"hierarchy-2": 124.0, "autoreg": 246.0}

# "best" of the summary: best of 5 samples (CARLA 1), SSIM with data range 2.
FRAMES = {
    "lpips": {"hierarchy-2": (0.27, 0.28, 0.29), "autoreg": (0.30, 0.29, 0.28)},
    "ssim": {"hierarchy-2": (0.61, 0.54, 0.73), "autoreg": (0.60, 0.53, 0.74)},
    "psnr": {"hierarchy-2": (16.38, 18.96, 17.24), "autoreg": (15.49, 18.94, 17.54)},
}
PROTOCOL = "100 test videos, 36 observed, best of 5 samples (CARLA 1), SSIM range 2, LPIPS AlexNet"


def figures(metric: str, dataset: str) -> dict[str, dict[str, float | None]]:
    """Published values of a metric on a dataset: {scheme: {mean, error}}; empty if none."""
    if dataset not in DATASETS:
        return {}
    column = DATASETS.index(dataset)
    if metric == "fvd":
        rows = {name: row[column] for name, row in FVD.items()}
        if dataset == "carla_no_traffic":
            rows |= {f"{name} (public checkpoint)": (v, None) for name, v in FVD_RELEASE.items()}
    else:
        rows = {name: (row[column], None) for name, row in FRAMES.get(metric, {}).items()}
    return {name: {"mean": mean, "error": error} for name, (mean, error) in rows.items()}
