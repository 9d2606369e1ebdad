"""preflight end to end: the command, the frame, real libraries, real sockets. Its parts one by one are in tests/unit/jobs/test_preflight.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard import keys
from modelyard_jobs.preflight import ask
from tests.steps.yardstick import Place, rows

TOKEN = "a-token-that-may-write"

WHOLE = """name: reviews
resources: {cpu: 1}
steps:
  look: {preflight: {SETTINGS}}
  base: {fetch: {model: modelscope://tiny/base}}
  rows: {fetch: {dataset: modelscope://datasets/tiny/reviews}}
  tuned: {finetune: {model: base, data: rows}}
  score: {evaluate: {model: tuned, data: rows, rows: 2000}}
  out: {publish: {model: tuned, to: "hf://me/reviews", gate: {metrics: score, at_least: {accuracy: 0.8}}}}
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, whose weights nobody will load, and rows."""
    root = tmp_path_factory.mktemp("hub")
    model, data = root / "tiny" / "base", root / "datasets" / "tiny" / "reviews"
    model.mkdir(parents=True)
    data.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(1 << 20))
    (data / "train.csv").write_text(rows(10, 1))
    return root


@pytest.fixture(scope="module")
def closed() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def place(tmp_path: Path, hub: Path, closed: str) -> Place:
    (tmp_path / "modelyard.toml").write_text(f'[hubs]\nmodelscope = "{hub}"\nhuggingface = "{closed}"\n')
    return Place(tmp_path)


@pytest.fixture(scope="module")
def served(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address at which the folder is served; writes need TOKEN."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    command = [sys.executable, "-m", "modelyard", "hub", "serve", str(hub), "--port", "0", "--token-file", str(token)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


def looked(place: Place, name: str = "preflight") -> dict[str, dict[str, Any]]:
    """The rows of the latest run, by check."""
    return {row["check"]: row for row in place.json("show")["results"][name]["rows"]}


def test_a_lone_preflight_looks_at_everything_and_needs_little(place: Place) -> None:
    output, errors = place.modelyard("preflight", "--disk", "1Mi", "-o", "table")
    assert output.startswith("VERDICT")
    assert "preflight: done" in errors
    found = looked(place)
    assert list(found)[:10] == ["python", "packages", "torch", "onnxruntime", "devices", "threads", "memory", "shm", "volume", "disk"]
    locked = {name: version.partition("+")[0] for name, version in keys.installed_versions().items()} == keys.PINNED
    assert found["packages"]["verdict"] == ("ok" if locked else "warning")
    assert {row["verdict"] for check, row in found.items() if check not in {"hub huggingface", "packages"}} <= {"ok"}
    assert "CPUExecutionProvider" in found["onnxruntime"]["found"]
    assert found["torch"]["found"][0].isdigit()
    assert found["hub huggingface"]["verdict"] == "warning", "no step needs it"
    assert found["hub modelscope"]["verdict"] == "ok"
    assert place.artifacts() == set()
    assert list((place.root / ".yard/staging").iterdir()) == []


def test_what_a_pipeline_needs_is_looked_at_before_anything_is_fetched(place: Place, closed: str) -> None:
    (place.root / "reviews.yaml").write_text(WHOLE.replace("{SETTINGS}", "{disk: 900Ti}"))
    output, errors = place.modelyard("run", "reviews.yaml", code=73)
    assert "RESULT OF look\nVERDICT" in output, "the table is shown all the same"
    assert "error: look: disk: " in errors
    assert "failed too: hub huggingface" in errors
    found = looked(place, "look")
    assert (found["disk"]["verdict"], found["disk"]["needed"]) == ("failed", "900 TiB")
    assert found["hub huggingface"]["verdict"] == "failed", "out publishes there"
    assert found["ref modelscope://tiny/base"]["found"] == "2 files, 1 MiB"
    assert found["gate of out"]["found"] == "0.808 to be safe"
    assert list(found)[-1] == "gate of out"
    assert place.artifacts() == set(), "nothing was fetched"
    assert place.states()["tuned"] == "skipped"


def test_a_hub_that_takes_no_uploads_from_us(place: Place, served: str) -> None:
    told = {"MODELYARD_HUBS_HUGGINGFACE": served, "MODELYARD_HUBS_MODELSCOPE": served, "HF_HUB_OFFLINE": "0", "HOME": str(place.root)}
    both = WHOLE.replace("modelscope://datasets", "hf://datasets")
    (place.root / "reviews.yaml").write_text(both.replace("{SETTINGS}", "{}"))
    _, errors = place.modelyard("run", "reviews.yaml", code=77, **told)
    assert "error: look: token for out: none; needed: one that may write to hf://me/reviews" in errors
    assert looked(place, "look")["hub huggingface"]["verdict"] == "ok"
    assert place.artifacts() == set()
    (place.root / "reviews.yaml").write_text(both.replace("{SETTINGS}", "{disk: 900Ti}"))
    output, errors = place.modelyard("run", "reviews.yaml", code=73, HF_TOKEN=TOKEN, **told)
    found = looked(place, "look")
    assert found["token for out"]["verdict"] == "ok"
    assert {row["reason"][:9] for check, row in found.items() if check.startswith("ref ")} == {"revision "}, "one byte of each was read"
    written = [path for path in (place.root / ".yard").rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert (written, TOKEN in output + errors) == ([], False)


LISTED = """
__version__ = "1.32.0"
import sys
def get_available_providers(): return ["CUDAExecutionProvider", "CPUExecutionProvider"]
class InferenceSession:
    def __init__(self, model, providers):
        if "CUDAExecutionProvider" in providers:
            sys.stderr.write("[E:onnxruntime] Failed to load library libonnxruntime_providers_cuda.so: libcublasLt.so.13 is missing\\n")
    def get_providers(self): return ["CPUExecutionProvider"]
    def run(self, names, feed): return [feed["x"] * 2]
"""


def test_accelerators_that_are_not_there(place: Place) -> None:
    """On a machine where the driver's tool writes rubbish and ONNX Runtime lists a provider that it cannot use."""
    stand_in, tools = place.root / "stand-in", place.root / "bin"
    stand_in.mkdir()
    tools.mkdir()
    (stand_in / "onnxruntime.py").write_text(LISTED)
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho '0, NVIDIA H200, \x07[Unknown Error], [N/A], [N/A]'\n")
    (tools / "nvidia-smi").chmod(0o755)
    told = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(stand_in), os.environ.get("PYTHONPATH")])),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
        "MODELYARD_OFFLINE": "1",
    }
    output, errors = place.modelyard("preflight", "--gpus", "1", code=78, **told)
    assert "error: preflight: devices: none; needed: 1 nvidia for preflight" in errors
    assert output.startswith("VERDICT")
    assert "\x07" not in output
    found = looked(place)
    assert "a line of nvidia-smi cannot be read" in found["driver"]["reason"]
    assert found["onnxruntime"]["verdict"] == "warning"  # by no step that is there
    assert "CUDAExecutionProvider is listed as available, yet" in found["onnxruntime"]["reason"]
    assert "libcublasLt.so.13 is missing" in found["onnxruntime"]["reason"]
    place.modelyard("preflight", "--gpus", "1", "--fallback", "cpu", **told)
    found = looked(place)
    assert (found["devices"]["verdict"], found["onnxruntime"]["verdict"]) == ("warning", "ok")  # who falls back wants the CPU's provider
    assert "will run on the CPU" in found["devices"]["reason"]
    assert "driver" not in found


def test_a_library_that_crashes_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for text, said in (("import os; os.abort()", "SIGABRT: "), ("raise ImportError('no libcudart')", "exit 1: ImportError: no libcudart")):
        (tmp_path / "onnxruntime.py").write_text(text)
        with pytest.raises(ask.NoAnswer) as silent:
            ask.ask("onnxruntime", "CPUExecutionProvider")
        assert str(silent.value).startswith(said)
    (tmp_path / "onnxruntime.py").unlink()
    answer, _ = ask.ask("onnxruntime", "CPUExecutionProvider")
    assert (answer["used"], answer["works"]) == (["CPUExecutionProvider"], True)
