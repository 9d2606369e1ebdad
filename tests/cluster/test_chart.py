"""The chart by the real Helm: what it renders is what the API server takes, and its drivers are those that `render` and `schedule` give."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import modelyard
from modelyard import document, spec
from modelyard.kube import access, names, pods, render, schedule
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.spec import Pipeline
from tests.cluster.chart import CHART, Helm, conform, of_kind, write_schemas
from tests.cluster.harness.cluster import Cluster
from tests.unit.kube import manifests

HUBS = {"modelscope": "https://modelscope.cn", "huggingface": "https://huggingface.co"}
LOOK = "name: look\nsteps:\n  encoders: {search: {query: bert}}\n"
EVERYTHING: Mapping[str, Any] = {
    "image": {"repository": "registry.example:5000/team/modelyard", "tag": "1.2.3"},
    "pullSecret": "registry",
    "queue": "night",
    "driverMemory": "1Gi",
    "yard": {"storageClass": "shared", "accessModes": ["ReadWriteOnce"]},
    "hub": {"enabled": True, "uploads": True, "storageClass": ""},
    "nodeReader": True,
    "networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [6443]}, "hubs": {"cidrs": ["10.0.0.0/8"], "ports": [3128]}},
    "pipelines": {
        "look": {"spec": LOOK, "jobs": 2, "force": ["encoders"], "hubs": {"modelscope": "http://mirror.example:8080/hub"}},
        "nightly": {"spec": LOOK, "schedule": "0 3 * * mon-fri", "timeZone": "Europe/Berlin", "suspend": True, "startingDeadlineSeconds": 600},
    },
}
PLACES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "as it is": ({}, {}),
    "one node": (
        {"yard": {"accessModes": ["ReadWriteOnce"], "claim": "mine"}, "pullSecret": "registry"},
        {"access": "ReadWriteOnce", "claim": "mine", "pull_secret": "registry"},
    ),
    "a queue, no tokens": ({"queue": "night", "tokensSecret": "", "driverMemory": "2Gi"}, {"queue": "night", "secret": "", "driver_memory": "2Gi"}),
    "both modes": ({"yard": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}}, {}),
}
"""Values, and the place that a person would have by them."""


def place(**update: Any) -> Place:
    given = {"namespace": "research", "image": "registry.example/modelyard:1.2.3", "claim": "modelyard", "secret": "modelyard-tokens"}
    return Place(**{**given, **update})


def values(more: Mapping[str, Any], **pipeline: Any) -> dict[str, Any]:
    return {"image": {"repository": "registry.example/modelyard", "tag": "1.2.3"}, **more, "pipelines": {"mine": pipeline}}


def told(config: Manifest) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a driver reads of its ConfigMap: the run, and the pipeline with all its defaults."""
    text = config["data"][render.PIPELINE_FILE]
    return json.loads(config["data"][render.RUN_FILE]), spec.from_document(document.parse(text, render.PIPELINE_FILE)).to_dict()


def without_names(job: Manifest) -> Manifest:
    """The spec of a driver's Job without what differs by design: the listed labels, the ConfigMap's name, and for how long an ended one is kept."""
    found = copy.deepcopy(job)
    found.pop("ttlSecondsAfterFinished", None)
    labels = found["template"]["metadata"].pop("labels")
    assert labels[names.ROLE] == "driver"
    (volume,) = [one for one in found["template"]["spec"]["volumes"] if one["name"] == "run"]
    del volume["configMap"]["name"]
    return found


@pytest.fixture(scope="module")
def schemas(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_schemas(cluster, tmp_path_factory.mktemp("schemas"))


# --- as YAML


@pytest.mark.parametrize("told_values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_lint_finds_nothing(helm: Helm, told_values: Mapping[str, Any]) -> None:
    said = helm.run("lint", "--strict", str(CHART), values=told_values).stdout
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


@pytest.mark.parametrize("told_values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_object_is_what_the_api_server_describes(helm: Helm, schemas: str, told_values: Mapping[str, Any]) -> None:
    text = helm.run("template", "yard", str(CHART), "-n", "research", values=told_values).stdout
    done = conform(text, schemas)
    assert done.returncode == 0, done.stdout
    count = len([one for one in yaml.safe_load_all(text) if one])
    assert f"Valid: {count}, Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def test_an_unknown_field_is_seen(helm: Helm, schemas: str) -> None:
    """The test above could not fail if schemas took everything."""
    (job,) = of_kind(helm.template(values({}, spec=LOOK)), "Job")
    for path, name, value in (("spec", "parallelism", "two"), ("spec", "unknown", 1), ("metadata", "anotations", {})):
        broken = copy.deepcopy(job)
        broken[path][name] = value
        done = conform(yaml.safe_dump(broken), schemas)
        assert (done.returncode, "Invalid: 1" in done.stdout) == (1, True), name


def test_the_api_server_takes_all_of_it(helm: Helm, cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    made = helm.template(EVERYTHING, namespace=namespace)
    cluster.apply(*of_kind(made, "ServiceAccount"), namespace=namespace)  # without it there is no pod of it
    asked = ["apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-", "-o", "name"]
    said = cluster.kubectl(*asked, stdin=yaml.safe_dump_all(made))
    assert len(said.split()) == len(made)


def test_the_chart_has_the_products_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (modelyard.__version__,) * 2


def test_every_value_is_described_and_every_default_allowed() -> None:
    """A key that values.yaml has and the schema does not would be refused by the chart itself; one without a default is nobody's."""
    schema, defaults = json.loads((CHART / "values.schema.json").read_text()), yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(defaults)
    closed = [one for one in _objects(schema) if "properties" in one]
    assert closed
    assert all(one.get("additionalProperties") is False for one in closed)
    for key in ("image", "yard", "hub", "networkPolicy"):
        assert set(schema["properties"][key]["properties"]) == set(defaults[key])


def _objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for one in schema for found in _objects(one)]
    if not isinstance(schema, dict):
        return []
    return ([schema] if schema.get("type") == "object" else []) + [found for one in schema.values() for found in _objects(one)]


# --- rights and the network


def test_the_roles_are_those_of_the_library(helm: Helm) -> None:
    made = helm.template({"nodeReader": True})
    (role,) = of_kind(made, "Role")
    (nodes,) = of_kind(made, "ClusterRole")
    assert role["rules"] == access.driver_rules()
    assert nodes["rules"] == access.node_rules()
    assert not of_kind(helm.template(), "ClusterRole", "ClusterRoleBinding")
    (binding,) = of_kind(made, "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": names.DRIVER_ACCOUNT, "namespace": "research"}]
    (account,) = of_kind(made, "ServiceAccount")
    assert (account["metadata"]["name"], account["automountServiceAccountToken"]) == (names.DRIVER_ACCOUNT, False)


def test_policies_let_out_what_pods_need(helm: Helm) -> None:
    """Not tested by its effect: who enforces it is the cluster's network."""
    hubs = {"hubs": {"modelscope": "http://hub.other.svc:9000"}, "networkPolicy": {"hubs": {"ports": [3128]}}}
    made = {one["metadata"]["name"]: one["spec"] for one in of_kind(helm.template({**values(hubs, spec=LOOK)}), "NetworkPolicy")}
    assert set(made) == {"modelyard-pods", "modelyard-api", "modelyard-hubs"}
    everybody = made["modelyard-pods"]
    assert (everybody["ingress"], everybody["policyTypes"]) == ([], ["Ingress", "Egress"])
    assert [port["port"] for rule in everybody["egress"] for port in rule["ports"]] == [53, 53, 5353, 5353]
    roles = {name: set(one["podSelector"]["matchExpressions"][0]["values"]) for name, one in made.items()}
    assert roles["modelyard-api"] == {"driver", "test"}
    assert roles["modelyard-hubs"] == {"driver", "step"}
    assert roles["modelyard-pods"] == {"driver", "step", "reader", "test"}
    (rule,) = made["modelyard-hubs"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [3128, 443, 9000]
    assert [list(one) for one in rule["to"]] == [["ipBlock"], ["namespaceSelector"], ["ipBlock"]]
    closed = [address for one in rule["to"] for address in one.get("ipBlock", {}).get("except", [])]
    assert {"169.254.0.0/16", "100.100.100.200/32", "fe80::/10", "fd00:ec2::254/128"} < set(closed)
    assert not of_kind(helm.template({"networkPolicy": {"enabled": False}}), "NetworkPolicy")


def test_the_charts_own_hub_is_reached_whatever_is_narrowed(helm: Helm) -> None:
    """By its pods: not every network counts pods among addresses."""
    made = helm.template({"hub": {"enabled": True}, "networkPolicy": {"hubs": {"cidrs": ["192.0.2.1/32"]}}})
    (policy,) = [one["spec"] for one in of_kind(made, "NetworkPolicy") if one["metadata"]["name"] == "modelyard-hubs"]
    (hub,) = of_kind(made, "Deployment")
    addresses, own = policy["egress"]
    assert addresses["to"] == [{"ipBlock": {"cidr": "192.0.2.1/32"}}]
    assert own == {"to": [{"podSelector": hub["spec"]["selector"]}], "ports": [{"protocol": "TCP", "port": 8000}]}


def test_what_holds_data_is_kept(helm: Helm) -> None:
    made = helm.template(EVERYTHING)
    kept = {
        f"{one['kind']} {one['metadata']['name']}" for one in made if one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    }
    assert {name.rpartition("-")[0] for name in kept if name.startswith(("Job", "ConfigMap"))} == {"ConfigMap look", "ConfigMap nightly", "Job look"}
    assert {name for name in kept if "Claim" in name} == {"PersistentVolumeClaim modelyard", "PersistentVolumeClaim modelyard-hub"}
    assert len(kept) == 5
    assert not of_kind(helm.template({"yard": {"create": False}}), "PersistentVolumeClaim")


def test_names_that_yaml_takes_for_something_else_are_names(helm: Helm) -> None:
    told_values = {
        **EVERYTHING,
        "pullSecret": "2",
        "tokensSecret": "3",
        "yard": {"claim": "4", "accessModes": ["ReadWriteOnce"]},
        "hub": {"enabled": True, "uploads": True, "claim": "5"},
        "pipelines": {key: {"spec": LOOK, "schedule": "0 3 * * *"} for key in ("null", "true", "on")},
    }
    made = helm.template(told_values, namespace="2026")
    found = [(path, value) for one in made for path, value in _names(one, one["kind"])]
    assert [one for one in found if not isinstance(one[1], str)] == []
    assert {value for _, value in found} >= {"2", "3", "4", "5", "null", "true", "on", "2026"}


def _names(tree: Any, path: str) -> list[tuple[str, Any]]:
    """What stands where a name of an object has to stand."""
    if isinstance(tree, list):
        return [found for one in tree for found in _names(one, path)]
    if not isinstance(tree, dict):
        return []
    keys = ("name", "namespace", "claimName", "secretName", names.YARD, names.SCHEDULE, names.DIGEST)
    here = [(f"{path}.{key}", tree[key]) for key in keys if key in tree]
    return here + [found for key, one in tree.items() for found in _names(one, f"{path}.{key}")]


def test_the_notes_tell_the_command_what_the_chart_was_told(helm: Helm, cluster: Cluster) -> None:
    """Else the pods of the command would lack what the chart's have."""

    def notes(told_values: Mapping[str, Any]) -> str:
        asked = ["install", "yard", str(CHART), "-n", "research", "--dry-run=client"]  # which asks the API server for its version alone
        return Helm(cluster.kubeconfig).run(*asked, values=told_values).stdout.partition("NOTES:")[2]

    said = notes({**EVERYTHING, "tokensSecret": "others"})
    for line in ("MODELYARD_NAMESPACE=research", "MODELYARD_IMAGE=registry.example:5000/team/modelyard:1.2.3", "MODELYARD_YARD=modelyard"):
        assert line in said
    assert re.findall(r"export (\w+=\w+)\n", said) == ["MODELYARD_SECRET=others", "MODELYARD_PULL_SECRET=registry", "MODELYARD_QUEUE=night"]
    assert "MODELYARD_SECRET" not in notes({"tokensSecret": ""})


# --- the same drivers


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("path", manifests.EXAMPLES, ids=lambda path: path.stem)
def test_a_driver_is_the_one_that_render_prints(helm: Helm, path: Path, where: str) -> None:
    more, update = PLACES[where]
    config, job = of_kind(helm.template(values(more, spec=path.read_text(), jobs=3)), "ConfigMap", "Job")
    pipeline = spec.load(path)
    theirs_config, theirs = render.driver(pipeline, {"hubs": HUBS, "jobs": 3, "force": []}, place(**update))
    assert without_names(job["spec"]) == without_names(theirs["spec"])
    assert "ttlSecondsAfterFinished" not in job["spec"]
    same_data(config, theirs_config)
    same_marks(job, config, pipeline, place(**update))


@pytest.mark.parametrize("path", manifests.EXAMPLES, ids=lambda path: path.stem)
def test_a_schedule_is_the_one_that_the_command_makes(helm: Helm, path: Path) -> None:
    given = {"schedule": "*/5  3 * jan,MAR-12 1-5", "timeZone": "Europe/Berlin"}
    config, cron = of_kind(helm.template(values({}, spec=path.read_text(), **given)), "ConfigMap", "CronJob")
    pipeline = spec.load(path)
    settings = {"hubs": HUBS, "jobs": 1, "force": []}
    theirs_config, theirs = schedule.manifests(pipeline, settings, place(), cron="*/5 3 * jan,MAR-12 1-5", time_zone="Europe/Berlin")
    mine, yours = copy.deepcopy(cron["spec"]), copy.deepcopy(theirs["spec"])
    ours_job, their_job = mine.pop("jobTemplate"), yours.pop("jobTemplate")
    assert yours.pop("suspend") is False
    assert mine == yours  # without `suspend`, which an upgrade would otherwise take back
    assert without_names(ours_job["spec"]) == without_names(their_job["spec"])
    labels = pods.labels("driver", place(), pipeline=pipeline.name, schedule="mine")
    assert ours_job["metadata"]["labels"] == ours_job["spec"]["template"]["metadata"]["labels"] == labels
    assert set(their_job["metadata"]["labels"]) == set(labels)
    assert cron["metadata"]["name"] == "mine"
    assert {**cron["metadata"]["labels"], "app.kubernetes.io/managed-by": "modelyard"} == labels
    same_data(config, theirs_config)
    assert "keep" not in str(cron["metadata"]["annotations"])


def same_data(config: Manifest, theirs: Manifest) -> None:
    assert config["immutable"] is True
    (run, pipeline), (their_run, their_pipeline) = told(config), told(theirs)
    assert set(config["data"]) == set(theirs["data"])
    assert run == {**their_run, "run": ""}
    assert pipeline == their_pipeline


def same_marks(job: Manifest, config: Manifest, pipeline: Pipeline, where: Place) -> None:
    """The labels of a driver but for its run, which it writes itself, and for who made it, which Helm writes."""
    labels = pods.labels("driver", where, pipeline=pipeline.name)
    for made in (job, config):
        assert {**made["metadata"]["labels"], "app.kubernetes.io/managed-by": "modelyard"} == labels
        assert made["metadata"]["name"] == config["metadata"]["name"]
        assert re.fullmatch(r"mine-[0-9a-f]{10}", made["metadata"]["name"])
        assert made["metadata"]["annotations"][names.DIGEST].startswith(made["metadata"]["name"].removeprefix("mine-"))
    assert job["spec"]["template"]["metadata"]["labels"] == labels
    (volume,) = [one for one in job["spec"]["template"]["spec"]["volumes"] if one["name"] == "run"]
    assert volume["configMap"]["name"] == config["metadata"]["name"]


# --- names, by which an upgrade leaves runs alone


def name_of(helm: Helm, more: Mapping[str, Any] | None = None, **pipeline: Any) -> str:
    (job,) = of_kind(helm.template(values(more or {}, **{"spec": LOOK, **pipeline})), "Job")
    return str(job["metadata"]["name"])


def test_the_same_run_has_the_same_name(helm: Helm) -> None:
    first = name_of(helm)
    elsewhere: list[dict[str, Any]] = [
        {"nodeReader": True},
        {"yard": {"size": "1Ti"}},
        {"networkPolicy": {"enabled": False}},
        {"hub": {"size": "1Gi"}},
    ]
    assert [name_of(helm, more) for more in elsewhere] == [first] * len(elsewhere)
    assert name_of(helm, jobs=1, force=[], hubs={}) == first


def test_another_run_has_another_name(helm: Helm) -> None:
    changed: list[dict[str, Any]] = [
        {"spec": LOOK + "# other\n"},
        {"jobs": 2},
        {"force": ["encoders"]},
        {"hubs": {"modelscope": "http://other.example"}},
    ]
    found = [name_of(helm), *(name_of(helm, **one) for one in changed)]
    placed: list[dict[str, Any]] = [
        {"image": {"repository": "other", "tag": "1.2.3"}},
        {"image": {"repository": "registry.example/modelyard", "tag": "1.2.4"}},
        {"driverMemory": "1Gi"},
        {"queue": "night"},
        {"pullSecret": "registry"},
        {"tokensSecret": "others"},
        {"yard": {"claim": "other"}},
        {"yard": {"accessModes": ["ReadWriteOnce"]}},
    ]
    found += [name_of(helm, one) for one in placed]
    assert len(set(found)) == len(found)


def test_a_change_is_taken_back_by_an_upgrade(cluster: Cluster, namespace: str) -> None:
    """With the earlier values the earlier Job is Helm's again, as it was. A rollback would patch the Job that was kept, and cannot."""
    helm = Helm(cluster.kubeconfig)

    def install(text: str) -> dict[str, str]:
        told_values = values({"yard": {"storageClass": ""}}, spec=text)  # there is no such volume: no pod starts
        helm.run("upgrade", "--install", "yard", str(CHART), "-n", namespace, values=told_values)
        return {one["metadata"]["name"]: one["metadata"]["uid"] for one in cluster.items("jobs", namespace=namespace)}

    (first,) = install(LOOK).items()
    both = install(LOOK + "# other\n")
    assert len(both) == 2
    done = helm.run("rollback", "yard", "1", "-n", namespace, code=1)
    assert f'cannot patch "{first[0]}" with kind Job' in done.stderr
    assert install(LOOK) == both
    assert first in both.items()


def test_the_text_of_a_file_is_what_the_driver_reads(helm: Helm, tmp_path: Path) -> None:
    """YAML 1.1 would read some of it otherwise: Helm never reads it for anything but names."""
    text = 'name: odd\r\nsteps:\n  on:\n    search: {query: "<&>{{ .Values }} \u00fc \\u2028 \U0001f642", limit: 0o17}  # 1e-4 \x85# \u2028\n\n\n'
    file = tmp_path / "odd.yaml"
    file.write_text(text, newline="")
    (config,) = of_kind(helm.template({}, f"--set-file=pipelines.odd.spec={file}"), "ConfigMap")
    assert config["data"]["pipeline.yaml"] == text
