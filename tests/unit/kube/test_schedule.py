"""A schedule's objects, and what is told of its ticks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelyard.errors import Usage
from modelyard.kube import names, render, schedule, ticks
from modelyard.kube.cluster import Manifest
from modelyard.kube.place import Place
from modelyard.spec import Pipeline
from modelyard.steps import Search
from modelyard.yard.runs import RunState, RunStatus, StepState, StepStatus

PLACE = Place(namespace="team", image="modelyard:1", claim="modelyard")
PIPELINE = Pipeline("nightly", {"find": Search(query="x")})
SETTINGS: dict[str, Any] = {"hubs": {"modelscope": "http://hub:1"}, "jobs": 1, "force": []}
NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
UID = "uid-of-the-schedule"


def made(**spec: Any) -> Manifest:
    """A CronJob that ticks every hour, as the API server has it, since five o'clock."""
    found = schedule.manifests(PIPELINE, SETTINGS, PLACE, cron="0 * * * *", time_zone="Etc/UTC")[1]
    found["metadata"] |= {"uid": UID, "creationTimestamp": "2026-11-23T04:30:00Z"}
    found["spec"] |= spec
    return found


def at(hour: int, minute: int = 0) -> str:
    return f"2026-11-23T{hour:02}:{minute:02}:00Z"


def job(tick: str, run: str = "", *, ended: str = "", created: str = "", hand: bool = False) -> Manifest:
    name = f"nightly-{tick[11:13]}{tick[14:16]}"
    conditions = [{"type": "FailureTarget", "status": "True", "lastTransitionTime": at(0)}] if ended else []
    conditions += [{"type": "Complete", "status": "True", "lastTransitionTime": ended}] if ended else []
    annotation = {names.TICK: tick} if hand else {names.SCHEDULED: tick.replace("Z", "+00:00")}
    metadata = {"name": name, "annotations": annotation, "labels": {names.RUN: run} if run else {}, "creationTimestamp": created or tick}
    return {"kind": "Job", "metadata": metadata, "spec": {}, "status": {"conditions": conditions}}


def status(run: str, state: RunState = RunState.DONE, **step: Any) -> RunStatus:
    ends = {RunState.DONE: StepState.DONE, RunState.FAILED: StepState.FAILED}.get(state, StepState.RUNNING)
    return RunStatus(run=run, pipeline="nightly", state=state, exit_code=0, steps={"find": StepStatus(**{"verb": "search", "state": ends, **step})})


def told(of: Manifest, jobs: list[Manifest], *statuses: RunStatus, limit: int = 20, **more: Any) -> dict[str, tuple[str, str]]:
    """Tick -> (state, reason)."""
    found = ticks.history(of, jobs, {one.run: one for one in statuses}, **{"now": NOW, "limit": limit, **more})
    assert [tick.at for tick in found] == sorted((tick.at for tick in found), reverse=True)
    return {tick.at: (tick.state, tick.reason) for tick in found}


# --- the objects


def test_a_schedule_is_the_drivers_job_on_a_clock() -> None:
    config, cron = schedule.manifests(PIPELINE, SETTINGS, PLACE, cron="0 3 * * *", time_zone="Europe/Berlin")
    _, driver = render.driver(PIPELINE, SETTINGS, PLACE)
    spec = cron["spec"]
    said = {name: spec[name] for name in spec if name != "jobTemplate"}
    assert said == {
        "schedule": "0 3 * * *",
        "timeZone": "Europe/Berlin",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 3600,
        "successfulJobsHistoryLimit": 20,
        "failedJobsHistoryLimit": 20,
        "suspend": False,
    }
    labels = spec["jobTemplate"]["metadata"]["labels"]
    assert labels == cron["metadata"]["labels"] == spec["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {name: value for name, value in driver["metadata"]["labels"].items() if name != names.RUN} | {names.SCHEDULE: "nightly"}
    template = json.loads(json.dumps(spec["jobTemplate"]["spec"]).replace(config["metadata"]["name"], driver["metadata"]["name"]))
    del driver["spec"]["ttlSecondsAfterFinished"]
    for pod in (driver["spec"]["template"], template["template"]):
        del pod["metadata"]
    assert template == driver["spec"], "all else is what `run` gives a driver"


def test_its_config_map_is_named_by_what_it_says_and_leaves_the_run_to_the_driver() -> None:
    config = schedule.manifests(PIPELINE, SETTINGS, PLACE, cron="0 3 * * *", time_zone="Etc/UTC")[0]
    assert config["immutable"] is True
    assert json.loads(config["data"]["run.json"])["run"] == ""
    again = schedule.manifests(PIPELINE, SETTINGS, PLACE, cron="0 4 * * *", time_zone="Asia/Shanghai", since=at(3))[0]
    assert again == config, "when it ticks is no part of it"
    other = schedule.manifests(PIPELINE, SETTINGS | {"jobs": 2}, PLACE, cron="0 3 * * *", time_zone="Etc/UTC")[0]
    assert other["metadata"]["name"] != config["metadata"]["name"]
    assert config["metadata"]["name"].startswith("nightly-")


def test_what_cannot_run_there_is_no_schedule() -> None:
    with pytest.raises(Usage, match="folder of this machine"):
        schedule.manifests(PIPELINE, SETTINGS | {"hubs": {"modelscope": "/hub"}}, PLACE, cron="0 3 * * *", time_zone="Etc/UTC")
    with pytest.raises(Usage, match="too long"):
        schedule.manifests(Pipeline("n" * 53, {"a": Search(query="x")}), SETTINGS, PLACE, cron="0 3 * * *", time_zone="Etc/UTC")


def test_a_tick_by_hand_is_made_from_the_template() -> None:
    found = schedule.triggered(made(), datetime(2026, 11, 23, 9, 30, 5, 999, tzinfo=UTC) + timedelta(0))
    assert found["metadata"]["annotations"][names.TICK] == "2026-11-23T09:30:05Z"
    assert found["spec"] == made()["spec"]["jobTemplate"]["spec"]
    assert found["metadata"]["labels"] == made()["metadata"]["labels"]
    assert found["metadata"]["ownerReferences"] == [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": UID, "controller": True}]
    longest = made() | {"metadata": made()["metadata"] | {"name": "n" * schedule.LONGEST_NAME}}
    assert len(schedule.triggered(longest, NOW)["metadata"]["name"]) <= 63
    assert ticks.time_of(found) == datetime(2026, 11, 23, 9, 30, 5, tzinfo=UTC)


def test_spans_of_rest_are_kept_and_bounded() -> None:
    found = made()
    for hour in range(30):
        for suspend in (True, True, False, False):
            patch = schedule.suspending(found, NOW + timedelta(hours=2 * hour + (not suspend)), suspend=suspend)
            assert patch["spec"] == {"suspend": suspend}
            found["metadata"]["annotations"] |= patch["metadata"]["annotations"]
    spans = schedule.suspensions(found)
    assert len(spans) == schedule.KEPT_JOBS
    assert all(end == begin + timedelta(hours=1) for begin, end in spans)
    assert spans[-1] == (NOW + timedelta(hours=58), NOW + timedelta(hours=59))


# --- the ticks


def test_a_tick_is_told_by_its_run() -> None:
    jobs = [job(at(hour), f"r{hour}", ended=at(hour, 5)) for hour in (5, 6, 7, 8)]
    failed = {"exit_code": 65, "category": "data", "what": "no labels", "why": "column 'y'", "remedy": "name it"}
    gate = {"verb": "promote", "exit_code": 81, "category": "refused", "what": "the gate refused", "remedy": "look"}
    statuses = [status("r5"), status("r6", RunState.FAILED, **failed), status("r7", RunState.FAILED, **gate), status("r8", RunState.RUNNING)]
    assert told(made(), jobs, *statuses) == {
        at(5): ("done", ""),
        at(6): ("failed", "find: no labels: column 'y'"),
        at(7): ("refused", "find: the gate refused"),
        at(8): ("running", ""),
    }
    found = {tick.at: tick for tick in ticks.history(made(), jobs, {one.run: one for one in statuses}, now=NOW, limit=9)}
    assert (found[at(6)].category, found[at(6)].remedy, found[at(6)].run, found[at(6)].job) == ("data", "name it", "r6", "nightly-0600")


def test_unsafe_content_is_no_gate() -> None:
    unsafe = status("r8", RunState.FAILED, verb="fetch", exit_code=81, category="refused", what="a pickle")
    assert told(made(), [job(at(8), "r8")], unsafe, limit=1) == {at(8): ("failed", "find: a pickle")}


def test_reuse_and_a_cancel_are_told() -> None:
    jobs = [job(at(7), "r7", ended=at(7, 1)), job(at(8), "r8", ended=at(8, 1))]
    reused = status("r7", state=RunState.DONE)
    reused = reused.model_copy(update={"steps": {"find": reused.steps["find"].model_copy(update={"state": StepState.REUSED})}})
    cancelled = status("r8", RunState.RUNNING).over(RunState.CANCELLED, 130, "cancelled from outside its driver")
    assert told(made(), jobs, reused, cancelled, limit=2) == {
        at(8): ("cancelled", "cancelled from outside its driver"),
        at(7): ("done", "1 of 1 steps reused"),
    }


def test_ticks_while_an_earlier_one_was_at_work_were_skipped_and_the_last_is_due() -> None:
    jobs = [job(at(5), "r5")]
    assert told(made(), jobs, status("r5", RunState.RUNNING)) == {
        at(8): ("due", "as soon as r5 ends"),
        at(7): ("skipped", "r5 was still at work"),
        at(6): ("skipped", "r5 was still at work"),
        at(5): ("running", ""),
    }
    assert told(made(), [job(at(5), "r5", ended=at(8, 20))])[at(8)] == ("skipped", "r5 was still at work"), "it has ended, and no Job was made"
    ended = [job(at(5), "r5", ended=at(7, 10)), job(at(8), "r8", ended=at(8, 1))]
    assert told(made(), ended, status("r5"), status("r8"))[at(7)] == ("skipped", "r5 was still at work")


def test_a_tick_that_a_person_made_holds_up_none() -> None:
    """The controller looks at its own Jobs alone."""
    jobs = [job(at(6, 59), "by-hand", ended=at(7, 10), hand=True), job(at(5), "r5", ended=at(5, 1)), job(at(6), "r6", ended=at(6, 1))]
    found = told(made(), jobs, status("by-hand"), status("r5"), status("r6"))
    assert found[at(6, 59)] == ("done", "")
    assert found[at(7)][0] == "missed"


def test_ticks_that_nobody_made_a_job_for_were_missed() -> None:
    jobs = [job(at(5), "r5", ended=at(5, 1))]
    missed = {"reason": "MissSchedule", "message": "Missed scheduled time to start a job: Mon, 23 Nov 2026 06:00:00 +0000", "metadata": {}}
    found = told(made(), jobs, status("r5"), events=[missed])
    assert found[at(6)] == ("missed", "its Job could not be made within 1h00m")
    assert found[at(7)] == ("missed", "nothing was at work then: the controller was away, or somebody suspended it by other means")
    assert found[at(8)] == ("due", "its Job is not made yet"), "an hour is left for it"
    assert told(made(startingDeadlineSeconds=1200), jobs)[at(8)][0] == "missed", "not here"
    assert told(made(schedule="*/10 * * * *"), jobs)[at(8, 20)][0] == "missed", "the latest alone is made up for"
    full = {
        "reason": "FailedCreate",
        "message": "Error creating job: exceeded quota",
        "lastTimestamp": at(7, 20),
        "metadata": {"creationTimestamp": at(7)},
    }
    assert told(made(), jobs, status("r5"), events=[full])[at(7)] == ("missed", "Error creating job: exceeded quota")


def test_ticks_of_a_schedule_that_rested() -> None:
    rested = made(suspend=True)
    rested["metadata"]["annotations"][schedule.SUSPENDED] = f"{at(4, 40)}/{at(5, 30)} {at(6, 30)}/"
    found = told(rested, [job(at(6), "r6", ended=at(6, 1))], status("r6"))
    assert found[at(5)] == ("suspended", f"it was suspended from {at(4, 40)} to {at(5, 30)}")
    assert found[at(6)][0] == "done"
    assert found[at(7)] == found[at(8)] == ("suspended", f"it was suspended from {at(6, 30)}")
    late = made()
    late["metadata"]["annotations"][schedule.SUSPENDED] = f"{at(5, 40)}/{at(6, 30)}"
    assert told(late, [])[at(5)][0] == "missed", "it did not rest yet"
    by_others = told(made(suspend=True), [])
    assert {state for state, _ in by_others.values()} == {"no job"}
    assert "by other means" in by_others[at(6)][1]


def test_ticks_of_which_nothing_is_kept_say_just_that() -> None:
    kept = [job(at(8, minute), f"r{minute}", ended=at(8, minute)) for minute in range(schedule.KEPT_JOBS)]
    found = told(made(), kept, *(status(f"r{minute}") for minute in range(schedule.KEPT_JOBS)), limit=100)
    assert found[at(6)] == ("no job", "what ran then is not kept any more")


def test_jobs_that_a_person_made_push_others_out_and_those_that_failed_do_not() -> None:
    """Each kind of end has its own history, and what came of a tick before its oldest is not known."""
    by_hand = [job(at(8, minute), f"r{minute}", ended=at(8, minute), hand=True) for minute in range(schedule.KEPT_JOBS - 1)]
    jobs = [*by_hand, job(at(8), "r8", ended=at(8, 1))]
    assert told(made(), jobs, limit=100)[at(6)] == ("no job", "what ran then is not kept any more")
    assert told(made(), jobs[1:], limit=100)[at(6)][0] == "missed", "one more would have been kept"
    failed = job(at(5), "r5", ended=at(5, 1))
    failed["status"]["conditions"][-1]["type"] = "Failed"
    assert told(made(), [*jobs, failed], limit=100)[at(6)] == ("no job", "what ran then is not kept any more"), "it may have succeeded"
    assert told(made(successfulJobsHistoryLimit=3), jobs[-3:], limit=100)[at(7)][0] == "no job", "the limit of its own"


def test_a_job_that_kubectl_made_of_it_holds_up_none() -> None:
    by_kubectl = job(at(6), "r6", ended=at(7, 10))
    by_kubectl["metadata"]["annotations"] = {"cronjob.kubernetes.io/instantiate": "manual"}
    assert told(made(), [by_kubectl, job(at(5), "r5", ended=at(5, 1))])[at(7)][0] == "missed"
    assert [tick.state for tick in ticks.history(made(), [by_kubectl], {}, now=NOW, limit=9) if tick.at == at(6)] == ["running", "missed"]


@pytest.mark.parametrize("text", ["soon", "2026-13-01T00:00:00Z"])
def test_a_tick_that_is_no_time_is_told_at_the_time_of_its_job(text: str) -> None:
    found = job(at(8), "r8", created=at(8, 10), hand=True)
    found["metadata"]["annotations"] = {names.TICK: text}
    assert told(made(), [found], status("r8"))[at(8, 10)] == ("done", "")


@pytest.mark.parametrize("annotation", [schedule.SINCE, schedule.SUSPENDED])
def test_annotations_of_another_hand_are_named(annotation: str) -> None:
    found = made(suspend=True)
    found["metadata"]["annotations"][annotation] = "soon"
    with pytest.raises(Usage, match="'soon' is no time") as raised:
        told(found, [])
    assert raised.value.remedy == f"kubectl annotate cronjob nightly {annotation}-"


def test_a_tick_whose_job_was_removed_is_not_to_come() -> None:
    gone = made() | {"status": {"lastScheduleTime": at(8)}}
    name = f"nightly-{int(datetime(2026, 11, 23, 8, tzinfo=UTC).timestamp()) // 60}"
    assert told(gone, [])[at(8)] == ("no job", f"its Job {name} was made, and is gone")
    cancelled = status(name, RunState.RUNNING).over(RunState.CANCELLED, 130, "cancelled from outside its driver")
    assert told(gone, [], cancelled)[at(8)] == ("cancelled", "cancelled from outside its driver")


def test_others_may_have_let_it_go_on() -> None:
    found = made()
    found["metadata"]["annotations"][schedule.SUSPENDED] = f"{at(4, 40)}/"
    assert told(found, [])[at(8)] == ("due", "its Job is not made yet")


def test_a_run_whose_driver_is_gone_without_a_last_word_does_not_run() -> None:
    (found,) = ticks.history(made(), [], {"r-r1": status("r-r1", RunState.RUNNING)}, now=NOW, limit=1, prefix=lambda _: "r-r")
    assert (found.state, found.run, found.reason) == ("stopped", "r-r1", "its driver's Job is gone, and left no last word")


def test_of_a_ticks_runs_the_last_is_told() -> None:
    runs = {f"r-r{number}": status(f"r-r{number}", RunState.DONE if number == 10 else RunState.FAILED) for number in (2, 9, 10)}
    (found,) = ticks.history(made(), [], runs, now=NOW, limit=1, prefix=lambda _: "r-r")
    assert found.run == "r-r10"


def test_a_run_whose_job_is_gone_is_known_by_its_name() -> None:
    def prefix(tick: str) -> str:
        return f"nightly-{tick[11:13]}-r"

    found = told(made(), [], status("nightly-06-r1", RunState.FAILED, category="data", what="no labels"), status("nightly-06x-r1"), prefix=prefix)
    assert found[at(6)] == ("failed", "find: no labels")
    assert found[at(7)][0] == "missed"


def test_nothing_ticked_before_the_schedule_or_its_expression_was_made() -> None:
    assert list(told(made(), [])) == [at(8), at(7), at(6), at(5)]
    changed = made()
    changed["metadata"]["annotations"][schedule.SINCE] = at(7, 30)
    assert list(told(changed, [job(at(6), "r6")], status("r6"))) == [at(8), at(6)], "an older tick that ran is told"


def test_the_last_ticks_alone() -> None:
    assert list(told(made(), [job(at(5), "r5")], status("r5"), limit=2)) == [at(8), at(7)]


@pytest.mark.parametrize("spec", [{"schedule": "@hourly"}, {"timeZone": "Mars/Olympus"}])
def test_an_expression_of_another_hand_is_left_alone(spec: dict[str, str]) -> None:
    assert told(made(**spec), [job(at(5), "r5")], status("r5")) == {at(5): ("done", "")}
    assert ticks.upcoming(made(**spec), NOW) == ""


def test_the_next_tick() -> None:
    assert ticks.upcoming(made(), NOW) == at(9)
    assert ticks.upcoming(made(suspend=True), NOW) == ""
    assert ticks.upcoming(made(schedule="0 3 * * *", timeZone="Asia/Shanghai"), NOW) == at(19)


def test_a_job_whose_driver_has_not_begun() -> None:
    (found,) = ticks.history(made(), [job(at(8))], {}, now=NOW, limit=1)
    assert (found.state, found.run, found.job) == ("running", "", "nightly-0800")
