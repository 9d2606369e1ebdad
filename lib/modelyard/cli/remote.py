"""Commands over a yard that lies on a cluster: the same command line, run in a reader pod there. Nothing of what a command does is written twice."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from modelyard.cli.session import WORDS, Session
from modelyard.errors import Interrupted, NoInput, NoPermission, Usage
from modelyard.quantities import format_bytes
from modelyard.run.handlers import handling

if TYPE_CHECKING:
    from modelyard.kube.cluster import Cluster
    from modelyard.kube.reader import Reader
    from modelyard.run.settings import Settings
    from modelyard.spec import Pipeline

_WHERE = frozenset({"yard", "on", "namespace", "context"})
"""Settings that have done their part when a command runs in the pod."""
PATIENCE = 10.0
"""Seconds for a request of a person's, who wants to hear soon that there is no cluster. Who follows a run waits far longer between them."""
_EVERY = 5.0
"""Seconds between two lines of progress."""


def delegate(session: Session, *, write: bool) -> None:
    """Run this very command in a reader pod, its result on our stdout."""
    with reader(session, write=write) as pod:
        pod.run(words(click.get_current_context()), stdout())


@contextmanager
def reader(session: Session, *, write: bool = False) -> Iterator[Reader]:
    """A reader pod over the claim that is the yard in force. Ends with us, also when we are told to end."""
    from modelyard.kube import reader as pods
    from modelyard.kube.claims import placed
    from modelyard.run.settings import place_of

    connected = cluster(session)
    with named(connected):
        place = placed(connected, place_of(session.config, connected.namespace))
    with _ended_by_signals(), pods.reader(connected, place, write=write, tell=session.out.note) as opened:
        yield opened


def cluster(session: Session) -> Cluster:
    """The namespace in force."""
    from modelyard.kube.client import connect

    return connect(session.config["context"], session.config["namespace"], patience=PATIENCE)


@contextmanager
def named(cluster: Cluster) -> Iterator[None]:
    """Say of a namespace that does not exist just that, instead of what is missing in it."""
    try:
        yield
    except NoInput:
        check_namespace(cluster)
        raise


def check_namespace(cluster: Cluster) -> None:
    """Raise NoInput where the namespace does not exist, as far as one who may create something there can know; an API server lists it as empty."""
    with suppress(NoPermission):
        cluster.dry_run({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "modelyard"}})


def start(session: Session, pipeline: Pipeline, settings: Settings, *, detach: bool, here: bool) -> tuple[str, dict[str, Any] | None]:
    """Start a run on the cluster: its id, and what has come of it, None when it is not followed. here: driven by this process."""
    from modelyard.cli import follow
    from modelyard.run.remote import drive_here, submit
    from modelyard.run.settings import place_of

    if detach and here:
        raise Usage("a run that is driven from here cannot be left", where="--detach", remedy="leave out --driver here, or -d")
    connected = cluster(session)
    place = place_of(session.config, connected.namespace)
    if here:
        from modelyard.kube import runs

        with named(connected), follow.view(session.out) as view:
            run = drive_here(pipeline, settings, place, connected, view).run
        return run, runs.described(connected, run)
    with named(connected):
        run, attached = submit(pipeline, settings, place, connected)
    if detach:
        return run, None
    from modelyard.kube import runs

    with follow.view(session.out) as view:
        unheeded = "; --force is not heeded, since it has begun" if settings.force else ""
        view.begun(run, f"it is running already; following it{unheeded}" if attached else "")
        try:
            runs.follow(connected, run, view)
        except KeyboardInterrupt:
            remedy = f"the same command follows it again, and `{session.again(f'modelyard cancel {run}')}` ends it"
            raise Interrupted("not followed any more; it goes on", where=run, remedy=remedy) from None
    return run, runs.described(connected, run)


def stdout() -> BinaryIO:
    """Our own stdout, for bytes."""
    return sys.stdout.buffer


def words(context: click.Context) -> list[str]:
    """The command line again, without the settings which say where the yard is."""
    values, _, _ = context.command.make_parser(context).parse_args(list(context.meta[WORDS]))
    options, arguments = list[str](), list[str]()
    for parameter in context.command.params:
        value = values.get(parameter.name) if parameter.name not in _WHERE else None
        given = [item for item in (value if isinstance(value, list | tuple) else [value]) if isinstance(item, str | bool)]
        if isinstance(parameter, click.Argument):
            arguments += [str(item) for item in given]
        elif isinstance(parameter, click.Option):
            options += [parameter.opts[-1] if parameter.is_flag else f"{parameter.opts[-1]}={item}" for item in given]
    return [*context.command_path.split()[1:], *options, *(["--", *arguments] if arguments else [])]


def metered(chunks: Iterable[bytes], meter: Meter) -> Iterator[bytes]:
    """The chunks, counted as they are taken."""
    for chunk in chunks:
        yield chunk
        meter.count(len(chunk))


class Meter:
    """Says now and then how far bytes are, from the first ones on. total: 0 until it is known."""

    def __init__(self, tell: Callable[[str], object], did: str, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._tell = tell
        self._did = did
        self._clock = clock
        self._began = self._told = 0.0
        self._done = 0

    def count(self, count: int) -> None:
        """So many more."""
        now = self._clock()
        if not self._done:
            self._began = self._told = now
        self._done += count
        if now - self._told >= _EVERY:
            self._told = now
            rate = format_bytes(self._done / (now - self._began))
            self._tell(f"{self._did} {format_bytes(self._done)} of {format_bytes(self.total)}, {rate}/s")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal unwind the stack as Ctrl-C does, so that what was made on the cluster is deleted."""

    def end(number: int, _: FrameType | None) -> None:
        raise Interrupted(f"ended by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling({signal.SIGTERM: end, signal.SIGHUP: end}):
        yield
