"""What a step's child finds in its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard_jobs.frame import TOKENS, environment


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
