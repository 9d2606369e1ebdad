"""`modelyard explain` of real situations: category, evidence and remedy, and what kubectl says of the same.

Situations that do not disturb each other run side by side from the start; those that need a node for themselves have it one after the other.
With MODELYARD_REGENERATE=1 the comparison in docs/explain.md is written anew, to be read in the diff.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.kube import names
from modelyard.kube.diagnosis import CATEGORIES
from tests.cluster.explain import page
from tests.cluster.explain.situations import SITUATIONS
from tests.cluster.explain.there import Seen, There, there
from tests.cluster.harness.local import LocalCluster

REGENERATE = os.environ.get("MODELYARD_REGENERATE") == "1"
PATIENCE = 150
"""Seconds until a situation is there."""
FEWEST = 24


@pytest.fixture(scope="module")
def world(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """All situations that may be side by side, begun."""
    with there(local_cluster, tmp_path_factory.mktemp("explain")) as made:
        for name, situation in SITUATIONS.items():
            if situation.around is None:
                situation.begin(made, name)
        yield made


@pytest.fixture(scope="module")
def shown() -> Iterator[dict[str, str]]:
    """Title -> row of the comparison, of the situations that were seen; written at the end where that is asked for."""
    found: dict[str, str] = {}
    yield found
    if REGENERATE:
        whole = page.rows() | found
        page.write({situation.title: whole[situation.title] for situation in SITUATIONS.values() if situation.title in whole})


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if one.slow else []) for name, one in SITUATIONS.items()])
def test_a_situation_is_explained(world: There, shown: dict[str, str], name: str) -> None:
    situation = SITUATIONS[name]
    namespace = situation.namespace(world)
    with situation.around(world, name) if situation.around else nullcontext():
        if situation.around:
            situation.begin(world, name)
        seen = world.wait(name, situation.ready, namespace, within=PATIENCE)
        found = world.explained(name, namespace)
        described = world.described(name, seen, namespace)
        world.capture(name, seen, described, namespace)
    run = world.run_of(name)
    assert (found["run"], found["category"]) == (run, situation.category), found
    assert found["meaning"] == CATEGORIES[situation.category].meaning
    assert [f"{one['object'].split()[0]} {one['field']}" for one in found["evidence"]] == list(situation.evidence)
    assert [one for one in found["evidence"] if not _is_of(name, one["object"], seen)] == []
    assert all(one["value"] for one in found["evidence"])
    assert found["remedy"] == situation.remedy.replace("{namespace}", namespace).replace("{run}", run)
    assert not found["unknown"] or found["exit_code"], "a driver may not see nodes, and what it found out is kept; this person may"
    lines = found["arithmetic"]
    assert [one for one in situation.arithmetic if not any(re.fullmatch(one, line) for line in lines)] == [], lines
    said = re.search(situation.described, described)
    assert said, described
    row = page.row(situation.title, said[0], found["category"], found["remedy"], _names(world, seen, run))
    shown[situation.title] = row
    if not REGENERATE:
        assert page.rows()[situation.title] == row, "docs/explain.md: MODELYARD_REGENERATE=1 writes it anew"


def test_there_are_enough_and_the_page_has_each() -> None:
    assert len(SITUATIONS) >= FEWEST
    if not REGENERATE:
        assert list(page.rows()) == [one.title for one in SITUATIONS.values()]


@pytest.mark.slow
def test_the_answer_stays_when_pods_and_events_are_gone(world: There) -> None:
    """What was found out when a step failed is kept with the run."""
    name = "device-missing"
    world.wait(name, SITUATIONS[name].ready, within=PATIENCE)
    before = world.explained(name)
    assert before["category"] == "no-accelerator"
    assert all(f"{node}: 0 of 1 are there" in before["what"] for node in ("node1", "node2")), before["what"]
    of_run = f"--selector={names.RUN}={world.run_of(name)}"
    world.home.kubectl("delete", "jobs,pods", of_run, "--cascade=background", "--wait=false")
    world.home.kubectl("delete", "events", "--all")
    world.wait(name, lambda seen: not (seen.jobs or seen.pods), within=PATIENCE)
    assert world.explained(name) == before


def test_who_may_not_see_nodes_is_told_what_is_not_known(world: There, tmp_path: Path) -> None:
    seen = world.wait("never-fits", SITUATIONS["never-fits"].ready, within=PATIENCE)
    (pod,) = seen.pods
    scheduler = next(one["message"] for one in pod["status"]["conditions"] if one["type"] == "PodScheduled")
    found = world.explained("never-fits", KUBECONFIG=str(_onlooker(world, tmp_path)))
    assert found["category"] == "never-fits"
    assert scheduler in [one["value"] for one in found["evidence"]]
    assert [line for line in found["arithmetic"] if not line.startswith("capacity unknown")] == []
    assert any("nodes" in one for one in found["unknown"])
    assert found["remedy"] == "modelyard gpus (the largest block that one node has)"


def _is_of(name: str, text: str, seen: Seen) -> bool:
    """Whether an object is one of the situation's: a Job or a pod of its run, which may be gone, or one of its claims."""
    kind, _, called = text.partition(" ")
    claims = {"absent", *(claim["metadata"]["name"] for claim in seen.around["claims"])}
    return called.startswith(f"{name}-") if kind in ("Job", "Pod", "run") else called in claims if kind == "PersistentVolumeClaim" else kind == "Node"


def _names(world: There, seen: Seen, run: str) -> dict[str, str]:
    """What is called otherwise each time."""
    jobs, pods = ([one["metadata"]["name"] for one in found] for found in (seen.jobs, seen.pods))
    return {world.namespace: "NAMESPACE", world.limited: "NAMESPACE", **dict.fromkeys(pods, "POD"), **dict.fromkeys(jobs, "JOB"), run: "RUN"}


def _onlooker(world: There, folder: Path) -> Path:
    """The kubeconfig of somebody who may look at what is in the namespace, and at nothing beside it."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "onlooker"}}
    bound: dict[str, Any] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "onlooker"},
        "subjects": [{"kind": "ServiceAccount", "name": "onlooker", "namespace": world.namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    }
    world.cluster.apply(account, bound, namespace=world.namespace)
    token = world.home.kubectl("create", "token", "onlooker")
    config = yaml.safe_load(world.cluster.kubeconfig.read_text())
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token.strip()}}]
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path
