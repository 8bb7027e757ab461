"""`python -m tfdistill`."""

import sys

from tfdistill.cli import main

sys.exit(main())
