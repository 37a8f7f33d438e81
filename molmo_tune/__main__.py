"""`python -m molmo_tune` runs the command `molmo-tune`."""

import sys

from molmo_tune.cli import main

sys.exit(main())
