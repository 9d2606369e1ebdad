"""A yard with a whole lifecycle in it, by records alone: base, data, finetuned weights, their export, metrics of either. No step has run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.spec import Pipeline, digest
from modelyard.steps import Evaluate, Fetch, Gate, Promote, Publish, Step
from modelyard.yard import Action, Artifact, Decision, Yard
from modelyard.yard.runs import RunStatus, StepState, StepStatus
from modelyard_jobs import promote, publish
from tests.steps.fake import FakeContext, artifact

COMMIT = "c0ffee" * 6 + "c0ff"
RUN = "reviews-0123456789-r1"
WEIGHTS = {
    "config.json": json.dumps(
        {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "id2label": {"0": "negative", "1": "positive"}}
    ),
    "model.safetensors": b"weights" * 100,
    "tokenizer.json": "{}",
    "tokenizer_config.json": "{}",
    "vocab.txt": "a\nb\n",
}
ONNX = {"model.onnx": b"graph" * 50, "export.json": '{"schema": 1}', "config.json": WEIGHTS["config.json"], "tokenizer.json": "{}"}
DETAILS = {
    "parity": {
        "rows": 200,
        "answers": 200,
        "max_abs": 3.1e-7,
        "max_rel": 1e-7,
        "scale": 2.5,
        "unit": "label",
        "output": "logits",
        "agreement": 1.0,
        "close": 0,
        "tolerance": 2.5e-4,
    }
}


def metric(value: float, n: int = 100, interval: str = "wilson") -> dict[str, Any]:
    return {"value": value, "low": round(value - 0.08, 6), "high": round(value + 0.06, 6), "n": n, "interval": interval}


def document(accuracy: float = 0.82, overlap: Any = None) -> dict[str, Any]:
    """metrics.json as evaluate writes it."""
    scores = {"predicted": 50, "precision": metric(0.8, 50), "recall": metric(0.84, 50), "f1": metric(0.82, 100, "bootstrap")}
    return {
        "schema": 1,
        "main": "accuracy",
        "task": "text-classification",
        "split": "test",
        "rows": {"split": 500, "usable": 500, "evaluated": 100, "faults": {}, "seed": 42},
        "labels": ["negative", "positive"],
        "metrics": {"accuracy": metric(accuracy), "f1_macro": metric(accuracy, 100, "bootstrap")},
        "classes": [{"label": label, "support": 50, **scores} for label in ("negative", "positive")],
        "confusion": [[40, 10], [8, 42]],
        "baseline": {"label": "negative", "accuracy": metric(0.5)},
        "truncated": {"rows": 3, "share": 0.03, "max_length": 64},
        "overlap": overlap,
        "errors": [],
    }


@dataclass
class World:
    """The yard and what is in it."""

    yard: Yard
    folder: Path
    base: Artifact
    data: Artifact
    tuned: Artifact
    onnx: Artifact
    hub: str = ""

    @classmethod
    def make(
        cls, folder: Path, *, card: str = "---\nlicense: apache-2.0\nlanguage: en\n---\n# base\n", base: Mapping[str, Any] | None = None
    ) -> World:
        yard = Yard.open(folder / "yard")
        files = base if base is not None else {**WEIGHTS, "model.safetensors": b"base", **({"README.md": card} if card else {})}
        world = cls(
            yard,
            folder,
            base=artifact(yard, "model", files),
            data=artifact(yard, "dataset", {"train.csv": "text,label\n", "test.csv": "text,label\n"}),
            tuned=artifact(yard, "model", WEIGHTS, "safetensors"),
            onnx=artifact(yard, "model", ONNX, "onnx"),
        )
        settings = {
            "model": "m",
            "data": "rows",
            "epochs": 2,
            "learning_rate": 3e-5,
            "label": None,
            "checkpoint_every": 60,
            "task": "text-classification",
        }
        world.act(
            "finetune", world.tuned, {"model": world.base, "data": world.data}, settings, {"rows": {"split": 400, "train": 360, "validation": 40}}
        )
        world.act("export", world.onnx, {"model": world.tuned, "parity": world.data}, {"rows": 200, "split": "test"}, DETAILS)
        world.resolve()
        return world

    def act(
        self,
        verb: str,
        made: Artifact,
        inputs: Mapping[str, Artifact],
        settings: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that `verb` made something."""
        digests = {name: found.digest for name, found in inputs.items()}
        key = digest([verb, made.digest, *digests.values()])
        action = Action(
            key=key,
            verb=verb,
            artifact=made.digest,
            settings=dict(settings or {}),
            inputs=digests,
            versions={"torch": "2.15.0", "onnxruntime": "absent"},
            decisions={"dtype": Decision(value="float32", reason="cpu")},
            details=dict(details or {}),
            attempt=f"{RUN}.{verb}.1",
        )
        self.yard.actions.put(key, action)

    def resolve(self, data_ref: str = "modelscope://datasets/tiny/reviews") -> None:
        """The run that fetched base and data."""
        made = {"base": self.base, "rows": self.data}
        steps = {name: StepStatus(verb="fetch", state=StepState.DONE, artifact=found.digest) for name, found in made.items()}
        status = RunStatus(run=RUN, pipeline="reviews", steps=steps)
        resolved = {
            "base": {"ref": "modelscope://tiny/base", "listing": {"revision": COMMIT}},
            "rows": {"ref": data_ref, "listing": {"revision": "master"}},
        }
        spec = {"pipeline": {}, "resolved": resolved}
        run = self.yard.runs.create(RUN, spec, status) or self.yard.runs.get(RUN)
        run.write_spec(spec)

    def measure(self, model: Artifact, against: Artifact | None = None, difference: float = 0.0, **about: Any) -> Artifact:
        """Metrics of a model. against: another, than which it is better by `difference`."""
        found = {**document(**about), "of": model.digest, "against": None}
        if against:
            for each in found["metrics"].values():
                each["difference"] = {"value": difference, "low": difference - 0.015, "high": difference + 0.015, "n": 100, "interval": "bootstrap"}
            found["against"] = {"digests": {"model": model.digest, "against": against.digest}}
        made = artifact(self.yard, "metrics", {"metrics.json": json.dumps(found)})
        self.act("evaluate", made, {"model": model, "data": self.data, **({"against": against} if against else {})}, {"split": "test"})
        return made

    def plan(self, against: str = "yard://models/reviews@champion") -> None:
        """The run's pipeline: score measures against a ref, champion and release go by it."""
        steps: dict[str, Step] = {
            "tuned": Fetch(model="modelscope://tiny/tuned"),
            "score": Evaluate(model="tuned", against=against, data="modelscope://datasets/tiny/reviews"),
            "release": Publish(model="tuned", to="modelscope://me/reviews", gate=Gate(metrics="score", not_worse_than_champion=0.01)),
        }
        run = self.yard.runs.get(RUN)
        run.write_spec({**run.spec(), "pipeline": Pipeline("reviews", steps).to_dict()})

    def promote(
        self, model: Artifact | None = None, metrics: Artifact | None = None, attempt: int = 1, run: str = RUN, **settings: Any
    ) -> dict[str, Any]:
        """What the step's result says."""
        inputs = {**({"model": model} if model else {}), **({"gate.metrics": metrics} if metrics else {})}
        step = Promote(model="onnx" if model else None, to="yard://models/reviews@champion", **settings)
        self.context = FakeContext(step, inputs, self.yard, self.folder / "work", attempt=f"{run}.release.{attempt}")
        promote.run(self.context)
        return self.result()

    def publish(self, model: Artifact, metrics: Artifact | None = None, to: str = "modelscope://me/reviews", **settings: Any) -> dict[str, Any]:
        """What the step's result says."""
        inputs = {"model": model, **({"gate.metrics": metrics} if metrics else {})}
        self.context = FakeContext(Publish(model="onnx", to=to, **settings), inputs, self.yard, self.folder / "work", attempt=f"{RUN}.release.1")
        self.context.hubs = {"modelscope": self.hub, "huggingface": self.hub}
        publish.run(self.context)
        return self.result()

    def result(self) -> dict[str, Any]:
        """The last result that was told, as JSON gives it back."""
        told = [message["value"] for message in self.context.said if message["type"] == "result"]
        return json.loads(json.dumps(told[-1])) if told else {}
