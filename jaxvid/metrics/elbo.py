"""ELBO files of an evaluation folder, in bits per dimension.

Upstream's `video_nll.py` writes `elbos/elbo_<video><postfix>.pkl` for each video: a dict of
arrays over prediction steps with total_bpd, prior_bpd, vb, xstart_mse and mse, each summed over
the step's frames.
"""

import re
from pathlib import Path

import numpy as np

import jaxvid
from jaxvid.metrics import report
from jaxvid.metrics.results import read_pickle, write_json
from jaxvid.metrics.summary import mean_and_error


def read_elbos(eval_dir: str | Path, postfix: str = "") -> dict[int, dict[str, np.ndarray]]:
    """The ELBO terms of every video of a folder, by index ascending; {} without files.

    postfix: "", "_ddim", "_respace<string>" or both, as the sampling settings name it.
    """
    name = re.compile(rf"elbo_(\d+){re.escape(postfix)}\.pkl")
    folder = Path(eval_dir).expanduser() / "elbos"
    found = {int(m[1]): path for path in folder.glob("*.pkl") if (m := name.fullmatch(path.name))}
    return {video: read_pickle(found[video]) for video in sorted(found)}


def bits_per_dimension(terms: dict[str, np.ndarray], predicted: int) -> float:
    """Total bits per dimension of a video: the steps' sum over the number of predicted frames."""
    if "total_bpd" not in terms:
        raise ValueError(f"an ELBO file holds {sorted(terms)}, but no total_bpd")
    return float(np.sum(terms["total_bpd"]) / predicted)


def report_elbo(
    eval_dir: str | Path, dataset: str, frames: int, observed: int, postfix: str = ""
) -> Path:
    """Writes `elbo<postfix>_<videos>-<frames>.json` with its protocol and prints the mean.

    Raises:
      ValueError: no frame is predicted, or there are no ELBO files.
    """
    folder = Path(eval_dir).expanduser()
    if observed >= frames:
        raise ValueError(f"obs_length={observed} leaves none of the {frames} frames to predict")
    elbos = read_elbos(folder, postfix)
    if not elbos:
        raise ValueError(
            f"{folder}/elbos holds no elbo_<video>{postfix}.pkl: compute them with "
            "--modes elbo --config.elbo.sampling=CONFIG"
        )
    bits = {video: bits_per_dimension(terms, frames - observed) for video, terms in elbos.items()}
    summary = mean_and_error(list(bits.values()))
    protocol = {
        "dataset": dataset,
        "videos": list(elbos),
        "frames": frames,
        "first_frame": observed,
        "sampling": postfix or "all timesteps",
        "unit": "bits per dimension: sum of total_bpd over steps / predicted frames",
    }
    path = folder / f"elbo{postfix}_{len(elbos)}-{frames}.json"
    content = {"protocol": {"elbo": protocol}, "summary": {"elbo": summary}, "videos": bits}
    write_json(path, {"code": f"jaxvid {jaxvid.__version__}"} | content)
    print(report.table({"elbo": summary}, dataset, {"elbo": protocol}))
    return path
