"""What a step's child finds in its environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelyard_jobs.child import _confirm
from modelyard_jobs.process import TOKENS, environment


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TOKENS:
        monkeypatch.setenv(name, "planted")


def test_work_that_needs_no_hub_sees_neither_tokens_nor_the_network(tmp_path: Path) -> None:
    found = environment(2, tmp_path, network=False)
    assert "planted" not in found.values()
    assert found["HF_HUB_OFFLINE"] == found["HF_DATASETS_OFFLINE"] == "1"
    assert found["OMP_NUM_THREADS"] == found["RAYON_NUM_THREADS"] == "2"


def test_work_that_speaks_to_hubs_has_its_tokens_and_keeps_caches_out_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    found = environment(1, tmp_path, network=True)
    assert {name for name, value in found.items() if value == "planted"} == TOKENS
    assert "HF_HUB_OFFLINE" not in found
    assert found["HF_HOME"].startswith(str(tmp_path))


def test_an_accelerator_without_torch_is_for_the_engine_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    _confirm("cuda")


def test_a_login_that_the_sdk_keeps_is_found_by_work_that_speaks_to_hubs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TOKENS, "HF_TOKEN_PATH", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    told = {}
    for folder, place in {".cache/huggingface/token": {}, "elsewhere/token": {"HF_HOME": str(tmp_path / "elsewhere")}}.items():
        (tmp_path / folder).parent.mkdir(parents=True)
        (tmp_path / folder).write_text(f"of {folder}")
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        for network in (True, False):
            code = "from huggingface_hub import get_token; print(get_token())"
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment(1, tmp_path / "scratch", network=network), capture_output=True, text=True, check=True
            )
            told[folder, network] = done.stdout.strip()
    assert told == {
        (".cache/huggingface/token", True): "of .cache/huggingface/token",
        (".cache/huggingface/token", False): "None",
        ("elsewhere/token", True): "of elsewhere/token",
        ("elsewhere/token", False): "None",
    }
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "mine"))
    assert environment(1, tmp_path, network=True)["HF_TOKEN_PATH"] == str(tmp_path / "mine")
    assert "HF_TOKEN_PATH" not in environment(1, tmp_path, network=False)
