"""What a start costs when the yard has it already: nothing of the hub, and next to nothing of the volume, whatever the hub does meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard.errors import Unavailable
from modelyard.hubs import transport
from modelyard.hubs.limits import Limits
from modelyard.yard import Artifact, Yard
from tests.hubs.lying import LyingHub, free_port
from tests.hubs.serving import Served

SIZE = 300 << 20
NAMES = ("modelscope", "huggingface")

pytestmark = pytest.mark.timeout(120)


class Warm:
    """A yard that has fetched one large model from a served hub, through one face. rchar: bytes that a call of `fetch` made this process read."""

    def __init__(self, root: Path, served: Served, scheme: str) -> None:
        self.yard = root / "yard"
        self.served = served
        self.ref = f"{scheme}://acme/large"
        self.first = modelyard.fetch(self.ref, yard=self.yard, hubs=dict.fromkeys(NAMES, served.url))
        self.asked = len(served.requests())

    @property
    def pinned(self) -> str:
        """The ref at the commit that the hub's own listing names."""
        from modelyard import refs
        from modelyard.hubs import resolve

        listing = resolve(refs.parse(self.ref), "model", dict.fromkeys(NAMES, self.served.url))
        self.asked = len(self.served.requests())
        return f"{self.ref}@{listing.revision}"

    def fetch(self, ref: str, hub: str, **options: Any) -> tuple[Artifact, int]:
        before = rchar()
        found = modelyard.fetch(ref, yard=self.yard, hubs=dict.fromkeys(NAMES, hub), **options)
        return found, rchar() - before


def rchar() -> int:
    """Bytes that this process has read so far, by any system call."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


@pytest.fixture(params=["modelscope", "hf"])
def warm(request: pytest.FixtureRequest, tmp_path: Path, folder: Path, serve: Callable[..., Served]) -> Warm:
    (folder / "acme/large").mkdir()
    (folder / "acme/large/config.json").write_text("{}")
    with (folder / "acme/large/model.safetensors").open("wb") as weights:
        weights.truncate(SIZE)
    return Warm(tmp_path, serve(folder), request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    limits = Limits(connect=1.0, silence=0.3, request=0.6, attempts=2, pause=0.01)
    monkeypatch.setattr(transport, "LIMITS", limits)
    return


def down(how: str) -> LyingHub:
    """A hub that is there and of no use."""
    if how == "503":
        return LyingHub({}, lambda handler, _: handler.json({}, 503) or True)
    return LyingHub({}, lambda handler, _: handler.silence() or True)


def test_a_commit_that_is_known_asks_nobody(warm: Warm) -> None:
    """Also one that was never fetched by that name: the branch was resolved to it."""
    found, read = warm.fetch(warm.pinned, warm.served.url)
    assert found.digest == warm.first.digest
    assert found.size == SIZE + 2
    assert len(warm.served.requests()) == warm.asked
    assert read < 1 << 20


def test_a_branch_that_did_not_move_costs_its_listing(warm: Warm) -> None:
    found, read = warm.fetch(warm.ref, warm.served.url)
    assert found.digest == warm.first.digest
    asked = warm.served.requests()[warm.asked :]
    assert asked
    assert not any("resolve" in line or "FilePath" in line for line in asked)
    assert read < 1 << 20


def test_a_hub_that_is_down(warm: Warm, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = warm.pinned
    for how in ("refused", "503", "silent"):
        with monkeypatch.context() as patch, down(how) as hub:
            check_down(warm, pinned, how, hub, patch)


def check_down(warm: Warm, pinned: str, how: str, hub: LyingHub, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}" if how == "refused" else hub.address
    found, read = warm.fetch(pinned, address)
    assert found.digest == warm.first.digest
    assert read < 1 << 20
    assert hub.asked == []
    with pytest.warns(UserWarning, match="the hub did not answer"):
        found, read = warm.fetch(warm.ref, address)
    assert found.digest == warm.first.digest
    assert read < 1 << 20
    assert len(hub.asked) == (0 if how == "refused" else 2)
    with pytest.raises(Unavailable):
        warm.fetch(warm.ref, address, fresh=True)
    asked = len(hub.asked)
    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    assert warm.fetch(warm.ref, address)[0].digest == warm.first.digest
    with pytest.raises(Unavailable, match="MODELYARD_OFFLINE"):
        warm.fetch(warm.ref.replace("large", "bert"), address)
    assert len(hub.asked) == asked


def test_what_a_run_resolved_asks_nobody(warm: Warm, tmp_path: Path) -> None:
    """The commit that a run has written down, in the yard that it ran in."""
    variables = {"MODELYARD_HUBS_MODELSCOPE": warm.served.url, "MODELYARD_HUBS_HUGGINGFACE": warm.served.url, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "modelyard", "fetch", "--model", warm.ref.replace("large", "bert"), "--yard", str(warm.yard), "-o", "json"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = Yard.open(warm.yard).runs.list()
    (resolved,) = run.spec()["resolved"].values()
    commit = resolved["listing"]["revision"]
    assert len(commit) == 40, json.dumps(resolved)
    asked = len(warm.served.requests())
    found, read = warm.fetch(f"{resolved['ref']}@{commit}", warm.served.url)
    assert (found.path / "model.safetensors").stat().st_size == 3 << 20
    assert len(warm.served.requests()) == asked
    assert read < 1 << 20
