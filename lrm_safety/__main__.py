"""`python -m lrm_safety` is `lrm-safety`."""

import sys

from .cli import main

sys.exit(main())
