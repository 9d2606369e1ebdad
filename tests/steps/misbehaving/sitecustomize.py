"""Puts a step that does what MISBEHAVE says in place of `infer`, in the processes of a test alone."""

from __future__ import annotations

import os
import sys
import types

MISBEHAVE = os.environ.get("MISBEHAVE", "")


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class Early:
    """Does something to the process while it loads the first of our modules."""

    def __init__(self, number):
        self.number = number

    def find_spec(self, name, *_):
        if name == "modelyard.errors":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), self.number)


class Fault:
    """Lets the process fail by itself, which its own signals do not do to the first process of a container."""

    def find_spec(self, name, *_):
        if name == "modelyard_jobs.entry":
            import ctypes

            ctypes.string_at(0)


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
    if what == "resume" and not context.checkpoints.furthest():
        with context.stop.polled():
            context.checkpoints.save("step-1", lambda folder: (folder / "state").write_bytes(b"1") and None)
            context.log.info("polled")
            while not context.stop.requested:
                time.sleep(0.05)
            raise errors.Yielded("kept it")
    if what == "full-memory":  # as a group that the kernel ends as a whole: it is killed from outside when it says so
        from modelyard_jobs.cgroup import Cgroup

        group, hog = Cgroup.current(), []
        while group.memory_used() < 0.97 * group.memory_limit():
            hog.append(bytearray(b"x" * (1 << 19)))
        time.sleep(0.5)
        context.log.info("full")
        time.sleep(1000)
    if what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        context.log.info("deaf")
        while True:
            time.sleep(0.05)
    if what == "orphans":
        for _ in range(5):
            if not (middle := os.fork()):
                os.fork()
                os._exit(0)  # the child of the one whose parent is gone, and that parent
            os.waitpid(middle, 0)
        left = 5
        for _ in range(200):
            states = [
                text.rpartition(")")[2].split()[:2] for entry in os.listdir("/proc") if entry.isdigit() and (text := read(f"/proc/{entry}/stat"))
            ]
            left = states.count(["Z", "1"])
            if not left:
                break
            time.sleep(0.05)
        context.log.info("orphans", made=5, left=left)
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


if MISBEHAVE == "early":
    sys.meta_path.insert(0, Early(15))
if MISBEHAVE == "fault":
    sys.meta_path.insert(0, Fault())
if MISBEHAVE:
    fake = types.ModuleType("modelyard_jobs.infer")
    fake.run = run
    sys.modules["modelyard_jobs.infer"] = fake
