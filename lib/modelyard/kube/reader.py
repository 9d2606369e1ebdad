"""A reader: a short-lived pod with the yard mounted, in which `modelyard` runs for somebody who cannot mount it.

Whatever reads or changes a yard does so in one place, the command line itself; a reader carries bytes in and out and gives a command's failure
back as its own. The pod is deleted when the reader is done, also after Ctrl-C; should even that fail, its own deadline ends it.
"""

from __future__ import annotations

import io
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from modelyard.errors import Failure, NoInput, NoPermission, Unavailable, from_exit, signal_name
from modelyard.kube import pods, render
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.place import Place
from modelyard.quantities import format_seconds

LIFETIME = 6 * 3600
"""Seconds after which a pod that nobody deleted ends itself: longer than a large upload takes."""
PATIENCE = 300.0
"""Seconds in which a pod has to run: an image may have to come first."""

_LOOK, _QUIET = 0.5, 5.0
"""Seconds between two looks at a pod that starts; and after which the person is told what it waits for."""
_GRACE = 2
"""Seconds for a command in the pod that has lost its other side: it sees the end of its input, and drops what it has staged."""
_HOPELESS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_DENIED = re.compile(r"unauthorized|denied|forbidden|authentication|\b40[13]\b", re.IGNORECASE)
_MISSING_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')

Tell = Callable[[str], object]


class Reader:
    """A pod that runs."""

    def __init__(self, cluster: Cluster, pod: str, tell: Tell) -> None:
        """Use `reader`."""
        self._cluster = cluster
        self._pod = pod
        self._tell = tell

    def run(self, command: Sequence[str], stdout: BinaryIO, stdin: BinaryIO | None = None) -> None:
        """Run `modelyard COMMAND…` over the mounted yard; what it says beside its result is told on.

        Raises the failure that the command ended with; Unavailable when the connection to it broke.
        """
        inside = ["env", "MODELYARD_ON=local", f"MODELYARD_YARD={pods.YARD}", "modelyard", *command]
        code, said = self._cluster.execute(self._pod, inside, stdin=stdin, stdout=stdout)
        notes, failure = heard(code, said.decode(errors="replace"))
        if notes:
            self._tell(notes)
        if failure:
            raise failure

    def logs(self, run: str, step: str | None = None) -> bytes:
        """The lines that a run's steps left in the yard, as `modelyard logs -o json` prints them."""
        lines = io.BytesIO()
        self.run(["logs", "-o", "json", "--", run, *([step] if step else [])], lines)
        return lines.getvalue()


@contextmanager
def reader(
    cluster: Cluster,
    place: Place,
    *,
    write: bool = False,
    tell: Tell = lambda _: None,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Reader]:
    """A reader over the place's claim, whose access mode the place has to know (`claims.placed`).

    write: whether the yard is mounted writable. tell: gets what a person should know meanwhile.
    Raises NoInput: the claim or the image is not there; NoPermission: the image, or pods, are refused; Unavailable: the pod does not run in time.
    """
    name = f"modelyard-reader-{secrets.token_hex(5)}"
    try:
        cluster.create(render.reader_pod(place, name, write=write, seconds=LIFETIME))
        _await(cluster, place, name, tell, patience=patience, clock=clock, sleep=sleep)
        yield Reader(cluster, name, tell)
    finally:
        _remove(cluster, name, tell)


def heard(code: int, said: str) -> tuple[str, Failure | None]:
    """What a command said on stderr, and the failure that its last words are; None for one that ended well.

    The words are those of `cli.output.complain`: `error: WHAT`, and below it `  why: WHY` and `  try: REMEDY`.
    """
    kind = from_exit(code)
    if kind is None:
        return said.strip("\n"), None
    before, error, last = said.rpartition("error: ") if said.startswith("error: ") else said.rpartition("\nerror: ")
    if not error:
        return "", kind("the command in the reader pod ended without a word", where=signal_name(code), why=said.strip()[-2000:], remedy=_AGAIN)
    last, _, remedy = last.rstrip("\n").partition("\n  try: ")
    what, _, why = last.partition("\n  why: ")
    return before.strip("\n"), kind(what, why=why, remedy=remedy)


def _await(
    cluster: Cluster, place: Place, name: str, tell: Tell, *, patience: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Return when the pod's container runs."""
    began, told = clock(), ""
    while True:
        pod = cluster.get("Pod", name)
        if pod is None:
            raise Unavailable("the reader pod was deleted by somebody else", where=f"pod {name}", remedy="run the command again")
        if _container(pod).get("running") is not None:
            return
        _check(pod, place)
        waited, waiting = clock() - began, _waits_for(cluster, pod)
        if waited >= patience:
            remedy = f"kubectl -n {cluster.namespace} get events, and the claim: kubectl -n {cluster.namespace} describe pvc {place.claim}"
            raise Unavailable(f"the reader pod did not run within {format_seconds(patience)}", where=f"pod {name}", why=waiting, remedy=remedy)
        if waited >= _QUIET and waiting != told:
            tell(f"the reader pod waits: {waiting}")
            told = waiting
        sleep(_LOOK)


def _check(pod: Manifest, place: Place) -> None:
    """Raise what no waiting will mend."""
    where, image = f"pod {pod['metadata']['name']}", pod["spec"]["containers"][0]["image"]
    waiting = _container(pod).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _NO_IMAGE and _DENIED.search(message):
        remedy = "name a Secret that may pull it: pull_secret in modelyard.toml, or MODELYARD_PULL_SECRET"
        raise NoPermission(f"the image {image} may not be pulled", where=where, why=message, remedy=remedy)
    if reason in _NO_IMAGE:
        remedy = f'image = "REGISTRY/NAME:VERSION" in modelyard.toml, or MODELYARD_IMAGE; now it is {place.image}, with -light appended'
        raise NoInput(f"the image {image} cannot be pulled", where=where, why=f"{reason}: {message}", remedy=remedy)
    if reason in _HOPELESS:
        raise Unavailable("the reader pod cannot start", where=where, why=f"{reason}: {message}", remedy="ask who runs the cluster")
    if missing := _MISSING_CLAIM.search(_unscheduled(pod)):
        raise NoInput(f"there is no claim {missing[1]!r} any more", where=where, remedy=f"modelyard yard create --on kubernetes --yard {missing[1]}")
    status = pod.get("status", {})
    if status.get("phase") in ("Failed", "Succeeded"):
        ended = _container(pod).get("terminated") or {}
        why = ": ".join(filter(None, [status.get("reason") or ended.get("reason"), status.get("message") or ended.get("message")]))
        raise Unavailable("the reader pod ended before it could be used", where=where, why=why or status["phase"], remedy="run the command again")


def _waits_for(cluster: Cluster, pod: Manifest) -> str:
    """In the words of the scheduler or the kubelet."""
    if unscheduled := _unscheduled(pod):
        return unscheduled
    waiting = _container(pod).get("waiting") or {}
    if waiting.get("reason", "ContainerCreating") not in ("ContainerCreating", "PodInitializing"):
        return ": ".join(filter(None, [waiting["reason"], waiting.get("message")]))
    events = cluster.list("Event", fields={"involvedObject.name": pod["metadata"]["name"]})
    if not events:
        return "for a node" if not pod["spec"].get("nodeName") else "for its node to start it"
    newest = max(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"{newest.get('reason', '')}: {newest.get('message', '')}"


def _unscheduled(pod: Manifest) -> str:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""


def _container(pod: Manifest) -> dict[str, Any]:
    """The state of its only container; empty before a node has it."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return dict(statuses[0].get("state") or {})


def _remove(cluster: Cluster, name: str, tell: Tell) -> None:
    try:
        cluster.delete("Pod", name, grace=_GRACE)
    except Failure as failure:
        tell(f"the reader pod could not be deleted: {failure}; delete it: kubectl -n {cluster.namespace} delete pod {name}")


_AGAIN = "run the command again; if it stays, look whether the image is modelyard's, and has the version of this one"
