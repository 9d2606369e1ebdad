"""modelyard yard: artifacts are found by digest, its beginning or a name; what comes in and out is whole."""

from __future__ import annotations

import json
from pathlib import Path

from modelyard.yard import Action, Decision, Yard

from .conftest import Call, commit


def test_ls_names_what_points_there(call: Call, yard: Yard) -> None:
    made = commit(yard)
    yard.refs.move("models/reviews@champion", made.digest, source="test")
    yard.pins.add(made.digest, "the paper")
    done = call("yard", "ls")
    assert done.out.splitlines()[1].split() == [made.digest[:12], "metrics", "-", "2", "B", "yes", "yard://models/reviews@champion"]
    (item,) = json.loads(call("yard", "ls", "-o", "json").out)["items"]
    assert item == {
        "digest": made.digest,
        "kind": "metrics",
        "format": None,
        "size": 2,
        "names": ["yard://models/reviews@champion"],
        "pinned": True,
    }
    assert call("yard", "ls", "-q").out == f"{made.digest}\n"


def test_show(call: Call, yard: Yard) -> None:
    made, key = commit(yard), "a" * 64
    decisions = {"threads": Decision(value=2, reason="quota")}
    yard.actions.put(key, Action(key=key, verb="evaluate", artifact=made.digest, settings={"rows": 5}, decisions=decisions))
    done = call("yard", "show", made.digest[:6])
    assert "metrics.json" in done.out
    assert "rows = 5" in done.out
    assert "threads = 2: quota" in done.out
    document = json.loads(call("yard", "show", made.digest, "-o", "json").out)
    assert document["files"] == [{"path": "metrics.json", "size": 2, "sha256": made.files[0].sha256}]
    assert document["actions"][0]["settings"] == {"rows": 5}


def test_what_is_not_there(call: Call, yard: Yard) -> None:
    commit(yard)
    for name in ("zz", "models/absent", "../x"):
        done = call("yard", "show", name)
        assert done.code in (64, 66), name
        assert done.out == ""
    commit(yard, b"{} ")
    done = call("yard", "show", "")
    assert done.code == 66
    assert "begins 2 digests" in done.err


def test_a_name_that_is_none_is_said_as_it_was_written(call: Call, yard: Yard, folder: Path) -> None:
    (folder / "rows.csv").write_text("text,label\na,b\n")
    done = call("yard", "put", "rows.csv", "rows")
    assert done.code == 64
    assert done.err.splitlines() == [
        "error: modelyard yard put: 'rows' is no name in the yard",
        "  try: write models/NAME or datasets/NAME, for what it is",
    ]
    assert yard.artifacts.digests() == []


def test_put_and_get(call: Call, yard: Yard, folder: Path) -> None:
    (folder / "rows.csv").write_text("text,label\na,b\n")
    done = call("yard", "put", "rows.csv", "datasets/rows")
    assert (done.code, done.err) == (0, "")
    digest = yard.refs.get("datasets/rows").digest
    assert done.out == f"yard://datasets/rows@latest  {digest}\n"
    assert call("yard", "put", "./rows.csv", "yard://datasets/rows@v1", "-q").out == f"{digest}\n"
    assert call("yard", "get", "datasets/rows@v1", "copy").code == 0
    assert (folder / "copy" / "rows.csv").read_text() == "text,label\na,b\n"
    assert call("yard", "get", "datasets/rows@v1", "copy").code == 64, "never over something"


def test_put_refuses_what_a_fetch_refuses(call: Call, yard: Yard, folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "pytorch_model.bin").write_bytes(b"x")
    assert call("yard", "put", "model", "models/base").code == 81
    (model / "model.safetensors").write_bytes(b"x")
    done = call("yard", "put", "model", "models/base")
    assert done.code == 0
    assert "left out pytorch_model.bin: a pickle" in done.err
    (model / "link.safetensors").symlink_to("/etc/hostname")
    assert call("yard", "put", "model", "models/base").code == 81
    assert call("yard", "put", "absent", "models/base").code == 66
    assert call("yard", "put", "model", "base").code == 64
    assert [len(yard.artifacts.list()), len(list((yard.root / "staging").iterdir()))] == [1, 0]


def test_verify(call: Call, yard: Yard) -> None:
    whole, broken = commit(yard), commit(yard, b"[1]")
    assert call("yard", "verify").code == 0
    path = broken.path / "metrics.json"
    path.chmod(0o600)
    path.write_bytes(b"[2]")
    done = call("yard", "verify")
    assert done.code == 76
    assert broken.digest in done.err
    assert whole.digest not in done.err
    assert call("yard", "verify", whole.digest[:8]).code == 0


def test_pins_and_gc(call: Call, yard: Yard) -> None:
    kept, lost = commit(yard), commit(yard, b"[1]")
    assert call("yard", "pin", kept.digest[:8], "--why", "the paper").code == 0
    assert call("yard", "pin").out.splitlines()[1].split()[:3] == [kept.digest[:12], "the", "paper"]
    assert json.loads(call("yard", "gc", "--dry-run", "-o", "json").out)["trashed"] == [lost.digest]
    assert len(yard.artifacts.digests()) == 2
    assert "trashed   1" in call("yard", "gc").out
    assert yard.artifacts.digests() == [kept.digest]
    assert call("yard", "pin", kept.digest, "--remove").out == ""
    assert call("yard", "pin", "--remove").code == 64
    assert call("yard", "gc", "--older-than", "old").code == 64
