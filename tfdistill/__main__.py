"""`python -m tfdistill`."""

import sys

from tfdistill.cli.main import main

sys.exit(main())
