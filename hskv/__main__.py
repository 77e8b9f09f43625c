"""`python -m hskv`, the command `hskv`."""

import sys

from .cli.main import main

sys.exit(main())
