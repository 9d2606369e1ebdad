"""`modelyard explain`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from modelyard.cli.output import table
from modelyard.cli.places import find
from modelyard.cli.session import Remembering, Session, command, complete_runs
from modelyard.errors import Usage

if TYPE_CHECKING:
    from modelyard.kube.diagnosis import Diagnosis

_OF_A_RUN = re.compile(r"modelyard (?:wait|show|logs|explain|cancel|run)(?: \w[\w-]*)+")
"""A command that a remedy names, and that has to be told where, as this one was."""


@command(
    "explain",
    cls=Remembering,
    examples=[
        "modelyard explain",
        "modelyard explain movie-sentiment-1a2b tuned",
        "modelyard explain movie-sentiment-1a2b --reuse tuned",
        "modelyard explain movie-sentiment-1a2b -o json",
    ],
)
@click.argument("run", required=False, shell_complete=complete_runs, help="A run's name, or the beginning of one; default the latest.")
@click.argument("step", required=False)
@click.option("--reuse", metavar="STEP", help="Say instead whether the step's result would be used again, and what of that has changed.")
def explain(session: Session, run: str | None, step: str | None, reuse: str | None) -> None:
    """Say why a run waits or failed, and what to do.

    Without STEP, of the step that says most: which failed, else waits, else runs. A category that never changes its name, what it rests on, and one
    thing to do. The exit code is 0 where there is an answer, also that a step failed.
    """
    if reuse is not None:
        if step:
            raise Usage("a step is given twice", where="--reuse", remedy=f"leave out {step!r}")
        _reuse(session, run, reuse)
        return
    from modelyard.run import explain as explaining

    if session.config.remote:
        from modelyard.cli import remote

        cluster = remote.cluster(session)
        with remote.named(cluster):
            found = explaining.there(cluster, run, step)
    else:
        found = explaining.here(find(session, run), step)
    found = found.model_copy(update={"remedy": _OF_A_RUN.sub(lambda named: session.again(named[0]), found.remedy)})
    value = {**found.model_dump(mode="json"), "meaning": found.meaning, "seen": found.seen}
    session.out.record("Diagnosis", value, text(found), name=found.category)


def _reuse(session: Session, run: str | None, step: str) -> None:
    """What a result is found by is known where the yard is."""
    if session.config.remote:
        from modelyard.cli import remote

        remote.delegate(session, write=False)
        return
    from modelyard.run.reuse import compare

    found = compare(session.yard(), find(session, run), step)
    session.out.record("Reuse", found.model_dump(mode="json"), [str(found)], name=found.artifact or "")


def text(found: Diagnosis) -> Iterator[str]:
    """An answer for people."""
    of = f"run {found.run}, step {found.step}" if found.step else f"run {found.run}, its driver"
    ended = f", exit code {found.exit_code}" if found.exit_code else ""
    yield f"{of}: {found.category}{ended}"
    yield found.what
    if found.evidence:
        yield ""
        yield from table([[one.object, one.field, " ".join(one.value.split())] for one in found.evidence], ["OBJECT", "FIELD", "VALUE"])
    if found.arithmetic:
        yield ""
        yield from found.arithmetic
    if found.unknown:
        yield ""
        yield from (f"not known: {one}" for one in found.unknown)
    if found.remedy:
        yield ""
        yield f"try: {found.remedy}"
