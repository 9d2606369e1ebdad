"""`python -m modelyard.run YARD RUN`: the driver of a run in the background."""

import sys

from modelyard.run.start import main

sys.exit(main(*sys.argv[1:]))
