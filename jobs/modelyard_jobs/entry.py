"""The frame's way in and out: from the command line to an attempt that is counted, and from its outcome to an exit code.

What goes wrong before there is an attempt (an order that cannot be read, a yard that cannot be opened) has its class too, and is told in the
termination message. A signal to stop is heeded from the first moment on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from modelyard.errors import Bug, Failure, NoInput, Usage, Yielded
from modelyard.order import Order, Outcome, termination_message
from modelyard.refs import is_step_name
from modelyard.yard import Yard
from modelyard.yard.runs import Attempt
from modelyard_jobs.child import die_with_parent
from modelyard_jobs.context import Stop
from modelyard_jobs.frame import Frame, redacted
from modelyard_jobs.journal import Journal


def main(argv: list[str], asked: Sequence[int] = ()) -> int:
    """Run one attempt; the exit code is its class. asked: signals to stop that came before there was anybody to heed them."""
    stop = Stop(polled=True)
    stop.install()
    stop.requested = stop.requested or bool(asked)
    os.umask(0o002)  # a yard is shared by a group
    key = ""
    try:
        order, root = _told(argv)
        key = order.key
        yard = Yard.open(root)
        stop.check()
        order, attempt = _attempt(yard, order)
    except Exception as error:  # noqa: BLE001  # there is no attempt to write it to
        failure = error if isinstance(error, Failure) else Bug(f"{type(error).__name__}: {error}", why=traceback.format_exc(limit=-3))
        if stop.requested and not isinstance(failure, Yielded):
            failure = Yielded("asked to stop", why=str(failure), remedy="the same command starts over")
        outcome = redacted(Outcome.of(failure, 0.0, key))
        sys.stderr.write(f"{outcome.failure()}\n")
        return _end(outcome)
    return _end(Frame(order, yard, attempt, Journal(_to_stdout, attempt.add_log), stop).run())


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(message, where="the command line of a step", remedy="see --help")


def _told(argv: list[str]) -> tuple[Order, Path]:
    """The order, and the yard's folder. Raises Usage."""
    parser = _Parser(prog="modelyard_jobs", description="Run one attempt at one step, as a driver ordered it.")
    parser.add_argument("step", help="the verb")
    parser.add_argument("--order", type=Path, required=True, help="the order, a JSON file")
    parser.add_argument("--yard", type=Path, required=True, help="the yard's folder")
    parser.add_argument("--parent", type=int, help="process id of the driver; the attempt ends when that does")
    arguments = parser.parse_args(argv)
    if arguments.parent:
        die_with_parent(arguments.parent, signal.SIGTERM)
    try:
        order = Order.model_validate_json(arguments.order.read_bytes(), strict=False)
        step = order.step_settings()
    except (OSError, ValueError, KeyError) as error:
        raise Usage("the order cannot be read", where=str(arguments.order), why=str(error), remedy="have it made by this version") from error
    if order.verb != arguments.step or not is_step_name(order.step) or not {step.inputs.get(field) for field in order.refs} <= {"model", "dataset"}:
        why = f"it is for the verb {order.verb!r} of step {order.step!r}, with refs for {', '.join(order.refs) or 'nothing'}"
        raise Usage(f"this is no order for {arguments.step!r}", where=str(arguments.order), why=why, remedy="have it made by this version")
    return order, arguments.yard


def _attempt(yard: Yard, order: Order) -> tuple[Order, Attempt]:
    """The attempt that the order is for; the next one where nobody has counted it yet, in a run that is written down where nobody has."""
    if order.pipeline is not None:
        run = yard.runs.undriven(order.run, {"pipeline": order.pipeline, "settings": {"hubs": order.hubs}})
    else:
        run = yard.runs.get(order.run)
        if run.id != order.run:
            raise NoInput(f"there is no run {order.run!r}", where=str(yard.root), remedy="run the pipeline again")
    if order.attempt is not None:
        return order, run.attempt(order.step, order.attempt)
    attempt = run.new_attempt(order.step)
    counted = order.model_copy(update={"attempt": attempt.number})
    attempt.write_order(counted)
    return counted, attempt


def _end(outcome: Outcome) -> int:
    terminal = Path(os.environ.get("MODELYARD_TERMINATION_LOG", "/dev/termination-log"))
    with suppress(OSError):  # the exit code says it too
        if terminal.exists():
            terminal.write_bytes(termination_message(outcome))
    return outcome.exit_code


def _to_stdout(line: bytes) -> None:
    with suppress(OSError):  # nobody reads it any more, or where it goes to is full; the yard's copy goes on
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
