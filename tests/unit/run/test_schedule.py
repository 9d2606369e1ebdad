"""Schedules of a namespace in memory: applied, changed, refused, triggered, suspended and removed; never half."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard.errors import NoInput, NoPermission, Unavailable, Usage
from modelyard.kube import names, runs, schedule
from modelyard.kube.cluster import Answer, Cause, Kind, Manifest
from modelyard.kube.place import Place
from modelyard.run import schedule as schedules
from modelyard.run.pipeline import first_status
from modelyard.run.settings import Settings
from modelyard.spec import Pipeline
from modelyard.steps import Search
from modelyard.yard.runs import RunState

from .standin import Standin
from .test_remote import HUBS, account, claim

PLACE = Place(namespace="team", image="modelyard:1", claim="modelyard")
NOW = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


@pytest.fixture
def cluster() -> Standin:
    made = Standin()
    made.create(claim("ReadWriteMany"))
    made.create(account())
    return made


def pipeline(query: str = "x", name: str = "nightly") -> Pipeline:
    return Pipeline(name, {"find": Search(query=query)})


def apply(cluster: Standin, query: str = "x", cron: str = "0 3 * * *", zone: str | None = None, **place: Any) -> str:
    there = PLACE.model_copy(update=place)
    return schedules.apply(pipeline(query), Settings(Path("/nowhere"), HUBS), there, cluster, cron=cron, time_zone=zone, now=NOW)[0]


def made(cluster: Standin) -> Manifest:
    return cluster.objects["CronJob", "nightly"]


def configs(cluster: Standin) -> list[str]:
    return [name for kind, name in cluster.objects if kind == "ConfigMap"]


def in_force(cluster: Standin) -> str:
    return runs.config_of(made(cluster)["spec"]["jobTemplate"]["spec"])


def mirror(cluster: Standin, run: str, state: RunState) -> None:
    status = first_status(run, pipeline()).model_copy(update={"state": state})
    labels = {names.ROLE: "status", names.RUN: run}
    data = {"status.json": status.model_dump_json()}
    cluster.create({"kind": "ConfigMap", "metadata": {"name": names.status_name(run), "labels": labels}, "data": data})


def test_applied_twice_it_is_unchanged(cluster: Standin) -> None:
    assert apply(cluster, zone="Europe/Berlin") == "created"
    assert (made(cluster)["spec"]["schedule"], made(cluster)["spec"]["timeZone"]) == ("0 3 * * *", "Europe/Berlin")
    assert configs(cluster) == [in_force(cluster)]
    (owner,) = cluster.objects["ConfigMap", in_force(cluster)]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("CronJob", made(cluster)["metadata"]["uid"])
    assert apply(cluster) == "unchanged", "the zone stays what it was"
    assert made(cluster)["spec"]["timeZone"] == "Europe/Berlin"


def test_without_a_zone_it_is_this_machines(cluster: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    apply(cluster)
    assert made(cluster)["spec"]["timeZone"] == "Asia/Shanghai"


def test_a_change_takes_away_what_is_not_wanted_any_more_and_leaves_it_suspended(cluster: Standin) -> None:
    apply(cluster, pull_secret="of-before")
    schedules.suspend(cluster, "nightly", NOW, suspended=True)
    uid = made(cluster)["metadata"]["uid"]
    assert apply(cluster, cron="0 4 * * *") == "updated"
    pod = made(cluster)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert "imagePullSecrets" not in pod
    assert (made(cluster)["spec"]["schedule"], made(cluster)["spec"]["suspend"], made(cluster)["metadata"]["uid"]) == ("0 4 * * *", True, uid)
    assert made(cluster)["metadata"]["annotations"][schedule.SINCE] == "2026-01-01T12:00:30Z"
    assert apply(cluster, cron="0 4 * * *") == "unchanged"


def test_config_maps_of_before_go_when_nobody_needs_them(cluster: Standin) -> None:
    apply(cluster, "a")
    first = in_force(cluster)
    schedules.trigger(cluster, "nightly", NOW)
    apply(cluster, "b")
    second = in_force(cluster)
    assert apply(cluster, "c") == "updated"
    third = in_force(cluster)
    assert set(configs(cluster)) == {first, second, third}, "a Job that has not ended needs the first, and a controller may still know the second"
    (job,) = cluster.jobs("driver")
    cluster.objects["Job", job]["status"] = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T12:01:00Z"}]}
    assert apply(cluster, "d") == "updated"
    assert set(configs(cluster)) == {third, in_force(cluster)}


@pytest.mark.parametrize("arguments", [{"cron": "@daily"}, {"zone": "Mars/Olympus"}, {"claim": "nothing"}])
def test_what_is_wrong_is_said_before_anything_is_made(cluster: Standin, arguments: dict[str, Any]) -> None:
    before = set(cluster.objects)
    with pytest.raises((Usage, NoInput)):
        apply(cluster, **arguments)
    assert set(cluster.objects) == before
    assert ("create", "ConfigMap") not in cluster.calls


def test_what_the_api_server_refuses_leaves_nothing(cluster: Standin) -> None:
    cluster.answer = Answer((Cause("spec.timeZone", "unknown time zone"),))
    before = set(cluster.objects)
    with pytest.raises(Usage, match=r"spec\.timeZone: unknown time zone"):
        apply(cluster)
    cluster.answer = Answer()
    cluster.forbidden.add(("create", "CronJob"))
    with pytest.raises(NoPermission):
        apply(cluster)
    assert set(cluster.objects) == before, "the ConfigMap that was made for it is gone"


def test_what_could_not_be_heard_may_have_been_made_and_keeps_its_config_map(cluster: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    create = cluster.create

    def unheard(manifest: Manifest) -> Manifest | None:
        answer = create(manifest)
        if manifest["kind"] == "CronJob":
            raise Unavailable("the API server is away")
        return answer

    monkeypatch.setattr(cluster, "create", unheard)
    with pytest.raises(Unavailable):
        apply(cluster)
    assert configs(cluster) == [in_force(cluster)]
    monkeypatch.undo()
    assert apply(cluster) == "unchanged"


@pytest.mark.parametrize(
    ("verb", "kind"), [(verb, kind) for verb in ("create", "patch", "list", "delete") for kind in ("ConfigMap", "CronJob", "Job")]
)
@pytest.mark.parametrize("before", [[], ["a", "b"]])
def test_an_apply_that_broke_off_anywhere_goes_through_again(cluster: Standin, verb: str, kind: str, before: list[str]) -> None:
    for query in before:
        apply(cluster, query)
    cluster.forbidden.add((verb, kind))
    with suppress(NoPermission):
        apply(cluster, "c")
    if ("CronJob", "nightly") in cluster.objects:
        assert in_force(cluster) in configs(cluster), "never one without what it needs"
    cluster.forbidden.clear()
    apply(cluster, "c")
    owners = cluster.objects["ConfigMap", in_force(cluster)]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == [made(cluster)["metadata"]["uid"]]


def test_a_config_map_that_goes_with_a_schedule_that_was_removed_is_made_anew(cluster: Standin) -> None:
    apply(cluster)
    name = in_force(cluster)
    left = cluster.objects["ConfigMap", name]
    cluster.delete("CronJob", "nightly")
    cluster.objects["ConfigMap", name] = left | {"metadata": {k: v for k, v in left["metadata"].items() if k != "deletionTimestamp"}}
    assert apply(cluster) == "created"
    found = cluster.objects["ConfigMap", name]["metadata"]
    assert found["uid"] != left["metadata"]["uid"], "the garbage collector ends the old one, whoever owns it by then"
    assert [owner["uid"] for owner in found["ownerReferences"]] == [made(cluster)["metadata"]["uid"]]


def test_a_config_map_that_says_something_else_is_not_taken_for_its_own(cluster: Standin) -> None:
    apply(cluster)
    name = in_force(cluster)
    cluster.objects["ConfigMap", name]["data"]["run.json"] = "{}"
    with pytest.raises(Usage, match="is not the schedule's") as raised:
        apply(cluster)
    assert raised.value.remedy == f"kubectl delete configmap {name}"


def test_a_config_map_of_somebody_who_applies_meanwhile_stays(cluster: Standin) -> None:
    apply(cluster)
    another = {"name": "nightly-of-another", "labels": {names.ROLE: "driver", names.SCHEDULE: "nightly"}}
    cluster.create({"kind": "ConfigMap", "metadata": another, "data": {}})
    apply(cluster)
    assert "nightly-of-another" in configs(cluster)


@pytest.mark.parametrize("lost", ["CronJob", "ConfigMap"])
def test_what_somebody_removes_while_it_is_applied_is_made_again(cluster: Standin, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    apply(cluster, "a")
    patch, losses = cluster.patch, [lost]

    def losing(kind: Kind, name: str, change: Manifest) -> Manifest | None:
        if losses == [kind]:
            del cluster.objects[kind, name]
            losses.clear()
        return patch(kind, name, change)

    monkeypatch.setattr(cluster, "patch", losing)
    apply(cluster, "b")
    assert losses == []
    assert in_force(cluster) in configs(cluster)


def test_a_cron_job_of_somebody_elses_is_left_alone(cluster: Standin) -> None:
    cluster.create({"kind": "CronJob", "metadata": {"name": "nightly", "labels": {"app": "backup"}}, "spec": {"schedule": "0 1 * * *"}})
    before = made(cluster)
    for act in (
        lambda: apply(cluster),
        lambda: schedules.trigger(cluster, "nightly", NOW),
        lambda: schedules.suspend(cluster, "nightly", NOW, suspended=True),
        lambda: schedules.remove(cluster, "nightly"),
    ):
        with pytest.raises(Usage, match="no schedule of modelyard's"):
            act()
    assert made(cluster) == before
    assert schedules.every(cluster, NOW) == []
    assert configs(cluster) == []


def test_what_helm_looks_after_is_changed_by_helm(cluster: Standin) -> None:
    apply(cluster)
    made(cluster)["metadata"]["annotations"][schedule.RELEASE] = "retraining"
    for act in (lambda: apply(cluster, cron="0 4 * * *"), lambda: schedules.remove(cluster, "nightly")):
        with pytest.raises(Usage, match="Helm release 'retraining'") as raised:
            act()
        assert "helm upgrade retraining" in raised.value.remedy
    assert made(cluster)["spec"]["schedule"] == "0 3 * * *"
    assert schedules.trigger(cluster, "nightly", NOW)


def test_one_that_is_being_removed_is_not_changed(cluster: Standin) -> None:
    apply(cluster)
    made(cluster)["metadata"] |= {"deletionTimestamp": "2026-01-01T12:00:00Z", "finalizers": ["foregroundDeletion"]}
    with pytest.raises(Unavailable, match="is being removed"):
        apply(cluster, cron="0 4 * * *")
    with pytest.raises(Unavailable, match="is being removed"):
        schedules.trigger(cluster, "nightly", NOW)
    assert cluster.jobs("driver") == []
    assert made(cluster)["spec"]["schedule"] == "0 3 * * *"


def test_one_tick_at_a_time(cluster: Standin) -> None:
    apply(cluster)
    job = schedules.trigger(cluster, "nightly", NOW)
    with pytest.raises(Usage, match=f"{job} of the schedule nightly is at work"):
        schedules.trigger(cluster, "nightly", NOW + timedelta(seconds=1))
    cluster.objects["Job", job]["metadata"]["labels"][names.RUN] = "nightly-0-r1"
    with pytest.raises(Usage, match="nightly-0-r1 of the schedule nightly is at work"):
        schedules.remove(cluster, "nightly")
    assert made(cluster)["spec"]["suspend"] is False, "as it was"
    mirror(cluster, "nightly-0-r1", RunState.DONE)  # its Job takes a moment more
    assert schedules.trigger(cluster, "nightly", NOW + timedelta(seconds=1)) != job


def test_the_same_second_is_one_tick(cluster: Standin) -> None:
    apply(cluster)
    job = schedules.trigger(cluster, "nightly", NOW)
    cluster.objects["Job", job]["metadata"]["labels"][names.RUN] = "nightly-0-r1"
    mirror(cluster, "nightly-0-r1", RunState.DONE)
    with pytest.raises(Usage, match="triggered a moment ago"):
        schedules.trigger(cluster, "nightly", NOW)


def test_a_removed_schedule_leaves_nothing_but_how_its_runs_ended(cluster: Standin) -> None:
    apply(cluster, "a")
    apply(cluster, "b")
    job = schedules.trigger(cluster, "nightly", NOW)
    cluster.objects["Job", job]["metadata"]["labels"][names.RUN] = "nightly-0-r1"
    mirror(cluster, "nightly-0-r1", RunState.DONE)
    schedules.remove(cluster, "nightly")
    left = [one for one in cluster.objects if one[0] in ("CronJob", "Job", "ConfigMap")]
    assert left == [("ConfigMap", "nightly-0-r1-status")]


@pytest.mark.parametrize("ends", [Unavailable("the API server is away"), KeyboardInterrupt()])
def test_a_removal_that_fails_leaves_it_ticking(cluster: Standin, monkeypatch: pytest.MonkeyPatch, ends: BaseException) -> None:
    apply(cluster)

    def away(*_: object, **__: object) -> bool:
        assert made(cluster)["spec"]["suspend"], "no tick begins meanwhile"
        raise ends

    monkeypatch.setattr(cluster, "delete", away)
    for suspended in (True, False):
        schedules.suspend(cluster, "nightly", NOW, suspended=suspended)
        with pytest.raises(type(ends)):
            schedules.remove(cluster, "nightly")
        assert made(cluster)["spec"]["suspend"] is suspended, "as it was"


def test_suspending_twice_changes_nothing_more(cluster: Standin) -> None:
    apply(cluster)
    assert schedules.suspend(cluster, "nightly", NOW, suspended=True)[0]
    before = made(cluster)
    assert not schedules.suspend(cluster, "nightly", NOW + timedelta(hours=1), suspended=True)[0]
    assert made(cluster) == before
    changed, seen = schedules.suspend(cluster, "nightly", NOW + timedelta(hours=1), suspended=False)
    assert changed
    assert seen.upcoming
    assert made(cluster)["metadata"]["annotations"][schedule.SUSPENDED] == "2026-01-01T12:00:30Z/2026-01-01T13:00:30Z"


def test_what_is_not_there_is_told_with_what_is(cluster: Standin) -> None:
    with pytest.raises(NoInput, match="no schedule 'nightly'") as raised:
        schedules.look(cluster, "nightly", limit=1, now=NOW)
    assert "schedule apply" in raised.value.remedy
    apply(cluster)
    with pytest.raises(NoInput) as raised:
        schedules.trigger(cluster, "nightlie", NOW)
    assert raised.value.remedy == "did you mean 'nightly'?"


def test_a_look_tells_ticks_without_jobs_too_and_needs_no_right_on_events(cluster: Standin) -> None:
    apply(cluster, cron="0 * * * *", zone="Etc/UTC")
    run = names.run_name(pipeline(), PLACE.image, 1, "2026-01-01T11:00:00Z")
    mirror(cluster, run, RunState.DONE)
    cluster.forbidden.add(("list", "Event"))
    before = cluster.requests
    seen = schedules.look(cluster, "nightly", limit=2, now=NOW)
    assert cluster.requests - before <= 8
    assert [(tick.at, tick.state, tick.run) for tick in seen.last] == [
        ("2026-01-01T12:00:00Z", "due", ""),
        ("2026-01-01T11:00:00Z", "done", run),
    ], "its Job is gone, its run is known"
    (listed,) = schedules.every(cluster, NOW)
    assert listed.upcoming == "2026-01-01T13:00:00Z"
    assert listed.described()["ticks"][0]["state"] == "due"
