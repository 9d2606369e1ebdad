"""publish against a served hub, by the clients of either scheme: sent, found unchanged, refused without a trace."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hubs.serving import ROOT, TOKEN, Served

SCHEMES = pytest.mark.parametrize("scheme", ["modelscope", "hf"])
SCRIPT = """
from pathlib import Path
from modelyard.errors import Failure
from modelyard.steps import Gate
from tests.steps.released import World

where, url, to, floor = sys.argv[1:]
world = World.make(Path(where))
world.hub = url
gate = Gate(metrics="score", at_least={"accuracy": float(floor)})
told = []
for _ in range(2):
    try:
        told.append(world.publish(world.onnx, world.measure(world.tuned), to=to, gate=gate))
    except Failure as failure:
        told.append({**failure.record(), "exit": failure.exit_code, "result": world.result()})
show(told)
"""


def publish(served: Served, scheme: str, floor: float = 0.75, token: str | None = TOKEN) -> list[dict[str, Any]]:
    """What publishing says the first and the second time."""
    path = f"{ROOT}:{ROOT / 'lib'}:{ROOT / 'jobs'}"
    where = str(served.home / "work")
    told: list[dict[str, Any]] = served.python(SCRIPT, where, served.url, f"{scheme}://me/reviews", str(floor), token=token, env={"PYTHONPATH": path})
    return told


def writes(served: Served) -> list[str]:
    return [line for line in served.requests() if line.split(" ")[0] in ("POST", "PUT", "DELETE")]


@SCHEMES
def test_published_tagged_private_and_found_unchanged(served: Served, scheme: str) -> None:
    first, second = publish(served, scheme)
    assert first["unchanged"] is False, first
    assert second == {**first, "unchanged": True, "visibility": "as it was"}
    assert first["visibility"] == "private"
    download = """
from {client} import snapshot_download
from pathlib import Path
import hashlib
folder = Path(snapshot_download("me/reviews", revision=sys.argv[1]))
files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
show({{str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}})
"""
    for client in ("modelscope", "huggingface_hub"):
        there = served.python(download.format(client=client), first["tag"], token=TOKEN)
        assert there == {file["path"]: file["sha256"] for file in first["files"]}
    assert served.request("GET", "/api/v1/models/me/reviews/repo/files").status in (401, 403, 404)


@SCHEMES
def test_below_the_gate_nothing_is_asked_of_the_hub(served: Served, scheme: str) -> None:
    refused, _ = publish(served, scheme, floor=0.9)
    assert (refused["exit"], refused["category"]) == (81, "refused")
    assert refused["result"]["gate"]["passed"] is False
    assert served.requests() == []


@SCHEMES
@pytest.mark.parametrize("token", [None, "another-token-0123456789"])
def test_without_the_token_nothing_is_written(served: Served, scheme: str, token: str | None) -> None:
    denied, _ = publish(served, scheme, token=token)
    assert denied["exit"] == 77, denied
    assert {"modelscope": "MODELSCOPE_API_TOKEN", "hf": "HF_TOKEN"}[scheme] in denied["remedy"]
    assert writes(served) == []
    assert str(token) not in str(denied)
