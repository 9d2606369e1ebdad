"""The whole life of a small model on this machine: `make demo`.

Makes the hub's folder from two packages (demo_hub.py), serves it with `modelyard hub serve`, runs quickstart.yaml against it through the ModelScope
face, writes the report, downloads what was published with ModelScope's own client, and lets it read the same rows again. Everything lies below
.demo; nothing is asked of any other host.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import demo_hub

EXAMPLES = Path(__file__).resolve().parent
HOME = EXAMPLES.parent / ".demo"
REPORT = EXAMPLES.parent / "report" / "index.html"
MODELYARD = [sys.executable, "-m", "modelyard"]
PUBLISHED = "demo/movie-sentiment"
UNDECIDED = 0.501
"""Below this share for the better of two labels, two engines may well disagree."""


def main() -> None:
    """Run it all; the exit code is that of the first part that failed."""
    demo_hub.main(HOME / "hub")
    token = own_token(HOME / "token")
    with served(HOME / "hub", HOME / "token") as address:
        environ = {**os.environ, "MODELYARD_HUBS_MODELSCOPE": address, "MODELSCOPE_ENDPOINT": address, "MODELSCOPE_API_TOKEN": token}
        call([*MODELYARD, "run", "quickstart.yaml"], environ)
        call([*MODELYARD, "report", "--out", str(REPORT)], environ)
        steps = modelyard_json(["show"], environ)["steps"]
        downloaded = HOME / "published"
        shutil.rmtree(downloaded, ignore_errors=True)
        client = [str(Path(sys.executable).with_name("modelscope")), "download", "--model", PUBLISHED, "--local_dir", str(downloaded)]
        call(client, {**environ, "MODELSCOPE_CACHE": str(HOME / "modelscope"), "MODELSCOPE_HOME": str(HOME / "modelscope")}, quiet=True)
        rows = ["--data", "modelscope://datasets/hutto/movie-reviews", "--split", "test", "--rows", "500", "--max-length", "64"]
        again = modelyard_json(["infer", "--model", str(downloaded), *rows], environ)["steps"]["infer"]
    before, after = (predictions(step["artifact"]) for step in (steps["predictions"], again))
    clear = [row for row in before if before[row]["score"] > UNDECIDED]
    equal = sum(before[row]["label"] == after[row]["label"] for row in clear)
    print(f"\n{PUBLISHED}, downloaded by ModelScope's own client: {equal} of {len(clear)} labels as the exported model gave them")
    print(f"the report: {REPORT.relative_to(Path.cwd()) if REPORT.is_relative_to(Path.cwd()) else REPORT}")
    sys.exit(equal != len(clear) or before.keys() != after.keys())


def own_token(path: Path) -> str:
    """The token that the demo's hub asks for, made once."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(16))
    return path.read_text()


@contextmanager
def served(folder: Path, token: Path) -> Iterator[str]:
    """The address of a hub that serves the folder."""
    command = [*MODELYARD, "hub", "serve", str(folder), "--port", "0", "--token-file", str(token), "-q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as hub:
        try:
            address = (hub.stdout.readline() if hub.stdout else "").strip()
            if not address:  # it has said why; without an address the public hub would be asked
                sys.exit(hub.wait())
            yield address
        finally:
            hub.terminate()


def call(command: list[str], environ: Mapping[str, str], *, quiet: bool = False) -> None:
    """Run a command, and end as it ended where it failed."""
    done = subprocess.run(command, cwd=EXAMPLES, env=environ, check=False, capture_output=quiet, text=True)
    if done.returncode:
        sys.stderr.write((done.stdout or "") + (done.stderr or ""))
        sys.exit(done.returncode)


def modelyard_json(arguments: list[str], environ: Mapping[str, str]) -> Any:
    """What modelyard says with `-o json`."""
    done = subprocess.run([*MODELYARD, *arguments, "-o", "json"], cwd=EXAMPLES, env=environ, check=False, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def predictions(digest: str) -> dict[int, dict[str, Any]]:
    """Row -> what an infer step said of it."""
    files = sorted((HOME / "yard" / "artifacts" / digest / "files" / "data").glob("*.jsonl"))
    return {record["row"]: record for file in files for record in map(json.loads, file.read_text().splitlines())}


if __name__ == "__main__":
    main()
