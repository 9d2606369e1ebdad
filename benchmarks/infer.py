"""How many texts per second the engine answers for, against the ways that one would write by hand, and its engines against each other.

A BERT of MiniLM's size with random weights, texts of lognormal length (median 32 tokens, sigma 0.8), cut at 256 tokens, one thread. From strings to
probabilities, the model being loaded. The sides, in float32 where nothing else is said:

  torch, onnx, int8, bf16   our engine, as `infer` runs it; the ONNX files and their 8-bit weights come from our own export
  one by one                one call of tokenizer and model per text, in inference mode
  pipeline                  transformers' own, batch_size=32
  by hand                   texts sorted by length, batches of the token budget that was fastest here, in inference mode

Rounds are interleaved, each in another order; ratios are medians of those within a round. They are of processor time, which others on a busy machine
cannot lengthen much; with one thread on a quiet core it is the time that passes, which is printed beside it. Answers are compared with those of one
by one: wherever its margin exceeds twice the largest difference of a probability, labels have to be the same; in float32 that difference is held
under 1e-4. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks import encoders, stepping
from modelyard.steps import Export, Infer
from modelyard.yard import Artifact, Yard
from modelyard_jobs import engine, exported, models, tasks
from modelyard_jobs.export import int8
from modelyard_jobs.export import run as export
from modelyard_jobs.onnx_runner import OnnxRunner
from modelyard_jobs.torch_runner import TorchRunner

Answers = np.ndarray
"""Probabilities, (texts, labels)."""
Side = Callable[[list[str]], Answers]

MAX_LENGTH = 256
PARITY = 1e-4
"""Largest difference of a probability between two ways to compute it in float32."""
ONE, PIPELINE, HAND = "one by one", "pipeline", "by hand"
TARGETS = (("torch", ONE, 1.3), ("torch", PIPELINE, 2.5), ("torch", HAND, 0.95), ("onnx", "torch", 1.0), ("int8", "torch", 1.8))
"""A side is to be so many times as fast as another."""
BUDGETS = (256, 384, 512, 768, 1024, 2048, 4096)
"""Padded tokens of a batch that by hand is tried with."""


@dataclass(frozen=True)
class Timed:
    """One call of a side, in seconds."""

    processor: float
    wall: float


def main() -> int:
    """Measure and print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description="infer's engine against calls by hand and transformers' pipeline")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", choices=encoders.SIZES, default="minilm")
    parser.add_argument("--budgets", action="store_true", help="measure our engine under each token budget instead, on twice as many texts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    texts = encoders.texts(options.texts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = encoders.save(folder / "model", options.size)
        runners = ours(folder, model)
        loaded = runners["torch"]
        print(encoders.lengths(loaded.encoder.texts(texts, MAX_LENGTH)[0]), flush=True)
        if options.budgets:
            return budgets(runners, options)
        engines = {name: engine_of(runner, engine.CPU_BUDGET) for name, runner in runners.items()}
        by_hand = ByHand(loaded.model, loaded.tokenizer, "cpu")
        budget = by_hand.tune(texts)
        print(f"token budget: {engine.CPU_BUDGET} ours, {budget} by hand, the fastest of {BUDGETS}", flush=True)
        sides = {
            **engines,
            ONE: one_by_one(loaded.model, loaded.tokenizer, "cpu"),
            PIPELINE: pipeline(loaded.model, loaded.tokenizer, "cpu"),
            HAND: by_hand,
        }
        times, answers = rounds(sides, texts, options.rounds)
    fast = report(times, len(texts))
    same = agree(answers, exact={"torch", "onnx", HAND, PIPELINE})
    return int(not (fast and same))


def ours(folder: Path, model: Path) -> dict[str, Any]:
    """Runners of the model: torch, bf16, and those of its export."""
    yard = Yard.open(folder / "yard")
    source = encoders.commit(yard, "model", model)
    task = tasks.of("text-classification", Infer(model="m", data="d"))
    runners = {
        "torch": TorchRunner(task, models.load(task, source, None, torch.float32), "cpu"),
        "bf16": TorchRunner(task, models.load(task, source, None, torch.bfloat16), "cpu"),
    }
    files = export_of(yard, source, folder)
    int8.write(files / exported.GRAPH, files / exported.INT8, folder)
    made = encoders.commit(yard, "model", files, format="onnx")
    for name, graph in (("onnx", exported.GRAPH), ("int8", exported.INT8)):
        runners[name] = OnnxRunner.load(task, made, graph, device="cpu", threads=1)
    return runners


def export_of(yard: Yard, source: Artifact, folder: Path) -> Path:
    """The files of the step export, run in this process."""
    rows = folder / "rows"
    rows.mkdir()
    (rows / "test.csv").write_text("text\n" + "\n".join(encoders.texts(32, seed=2)) + "\n")
    inputs = {"model": source, "parity": encoders.commit(yard, "dataset", rows)}
    return stepping.run(export, Export(model="m", parity="d", rows=32), inputs, yard, folder / "export").files


def engine_of(runner: Any, budget: int) -> Side:
    """Our engine over texts."""
    made = engine.Engine(runner, runner.task, MAX_LENGTH, budget)
    return lambda texts: np.asarray(made.answer(made.prepare([{"text": text} for text in texts]), lambda _: None).answers)


def one_by_one(model: Any, tokenizer: Any, device: str) -> Side:
    """One call per text."""

    def run(texts: list[str]) -> Answers:
        found = []
        with torch.inference_mode():
            for text in texts:
                inputs = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt").to(device)
                found.append(model(**inputs).logits.float().softmax(-1).cpu().numpy()[0])
        return np.array(found)

    return run


def pipeline(model: Any, tokenizer: Any, device: str) -> Side:
    """The pipeline of transformers."""
    made = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device=device, top_k=None)

    def run(texts: list[str]) -> Answers:
        found = made(texts, batch_size=32, truncation=True, max_length=MAX_LENGTH)
        return np.array([[score for _, score in sorted((encoders.LABELS.index(each["label"]), each["score"]) for each in row)] for row in found])

    return run


class ByHand:
    """The loop that one writes who knows how: everything encoded at once, sorted by length, cut into batches of a token budget."""

    def __init__(self, model: Any, tokenizer: Any, device: str, tried: tuple[int, ...] = BUDGETS) -> None:
        self.model, self.tokenizer, self.device, self.tried, self.budget = model, tokenizer, device, tried, tried[0]

    def __call__(self, texts: list[str]) -> Answers:
        """Probabilities of the texts."""
        ids = self.tokenizer(texts, truncation=True, max_length=MAX_LENGTH, return_attention_mask=False)["input_ids"]
        order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
        found = np.zeros((len(ids), self.model.config.num_labels), dtype=np.float32)
        with torch.inference_mode():
            start = 0
            while start < len(order):
                longest = len(ids[order[start]])
                batch = order[start : start + max(1, self.budget // longest)]
                tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[place]) for place in batch], batch_first=True)
                mask = (torch.arange(longest) < torch.tensor([len(ids[place]) for place in batch])[:, None]).long()
                logits = self.model(input_ids=tokens.to(self.device), attention_mask=mask.to(self.device)).logits
                found[batch] = logits.float().softmax(-1).cpu().numpy()
                start += len(batch)
        return found

    def tune(self, texts: list[str], clock: str = "processor") -> int:
        """Take the budget that is fastest on these texts, of two interleaved rounds."""
        self(texts[:16])
        spent = dict.fromkeys(self.tried, 0.0)
        for _ in range(2):
            for budget in self.tried:
                self.budget = budget
                spent[budget] += getattr(clocked(self, texts)[0], clock)
        self.budget = min(spent, key=lambda budget: spent[budget])
        return self.budget


def rounds(sides: Mapping[str, Side], texts: list[str], number: int) -> tuple[dict[str, list[Timed]], dict[str, Answers]]:
    """(times of every side, `number` times, each round in another order; its answers)."""
    times: dict[str, list[Timed]] = {name: [] for name in sides}
    answers, names = {}, list(sides)
    for name in names:
        sides[name](texts[:16])
    for turn in range(number):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            timed, answers[name] = clocked(sides[name], texts)
            times[name].append(timed)
    return times, answers


def clocked(side: Side, texts: list[str]) -> tuple[Timed, Answers]:
    """How long it took, and what it said. Answers are on the host: a device has nothing left to do."""
    begun = time.process_time(), time.perf_counter()
    found = side(texts)
    return Timed(time.process_time() - begun[0], time.perf_counter() - begun[1]), found


def report(times: Mapping[str, list[Timed]], count: int, targets: tuple[tuple[str, str, float], ...] = TARGETS, clock: str = "processor") -> bool:
    """Print speeds and ratios by one of the clocks, and whether each target is met; whether all are."""
    for name, runs in times.items():
        walls = [run.wall for run in runs]
        rates = {kind: count / statistics.median(getattr(run, kind) for run in runs) for kind in ("processor", "wall")}
        spread = f"{count / max(walls):.1f} to {count / min(walls):.1f}"
        print(f"{name:10} {rates['processor']:9.1f} texts per second of processor, {rates['wall']:9.1f} of time ({spread})")
    held = []
    for fast, slow, least in targets:
        ratio, passed = (median_ratio(times[slow], times[fast], kind) for kind in (clock, "wall"))
        held.append(ratio >= least)
        print(f"{'holds ' if held[-1] else 'MISSED'}  {fast} is {ratio:.2f} x {slow}, at least {least} ({passed:.2f} by the time that passed)")
    return all(held)


def median_ratio(slow: list[Timed], fast: list[Timed], clock: str) -> float:
    """How many times as long the first took, as the median of the rounds."""
    return statistics.median(getattr(one, clock) / getattr(other, clock) for one, other in zip(slow, fast, strict=True))


def agree(answers: Mapping[str, Answers], exact: set[str]) -> bool:
    """Print how each side's answers differ from those of one by one; whether labels are the same where they have to be."""
    reference = answers[ONE]
    ordered = np.sort(reference, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    held = True
    for name, found in answers.items():
        if name == ONE:
            continue
        most = float(np.abs(found - reference).max())
        same = found.argmax(1) == reference.argmax(1)
        clear = margin > 2 * most
        right = bool(same[clear].all()) and (name not in exact or most <= PARITY)
        held &= right
        says = f"labels are the same on {int(same[clear].sum())} of {int(clear.sum())} clear rows, {int(same.sum())} of {len(same)} in all"
        print(f"{'holds ' if right else 'MISSED'}  {name:10} probabilities differ by {most:.1e} at most; {says}")
    return held


def budgets(runners: Mapping[str, Any], options: argparse.Namespace) -> int:
    """Our engine under each budget, on twice as many texts; to choose CPU_BUDGET by."""
    texts = encoders.texts(options.texts * 2)
    for name, runner in runners.items():
        sides = {f"{name} {budget}": engine_of(runner, budget) for budget in BUDGETS}
        report(rounds(sides, texts, options.rounds)[0], len(texts), targets=())
    return 0


if __name__ == "__main__":
    sys.exit(main())
