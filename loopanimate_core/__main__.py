"""`python -m loopanimate_core` is the command `loopanimate`."""

import sys

from .cli import main

sys.exit(main())
