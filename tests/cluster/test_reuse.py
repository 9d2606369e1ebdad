"""`explain --reuse` where the yard is a claim: a pod looks into it, and says what it says here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import Site, fill, site


@pytest.fixture
def place(local_cluster: LocalCluster, tmp_path: Path) -> Iterator[Site]:
    """A namespace, and a hub with a data set."""
    rows = tmp_path / "hub" / "datasets" / "me" / "rows"
    rows.mkdir(parents=True)
    (rows / "train.csv").write_text("text,label\ngood,1\n")
    home = tmp_path / "home"
    home.mkdir()
    with site(local_cluster, home, targets=("light",)) as made:
        fill(made.hub, tmp_path / "hub")
        yield made


@pytest.mark.slow
def test_a_fetch_is_reused_until_its_files_change(place: Site, tmp_path: Path) -> None:
    file = place.write(
        "rows.yaml", "name: rows\nsteps:\n  rows: {fetch: {dataset: modelscope://datasets/me/rows}}\n  find: {search: {query: rows}}\n"
    )
    first = place.json("run", file)
    made = first["steps"]["rows"]["artifact"]
    told = place.modelyard("explain", first["run"], "--reuse", "rows").stdout
    assert told == f"reused: {made[:12]}, which this run made: no earlier result\n"
    second = place.json("run", file)
    assert second["steps"]["rows"]["state"] == "reused"
    assert place.modelyard("explain", "--reuse", "rows").stdout == f"reused: {made[:12]} (made by {first['run']}.rows.1)\n"
    (tmp_path / "hub" / "datasets" / "me" / "rows" / "train.csv").write_text("text,label\ngood,1\nbad,0\n")
    fill(place.hub, tmp_path / "hub")
    third = place.json("run", file)
    found = place.json("explain", third["run"], "--reuse", "rows")
    assert [change["part"] for change in found["changes"]] == ["files.train.csv"]
    assert found["against"] == f"{first['run']}.rows.1"
    assert place.modelyard("explain", third["run"], "--reuse", "find").stdout == "would run: search looks anew each time\n"
    failed = place.modelyard("explain", third["run"], "--reuse", "row", code=66)
    assert "did you mean 'rows'?" in failed.stderr
    left = place.cluster.items("pods", namespace=place.namespace, selector="modelyard.dev/role=reader")
    assert all(pod["metadata"].get("deletionTimestamp") for pod in left)
