"""A namespace in memory: what an API server does with objects, without controllers. `alike` holds it to a real one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from modelyard.errors import Failure, NoPermission
from modelyard.kube.cluster import Answer, Kind, Manifest


class FakeCluster:
    """A Cluster. Tests set what pods say (`streams`), what a dry run answers (`answer`), and what every call raises meanwhile (`down`)."""

    def __init__(self, namespace: str = "team") -> None:
        self.namespace = namespace
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.streams: dict[str, list[list[bytes]]] = {}
        """Pod -> what its streams give, one after the other; the last again and again."""
        self.asked: list[tuple[str, str | None]] = []
        """(pod, since) of each stream."""
        self.answer = Answer()
        self.down: Failure | None = None
        self.forbidden: set[tuple[str, Kind]] = set()
        """(verb, kind) that are not allowed."""
        self.refused: dict[str, set[tuple[str, Kind]]] = {}
        """Service account -> (verb, kind) that it is not allowed."""
        self.reviews = True
        """Whether who asks may ask what others may."""
        self.requests = 0
        self._count = itertools.count(1)

    def get(self, kind: Kind, name: str) -> Manifest | None:
        self._answers(("get", kind))
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, fields: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> list[Manifest]:
        self._answers(("list", kind))
        found = [one for (of, _), one in sorted(self.objects.items()) if of == kind]
        found = [one for one in found if (labels or {}).items() <= (one["metadata"].get("labels") or {}).items()]
        return [copy.deepcopy(one) for one in found if all(_field(one, path) == value for path, value in (fields or {}).items())]

    def may(self, verb: str, kind: Kind, subresource: str = "", *, name: str = "", everywhere: bool = False, account: str = "") -> bool:
        self._answers()
        if account and not self.reviews:
            raise NoPermission("may not create localsubjectaccessreviews")
        return (verb, kind) not in (self.refused.get(account, set()) if account else self.forbidden)

    def version(self) -> str:
        self._answers()
        return "v1.34.4"

    def create(self, manifest: Manifest) -> Manifest | None:
        self._answers(("create", manifest["kind"]))
        at = manifest["kind"], manifest["metadata"]["name"]
        if at in self.objects:
            return None
        made = copy.deepcopy(manifest)
        number = next(self._count)
        made["metadata"] |= {
            "namespace": self.namespace,
            "uid": f"uid-{number}",
            "creationTimestamp": f"2026-01-01T{number // 60:02}:{number % 60:02}:00Z",
        }
        self.objects[at] = made
        return copy.deepcopy(made)

    def dry_run(self, manifest: Manifest) -> Answer:
        self._answers()
        return self.answer

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest | None:
        self._answers(("patch", kind))
        if (kind, name) not in self.objects:
            return None
        self.objects[kind, name] = merged(self.objects[kind, name], patch)
        self._collect()
        found = copy.deepcopy(self.objects.get((kind, name)))
        return found or merged({"kind": kind, "metadata": {"name": name}}, patch)

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: int | None = None, wait_for_pods: bool = False) -> bool:
        self._answers(("delete", kind))
        found = self.objects.get((kind, name))
        if found is None or (uid and found["metadata"]["uid"] != uid):
            return False
        self._mark(found, foreground=wait_for_pods)
        self._collect()
        return True

    def logs(self, pod: str, *, follow: bool = False, since: str | None = None, tail: int | None = None, container: str = "") -> Iterator[bytes]:
        self._answers()
        self.asked.append((pod, since))
        self.container = container
        streams = self.streams.get(pod, [[]])
        lines = streams.pop(0) if len(streams) > 1 else streams[0]
        from_there = [line for line in lines if since is None or line.split(b" ")[0][:19] >= since.encode()[:19]]
        yield from from_there if tail is None else from_there[len(from_there) - tail :]

    def execute(self, pod: str, command: Sequence[str], *, stdin: BinaryIO | None = None, stdout: BinaryIO) -> tuple[int, bytes]:
        raise NotImplementedError

    def _answers(self, doing: tuple[str, Kind] | None = None) -> None:
        self.requests += 1
        if self.down:
            raise self.down
        if doing in self.forbidden:
            raise NoPermission("the cluster does not allow it", why=f"{doing}")

    def _mark(self, found: Manifest, *, foreground: bool) -> None:
        """An object that is being deleted; with `foreground` it waits for what it owns, which goes first."""
        found["metadata"].setdefault("deletionTimestamp", "2026-01-02T00:00:00Z")
        if foreground:
            found["metadata"]["finalizers"] = [*found["metadata"].get("finalizers", []), _FOREGROUND]
            for owned in self._owned(found):
                self._mark(owned, foreground=False)

    def _collect(self) -> None:
        """Let go what nothing holds any more, and what it owned."""
        while True:
            for found in self.objects.values():
                if _FOREGROUND in (finalizers := found["metadata"].get("finalizers") or []) and not self._owned(found):
                    finalizers.remove(_FOREGROUND)
            gone = [at for at, one in self.objects.items() if one["metadata"].get("deletionTimestamp") and not one["metadata"].get("finalizers")]
            if not gone:
                return
            for at in gone:
                for owned in self._owned(self.objects.pop(at)):
                    self._mark(owned, foreground=False)

    def _owned(self, owner: Manifest) -> list[Manifest]:
        uid = owner["metadata"]["uid"]
        return [one for one in self.objects.values() if any(of["uid"] == uid for of in one["metadata"].get("ownerReferences") or [])]


_FOREGROUND = "foregroundDeletion"


def merged(found: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(found) if isinstance(found, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made


def _field(one: Any, path: str) -> Any:
    for part in path.split("."):
        one = (one or {}).get(part)
    return one
