"""Where runs are: in a yard on this machine, or on a cluster. The commands over runs treat both alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.cli.logs import Line, Tail
from modelyard.cli.session import Session
from modelyard.errors import Failure, Usage
from modelyard.yard.runs import LIVE_WINDOW, Run, RunState, RunStatus, StepState

if TYPE_CHECKING:
    from modelyard.kube.cluster import Cluster
    from modelyard.run.view import View

_LOOK = 0.3
"""Seconds between two looks at a log that is followed."""

Show = Callable[[Iterable[Line]], None]


class Found(Protocol):
    """One run."""

    @property
    def id(self) -> str:
        """Its name."""

    def status(self) -> RunStatus:
        """How it stands."""

    def described(self) -> tuple[dict[str, Any], bool]:
        """The run as JSON values, with how far its running steps are; and whether a driver is at work on it."""

    def gone(self) -> str:
        """What to tell of it when it has not ended and has no driver."""

    def logs(self, step: str | None, show: Show, *, follow: bool) -> None:
        """Show the lines of its steps' logs, or of one step's; with `follow` until it has ended."""

    def attach(self, view: View, timeout: float | None) -> RunStatus:
        """Watch it to its end. Raises TimedOut after `timeout` seconds."""

    def cancel(self, *, purge: bool) -> None:
        """End it. purge: also remove what the cluster keeps of it."""


class Place(Protocol):
    """Runs."""

    def statuses(self) -> Sequence[RunStatus]:
        """Of all of them, the newest first."""

    def find(self, run: str | None, *, write: bool = False) -> Found:
        """The run of that name, or the beginning of one; without a name the latest. Raises NoInput."""


def place(session: Session) -> Place:
    """Where the runs of this call are."""
    return There(session) if session.config.remote else Here(session)


def find(session: Session, run: str | None, *, write: bool = False) -> Run:
    """The run of that name in a yard on this machine, or the beginning of one; without a name the latest. Raises NoInput."""
    runs = session.yard(write=write).runs
    return runs.get(run) if run else runs.latest()


def gone(run: Run) -> str:
    """What to tell of a run on this machine that has not ended and has no driver."""
    return f"{run.id}: the driver is gone (no sign of life for {LIVE_WINDOW:g} s); run it again: it goes on from what was kept"


@dataclass(frozen=True)
class Here:
    """The runs of a yard on this machine."""

    session: Session

    def statuses(self) -> list[RunStatus]:
        """One whose driver was killed says that it is running: only a look at its heartbeat tells."""
        return [run.status() for run in self.session.yard().runs.list()]

    def find(self, run: str | None, *, write: bool = False) -> FoundHere:
        """In the yard."""
        return FoundHere(self.session, find(self.session, run, write=write))


@dataclass(frozen=True)
class FoundHere:
    """A run in a yard on this machine."""

    session: Session
    run: Run

    @property
    def id(self) -> str:
        """The name of its folder."""
        return self.run.id

    def status(self) -> RunStatus:
        """As it was written last."""
        return self.run.status()

    def described(self) -> tuple[dict[str, Any], bool]:
        """With what its attempts say of their progress."""
        from modelyard.run.results import described

        live = self.run.live()  # before the status: a run that ends meanwhile has ended
        status = self.run.status()
        value = described(self.session.yard(), status)
        for name, step in status.steps.items():
            if step.state is StepState.RUNNING and (progress := self.run.attempt(name, step.attempt).progress()):
                value["steps"][name]["progress"] = progress.model_dump(mode="json")
        return value, live

    def gone(self) -> str:
        """Its heart does not beat."""
        return gone(self.run)

    def logs(self, step: str | None, show: Show, *, follow: bool) -> None:
        """From the files of its attempts."""
        tail = Tail(self.run, step)

        def pause(_: float) -> None:
            show(tail.poll())
            time.sleep(_LOOK)

        while follow and self.run.live(sleep=pause):
            pass
        show(tail.poll())  # with `follow`, what was written between the last look and the end

    def attach(self, view: View, timeout: float | None) -> RunStatus:
        """By its files."""
        from modelyard.run.start import attach

        return attach(self.run, view, timeout)

    def cancel(self, *, purge: bool) -> None:
        """Leave a word for its driver."""
        if purge:
            raise Usage("nothing but the yard keeps a run on this machine", where="--purge", remedy="leave it out")
        self.run.request_cancel()


@dataclass(frozen=True)
class There:
    """The runs of a namespace of a cluster."""

    session: Session

    def statuses(self) -> list[RunStatus]:
        """As their drivers' ConfigMaps and Jobs say. Raises NoInput: there is no such namespace."""
        from modelyard.cli import remote
        from modelyard.kube import runs

        cluster = self._cluster()
        found = runs.runs(cluster)
        if not found:
            remote.check_namespace(cluster)
            self.session.out.note(f"there is no run in namespace {cluster.namespace}")
        return found

    def find(self, run: str | None, *, write: bool = False) -> FoundThere:  # noqa: ARG002  # rights are the cluster's
        """Among the drivers' ConfigMaps and Jobs."""
        from modelyard.cli import remote
        from modelyard.kube import runs

        cluster = self._cluster()
        with remote.named(cluster):
            return FoundThere(self.session, cluster, runs.find(cluster, run))

    def _cluster(self) -> Cluster:
        from modelyard.cli import remote

        return remote.cluster(self.session)


@dataclass(frozen=True)
class FoundThere:
    """A run on a cluster."""

    session: Session
    cluster: Cluster
    id: str

    def status(self) -> RunStatus:
        """As its driver or its Job says."""
        from modelyard.kube import runs

        return runs.look(self.cluster, self.id).status

    def described(self) -> tuple[dict[str, Any], bool]:
        """With what its driver waits for, where it has not begun."""
        from modelyard.kube import runs

        seen = runs.look(self.cluster, self.id)
        if seen.waits:
            self.session.out.note(f"{self.id}: the driver waits: {seen.waits}")
        return seen.described(), seen.live and seen.status.state is RunState.RUNNING  # its Job takes some seconds more to have ended

    def gone(self) -> str:
        """There is no Job that drives it."""
        return f"{self.id}: it has no driver on the cluster; run it again: it goes on from what was kept"

    def logs(self, step: str | None, show: Show, *, follow: bool) -> None:
        """From its pods, and from the yard what they cannot tell any more."""
        from modelyard.kube import logs

        for line in logs.lines(self.cluster, self.id, step, follow=follow, yard=self._from_yard):
            show([Line(line.step, line.attempt, line.entry)])

    def attach(self, view: View, timeout: float | None) -> RunStatus:
        """By its ConfigMap and its Job."""
        from modelyard.kube import runs

        return runs.follow(self.cluster, self.id, view, timeout=timeout)

    def cancel(self, *, purge: bool) -> None:
        """Ask its driver; delete it where it does not obey."""
        from modelyard.kube import runs

        if self.status().state is RunState.RUNNING:
            self.session.out.note(f"ending {self.id}")
        runs.cancel(self.cluster, self.id)
        if purge:
            runs.purge(self.cluster, self.id)

    def _from_yard(self) -> Iterator[Any]:
        """The lines that its steps left in the yard; without them, and a word about it, where the yard cannot be read."""
        from modelyard.cli import remote
        from modelyard.kube import logs

        self.session.out.note("some lines are not in the pods any more; looking in the yard")
        try:
            with remote.reader(self.session) as pod:
                content = pod.logs(self.id)
        except Failure as failure:
            self.session.out.note(f"the yard cannot be asked: {failure}")
            return
        for line in content.splitlines():
            yield logs.Line(**json.loads(line))
