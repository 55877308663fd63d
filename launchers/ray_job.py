"""Submit a command of this checkout to a running Ray cluster, from any folder: `lrm-safety submit` with its folder.

python launchers/ray_job.py --address http://HEAD:8265 train experiment=... schedule.max_updates=200
"""

import sys
from pathlib import Path

from lrm_safety.cli import main

if __name__ == "__main__":
    sys.exit(main(["submit", "--working-dir", str(Path(__file__).resolve().parents[1]), *sys.argv[1:]]))
