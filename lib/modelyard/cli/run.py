"""`modelyard run`, and how any pipeline is started from the command line and what is said of it at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli import results
from modelyard.cli.output import complain, short, table
from modelyard.cli.session import Session, command
from modelyard.quantities import format_seconds

if TYPE_CHECKING:
    from modelyard.spec import Pipeline
    from modelyard.yard.runs import RunStatus

DETACH = click.Option(["-d", "--detach"], is_flag=True, help="Print the run's name and leave; the run goes on in the background.")
JOBS = click.Option(["--jobs"], type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Steps that may run side by side.")
DRIVER = click.Option(
    ["--driver"],
    type=click.Choice(["there", "here"]),
    default="there",
    show_default=True,
    help="On a cluster: drive the run from a pod there, or from this process.",
)
SMOKE = click.Option(["--smoke"], is_flag=True, help="The whole pipeline on a handful of rows and steps, to see it work.")

ALL = ""
"""The value of `--force` without one."""


class _Run(click.Command):
    """`--force` never takes the next word, which would be the file: its value, if any, follows `=`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, `--force` alone being `--force=`."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*(f"--force={ALL}" if arg == "--force" else arg for arg in args[:end]), *args[end:]])


@command(
    "run",
    cls=_Run,
    options=[DETACH, JOBS, SMOKE, DRIVER],
    examples=[
        "modelyard run pipeline.yaml --smoke",
        "modelyard run pipeline.yaml --force=tuned --jobs 2",
        "modelyard run pipeline.yaml --on kubernetes -d",
    ],
)
@click.argument("file", type=click.Path())
@click.option("--force", multiple=True, metavar="[=STEP]", help="Do the step again, or all, although its result is known. May be given again.")
def run(session: Session, *, file: str, force: tuple[str, ...], detach: bool, jobs: int, smoke: bool, driver: str) -> int:
    """Run a pipeline: finished steps are reused, interrupted ones resume.

    Running it again is the retry, the resume and the attach. The exit code is the class of the failure, 0 without one. Ctrl-C asks the steps
    to stop; they keep what they have done, and the next run goes on from there. On a cluster Ctrl-C ends the following only.
    """
    from modelyard import spec

    return launch(session, spec.load(file), force=force, detach=detach, jobs=jobs, smoke=smoke, driver=driver)


def launch(
    session: Session, pipeline: Pipeline, *, force: tuple[str, ...], detach: bool, jobs: int = 1, smoke: bool = False, driver: str = "there"
) -> int:
    """Start a pipeline and, unless detached, follow it to its end; the exit code. force: names of steps, `ALL` for all of them."""
    from modelyard.cli import follow
    from modelyard.run import start
    from modelyard.run.settings import Settings

    settings = Settings(session.config.yard, session.config.hubs, jobs, frozenset(pipeline.steps if ALL in force else force))
    pipeline = pipeline.smoke() if smoke else pipeline
    if session.config.remote:
        from modelyard.cli import remote

        started, found = remote.start(session, pipeline, settings, detach=detach, here=driver == "here")
    elif detach:
        started, found = start.start_detached(pipeline, settings), None
    else:
        with follow.view(session.out) as view:
            status = start.start(pipeline, settings, view)
        started, found = status.run, described(session, status)
    if found is None:
        session.out.record("Run", {"run": started}, [started], name=started)
        session.hint(f"modelyard logs {started} -f")
        return 0
    return _result(session, pipeline, found)


def _result(session: Session, pipeline: Pipeline, run: Mapping[str, Any]) -> int:
    """Show what has come of a run; its exit code."""
    from modelyard.yard.runs import RunStatus

    status = RunStatus.model_validate(run)
    alone = status.steps.get(pipeline.name) if len(pipeline.steps) == 1 else None  # a step's own command: both have the verb's name
    result = run["results"].get(pipeline.name) if alone else None
    refs = [item["ref"] for item in (result or {}).get("found", [])]
    lines = results.text(alone.verb, result) if alone and result else text(run)
    session.out.record("Run", run, lines, name=refs if alone and alone.verb == "search" else status.run)
    if session.out.format == "name":
        for line in results.unanswered(result or {}):
            session.out.note(line)
    return settle(session, status)


def described(session: Session, status: RunStatus) -> dict[str, Any]:
    """A run of the yard in force as JSON values: its status, the metrics of its evaluations, and the results of steps that make no artifact."""
    from modelyard.run.results import described

    return described(session.yard(), status)


def text(run: Mapping[str, Any]) -> Iterator[str]:
    """A described run for people."""
    from modelyard.cli.follow import pace
    from modelyard.yard.runs import Progress

    yield f"run {run['run']}: {run['state']}, started {run['started']}" + (f", ended {run['ended']}" if run["ended"] else "")
    yield from run["notes"]
    yield ""
    rows = []
    for name, step in run["steps"].items():
        state = f"{step['state']}, attempt {step['attempt']}" if step["attempt"] > 1 else step["state"]
        seconds = None if step["seconds"] is None else format_seconds(step["seconds"])
        note = pace(Progress(**step["progress"])) if "progress" in step else step["note"]
        rows.append([name, step["verb"], state, step["kind"], short(step["artifact"]), seconds, note])
    yield from table(rows, ["STEP", "VERB", "STATE", "MAKES", "ARTIFACT", "TIME", "NOTE"])
    rows = [
        [name, metric, f"{found['value']:.4f}", f"{found['low']:.4f} to {found['high']:.4f}", found["n"]]
        for name, metrics in run["metrics"].items()
        for metric, found in metrics.items()
    ]
    if rows:
        yield ""
        yield from table(rows, ["STEP", "METRIC", "VALUE", "95 % INTERVAL", "N"])
    rows = [
        [name, metric, f"{found['value']:+.4f}", f"{found['low']:+.4f} to {found['high']:+.4f}", found["n"]]
        for name, metrics in run["metrics"].items()
        for metric, measured in metrics.items()
        if (found := measured.get("difference"))
    ]
    if rows:
        yield ""
        yield from table(rows, ["STEP", "AGAINST THE OTHER MODEL", "DIFFERENCE", "95 % INTERVAL", "N"])
    for name, result in run["results"].items():
        yield ""
        yield f"RESULT OF {name}"
        yield from results.text(run["steps"][name]["verb"], result, whole=False)


def settle(session: Session, status: RunStatus) -> int:
    """Say on stderr why a run failed and what to do next; its exit code."""
    failed = {name: failure for name, step in status.steps.items() if step.state == "failed" and (failure := step.failure())}
    for name, failure in failed.items():
        failure.where = ": ".join(part for part in (name, failure.where) if part)
        complain(failure)
    began = next((name for name in failed if status.steps[name].attempt), None)
    if status.state in ("stopped", "cancelled"):
        session.out.note(f"the run was {status.state}")
        session.out.hint("run it again: it goes on from what was kept")
    elif failed and session.config.remote:  # there a step may have failed before it could say anything
        session.hint(f"modelyard explain {status.run} {next(iter(failed))}")
    elif began:
        session.hint(f"modelyard logs {status.run} {began}")
    elif status.state == "done":
        session.hint(f"modelyard show {status.run}")
    return status.exit_code or 0
