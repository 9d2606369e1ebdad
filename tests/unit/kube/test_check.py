"""What would keep a run from working is said before it is submitted, with the reason, and nothing is created."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from modelyard.errors import REGISTRY, NoPermission, Unavailable
from modelyard.kube import access, check, names, quota, survey
from modelyard.kube.cluster import Answer, Cause, Kind, Manifest
from modelyard.kube.diagnosis import CATEGORIES
from modelyard.kube.place import Place
from modelyard.kube.verdict import Verdict
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Finetune, Publish, Resources
from tests.unit.kube.fake import FakeCluster
from tests.unit.kube.test_room import A100, node, pod

PLACE = Place(namespace="team", image="registry/modelyard:1", claim="yard", secret="tokens", pull_secret="pulls", queue="gpus")
HUBS = {"modelscope": "http://hub:8000"}
ALLOWED = Answer()


def pipeline(**resources: Any) -> Pipeline:
    tuned = Finetune(model="modelscope://o/m", data="modelscope://datasets/o/d")
    steps = {"tuned": tuned, "out": Publish(model=tuned, to="modelscope://me/m")}
    return Pipeline("reviews", steps=steps, resources=Resources(**({"gpus": 1, "priority": "high"} | resources)))


def good() -> FakeCluster:
    """A namespace in which all is as it should be."""
    cluster = FakeCluster()

    def put(kind: Kind, name: str, **body: Any) -> None:
        cluster.objects[kind, name] = {"kind": kind, "metadata": {"name": name, "labels": body.pop("labels", {})}, **body}

    put("ServiceAccount", names.DRIVER_ACCOUNT)
    requests = {"resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "fast"}
    put("PersistentVolumeClaim", "yard", spec={"accessModes": ["ReadWriteMany"], **requests}, status={"phase": "Bound"})
    put("StorageClass", "fast", volumeBindingMode="Immediate")
    put("Secret", "tokens", type="Opaque", data={"modelscope": "c2VjcmV0", "huggingface": "c2VjcmV0"})
    put("Secret", "pulls", type="kubernetes.io/dockerconfigjson", data={".dockerconfigjson": "e30="})
    put("PriorityClass", "high", value=1000)
    put("LocalQueue", "gpus", spec={"clusterQueue": "all"}, status={"conditions": [{"type": "Active", "status": "True"}]})
    put("Service", "hub", spec={"ports": [{"port": 8000}]})
    slices = [{"conditions": {"ready": True}}]
    put("EndpointSlice", "hub-x", labels={"kubernetes.io/service-name": "hub"}, endpoints=slices)
    put("ResourceQuota", "q", spec={}, status={"hard": {"requests.nvidia.com/gpu": "8", "pods": "10"}, "used": {"requests.nvidia.com/gpu": "7"}})
    put("LimitRange", "l", spec={"limits": [{"type": "Container", "max": {"memory": "64Gi"}}]})
    one = node("n1", gpus=8)
    one["status"]["images"] = [{"names": ["registry/modelyard:1-light", "registry/modelyard:1-cuda"]}]
    cluster.objects["Node", "n1"] = one
    return cluster


def looked(
    cluster: FakeCluster, *, place: Place = PLACE, of: Pipeline | None = None, hubs: Mapping[str, str] = HUBS, silence: str = "", **resources: Any
) -> dict[str, Verdict]:
    before = copy.deepcopy(cluster.objects)
    settings = {"hubs": dict(HUBS), "jobs": 1, "force": []}
    found = survey.survey(cluster, place, of or pipeline(**resources), settings, hubs=hubs, ask=lambda _: silence)
    verdicts = check.check(found, check.Needs(publishes=frozenset({"modelscope"})))
    assert cluster.objects == before, "something was created"
    for one in verdicts:
        assert one.why
        assert (one.verdict == "no") == (one.failure is not None)
        assert one.verdict != "no" or one.category in CATEGORIES or one.category in REGISTRY
        assert one.verdict != "no" or one.remedy
    return {one.check: one for one in verdicts}


def the_no(verdicts: Mapping[str, Verdict]) -> Verdict:
    """The only one that is wrong."""
    wrong = [one for one in verdicts.values() if one.verdict != "ok"]
    assert len(wrong) == 1, wrong
    return wrong[0]


def test_a_good_namespace_is_all_ok() -> None:
    verdicts = looked(good())
    assert [one for one in verdicts.values() if one.verdict != "ok"] == []
    assert check.failed(list(verdicts.values())) is None
    expected = ["cluster", "namespace", "rights to run", "driver's account", "driver's rights", "claim", "access mode", "quota", "limit range"]
    assert set(verdicts) >= {*expected, "pod security", "admission", "token secret", "pull secret", "priority high", "queue gpus", "hub modelscope"}
    assert "now" in verdicts["fit of step tuned"].why
    assert any("8 nvidia.com/gpu" in line and "1 asked" in line for line in verdicts["fit of step tuned"].lines)


def edit(cluster: FakeCluster, kind: Kind, name: str, **parts: Any) -> None:
    cluster.objects[kind, name] = {**cluster.objects[kind, name], **parts}


def _claim(cluster: FakeCluster, mode: str = "ReadWriteMany", phase: str = "Bound", **spec: Any) -> None:
    whole = {**cluster.objects["PersistentVolumeClaim", "yard"]["spec"], "accessModes": [mode], **spec}
    edit(cluster, "PersistentVolumeClaim", "yard", spec=whole, status={"phase": phase})


@pytest.mark.parametrize(
    ("spoil", "row", "category", "exit_code", "words"),
    [
        (lambda c: c.objects.pop(("PersistentVolumeClaim", "yard")), "claim", "claim-missing", 66, "there is no claim 'yard'"),
        (lambda c: _claim(c, phase="Pending"), "claim", "claim-unbound", 69, "yard has no volume"),
        (lambda c: _claim(c, phase="Lost"), "claim", "claim-lost", 74, "lost its volume"),
        (lambda c: _claim(c, phase="Pending", storageClassName="absent"), "claim", "storage-class-missing", 66, "absent"),
        (lambda c: _claim(c, "ReadWriteOncePod"), "access mode", "claim-access-mode", 64, "ReadWriteOncePod"),
        (lambda c: _claim(c, "ReadOnlyMany"), "access mode", "claim-access-mode", 64, "nothing could be written"),
        (lambda c: c.objects.pop(("ServiceAccount", names.DRIVER_ACCOUNT)), "driver's account", "service-account-missing", 66, "modelyard-driver"),
        (lambda c: c.refused.update({names.DRIVER_ACCOUNT: {("create", "Job")}}), "driver's rights", "no-permission", 77, "create jobs"),
        (lambda c: c.forbidden.add(("create", "Job")), "rights to run", "no-permission", 77, "you may not create jobs"),
        (lambda c: c.objects.pop(("Secret", "tokens")), "token secret", "secret-missing", 66, "there is no Secret 'tokens'"),
        (lambda c: edit(c, "Secret", "tokens", data={"huggingface": "eA=="}), "token secret", "key-missing", 66, "no key modelscope"),
        (lambda c: c.objects.pop(("Secret", "pulls")), "pull secret", "secret-missing", 66, "there is no Secret 'pulls'"),
        (lambda c: edit(c, "Secret", "pulls", type="Opaque"), "pull secret", "image-refused", 64, "is of type Opaque"),
        (lambda c: c.objects.pop(("PriorityClass", "high")), "priority high", "priority-missing", 66, "'high'"),
        (lambda c: c.objects.pop(("LocalQueue", "gpus")), "queue gpus", "queue-missing", 66, "'gpus'"),
        (
            lambda c: edit(c, "LocalQueue", "gpus", status={"conditions": [{"type": "Active", "status": "False", "message": "stopped"}]}),
            "queue gpus",
            "queue-inactive",
            69,
            "stopped",
        ),
        (lambda c: c.objects.pop(("Service", "hub")), "hub modelscope", "unavailable", 69, "there is no Service hub in namespace team"),
        (lambda c: edit(c, "Service", "hub", spec={"ports": [{"port": 80}]}), "hub modelscope", "unavailable", 69, "with that port"),
        (lambda c: edit(c, "EndpointSlice", "hub-x", endpoints=[]), "hub modelscope", "unavailable", 69, "nothing is ready behind"),
        (
            lambda c: edit(c, "EndpointSlice", "hub-x", endpoints=[{"conditions": {"ready": False}}]),
            "hub modelscope",
            "unavailable",
            69,
            "nothing is ready behind",
        ),
        (
            lambda c: edit(c, "ResourceQuota", "q", status={"hard": {"requests.nvidia.com/gpu": "8"}, "used": {"requests.nvidia.com/gpu": "8"}}),
            "quota",
            "quota",
            69,
            "requests.nvidia.com/gpu: 8 allowed, 8 used, 1 asked (step tuned and driver)",
        ),
        (lambda c: edit(c, "ResourceQuota", "q", status={"hard": {"requests.cpu": "1"}}), "quota", "quota", 64, "1 allowed, 0 used, 1.25 asked"),
        (
            lambda c: edit(c, "LimitRange", "l", spec={"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}),
            "limit range",
            "limit-range",
            64,
            "memory of a container: at most 1 GiB, 6 GiB asked (step tuned)",
        ),
        (
            lambda c: setattr(c, "answer", Answer(warnings=['would violate PodSecurity "restricted:latest": host namespaces'])),
            "pod security",
            "pod-security",
            81,
            "host namespaces",
        ),
        (
            lambda c: setattr(c, "answer", Answer([Cause("", 'pods "x" is forbidden: violates PodSecurity "restricted:latest": hostNetwork')])),
            "pod security",
            "pod-security",
            81,
            "hostNetwork",
        ),
        (
            lambda c: setattr(c, "answer", Answer([Cause("", "admission webhook refused it: no owner label")])),
            "admission",
            "admission",
            81,
            "no owner label",
        ),
        (lambda c: setattr(c, "answer", Answer([Cause("spec.x", "Invalid value")])), "admission", "admission", 64, "spec.x: Invalid value"),
        (
            lambda c: setattr(c, "answer", Answer([Cause("", 'Job in version "v1" cannot be handled as a Job: quantities must match')])),
            "admission",
            "admission",
            64,
            "quantities must match",
        ),
    ],
)
def test_each_thing_that_is_wrong(spoil: Any, row: str, category: str, exit_code: int, words: str) -> None:
    cluster = good()
    spoil(cluster)
    one = looked(cluster)[row]
    assert (one.verdict, one.category) == ("no", category)
    assert words in one.why
    assert one.described()["exit_code"] == exit_code
    failure = check.failed([one])
    assert failure is not None
    assert failure.exit_code == exit_code


@pytest.mark.parametrize(
    ("nodes", "resources", "category", "exit_code", "words"),
    [
        ([node("n", gpus=8)], {"gpus": 9}, "never-fits", 64, "never: n: 8 nvidia.com/gpu"),
        ([node("n", gpus=8)], {"gpu_model": A100}, "gpu-model", 64, A100),
        ([node("n", gpus=8, taints=[{"key": "team", "value": "x", "effect": "NoSchedule"}])], {}, "taint", 64, "taint team=x:NoSchedule"),
        ([node("n", gpus=8, unschedulable=True)], {}, "cordoned", 69, "not now"),
        ([node("n", gpus=8, ready=False)], {}, "nodes-not-ready", 69, "not ready"),
        ([], {}, "nodes-not-ready", 69, "no node"),
    ],
)
def test_where_a_step_would_go(nodes: list[Manifest], resources: dict[str, Any], category: str, exit_code: int, words: str) -> None:
    cluster = good()
    cluster.objects.pop(("Node", "n1"))
    cluster.objects.pop(("ResourceQuota", "q"))
    cluster.objects |= {("Node", one["metadata"]["name"]): one for one in nodes}
    one = looked(cluster, **resources)["fit of step tuned"]
    assert (one.verdict, one.category, one.described()["exit_code"]) == ("no", category, exit_code)
    assert words in one.why


def test_busy_says_who_has_how_much() -> None:
    cluster = good()
    cluster.objects["Pod", "p"] = pod("n1", gpu="8")
    one = the_no(looked(cluster))
    assert (one.check, one.category) == ("fit of step tuned", "busy")
    assert "8 in use, 0 free; 1 asked" in one.why
    assert check.failed([one]).exit_code == 69  # type: ignore[union-attr]


def test_a_taint_names_the_toleration_that_helps() -> None:
    cluster = good()
    cluster.objects["Node", "n1"]["spec"]["taints"] = [{"key": "team", "value": "x", "effect": "NoSchedule"}]
    assert "{key: team, operator: Exists}" in looked(cluster)["fit of step tuned"].remedy
    assert looked(cluster, tolerations=({"key": "team", "operator": "Exists"},))["fit of step tuned"].verdict == "ok"


def test_what_may_not_be_looked_at_is_unknown_with_the_reason() -> None:
    cluster = good()
    kinds: tuple[Kind, ...] = ("Node", "ResourceQuota", "LimitRange", "StorageClass", "Service", "EndpointSlice", "PriorityClass", "LocalQueue")
    cluster.forbidden = {(verb, kind) for verb in ("get", "list") for kind in (*kinds, "Secret", "ServiceAccount")}  # type: ignore[assignment]
    cluster.reviews = False
    verdicts = looked(cluster)
    assert [one.check for one in verdicts.values() if one.verdict == "no"] == []
    hidden = {one.check for one in verdicts.values() if one.verdict == "unknown"}
    assert hidden >= {"quota", "limit range", "driver's account", "driver's rights", "token secret", "pull secret", "priority high", "queue gpus"}
    assert hidden >= {"hub modelscope", "fit of step tuned", "image modelyard:1-cuda"}
    assert "capacity unknown" in verdicts["fit of step tuned"].why
    assert check.failed(list(verdicts.values())) is None


def test_quota_and_limits_that_may_not_be_listed_are_known_by_the_servers_word() -> None:
    cluster = good()
    cluster.forbidden = {("list", "ResourceQuota"), ("list", "LimitRange")}
    said = ['pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1', "maximum cpu usage per Container is 1, but"]
    cluster.answer = Answer([Cause("", text) for text in said])
    verdicts = looked(cluster)
    assert verdicts["quota"].why == said[0]
    assert verdicts["limit range"].why == said[1]
    assert verdicts["admission"].verdict == "ok"


def test_missing_rights_come_with_what_an_admin_applies() -> None:
    cluster = good()
    cluster.refused = {names.DRIVER_ACCOUNT: {("create", "Job")}}
    cluster.forbidden = {("delete", "ConfigMap"), ("create", "Pod")}
    found = survey.survey(cluster, PLACE, pipeline(), {"hubs": HUBS, "jobs": 1, "force": []}, hubs=HUBS, ask=lambda _: "")
    made = check.grants(found)
    assert [one["kind"] for one in made] == ["ServiceAccount", "Role", "RoleBinding", "Role", "RoleBinding"]
    assert made[1]["rules"] == access.driver_rules()
    rows = {one.check: one for one in check.check(found, check.Needs())}
    assert rows["driver's rights"].lines[0].startswith("jobs: get, list, patch, delete; not create")
    assert [name for name in ("rights to cancel", "rights to read the yard") if rows[name].verdict == "no" and not rows[name].needed] != []
    assert check.failed([rows["rights to cancel"]]) is None  # a run goes on without it


def test_every_right_that_is_asked_about_is_in_the_role_of_a_person() -> None:
    granted = {(verb, resource) for rule in access.person_rules() for resource in rule["resources"] for verb in rule["verbs"]}
    asked = {tuple(str(right).split(" ")) for rights in survey.PURPOSES.values() for right in rights}
    assert asked - granted == set()


def test_a_cluster_that_does_not_answer_or_is_too_old() -> None:
    cluster = good()
    cluster.down = Unavailable("the API server does not answer", remedy="look at the network")
    with pytest.raises(Unavailable) as told:
        looked(cluster)
    row = check.unreached(told.value)
    assert (row.check, row.verdict, row.described()["exit_code"]) == ("cluster", "no", 69)
    old = good()
    old.version = lambda: "v1.30.9-eks"  # type: ignore[method-assign]
    assert looked(old)["cluster"].category == "usage"
    assert "1.31" in looked(old)["cluster"].why
    odd = good()
    odd.version = lambda: "snapshot"  # type: ignore[method-assign]
    assert looked(odd)["cluster"].verdict == "unknown"


def test_a_server_that_goes_away_meanwhile_is_not_asked_again() -> None:
    cluster = good()
    first = cluster.version

    def version() -> str:
        told = first()
        cluster.down = Unavailable("the API server does not answer")
        return told

    cluster.version = version  # type: ignore[method-assign]
    verdicts = looked(cluster)
    assert {one.verdict for name, one in verdicts.items() if name != "cluster"} <= {"unknown"}
    assert cluster.requests == 2


def test_who_is_not_known_to_the_cluster_is_told() -> None:
    cluster = good()
    cluster.down = NoPermission("the cluster does not accept the credentials", remedy="log in")
    with pytest.raises(NoPermission) as told:
        looked(cluster)
    assert check.unreached(told.value).described()["exit_code"] == 77


def test_hubs_outside_are_asked_from_here() -> None:
    outside = {"modelscope": "https://hub.example.org"}
    assert looked(good(), hubs=outside)["hub modelscope"].verdict == "ok"
    row = looked(good(), hubs=outside, silence="Connection refused")["hub modelscope"]
    assert (row.verdict, row.described()["exit_code"]) == ("no", 69)
    for address, silence in (("https://hub.example.org", "[Errno -2] Name or service not known"), ("http://10.1.2.3:80", "timed out")):
        assert looked(good(), hubs={"modelscope": address}, silence=silence)["hub modelscope"].verdict == "unknown"


def test_what_cannot_be_rendered_is_said_and_the_rest_is_looked_at() -> None:
    verdicts = looked(good(), of=Pipeline("a", {"d": Fetch(dataset="./rows.csv")}))
    assert verdicts["pipeline"].verdict == "no"
    assert "is a path of this machine" in verdicts["pipeline"].why
    assert verdicts["claim"].verdict == "ok"


def test_a_secret_is_never_kept() -> None:
    found = survey.survey(good(), PLACE, pipeline(), {"hubs": HUBS, "jobs": 1, "force": []}, hubs=HUBS, ask=lambda _: "")
    assert found.secrets["tokens"] == survey.Keys("Opaque", frozenset({"modelscope", "huggingface"}))
    assert "c2VjcmV0" not in repr(found)


def test_a_claim_whose_class_waits_for_a_pod_is_ok() -> None:
    cluster = good()
    _claim(cluster, phase="Pending")
    edit(cluster, "StorageClass", "fast", volumeBindingMode="WaitForFirstConsumer")
    assert looked(cluster)["claim"].verdict == "ok"


def test_a_secret_that_nobody_named_need_not_be_there() -> None:
    cluster = good()
    cluster.objects.pop(("Secret", "tokens"))
    found = survey.survey(cluster, PLACE, pipeline(), {"hubs": HUBS, "jobs": 1, "force": []}, hubs=HUBS, ask=lambda _: "")
    rows = {one.check: one for one in check.check(found, check.Needs())}
    assert rows["token secret"].verdict == "ok"
    assert "without a token" in rows["token secret"].why
    rows = {one.check: one for one in check.check(found, check.Needs(named=True))}
    assert rows["token secret"].verdict == "no"


def _quota(hard: dict[str, str], used: dict[str, str] | None = None, **spec: Any) -> Manifest:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


@pytest.mark.parametrize(
    ("hard", "spec", "over"),
    [
        ({"pods": "1"}, {}, True),
        ({"pods": "2"}, {}, False),
        ({"limits.memory": "6Gi"}, {}, True),
        ({"requests.memory": "7Gi"}, {}, False),
        ({"count/jobs.batch": "2"}, {}, True),
        ({"configmaps": "1"}, {}, True),
        ({"persistentvolumeclaims": "0"}, {}, False),
        ({"pods": "0"}, {"scopes": ["BestEffort"]}, False),
        ({"pods": "0"}, {"scopes": ["NotBestEffort"]}, True),
        ({"pods": "0"}, {"scopes": ["Terminating"]}, False),
        ({"pods": "0"}, {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["low"]}]}}, False),
        ({"pods": "0"}, {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}, True),
    ],
)
def test_quota(hard: dict[str, str], spec: dict[str, Any], over: bool) -> None:
    found = survey.survey(good(), PLACE, pipeline(), {"hubs": HUBS, "jobs": 1, "force": []}, hubs=HUBS, ask=lambda _: "")
    assert bool(quota.over_quota([_quota(hard, **spec)], found.asks, besides=survey.DRIVER)) is over


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ({"type": "Container", "min": {"memory": "8Gi"}}, "limit range l: memory of a container: at least 8 GiB, 6 GiB asked (step tuned)"),
        ({"type": "Pod", "max": {"cpu": "500m"}}, "limit range l: cpu of a pod: at most 0.5, 1 asked (step tuned)"),
        ({"type": "Container", "max": {"memory": "6Gi"}, "min": {"memory": "1Mi"}, "maxLimitRequestRatio": {"cpu": "1"}}, ""),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}, ""),
    ],
)
def test_limits(item: Manifest, line: str) -> None:
    found = survey.survey(good(), PLACE, pipeline(), {"hubs": HUBS, "jobs": 1, "force": []}, hubs=HUBS, ask=lambda _: "")
    lines = [one.line for one in quota.out_of_limits([{"metadata": {"name": "l"}, "spec": {"limits": [item]}}], found.asks)]
    assert (line in lines) if line else lines == []


def test_a_limit_far_above_its_request() -> None:
    made = {"kind": "Pod", "spec": {"containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}}]}}
    item = {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}
    found = quota.out_of_limits([{"metadata": {"name": "l"}, "spec": {"limits": [item]}}], {"p": made})
    assert [one.line for one in found] == ["limit range l: cpu of a container: the limit at most 2 times the request, 3 and 1 asked (p)"]


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": "abc"},
        {"affinity": "x"},
        {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": None}]}}},
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{}]}]}}}},
        {"initContainers": "x"},
        {"initContainers": [{"name": "i", "resources": {"requests": {"cpu": "-1"}}}]},
        {"containers": [{"name": "step", "resources": {"limits": {"cpu": "much"}}}]},
        {"overhead": 5},
        {"priorityClassName": ["a"]},
    ],
)
def test_an_overlay_that_makes_nonsense_is_a_verdict(spec: Manifest) -> None:
    verdicts = looked(good(), overlay={"spec": spec})
    wrong = check.failed(list(verdicts.values()))
    assert wrong is not None
    assert wrong.exit_code in (64, 66)
    assert {one.verdict for name, one in verdicts.items() if name.startswith("claim")} == {"ok"}


def test_a_container_of_an_overlay_without_an_image_is_the_servers_business() -> None:
    cluster = good()
    cluster.answer = Answer([Cause("spec.containers[1].image", "Required value")])
    one = looked(cluster, overlay={"spec": {"containers": [{"name": "x"}]}})["admission"]
    assert (one.verdict, one.described()["exit_code"]) == ("no", 64)
