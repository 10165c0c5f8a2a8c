"""Evaluates samples: PSNR, SSIM, LPIPS, FVD, ELBO; see configs/evaluate.py.

python scripts/evaluate.py --eval_dir=FOLDER --modes psnr ssim --obs_length=36
python scripts/evaluate.py --compare A.json B.json
"""

import functools
import sys

from jaxvid.core.config import load_config
from jaxvid.core.distributed import keep_compilations
from jaxvid.core.program import main
from jaxvid.fdm.elbo import evaluate_elbo
from jaxvid.fdm.setup import sampling_settings
from jaxvid.metrics import command


def compute_elbo(config_file: str) -> None:
    """Writes the missing ELBO files of a sampling config."""
    keep_compilations()
    evaluate_elbo(sampling_settings(load_config(config_file)))


if __name__ == "__main__":
    sys.exit(main(functools.partial(command.main, compute_elbo=compute_elbo)))
