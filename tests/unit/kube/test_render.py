"""Manifests: names, what pods may do and have, what is refused before anything is created. Whole manifests are in test_render_golden.py."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import Usage
from modelyard.hubs.credentials import VARIABLES
from modelyard.kube import names, pods, render
from modelyard.kube.cluster import Manifest
from modelyard.order import Order
from modelyard.quantities import parse_bytes
from modelyard.spec import Pipeline
from modelyard.steps import STEPS, Evaluate, Fetch, Finetune, Promote, Publish, Resources, Search
from tests.unit.documents import check_command
from tests.unit.kube import manifests
from tests.unit.kube.manifests import HUBS, OWNER, PLACE, SETTINGS, order

TUNED = Finetune(model="hf://me/base", data="hf://datasets/me/rows")
PIPELINE = Pipeline("reviews", {"tuned": TUNED, "score": Evaluate(model="tuned", data="hf://datasets/me/rows")})
ALL = {name: list(made) for name, made in manifests.goldens().items()}
WITH_PODS = {f"{name}/{index}": made for name, all_made in ALL.items() for index, made in enumerate(all_made) if made["kind"] != "ConfigMap"}


def pod_of(manifest: Manifest) -> Manifest:
    found: Manifest = manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"]
    return found


def spec_of(manifest: Manifest) -> Manifest:
    found: Manifest = pod_of(manifest)["spec"]
    return found


def step(place: Any = PLACE, *, verb: str = "finetune", avoid: tuple[str, ...] = (), **asked: Any) -> Manifest:
    """The Job of a step with these resources."""
    settings = TUNED.settings() if verb == "finetune" else {}
    return render.step_job(order(resources=Resources.model_validate(asked), verb=verb, settings=settings), place, pipeline="reviews", avoid=avoid)


def limits(manifest: Manifest) -> dict[str, str]:
    found = spec_of(manifest)["containers"][0]["resources"]
    assert found["requests"] == found["limits"]
    return dict(found["limits"])


def texts(value: Any) -> Iterator[str]:
    """Every text in a tree, keys included."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from texts(name)
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


# --- what every pod is


@pytest.mark.parametrize("manifest", WITH_PODS.values(), ids=WITH_PODS)
def test_every_pod_is_restricted(manifest: Manifest) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, field by field."""
    spec = spec_of(manifest)
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == spec["securityContext"]["fsGroup"] == 10001
    assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "ports" not in container
    allowed = {"emptyDir", "configMap", "downwardAPI", "persistentVolumeClaim"}
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= allowed


@pytest.mark.parametrize("manifest", WITH_PODS.values(), ids=WITH_PODS)
def test_every_pod_is_made_for_a_job_and_for_its_role(manifest: Manifest) -> None:
    spec, role = spec_of(manifest), manifest["metadata"]["labels"][names.ROLE]
    (container,) = spec["containers"]
    assert container["name"] == role
    assert spec["restartPolicy"] == "Never"
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is (role == "driver")
    assert spec.get("serviceAccountName") == (names.DRIVER_ACCOUNT if role == "driver" else None)
    assert container["terminationMessagePath"] == "/dev/termination-log"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in spec["volumes"]}
    assert {"/yard", "/tmp", "/home/modelyard"} <= set(mounts)
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])


@pytest.mark.parametrize("made", [made for all_made in ALL.values() for made in all_made])
def test_labels_and_names_are_such(made: Manifest) -> None:
    for labels in (made["metadata"]["labels"], pod_of(made)["metadata"]["labels"] if "spec" in made else {}):
        assert all(re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value) for value in labels.values())
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", made["metadata"]["name"])
    assert len(made["metadata"]["name"]) <= render.LONGEST_NAME


def test_no_manifest_holds_a_token_or_a_path_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {variable: f"ms-{number}-0f1e2d3c4b5a" for number, variable in enumerate(sum(VARIABLES.values(), ()))}
    for variable, token in tokens.items():
        monkeypatch.setenv(variable, token)
    whole = "\n".join(texts([list(made) for made in manifests.goldens().values()]))
    assert "secretKeyRef" in whole
    assert not [token for token in tokens.values() if token in whole]
    assert not [path for path in (str(manifests.ROOT), os.path.expanduser("~"), os.getcwd()) if len(path) > 1 and path in whole]


def test_the_variables_of_tokens_are_those_that_hubs_look_for() -> None:
    assert list(pods.TOKENS) == [variables[0] for variables in VARIABLES.values()]


@pytest.mark.parametrize("verb", STEPS)
def test_tokens_are_for_steps_that_speak_with_hubs(verb: str) -> None:
    found = {item["name"]: item for item in spec_of(step(verb=verb))["containers"][0]["env"] if "valueFrom" in item}
    assert set(found) == (set(pods.TOKENS) if verb in ("search", "fetch", "preflight", "promote", "publish") else set())
    for variable, item in found.items():
        assert item["valueFrom"]["secretKeyRef"] == {"name": "modelyard-tokens", "key": pods.TOKENS[variable], "optional": True}


def test_no_secret_means_no_tokens() -> None:
    assert "secretKeyRef" not in set(texts(step(PLACE.model_copy(update={"secret": ""}), verb="fetch")))


@pytest.mark.parametrize("verb", STEPS)
def test_each_step_has_a_size_and_an_image(verb: str) -> None:
    light = verb in ("search", "fetch", "promote", "publish")
    spec = spec_of(step(verb=verb))
    assert spec["containers"][0]["image"] == f"{PLACE.image}-{'light' if light else 'cuda'}"
    amounts = pods.SIZES[verb]
    cores = int(amounts.cpu.removesuffix("m")) / 1000 if amounts.cpu.endswith("m") else int(amounts.cpu)
    assert cores + 0.25 <= 1.5, "a node of two cores has room for the driver beside it"
    assert parse_bytes(amounts.memory) <= 6 * 2**30


# --- resources


def test_resources_stand_in_place_of_the_sizes() -> None:
    assert limits(step(cpu=3, memory="20Gi")) == {"cpu": "3", "memory": "20Gi"}
    assert limits(step()) == {"cpu": "1", "memory": "6Gi"}


@pytest.mark.parametrize(
    ("accelerator", "resource"),
    [
        ("nvidia", "nvidia.com/gpu"),
        ("nvidia-mig:1g.10gb", "nvidia.com/mig-1g.10gb"),
        ("amd", "amd.com/gpu"),
        ("intel", "gpu.intel.com/xe"),
        ("ascend", "huawei.com/Ascend910"),
    ],
)
def test_accelerators_are_asked_for_by_their_resource_and_their_taint_is_tolerated(accelerator: str, resource: str) -> None:
    made = step(gpus=2, accelerator=accelerator)
    assert limits(made)[resource] == "2"
    vendor = resource.partition("/")[0]
    assert {"operator": "Exists", "key": resource.replace("mig-1g.10gb", "gpu")} in spec_of(made)["tolerations"]
    assert all(toleration["key"].startswith(vendor) for toleration in spec_of(made)["tolerations"])
    assert spec_of(made)["securityContext"].get("supplementalGroups", []) == ([44, 109, 992, 993] if accelerator in ("amd", "intel") else [])


def test_without_accelerators_nothing_of_a_vendor_is_asked_for() -> None:
    spec = spec_of(step(accelerator="amd", gpu_model="AMD_Instinct_MI300X_OAM"))
    assert set(limits(step(accelerator="amd"))) == {"cpu", "memory"}
    assert not {"tolerations", "affinity"} & set(spec)
    assert "supplementalGroups" not in spec["securityContext"]


def test_a_model_is_looked_for_under_each_of_its_labels() -> None:
    affinity = spec_of(step(gpus=1, gpu_model="NVIDIA-H100-80GB-HBM3"))["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [term["matchExpressions"] for term in terms] == [
        [{"key": key, "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}]
        for key in ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator")
    ]


def test_nodes_are_avoided_in_every_alternative() -> None:
    away = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in ("a", "b")]
    for asked in ({}, {"gpus": 1, "gpu_model": "A100"}):
        affinity = spec_of(step(avoid=("b", "a"), **asked))["affinity"]["nodeAffinity"]
        terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert [term["matchFields"] for term in terms] == [away] * (2 if asked else 1)


def shm(manifest: Manifest) -> dict[str, Any] | None:
    return next((volume["emptyDir"] for volume in spec_of(manifest)["volumes"] if volume["name"] == "shm"), None)


def test_shared_memory_is_part_of_the_memory() -> None:
    given = step(memory="16Gi", shm="4Gi")
    assert shm(given) == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert limits(given)["memory"] == "16Gi"
    assert {"name": "shm", "mountPath": "/dev/shm"} in spec_of(given)["containers"][0]["volumeMounts"]
    assert parse_bytes(limits(step(shm="4Gi"))["memory"]) == parse_bytes("10Gi")
    assert shm(step(gpus=1)) is None
    several = shm(step(gpus=4, memory="16Gi"))
    assert several
    assert parse_bytes(several["sizeLimit"]) == parse_bytes("4Gi")
    with pytest.raises(Usage) as refused:
        step(memory="4Gi", shm="4Gi")
    assert refused.value.where == "steps.tuned.resources.shm"


def test_queue_priority_pull_secret_and_limits() -> None:
    place = PLACE.model_copy(update={"queue": "night", "pull_secret": "registry"})
    made = step(place, priority="low", time_limit="2h", pending_limit="30m")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "night"
    assert "kueue.x-k8s.io/queue-name" not in pod_of(made)["metadata"]["labels"]
    assert step(place, queue="day")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "day"
    assert spec_of(made)["imagePullSecrets"] == [{"name": "registry"}]
    assert spec_of(made)["priorityClassName"] == "low"
    assert made["spec"]["activeDeadlineSeconds"] > 2 * 3600 + 1800
    assert step()["spec"]["activeDeadlineSeconds"] > 7 * 24 * 3600


def test_a_volume_of_one_node_keeps_its_pods_together() -> None:
    once = PLACE.model_copy(update={"access": "ReadWriteOnce"})
    for made in (step(once), render.driver(PIPELINE, SETTINGS, once)[1], render.reader_pod(once, "reader", write=False, seconds=60)):
        (term,) = spec_of(made)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert term["labelSelector"]["matchLabels"].items() <= pod_of(made)["metadata"]["labels"].items(), "the first pod matches itself"
    assert "affinity" not in spec_of(step())


# --- Jobs


def test_a_steps_job_is_the_drivers_but_no_controller_blocks_on_it() -> None:
    made = render.step_job(order(), PLACE, pipeline="reviews", owner=OWNER)
    (owner,) = made["metadata"]["ownerReferences"]
    assert owner["uid"] == OWNER["metadata"]["uid"]
    assert owner["controller"] is owner["blockOwnerDeletion"] is False
    assert "ownerReferences" not in step()["metadata"]


def test_jobs_try_again_and_go_away() -> None:
    _, driver = render.driver(PIPELINE, SETTINGS, PLACE)
    for job, retries in ((step(), 2), (driver, 6)):
        assert job["spec"]["podReplacementPolicy"] == "Failed"
        assert job["spec"]["backoffLimit"] == retries
        assert job["spec"]["ttlSecondsAfterFinished"] == 7 * 24 * 3600
        for rule in job["spec"]["podFailurePolicy"]["rules"]:
            assert rule.get("onExitCodes", {}).get("containerName") in (None, spec_of(job)["containers"][0]["name"])
    assert "activeDeadlineSeconds" not in driver["spec"]


def test_the_order_travels_whole() -> None:
    given = order(forced=True, resources=Resources.model_validate({"gpus": 1, "overlay": {"metadata": {"labels": {"team": "größe"}}}, "shm": "1Gi"}))
    made = render.step_job(given, PLACE, pipeline="reviews")
    annotation = pod_of(made)["metadata"]["annotations"][names.ORDER]
    assert Order.model_validate_json(annotation) == given
    assert pod_of(made)["metadata"]["labels"]["team"] == "größe"
    (item,) = next(volume for volume in spec_of(made)["volumes"] if volume["name"] == "order")["downwardAPI"]["items"]
    assert item == {"path": "order.json", "fieldRef": {"fieldPath": f"metadata.annotations['{names.ORDER}']"}}
    command = spec_of(made)["containers"][0]["command"]
    assert command == ["python", "-m", "modelyard_jobs", "finetune", "--order", "/etc/modelyard/order/order.json", "--yard", "/yard"]


def test_an_order_of_64_kib_travels_and_a_larger_one_does_not() -> None:
    def sized(bytes_more: int) -> Manifest:
        return render.step_job(order(settings={"text": "ä" * (bytes_more // 2) + "x" * (bytes_more % 2)}), PLACE, pipeline="reviews")

    empty = len(pod_of(sized(0))["metadata"]["annotations"][names.ORDER].encode())
    full = pod_of(sized(64 * 1024 - empty))["metadata"]["annotations"][names.ORDER]
    assert len(full.encode()) == 64 * 1024
    with pytest.raises(Usage) as refused:
        sized(64 * 1024 - empty + 1)
    assert refused.value.where == "steps.tuned"


def test_names_hold_what_is_executed() -> None:
    one = render.step_job(order(), PLACE, pipeline="reviews")["metadata"]
    assert re.fullmatch(r"reviews-tuned-[0-9a-f]{10}", one["name"])
    assert one["annotations"][names.DIGEST].startswith(one["name"].rpartition("-")[2])
    assert render.step_job(order(), PLACE, pipeline="reviews", number=3)["metadata"]["name"] == f"{one['name']}-r3"
    assert render.step_job(order(run="other-0000000000-r1"), PLACE, pipeline="reviews")["metadata"]["name"] == one["name"], "pure: of no one run"
    assert render.step_job(order(run="other-0000000000-r1", forced=True), PLACE, pipeline="reviews")["metadata"]["name"] != one["name"]
    assert step(memory="7Gi")["metadata"]["name"] != one["name"]


@pytest.mark.parametrize(("pipeline", "name", "fits"), [(20, 20, True), (20, 21, False), (39, 1, True)])
def test_the_longest_names(pipeline: int, name: int, fits: bool) -> None:
    place, found = PLACE, "s" * name
    if not fits:
        with pytest.raises(Usage):
            Pipeline("p" * pipeline, {found: Search()})
        return
    made = Pipeline("p" * pipeline, {found: Search()})
    _, driver = render.driver(made, SETTINGS, place, number=999)
    (job,) = render.preview(made, SETTINGS, place)
    last = render.step_job(order(step=found), place, pipeline=made.name, number=999)
    for manifest in (driver, job, last):
        assert len(f"{manifest['metadata']['name']}-abcde") <= 63
    with pytest.raises(Usage, match="cannot be a name"):
        render.step_job(order(step=found), place, pipeline=made.name, number=1000)


def test_a_ref_may_make_the_longest_name() -> None:
    """The fetch step of a ref has 14 letters, which nobody wrote."""
    long = Pipeline("p" * 27, {"s": Evaluate(model="hf://me/base", data="hf://datasets/me/rows")})
    with pytest.raises(Usage) as refused:
        render.driver(long, SETTINGS, PLACE)
    assert refused.value.where.startswith("steps.fetch-")
    render.driver(Pipeline("p" * 26, {"s": Evaluate(model="hf://me/base", data="hf://datasets/me/rows")}), SETTINGS, PLACE)


@pytest.mark.parametrize("value", ["", "-night", "night/7", "n" * 64, "a b", "$(HOME)", "nächtlich", "a\nb"])
def test_what_is_no_label_is_refused(value: str) -> None:
    if value:
        with pytest.raises(Usage, match="cannot be the value of a label"):
            step(PLACE.model_copy(update={"queue": value}))
        with pytest.raises(Usage, match="cannot be the value of a label"):
            step(gpus=1, gpu_model=value)
    with pytest.raises(Usage, match="cannot be the value of a label"):
        render.driver(PIPELINE, SETTINGS, PLACE.model_copy(update={"claim": value}))


# --- the driver


def test_a_drivers_config_holds_the_run() -> None:
    settings = {"hubs": HUBS, "jobs": 3, "force": ["tuned"]}
    config, job = render.driver(PIPELINE, settings, PLACE, number=2)
    run = names.run_name(PIPELINE, PLACE.image, 2)
    assert config["metadata"]["name"] == job["metadata"]["name"] == run
    assert config["immutable"] is True
    document = json.loads(config["data"]["run.json"])
    assert document == {"run": run, "settings": settings, "place": PLACE.model_dump()}
    assert json.loads(config["data"]["pipeline.yaml"]) == PIPELINE.to_dict()
    assert config["metadata"]["annotations"][names.DIGEST] == names.pipeline_digest(PIPELINE, PLACE.image)
    (container,) = spec_of(job)["containers"]
    assert container["command"] == ["python", "-m", "modelyard.run.driver", "/etc/modelyard/run.json", "--yard", "/yard"]
    assert container["image"].endswith("-light")
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["run"] == {"name": "run", "mountPath": "/etc/modelyard", "readOnly": True}


def test_a_tick_makes_another_run() -> None:
    run, ticked = (names.run_name(PIPELINE, PLACE.image, 1, tick) for tick in ("", "2026-11-23T06:00:00Z"))
    assert run != ticked


def test_a_drivers_pod_knows_its_job() -> None:
    (container,) = spec_of(render.driver(PIPELINE, SETTINGS, PLACE)[1])["containers"]
    (own,) = [variable for variable in container["env"] if variable["name"] == "MODELYARD_JOB"]
    assert own["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}


@pytest.mark.parametrize(
    "address", ["/srv/hub", "./hub", "hub", "file:///srv/hub", "http://localhost:8000", "http://127.0.0.1:1", "http://[::1]:8000"]
)
def test_a_hub_of_this_machine_is_refused(address: str) -> None:
    for make in (render.driver, render.preview):
        with pytest.raises(Usage) as refused:
            make(PIPELINE, {**SETTINGS, "hubs": {"modelscope": address}}, PLACE)
        assert refused.value.where == "hubs.modelscope"
        assert refused.value.remedy


def test_a_path_is_refused() -> None:
    pipeline = Pipeline("rows", {"reviews": Fetch(dataset="./reviews.csv")})
    with pytest.raises(Usage) as refused:
        render.driver(pipeline, SETTINGS, PLACE)
    assert refused.value.where == "steps.reviews.fetch"
    typed = refused.value.remedy.removeprefix("bring it into the yard first: ").partition(", and")[0]
    assert typed == f"modelyard yard put {Path.cwd() / 'reviews.csv'} datasets/NAME --on kubernetes"
    check_command(typed)


def test_a_step_to_force_has_to_be_there() -> None:
    with pytest.raises(Usage, match="no step 'other'"):
        render.driver(PIPELINE, {**SETTINGS, "force": ["other"]}, PLACE)


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        ({"overlay": {"spec": {"containers": []}, "kind": "Pod"}}, "steps.look.resources.overlay.kind"),
        ({"queue": "a b"}, "steps.look.resources.queue"),
        ({"memory": "1Gi", "shm": "2Gi"}, "steps.look.resources.shm"),
        ({"overlay": {"metadata": {"annotations": {"long": "x" * 70_000}}}}, "steps.look"),
    ],
)
def test_a_step_of_which_no_job_can_be_made_is_refused_before_the_run(asked: dict[str, Any], where: str) -> None:
    pipeline = Pipeline("look", {"look": Search(resources=Resources.model_validate(asked))})
    with pytest.raises(Usage) as refused:
        render.driver(pipeline, SETTINGS, PLACE)
    assert refused.value.where == where


# --- a lone step


def test_a_lone_steps_frame_fetches_its_refs() -> None:
    pipeline = Pipeline("score", {"score": Evaluate(model="hf://me/base", data="hf://datasets/me/rows")})
    made = render.lone_step(pipeline, SETTINGS, PLACE)
    found = Order.model_validate_json(pod_of(made)["metadata"]["annotations"][names.ORDER])
    assert found.refs == {"model": "hf://me/base", "data": "hf://datasets/me/rows"}
    assert (found.run, found.step, found.inputs, found.key) == (names.run_name(pipeline, PLACE.image, 1), "score", {}, "")
    assert found.pipeline == pipeline.to_dict()
    assert found.hubs == HUBS
    assert {"MODELSCOPE_API_TOKEN", "HF_TOKEN"} <= {item["name"] for item in spec_of(made)["containers"][0]["env"]}
    assert "serviceAccountName" not in spec_of(made)


@pytest.mark.parametrize("step", [Fetch(model="hf://me/base"), Search(), Promote(model="hf://me/base", to="yard://models/me@champion")])
def test_every_kind_of_step_may_be_alone(step: Any) -> None:
    made = render.lone_step(Pipeline("alone", {"alone": step}), SETTINGS, PLACE)
    found = Order.model_validate_json(pod_of(made)["metadata"]["annotations"][names.ORDER])
    assert (found.step, found.verb) == ("alone", step.verb)
    assert found.step_settings()


@pytest.mark.parametrize(
    "steps",
    [
        {"tuned": TUNED, "score": Evaluate(model="tuned", data="hf://datasets/me/rows")},
        {"one": Fetch(model="hf://me/base"), "two": Fetch(model="hf://me/other")},
        {"score": Evaluate(model="hf://me/base", data="hf://datasets/me/rows"), "spare": Fetch(model="hf://me/spare")},
        {"base": Fetch(model="hf://me/base", trust=("pickle",)), "release": Publish(model="base", to="hf://me/copy")},
    ],
)
def test_more_than_a_lone_step_needs_a_driver(steps: Any) -> None:
    with pytest.raises(Usage) as refused:
        render.lone_step(Pipeline("several", steps), SETTINGS, PLACE)
    assert "--driver there" in refused.value.remedy


# --- previews and the reader


def test_a_preview_says_what_it_does_not_know() -> None:
    jobs = {job["metadata"]["labels"][names.STEP]: job for job in render.preview(PIPELINE, SETTINGS, PLACE)}
    assert list(jobs) == PIPELINE.order()
    assert "model comes from tuned" in jobs["score"]["metadata"]["annotations"][render.PREVIEW]
    assert render.PREVIEW not in step()["metadata"]["annotations"]


@pytest.mark.parametrize("write", [False, True])
def test_a_reader_waits_for_its_time_and_writes_only_where_it_may(write: bool) -> None:
    made = render.reader_pod(PLACE, "modelyard-reader-x", write=write, seconds=600)
    spec = made["spec"]
    assert spec["activeDeadlineSeconds"] == 600
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["/yard"] is not write
    assert mounts["/scratch"] is False
    assert "secretKeyRef" not in set(texts(made))


def test_a_drivers_memory_is_a_setting() -> None:
    (container,) = spec_of(render.driver(PIPELINE, SETTINGS, PLACE.model_copy(update={"driver_memory": "1Gi"}))[1])["containers"]
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == "1Gi"
