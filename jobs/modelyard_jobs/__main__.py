"""`python -m modelyard_jobs STEP --order FILE --yard FOLDER`."""

import sys

from modelyard_jobs.frame import main

sys.exit(main(sys.argv[1:]))
