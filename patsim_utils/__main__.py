"""`python -m patsim_utils` does what `patsim` does."""

import sys

from patsim_utils.tool.cli import main

sys.exit(main())
