"""What modelyard asks of a cluster. `client.Client` asks a real API server; unit tests have one in memory, held to it by the same tests.

Objects are plain dicts as the API server writes them. Every call has a deadline; what may pass (a server that restarts, 429 with Retry-After, 5xx,
credentials that rotate) is tried again inside. All raise: NoPermission (what was refused, and the rule that would allow it), Usage (the server
refuses the object, with every field that is wrong), NoInput (the namespace does not exist), Unavailable (no answer, after the retries).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

Manifest = dict[str, Any]
Kind = Literal[
    "ConfigMap",
    "CronJob",
    "EndpointSlice",
    "Event",
    "Job",
    "LimitRange",
    "LocalQueue",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PriorityClass",
    "ResourceQuota",
    "Secret",
    "Service",
    "ServiceAccount",
    "StorageClass",
    "Workload",
]
"""What is asked for. Namespace, Node, PersistentVolume, PriorityClass and StorageClass belong to the cluster; LocalQueue and Workload are Kueue's."""


@dataclass(frozen=True)
class Cause:
    """One reason for which an object was refused. field: path in the object, such as `spec.template.spec.containers[0].image`."""

    field: str
    message: str


@dataclass(frozen=True)
class Answer:
    """What a dry run says: what is wrong (nothing: it would be accepted), and the server's warnings, such as Pod Security's."""

    causes: Sequence[Cause] = field(default=())
    warnings: Sequence[str] = field(default=())


class Cluster(Protocol):
    """One namespace of a cluster."""

    namespace: str

    def get(self, kind: Kind, name: str) -> Manifest | None:
        """The object; None when there is none of that name."""

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, fields: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> list[Manifest]:
        """Objects with all of these labels and field values; `kind` and `apiVersion` are set in each. everywhere: in all namespaces.

        An API server that does not know the kind (Kueue's, where there is no Kueue) has none of it.
        """

    def may(self, verb: str, kind: Kind, subresource: str = "", *, name: str = "", everywhere: bool = False, account: str = "") -> bool:
        """Whether who asks may do that in the namespace, by a SelfSubjectAccessReview: `may("get", "Pod", "log")`.

        name: to the object of that name alone. everywhere: in all namespaces. account: whether that service account of the namespace may; raises
        NoPermission where who asks may not ask for others.
        """

    def version(self) -> str:
        """Of the API server, such as `v1.34.4`."""

    def create(self, manifest: Manifest) -> Manifest | None:
        """The object as it was created, by strict field validation; None when there is one of that name."""

    def dry_run(self, manifest: Manifest) -> Answer:
        """What the server would say to the object's creation; nothing is created. One of that name that exists is no objection."""

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest | None:
        """The object after a JSON merge patch; None when there is none of that name."""

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: int | None = None, wait_for_pods: bool = False) -> bool:
        """Delete an object and what it owns; False when it was not there (or is another one than `uid`).

        grace: seconds, of a pod. wait_for_pods: the object stays, being deleted, until what it owns is gone (foreground).
        """

    def logs(self, pod: str, *, follow: bool = False, since: str | None = None, tail: int | None = None, container: str = "") -> Iterator[bytes]:
        """Lines of a pod's container, without the line's end, each with the kubelet's RFC 3339 time and a space in front.

        since: that time, to begin with (lines of that second come again). follow: until the container ends or the connection breaks: either
        ends the iterator. container: which one, where a pod has several. Nothing, when the container has not begun or is gone.
        """

    def execute(self, pod: str, command: Sequence[str], *, stdin: BinaryIO | None = None, stdout: BinaryIO) -> tuple[int, bytes]:
        """Run a command in a pod's container: bytes in, bytes out, binary-safe; (exit code, stderr). stdin is closed at its end."""
