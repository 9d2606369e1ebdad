"""`modelyard report`."""

from __future__ import annotations

import io
from pathlib import Path

import click

from modelyard.cli import remote
from modelyard.cli.places import find, gone
from modelyard.cli.session import Session, command, complete_runs
from modelyard.errors import Usage, VolumeFailed
from modelyard.yard.runs import RunState

_STDOUT = "-"


@command(
    "report",
    examples=["modelyard report --open", "modelyard report movie-sentiment-1a2b --out report/index.html", "modelyard report --out - > run.html"],
)
@click.argument("run", required=False, shell_complete=complete_runs, help="A run's name, or the beginning of one; default the latest.")
@click.option("--out", metavar="FILE", help="Where to write it, `-` for stdout; default RUN.html in this folder.")
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
def report(session: Session, run: str | None, out: str | None, show: bool) -> None:
    """Write a run as one offline HTML page.

    Lineage, decisions, curves, metrics with their intervals, errors, parity, gate and publication, as far as the run has them. The file needs
    nothing beside itself: no network, no scripts. It can be written while the run is at work, and shows the run as it stood then.
    """
    if show and out == _STDOUT:
        raise Usage("stdout cannot be opened in a browser", where="--open", remedy="name a file with --out")
    name, page = (_far if session.config.remote else _near)(session, run)
    if out == _STDOUT:
        click.echo(page, nl=False)
        return
    from modelyard.yard import files

    target = Path(out or f"{name}.html").absolute()
    if target.is_dir():
        raise Usage("this is a folder", where=str(target), remedy=f"--out {target / name}.html")
    with files.failures(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(target, page, durable=False)
    session.out.record("Report", {"run": name, "path": str(target)}, [str(target)], name=str(target))
    if show:
        _show(target)


def _near(session: Session, run: str | None) -> tuple[str, bytes]:
    """A run's name and its page, from a yard that is here."""
    import modelyard.report

    found = find(session, run)
    dead = not found.live() and found.status().state is RunState.RUNNING
    page = modelyard.report.render(session.yard(), found).encode()
    if dead:
        session.out.note(gone(found))
    return found.id, page


def _far(session: Session, run: str | None) -> tuple[str, bytes]:
    """The same, from a yard on a cluster: its page is made there."""
    with remote.reader(session) as pod:
        names, page = io.BytesIO(), io.BytesIO()
        pod.run(["ls", "--quiet"], names)
        known = names.getvalue().decode().split()
        matching = [run] if run in known else [name for name in known if name.startswith(run or "")]
        name = matching[0] if len(matching) == 1 or (matching and not run) else run  # else the command there says what is wrong with it
        pod.run(["report", "--out", _STDOUT, *(["--", name] if name else [])], page)
    return str(name), page.getvalue()


def _show(file: Path) -> None:
    import webbrowser

    if not webbrowser.open(file.as_uri()):
        raise VolumeFailed("no browser could be started", where=str(file), remedy="open the file yourself")
