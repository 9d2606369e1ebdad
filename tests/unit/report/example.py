"""A yard with one whole run of the lifecycle in it, written by hand: what the steps leave behind, without the steps."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from typing import Any

from modelyard.order import Outcome
from modelyard.yard import Action, Artifact, Decision, Yard
from modelyard.yard.runs import Run, RunState, RunStatus, StepState, StepStatus

RUN = "movie-sentiment-76ea1dd2d1-r4"
LABELS = ("negative", "positive")
TEXTS = (
    "A portrait of alienation so perfect, it will certainly succeed in alienating most viewers.",
    "More successful at relating history than in creating an emotionally complex, dramatically satisfying heroine",
    "By turns pretentious, fascinating, ludicrous, provocative and vainglorious.",
    "It is amusing for about three minutes.",
    "Not since Tom Cruise in Risky Business has an actor made such a strong impression in his underwear.",
    "If you are not into the Pokemon franchise, this fourth animated movie in four years won't convert you — or even keep your eyes open.",
    "This film's relationship to actual tension is the same as what Christmas-tree flocking in a spray can is to actual snow.",
    "The emotions are raw and will strike a nerve with anyone who's ever had family trauma.",
    "Rarely has leukemia looked so shimmering and benign.",
    "As an entertainment, the movie keeps you diverted and best of all, it lightens your wallet without leaving a sting.",
)
VERSIONS = {"datasets": "5.2.0", "numpy": "2.4.6", "onnxruntime": "1.32.0", "pyarrow": "26.0.1", "torch": "2.15.0", "transformers": "5.23.0"}
GIB = 2**30


def proportion(value: float, n: int) -> dict[str, Any]:
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-9) / n)
    return {"value": value, "low": max(value - half, 0.0), "high": min(value + half, 1.0), "n": n, "interval": "wilson"}


def against(document: dict[str, Any], value: float = -0.018) -> dict[str, Any]:
    """The same metrics.json, measured against another model."""
    less = {"value": value, "low": round(value - 0.0111, 4), "high": round(value + 0.0112, 4), "n": 2000, "interval": "bootstrap"}
    metrics = {name: {**metric, "difference": less} for name, metric in document["metrics"].items()}
    its = {name: proportion(metric["value"] - value, 2000) for name, metric in document["metrics"].items()}
    digests = {"model": "a1" * 32, "against": "b2" * 32}
    return {**document, "metrics": metrics, "against": {"digests": digests, "metrics": its, "changed": {"fixed": 57, "broken": 93, "other": 0}}}


def evaluation(labels: Sequence[str] = LABELS, texts: Sequence[str] = TEXTS, overlap: int = 0, n: int = 2000) -> dict[str, Any]:
    """A metrics.json: right four times in five, wrong mostly for a neighbour."""
    rng, size = random.Random(7), len(labels)
    confusion = [[0] * size for _ in labels]
    for row in range(n):
        true = row % size
        wrong = (true + (1 if rng.random() < 0.6 else rng.randrange(1, size))) % size
        confusion[true][wrong if rng.random() < 0.19 else true] += 1
    right = sum(confusion[place][place] for place in range(size)) / n
    support, predicted = [sum(row) for row in confusion], [sum(row[place] for row in confusion) for place in range(size)]
    scores: list[dict[str, Any]] = [{"label": labels[place], "support": support[place], "predicted": predicted[place]} for place in range(size)]
    for place, each in enumerate(scores):
        recall = confusion[place][place] / max(each["support"], 1)
        each |= {name: proportion(recall + shift, max(each["support"], 1)) for name, shift in (("precision", 0.004), ("recall", 0.0), ("f1", 0.002))}
    names = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_weighted")
    sure = [round(0.97 - place / 200, 6) for place in range(len(texts))]
    rest = max(size - 1, 1)
    return {
        "schema": 1,
        "task": "text-classification",
        "split": "test",
        "rows": {"split": 2644, "usable": 2644, "evaluated": n, "faults": {}, "seed": 42},
        "labels": list(labels),
        "metrics": {name: {**proportion(right + place / 1000, n), "interval": "bootstrap"} for place, name in enumerate(names)},
        "classes": scores,
        "confusion": confusion,
        "baseline": {"label": labels[-1], "accuracy": proportion(1 / size, n)},
        "truncated": {"rows": 3, "share": 3 / n, "max_length": 64},
        "overlap": {"split": "train", "rows": overlap, "share": overlap / n},
        "errors": [
            {
                "row": 1317 + place,
                "true": labels[place % size],
                "predicted": labels[(place + 1) % size],
                "probabilities": [sure[place], *[round((1 - sure[place]) / rest, 6)] * rest][:size],
                "text": text,
            }
            for place, text in enumerate(texts)
        ],
    }


def history(steps: int = 126, epochs: int = 2) -> dict[str, Any]:
    rng = random.Random(3)
    train = [
        {
            "step": step,
            "epoch": 1 + (step - 1) * epochs // steps,
            "loss": 0.28 + 0.42 * math.exp(-step / 45) + rng.uniform(-0.09, 0.09),
            "lr": 1e-4 * min(step / 13, (steps - step) / (steps - 13)),
        }
        for step in range(1, steps + 1)
    ]
    validation = [
        {
            "epoch": epoch,
            "step": steps * epoch // epochs,
            "loss": 0.5 - 0.03 * epoch,
            "accuracy": 0.78 + 0.015 * epoch,
            "f1_macro": 0.78 + 0.014 * epoch,
        }
        for epoch in range(1, epochs + 1)
    ]
    return {"train": train, "validation": validation, "resumed": []}


EXPORT = {
    "parity": {"rows": 500, "answers": 500, "unit": "label", "max_abs": 1.31e-6, "max_rel": 4.2e-5, "agreement": 1.0, "tolerance": 1e-4},
    "int8": {
        "kept": False,
        "agreement": 0.962,
        "accuracy": {"torch": proportion(0.812, 500), "onnx": proportion(0.812, 500), "int8": proportion(0.794, 500)},
        "difference": {"value": -0.018, "low": -0.034, "high": -0.003},
        "why": "96.2 % of the labels agree, fewer than 98 %",
    },
    "speed": {
        "torch": {"rows_per_second": 149.3, "latency": {"p50": 11.28, "p95": 13.85}},
        "onnx": {"rows_per_second": 233.1, "latency": {"p50": 5.61, "p95": 6.9}},
        "int8": {"rows_per_second": 401.7, "latency": {"p50": 3.2, "p95": 4.4}},
    },
}

SEARCH = {
    "query": {"text": "minilm", "task": "sentence-similarity", "limit": 5},
    "found": [
        {
            "ref": "modelscope://sentence-transformers/all-MiniLM-L6-v2",
            "task": "sentence-similarity",
            "size": 91617632,
            "licence": "apache-2.0",
            "downloads": 1204331,
            "updated": "2024-08-30",
            "gated": False,
        },
        {"ref": "modelscope://AI-ModelScope/bge-small-en-v1.5", "task": "feature-extraction", "size": 133466304, "licence": "mit", "gated": True},
    ],
}

PREFLIGHT = {
    "verdict": "warning",
    "rows": [
        {"check": "python", "verdict": "ok", "found": "3.11.7", "needed": ">= 3.11", "reason": "new enough"},
        {"check": "accelerator", "verdict": "warning", "found": "none", "needed": "1 nvidia", "reason": "there is no /dev/nvidia[0-9]*"},
        {"check": "memory", "verdict": "ok", "found": "25.3 GiB", "needed": "4 GiB", "reason": "no limit is set"},
        {"check": "disk", "verdict": "ok", "found": "41 GiB", "needed": "1.2 GiB", "reason": "three times the largest model"},
        {"check": "gate", "verdict": "ok", "found": 2000, "needed": 0.75, "reason": "0.759 and better passes with 80 % chance at 2000 rows"},
    ],
}


def release(passed: bool = True) -> dict[str, Any]:
    line = {"metric": "accuracy", **proportion(0.81, 2000), "at_least": 0.75 if passed else 0.9, "passed": passed, "sure": False}
    return {
        "to": "modelscope://me/movie-sentiment",
        "revision": "9f12c0d54638b31676c71b7a535970cedc12cd59" if passed else "",
        "tag": "v-fc64b217fe1e" if passed else None,
        "files": ["README.md", "config.json", "configuration.json", "model.safetensors", "onnx/model.onnx", "tokenizer.json"] if passed else [],
        "gate": {"passed": passed, "lines": [line]},
        "unchanged": False,
    }


class Builder:
    """A run that grows step by step."""

    def __init__(self, yard: Yard, name: str = RUN, pipeline: str = "movie-sentiment") -> None:
        self.yard, self.name, self.pipeline = yard, name, pipeline
        self.steps: dict[str, StepStatus] = {}
        self.spec: dict[str, Any] = {"pipeline": {"name": pipeline, "steps": {}}, "resolved": {}, "settings": {}}
        run = yard.runs.create(name, self.spec, RunStatus(run=name, pipeline=pipeline, started="2026-11-23T01:09:01+00:00"))
        assert run is not None
        self.run: Run = run

    def artifact(self, kind: str, files: dict[str, bytes]) -> Artifact:
        with self.yard.staging("example") as staging:
            for path, data in files.items():
                (staging.files / path).parent.mkdir(exist_ok=True)
                (staging.files / path).write_bytes(data)
            return self.yard.artifacts.commit(staging, kind=kind, format="safetensors" if kind == "model" else None)  # type: ignore[arg-type]

    def step(
        self,
        name: str,
        verb: str,
        settings: dict[str, Any],
        *,
        state: StepState = StepState.DONE,
        made: Artifact | None = None,
        decisions: dict[str, tuple[Any, str]] | None = None,
        details: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
        seconds: float | None = 1.0,
        by: str | None = None,
        log: Sequence[dict[str, Any]] = (),
        samples: Sequence[dict[str, Any]] = (),
        ended: bool = True,
        **ending: Any,
    ) -> None:
        """Add a step, as its frame and the driver would have left it. by: the run that made it, where that is another one."""
        key = f"{len(self.steps) + 1:064x}"
        self.spec["pipeline"]["steps"][name] = {verb: settings, "resources": {"gpus": 0, "cpu": None}}
        if made:
            action = Action(
                key=key,
                verb=verb,
                artifact=made.digest,
                settings=settings,
                versions=VERSIONS,
                decisions={what: Decision(value=value, reason=reason) for what, (value, reason) in (decisions or {}).items()},
                timings={"seconds": seconds or 0.0},
                details=details or {},
                attempt=f"{by or self.name}.{name}.1",
                at="2026-11-23T01:14:23Z",
            )
            self.yard.actions.put(key, action)
        told = {"key": key, "artifact": made.digest if made else None, "seconds": seconds, **ending}
        if state not in (StepState.REUSED, StepState.WAITING, StepState.SKIPPED):
            attempt = self.run.new_attempt(name)
            for number, entry in enumerate(log):
                attempt.add_log(json.dumps({"seq": number, "level": "info", **entry}).encode() + b"\n")
            for sample in samples:
                attempt.add_sample(sample)
            if ended:
                attempt.write_outcome(Outcome(result=result, **{"exit_code": 0, **told}))
        told = {"exit_code": 0 if ended else None, **told}
        self.steps[name] = StepStatus(verb=verb, state=state, attempt=1, kind=made.kind if made else "", **told)

    def fetch(self, name: str, ref: str, kind: str, size: int) -> None:
        by = "movie-sentiment-9d23e68415-r3"
        made = self.artifact(kind, {f"{name}.bin": bytes(size)})
        settings = {"model": ref if kind == "model" else None, "dataset": ref if kind == "dataset" else None, "fresh": False, "trust": []}
        self.spec["resolved"][name] = {"ref": ref, "listing": {"ref": ref, "kind": kind, "revision": "main", "files": []}, "digest": "0" * 64}
        self.step(name, "fetch", settings, state=StepState.REUSED, made=made, by=by, seconds=None, decisions={"threads": (2, "2 CPUs are allowed")})

    def end(self, state: RunState = RunState.DONE, *, exit_code: int = 0, notes: tuple[str, ...] = ()) -> Run:
        self.run.write_spec(self.spec)
        ended = "" if state is RunState.RUNNING else "2026-11-23T01:14:52+00:00"
        status = RunStatus(
            run=self.name,
            pipeline=self.pipeline,
            state=state,
            exit_code=None if state is RunState.RUNNING else exit_code,
            started="2026-11-23T01:09:01+00:00",
            ended=ended,
            notes=notes,
            steps=self.steps,
        )
        self.run.write_status(status)
        return self.run


def samples(seconds: int, top: float) -> list[dict[str, Any]]:
    rng = random.Random(5)
    used = [0.3 + (top - 0.3) * min(t / 20, 1) + rng.uniform(-0.02, 0.02) for t in range(0, seconds, 2)]
    devices = [{"0": {"percent": 60 + 40 * rng.random(), "memory": 5.0 * GIB}} for _ in used]
    sizes = [int(each * GIB) for each in used]
    return [{"t": 2.0 * place, "rss": size, "used": size, "limit": 4 * GIB, "devices": devices[place]} for place, size in enumerate(sizes)]


def whole(yard: Yard, *, passed: bool = True, labels: Sequence[str] = LABELS, texts: Sequence[str] = TEXTS, overlap: int = 0) -> Run:
    """The lifecycle from search to publish; refused at the gate unless it passed."""
    build = Builder(yard)
    threads = {"threads": (2, "2 CPUs are allowed, without a quota"), "device": ("cpu", "no usable nvidia (0 of 1 are there), and fallback is cpu")}
    build.step("candidates", "search", {"query": "minilm"}, result=SEARCH, seconds=0.8)
    build.step("ready", "preflight", {"disk": None}, result=PREFLIGHT, seconds=2.1)
    build.fetch("fetch-0d5c8510", "modelscope://sentence-transformers/all-MiniLM-L6-v2", "model", 91000)
    build.fetch("reviews", "modelscope://datasets/hutto/movie-reviews", "dataset", 8437)
    tuned = {"model": "fetch-0d5c8510", "data": "reviews", "epochs": 2, "batch_size": 16, "learning_rate": 1e-4}
    decided = {
        **threads,
        "dtype": ("float32", "exact, and the default on a CPU"),
        "batching": ({"rows_per_step": 16, "window": 800}, "as set; rows of like length together, in random order"),
        "best_epoch": (2, "highest validation accuracy of 2 epochs, 0.8088; ties by loss"),
    }
    details = {
        "history": history(),
        "rows": {"split": 7924, "train": 1000, "validation": 816, "faults": {}, "overlap": 0},
        "speed": {"rows_per_second": 7.51, "tokens_per_second": 205.1, "padding": 0.03},
        "environment": {"device": "x86_64 AVX512", "threads": 2, "python": "3.11.7", **VERSIONS},
    }
    model = build.artifact("model", {"model.safetensors": b"tuned" * 9000, "config.json": b"{}", "tokenizer.json": b"{}"})
    build.step("tuned", "finetune", tuned, made=model, decisions=decided, details=details, seconds=321.6, samples=samples(320, 1.7))
    document = json.dumps(evaluation(labels, texts, overlap), ensure_ascii=True).encode()
    score = {"model": "tuned", "data": "reviews", "split": "test", "rows": 2000}
    speed = {"speed": {"rows_per_second": 149.28, "tokens_per_second": 4002.5}, "latency": {"p50": 11.28, "p95": 13.85, "n": 16}}
    metrics = build.artifact("metrics", {"metrics.json": document})
    build.step("score", "evaluate", score, made=metrics, decisions=threads, details=speed, seconds=20.0, samples=samples(20, 1.1))
    onnx = build.artifact("model", {"model.onnx": b"onnx" * 9000, "config.json": b"{}"})
    build.step("onnx", "export", {"model": "tuned", "parity": "reviews"}, made=onnx, decisions=threads, details=EXPORT, seconds=41.3)
    predictions = build.artifact("dataset", {"rows.jsonl": b"{}\n"})
    infer = {"model": "onnx", "data": "reviews"}
    build.step("predictions", "infer", infer, made=predictions, decisions=threads, seconds=7.8, samples=samples(12, 0.8))
    champion = "yard://models/movie-sentiment@champion"
    moved = {"to": champion, "digest": model.digest, "previous": "0" * 64, "unchanged": False, "gate": None}
    build.step("champion", "promote", {"model": "tuned", "to": champion}, result=moved, seconds=0.9)
    floor = 0.75 if passed else 0.9
    publish = {"model": "onnx", "to": "modelscope://me/movie-sentiment", "gate": {"metrics": "score", "at_least": {"accuracy": floor}}}
    if passed:
        build.step("release", "publish", publish, result=release(), seconds=3.3)
        return build.end(notes=("modelscope://datasets/hutto/movie-reviews: the hub did not answer; as of 2026-11-23T01:05:26Z",))
    said = {"exit_code": 81, "category": "refused", "what": "the gate refused it: accuracy 0.8100 is under 0.9", "where": "gate.at_least.accuracy"}
    said |= {"why": "95 % interval 0.7928 to 0.8272, n = 2000", "remedy": "train longer, or lower the floor to what is good enough"}
    build.step("release", "publish", publish, state=StepState.FAILED, result=release(passed=False), seconds=0.4, **said)
    return build.end(RunState.FAILED, exit_code=81)


def crashed(yard: Yard) -> Run:
    """A training that diverged in its second attempt, with its curve and decisions in the log alone, and what never began after it."""
    build = Builder(yard)
    build.fetch("reviews", "./reviews.csv", "dataset", 100)
    said = {"exit_code": 65, "category": "data", "what": "training diverged at step 40: loss nan", "where": "rows 3, 8 of train", "why": "no number"}
    log = [{"event": "decided", "name": "dtype", "value": "float16", "reason": "half the memory"}]
    log += [{"event": "step", **point} for point in history()["train"][:39]]
    build.step("tuned", "finetune", {"data": "reviews"}, state=StepState.FAILED, log=log, remedy="lower learning_rate", seconds=60.0, **said)
    build.step("score", "evaluate", {"model": "tuned", "data": "reviews"}, state=StepState.SKIPPED, ended=False, seconds=None)
    return build.end(RunState.FAILED, exit_code=65)


def running(yard: Yard) -> Run:
    """A training at work."""
    build = Builder(yard)
    build.fetch("reviews", "./reviews.csv", "dataset", 100)
    log = [{"event": "step", **point} for point in history()["train"][:20]]
    build.step("tuned", "finetune", {"data": "reviews"}, state=StepState.RUNNING, log=log, samples=samples(30, 1.2), ended=False, seconds=None)
    build.step("score", "evaluate", {"model": "tuned", "data": "reviews"}, state=StepState.WAITING, ended=False, seconds=None)
    return build.end(RunState.RUNNING)
