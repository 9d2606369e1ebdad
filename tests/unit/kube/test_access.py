"""The rules of Roles: one source, and what people apply by hand says the same."""

from __future__ import annotations

import yaml

from modelyard.kube import access, names
from modelyard.kube.cluster import Manifest
from tests.unit.kube.manifests import ROOT

FILE = ROOT / "examples" / "cluster" / "access.yaml"


def rights(rules: list[Manifest]) -> set[tuple[str, str, str]]:
    return {(group, resource, verb) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"] for verb in rule["verbs"]}


def test_what_is_applied_by_hand_is_what_drivers_need() -> None:
    assert list(yaml.safe_load_all(FILE.read_text())) == access.driver_access()


def test_each_rule_is_of_one_group_and_says_nothing_twice() -> None:
    for rules in (access.driver_rules(), access.person_rules(), access.node_rules()):
        assert all(len(rule["apiGroups"]) == 1 for rule in rules)
        assert sum(len(rule["resources"]) * len(rule["verbs"]) for rule in rules) == len(rights(rules))
        assert "*" not in str(rules)


def test_a_driver_reads_no_secret_and_makes_no_pod() -> None:
    found = rights(access.driver_rules())
    assert {resource for _, resource, _ in found} == {"jobs", "pods", "configmaps", "persistentvolumeclaims", "events"}
    assert {verb for _, resource, verb in found if resource == "pods"} == {"get", "list"}
    assert found <= rights(access.person_rules()) | {("", "pods", "get")}


def test_nodes_are_looked_at_alone() -> None:
    assert {verb for _, _, verb in rights(access.node_rules())} == {"get", "list"}


def test_a_namespace_is_named_everywhere_or_nowhere() -> None:
    made = access.driver_access("research")
    assert [one["metadata"].pop("namespace") for one in made] == ["research"] * 3
    assert made[2]["subjects"][0].pop("namespace") == "research"
    assert made == access.driver_access()
    role, binding = access.person_access("ada", "research")
    assert binding["subjects"] == [{"kind": "User", "apiGroup": access.GROUP, "name": "ada"}]
    assert role["metadata"]["name"] == binding["roleRef"]["name"] == access.PERSON != names.DRIVER_ACCOUNT
