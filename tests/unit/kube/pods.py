"""A cluster in memory for what reads a yard from afar."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

from modelyard.cli import main
from modelyard.kube.cluster import Kind, Manifest

RUNS: Manifest = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}


class Pods:
    """A cluster of one namespace in which pods go from state to state each time that they are looked at, and commands run on this machine."""

    namespace = "research"

    def __init__(self, *states: Manifest | None, yard: Path | None = None, events: Sequence[Manifest] = ()) -> None:
        self.states = list(states) or [RUNS]
        self.pods: dict[str, Manifest] = {}
        self.deleted: list[tuple[str, int | None]] = []
        self.yard = yard
        self.events = events
        self.claim: Manifest | None = None
        self.made: list[Manifest] = []
        self.now = 0.0

    def create(self, manifest: Manifest) -> Manifest | None:
        if manifest["kind"] == "Pod":
            self.made.append(manifest)
            return self.pods.setdefault(manifest["metadata"]["name"], manifest)
        if self.claim is None:
            self.claim = manifest
            return manifest
        return None

    def get(self, kind: Kind, name: str) -> Manifest | None:
        if kind == "PersistentVolumeClaim":
            return self.claim
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return None if state is None else {**self.pods[name], "status": state}

    def list(
        self, kind: Kind, labels: Mapping[str, str] | None = None, *, fields: Mapping[str, str] | None = None, everywhere: bool = False
    ) -> list[Manifest]:
        if kind in ("Job", "ConfigMap"):
            return []
        assert not everywhere
        assert fields is not None
        assert fields["involvedObject.name"] in self.pods
        return list(self.events)

    def delete(self, kind: Kind, name: str, *, uid: str | None = None, grace: int | None = None, wait_for_pods: bool = False) -> bool:
        self.deleted.append((name, grace))
        return self.pods.pop(name, None) is not None

    def execute(self, pod: str, command: Sequence[str], *, stdin: BinaryIO | None = None, stdout: BinaryIO) -> tuple[int, bytes]:
        assert pod in self.pods
        assert command[:4] == ["env", "MODELYARD_ON=local", "MODELYARD_YARD=/yard", "modelyard"]
        with ExitStack() as inside:
            taken = inside.enter_context(tempfile.TemporaryFile())
            taken.write(stdin.read() if stdin else b"")
            taken.seek(0)
            out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
            inside.enter_context(patch.dict(os.environ, MODELYARD_ON="local", MODELYARD_YARD=str(self.yard)))
            inside.enter_context(patch.multiple(sys, stdin=io.TextIOWrapper(taken), stdout=out, stderr=err))
            code = main(command[4:])
            out.flush()
            err.flush()
        stdout.write(out.buffer.getvalue())  # type: ignore[attr-defined]
        return code, err.buffer.getvalue()  # type: ignore[attr-defined]

    def dry_run(self, manifest: Manifest) -> Any:
        raise AssertionError

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest | None:
        raise AssertionError

    def logs(self, pod: str, *, follow: bool = False, since: str | None = None, tail: int | None = None, container: str = "") -> Any:
        raise AssertionError

    def sleep(self, seconds: float) -> None:
        self.now += seconds
