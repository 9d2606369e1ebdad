"""Puts a step that does what MISBEHAVE says in place of `infer`, in the processes of a test alone."""

from __future__ import annotations

import os
import sys
import types

MISBEHAVE = os.environ.get("MISBEHAVE", "")


def run(context):
    import ctypes
    import signal
    import time

    from modelyard import errors
    from modelyard_jobs.context import Produced

    what, _, argument = MISBEHAVE.partition(":")
    context.log.info("working", what=what)
    if what == "raise":
        raise errors.REGISTRY[argument]("it failed", where="here", why="because", remedy="mend it")
    if what == "bug":
        raise ValueError("an error of ours")
    if what == "signal":
        os.kill(os.getpid(), int(argument))
    if what == "segfault":
        ctypes.string_at(0)
    if what == "exit":
        os._exit(int(argument))
    if what == "memory":
        hog = []
        while True:
            hog.append(bytearray(b"x" * (8 << 20)))
            time.sleep(0.01)
    if what == "import":
        import a_package_that_is_not_there  # noqa: F401
    if what == "full":
        raise OSError(28, "No space left on device", "/somewhere")
    if what == "talk":
        print("to stdout")  # noqa: T201
        print("to stderr", file=sys.stderr)  # noqa: T201
        sys.stderr.write("x" * 200_000 + "\n")
        os.write(1, b"no newline")
        for number in range(500):
            context.log.info("line", number=number)
    if what == "sleep":
        while True:
            time.sleep(0.05)
    if what == "polled":
        with context.stop.polled():
            context.checkpoints.save("step-1", lambda folder: (folder / "state").write_bytes(b"1") and None)
            context.log.info("polled")
            while not context.stop.requested:
                time.sleep(0.05)
            raise errors.Yielded("kept it")
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        context.log.info("deaf")
        while True:
            time.sleep(0.05)
    if what == "slow":
        time.sleep(float(argument))
    if what == "late":
        with context.stop.polled():
            context.log.info("late")
            while not context.stop.requested:
                time.sleep(0.05)
            (context.out / "late").write_text("finished all the same")
            context.stop.requested = False
            return Produced("dataset")
    if what == "nothing-there" and context.device == "cuda":
        raise errors.NoAccelerator("torch sees none", remedy="mend it")
    for done in range(4):
        context.progress(done + 1, 4, "rows")
    context.decide("choice", 3, "three is best")
    context.detail("speed", 12.5)
    (context.out / "made").write_text(f"{context.device}")
    return Produced("dataset")


if MISBEHAVE:
    fake = types.ModuleType("modelyard_jobs.infer")
    fake.run = run
    sys.modules["modelyard_jobs.infer"] = fake
