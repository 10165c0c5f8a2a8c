"""Turns scene annotations into one control video per camera.

python scripts/render_scenario.py --input=data/scenes/crossing --output=outputs/crossing
python scripts/render_scenario.py --input=DIR --check
"""

import sys

from jaxvid.core.program import main
from jaxvid.scenario import command

if __name__ == "__main__":
    sys.exit(main(command.main))
