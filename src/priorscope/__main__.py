"""`python -m priorscope`."""

import sys

from .cli import main

sys.exit(main())
