"""A step's context over a real yard in a temporary folder, without the frame: what the step says is kept in lists."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.steps import Step
from modelyard.yard import Artifact, Yard
from modelyard_jobs.context import Context, Stop

KEY = "ab" * 32


class FakeContext(Context):
    """Context whose messages are at hand: said (everything), decisions and details by name."""

    def __init__(
        self, settings: Step, inputs: Mapping[str, Artifact], yard: Yard, folder: Path, *, key: str = KEY, attempt: str = "run-r1.step.1"
    ) -> None:
        self.said: list[Mapping[str, Any]] = []
        for name in ("out", "scratch"):
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(parents=True)
        super().__init__(
            settings=settings,
            inputs=inputs,
            out=folder / "out",
            scratch=folder / "scratch",
            yard=yard,
            key=key,
            run=attempt.partition(".")[0],
            attempt=attempt,
            device="cpu",
            threads=1,
            listing=None,
            hubs={},
            stop=Stop(),
            send=self.said.append,
        )

    @property
    def decisions(self) -> dict[str, Any]:
        return {message["name"]: message["value"] for message in self.said if message["type"] == "decide"}

    @property
    def details(self) -> dict[str, Any]:
        return {message["name"]: message["value"] for message in self.said if message["type"] == "detail"}


def artifact(yard: Yard, kind: Any, source: Path | Mapping[str, str | bytes], format: str | None = None) -> Artifact:
    """Commit a folder, or files by path, as an artifact."""
    with yard.staging("run-r1.make.1") as staging:
        if isinstance(source, Path):
            shutil.copytree(source, staging.files, dirs_exist_ok=True)
        else:
            for name, content in source.items():
                target = staging.files / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return yard.artifacts.commit(staging, kind=kind, format=format)
