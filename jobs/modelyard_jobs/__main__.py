"""`python -m modelyard_jobs STEP --order FILE --yard FOLDER`."""

import signal
import sys

asked: list[int] = []
signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))  # before anything takes time: who is asked to stop while it loads stops too
signal.signal(signal.SIGINT, signal.SIG_IGN)

from modelyard_jobs.entry import main  # noqa: E402

sys.exit(main(sys.argv[1:], asked))
