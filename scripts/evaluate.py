"""Evaluates samples: PSNR, SSIM, LPIPS, FVD, ELBO; see configs/evaluate.py.

python scripts/evaluate.py --eval_dir=FOLDER --modes psnr ssim --obs_length=36
python scripts/evaluate.py --compare A.json B.json
"""

import sys

from jaxvid.metrics.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
