"""A folder hub with a tiny model and rows, pipelines on it, and `modelyard` as a command: what the end-to-end tests share."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.steps.tiny import WORDS, tiny_model

USE = """
  score: {evaluate: {model: tuned, data: rows, max_length: 64}}
  said: {infer: {model: tuned, data: rows, split: test, max_length: 64}}
"""
"""Steps that use what was trained."""

GOOD, BAD = ("good", "fine", "great"), ("bad", "dull", "awful")


def rows(count: int, seed: int) -> str:
    """CSV of texts whose label a model can learn: one telling word among others."""
    chance = random.Random(seed)
    lines = ["text,label"]
    for number in range(count):
        label, telling = ("positive", GOOD) if number % 2 else ("negative", BAD)
        words = [chance.choice(telling), *chance.choices(WORDS[8:], k=chance.randint(2, 20))]
        chance.shuffle(words)
        lines.append(f"{' '.join(words)} {number},{label}")
    return "\n".join(lines) + "\n"


def make_hub(root: Path, train: int = 400, test: int = 100) -> Path:
    """The hub: the model `tiny/base` without a head and the data set `tiny/reviews`."""
    model, data = root / "tiny" / "base", root / "datasets" / "tiny" / "reviews"
    model.mkdir(parents=True)
    data.mkdir(parents=True)
    tiny_model(model, spread=0.02)  # small weights learn, large ones tell texts apart
    (data / "train.csv").write_text(rows(train, 1))
    (data / "test.csv").write_text(rows(test, 2))
    return root


@dataclass(frozen=True)
class Place:
    """A folder to run `modelyard` in, with its own yard."""

    root: Path

    @classmethod
    def make(cls, root: Path, hub: Path) -> Place:
        root.mkdir(parents=True, exist_ok=True)
        (root / "modelyard.toml").write_text(f'[hubs]\nmodelscope = "{hub}"\n')
        return cls(root)

    def write(self, finetune: str = "epochs: 3, batch_size: 16", more: str = USE) -> Path:
        """The usual pipeline, with settings of finetune; more: what comes after it."""
        path = self.root / "reviews.yaml"
        path.write_text(
            f"""name: reviews
resources: {{cpu: 1}}
steps:
  rows: {{fetch: {{dataset: modelscope://datasets/tiny/reviews}}}}
  tuned: {{finetune: {{model: modelscope://tiny/base, data: rows, learning_rate: 3e-3, max_length: 64, {finetune}}}}}
{more}"""
        )
        return path

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """The command, in a process group of its own."""
        command = [sys.executable, "-m", "modelyard", *arguments]
        return subprocess.Popen(
            command, cwd=self.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environ}, start_new_session=True
        )

    def modelyard(self, *arguments: str, code: int = 0, **environ: str) -> tuple[str, str]:
        """(stdout, stderr) of the command, which has to exit with `code`."""
        process = self.start(*arguments, **environ)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == code, f"exit {process.returncode}\n{output}\n{errors}"
        return output, errors

    def json(self, *arguments: str) -> Any:
        """What the command says with `-o json`."""
        return json.loads(self.modelyard(*arguments, "-o", "json")[0])

    def states(self, run: str = "") -> dict[str, str]:
        """Step -> state of a run, the latest unless named; fetch steps by their verb."""
        shown = self.json("show", run) if run else self.json("show")
        return {"model" if name.startswith("fetch-") else name: step["state"] for name, step in shown["steps"].items()}

    def log(self, run: str, step: str) -> list[dict[str, Any]]:
        """All lines of a step's log, attempt after attempt; a line torn by a kill is left out."""
        lines = []
        for path in sorted((self.root / ".yard/runs" / run / "steps" / step).glob("*/log.jsonl"), key=lambda path: int(path.parent.name)):
            for line in path.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    continue
        return lines

    def runs(self) -> list[str]:
        """Names of all runs, the oldest first."""
        folder = self.root / ".yard/runs"
        return (
            sorted((path.name for path in folder.iterdir()), key=lambda name: (folder / name / "spec.json").stat().st_mtime_ns)
            if folder.is_dir()
            else []
        )

    def artifacts(self) -> set[str]:
        """Digests under artifacts/."""
        folder = self.root / ".yard/artifacts"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
