"""`python -m modelyard`: the command line, where the script is not on PATH."""

from __future__ import annotations

import sys

from modelyard.cli import main

if __name__ == "__main__":
    sys.exit(main())
