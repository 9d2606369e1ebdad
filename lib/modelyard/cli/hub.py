"""`modelyard hub`: serve."""

from __future__ import annotations

from pathlib import Path

import click

from modelyard.cli.output import Output
from modelyard.cli.session import epilog
from modelyard.errors import Usage

_EXTRA = frozenset({"anyio", "starlette", "uvicorn"})


@click.command(
    "serve",
    epilog=epilog(
        [
            "modelyard hub serve ./models",
            "modelyard hub serve ./models --host 0.0.0.0 --port 8000 --token-file ./token",
            "MODELSCOPE_ENDPOINT=http://127.0.0.1:8000 modelscope download --model OWNER/NAME",
            "HF_ENDPOINT=http://127.0.0.1:8000 hf download OWNER/NAME",
        ]
    ),
)
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR", help="Repositories as OWNER/NAME/… and datasets/OWNER/NAME/…, or a yard.")
@click.option("--host", default="127.0.0.1", help="The address to listen at. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="The port; 0 takes a free one. [default: 8000]")
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Holds the token that uploads need; without one, the hub is read-only."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the address only, and no line per request.")
def serve(folder: Path, host: str, port: int, token_file: Path | None, quiet: bool) -> None:
    """Serve a folder or a yard to the clients of ModelScope and Hugging Face.

    Reads are open, but for private and gated repositories. Uploads become commits, kept in DIR/.modelyard. The address is the first line on stdout.
    """
    try:
        from modelyard.hubs.server import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise Usage(f"{error.name} is not installed", where="modelyard hub serve", remedy="pip install 'modelyard[hub]'") from error
    out = Output(quiet=quiet)
    app.run(folder, host, port, token_file, tell=lambda address: out.lines([address]), note=out.note, log=not quiet)


hub = click.Group("hub", (serve,), help="Serve models and data sets to the hubs' own clients.")
