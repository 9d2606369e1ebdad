"""search end to end: a folder, the same folder served to both hubs' own clients, and an address at which nobody listens."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.steps.yardstick import Place

CARD = """---
license: apache-2.0
pipeline_tag: text-classification
---
A model.
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    for name in ("tiny/sentiment", "tiny/other", "datasets/tiny/reviews"):
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(3 << 20))
    (root / "tiny/sentiment/README.md").write_text(CARD)
    return root


@pytest.fixture(scope="module")
def served(hub: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "modelyard", "hub", "serve", str(hub), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


def place(root: Path, modelscope: str, huggingface: str) -> Place:
    (root / "modelyard.toml").write_text(f'[hubs]\nmodelscope = "{modelscope}"\nhuggingface = "{huggingface}"\n')
    return Place(root)


def test_a_folder_and_a_hub_that_is_not_there(tmp_path: Path, hub: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = f"http://127.0.0.1:{server.getsockname()[1]}"
    here = place(tmp_path, str(hub), closed)
    output, errors = here.modelyard("search", "--query", "sentiment")
    assert output.splitlines()[0].startswith("REF ")
    assert output.splitlines()[1].split()[:3] == ["modelscope://tiny/sentiment", "text-classification", "3"]
    assert output.splitlines()[2].startswith("huggingface gave no answer: ")
    assert len(output.splitlines()) == 3
    assert "search: done" in errors
    assert here.artifacts() == set()


def test_a_served_folder_answers_both_clients(tmp_path: Path, served: str) -> None:
    here, told = place(tmp_path, served, served), {"HF_HUB_OFFLINE": "0", "HOME": str(tmp_path)}
    found = json.loads(here.modelyard("search", "--query", "sentiment", "-o", "json", **told)[0])["results"]["search"]
    assert found["unanswered"] == []
    assert {row["ref"] for row in found["found"]} == {"modelscope://tiny/sentiment", "hf://tiny/sentiment"}
    assert {(row["task"], row["licence"]) for row in found["found"]} == {("text-classification", "apache-2.0")}
    names, _ = here.modelyard("search", "--kind", "dataset", "--owner", "tiny", "-o", "name", **told)
    assert sorted(names.split()) == ["hf://datasets/tiny/reviews", "modelscope://datasets/tiny/reviews"]
    assert here.modelyard("search", "--query", "nothing-like-this", "-o", "name", **told)[0] == ""
