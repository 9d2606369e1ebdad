"""The page: a run's record and its sections, in a template with autoescape on, as one HTML text.

The same record gives the same bytes: neither clock nor environment is looked at. The page asks for nothing: its stylesheet and figures stand in it,
it has no script, and its content security policy forbids both requests and scripts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from modelyard.quantities import format_bytes, format_seconds
from modelyard.report import comparison, evaluation, lineage, machine, sections, words
from modelyard.report.record import RunRecord, collect
from modelyard.report.sections import Verdict
from modelyard.report.words import clean, cut
from modelyard.yard import Yard
from modelyard.yard.runs import FINISHED, Run, RunState, StepState

TEXT = 400
"""Letters of a text from outside at most."""
FILES = 60
"""Files of a release at most."""
EPOCHS = 100
"""Epochs in a table at most, the last ones."""
REPOSITORIES = 50
"""Repositories of a search at most."""
SPEC = 40_000
"""Letters of the pipeline's spec at most."""


@dataclass(frozen=True)
class Tile:
    """One figure of the head of the page. note: what it is to be read with."""

    label: str
    value: str
    note: str
    tone: sections.Tone = "info"


@dataclass(frozen=True)
class Page:
    """All that the template shows."""

    run: RunRecord
    verdict: Verdict
    took: str
    tiles: tuple[Tile, ...]
    lineage: tuple[Markup, ...]
    evaluated: tuple[evaluation.Evaluated, ...]
    compared: Mapping[str, comparison.Compared]
    trained: tuple[sections.Trained, ...]
    inferred: tuple[sections.Inferred, ...]
    exported: tuple[sections.Exported, ...]
    released: tuple[sections.Released, ...]
    measured: tuple[sections.Figure, ...]
    versions: tuple[machine.Versions, ...]
    spec: str

    @classmethod
    def of(cls, run: RunRecord) -> Page:
        """The page of a run."""
        found = lineage.graph(run)
        name = f"What made what in {run.status.run}: {len(run.steps)} steps"
        drawn = [lineage.draw(found, name), lineage.draw(found, name, down=True)] if found.nodes else []
        return cls(
            run,
            verdict(run),
            _took(run),
            tuple(_tiles(run)),
            tuple(map(Markup, drawn)),  # lineage.py escapes every text
            tuple(evaluation.evaluated(run)),
            comparison.compared(run),
            tuple(sections.trained(run)),
            tuple(sections.inferred(run)),
            tuple(sections.exported(run)),
            tuple(sections.released(run)),
            tuple(machine.measured(run)),
            tuple(machine.versions(run)),
            _spec(run),
        )


def render(yard: Yard, run: Run) -> str:
    """The report of a run as it stands. Raises Corrupt: the run's own record is gone or torn."""
    return _environment().get_template("page.html.j2").render(page=Page.of(collect(yard, run)))


def verdict(run: RunRecord) -> Verdict:
    """The run in a sentence or two."""
    status = run.status
    finished = sum(step.status.state in FINISHED for step in run.steps)
    reused = sum(step.status.state is StepState.REUSED for step in run.steps)
    again = f", {reused} of them reused." if reused else "."
    if status.state is RunState.DONE:
        return Verdict("good", " ".join([f"All {finished} steps finished{again}" if finished > 1 else "The step finished.", *_achieved(run)]))
    so_far = f"{finished} of {len(run.steps)} steps finished{again}"
    if status.state is RunState.RUNNING:
        return Verdict("info", f"It had not ended when this was written: {so_far}")
    if status.state is RunState.FAILED:
        failed = [step for step in run.steps if step.status.state is StepState.FAILED]
        named = [f"{step.name} {'was refused' if step.refused else 'failed'}: {cut(step.status.what, 160).rstrip('.')}." for step in failed[:3]]
        return Verdict("bad", " ".join([*(named or ["It failed outside of its steps."]), so_far]))
    return Verdict("warn", f"It was {status.state.value}: {so_far} The next run goes on from what was kept.")


def _achieved(run: RunRecord) -> Iterator[str]:
    for each in sections.released(run):
        if each.step.state == "done":
            yield each.outcome.text


def _tiles(run: RunRecord) -> Iterator[Tile]:
    for step in run.steps:
        if (found := step.evaluation) and (name := evaluation.main(found)):
            metric = found.metrics[name]
            rows = f", n = {metric.n}" if metric.n else ""
            note = f"{words.four(metric.low)} to {words.four(metric.high)} (95 %){rows}"
            yield Tile(f"{name.replace('_', ' ')} · {step.name}", words.four(metric.value), note)
    for step in run.steps:
        if step.release and (gate := step.release.gate):
            asked = "; ".join(f"{line.metric}{' difference' * line.difference} at least {line.at_least:g}" for line in gate.lines)
            yield Tile(f"gate · {step.name}", "passed" if gate.passed else "refused", asked, "good" if gate.passed else "bad")
    for step in run.steps:
        if parity := step.parity:
            held = parity.tolerance is None or parity.max_abs <= parity.tolerance
            note = f"{words.percent(parity.agreement)} same {parity.unit}, {parity.rows} rows"
            yield Tile(f"largest difference · {step.name}", words.small(parity.max_abs), note, "good" if held else "bad")


def _took(run: RunRecord) -> str:
    status = run.status
    if not (status.started and status.ended):
        return ""
    return format_seconds((datetime.fromisoformat(status.ended) - datetime.fromisoformat(status.started)).total_seconds())


def _spec(run: RunRecord) -> str:
    """The pipeline as YAML, in its own order; what is not set is left out."""
    steps = run.pipeline.get("steps", {})
    if not steps:
        return ""
    ordered = {name: steps[name] for name in (*run.status.steps, *steps) if name in steps}
    text = yaml.safe_dump(_set({"name": run.pipeline.get("name", ""), "steps": ordered}), sort_keys=False, allow_unicode=True, width=100)
    return text if len(text) <= SPEC else text[:SPEC] + "\n… (cut)\n"


def _set(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _set(each) for key, each in value.items() if each is not None and each not in ([], {})}
    return value


def _moment(text: str) -> str:
    """An ISO time for people, in UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if at.tzinfo else text


def _shown(text: object, letters: int = TEXT) -> str:
    """A text from outside, cut."""
    return cut(str(text), letters)


def _cleaned(value: object) -> object:
    """What an expression of the template gives, without what would break a page or could not be written as UTF-8."""
    return clean(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("modelyard.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "four": words.four,
        "signed": words.signed,
        "percent": words.percent,
        "small": words.small,
        "plain": words.plain,
        "bytes": format_bytes,
        "seconds": format_seconds,
        "moment": _moment,
        "cut": _shown,
        "short": lambda digest: str(digest)[:12],
    }
    environment.globals |= {"FILES": FILES, "EPOCHS": EPOCHS, "REPOSITORIES": REPOSITORIES}
    return environment
