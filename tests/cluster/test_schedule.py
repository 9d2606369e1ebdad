"""Schedules on a real cluster: the controller's own ticks, a person's, killed drivers, Forbid; and a champion that is retrained every minute."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from examples import demo_hub
from modelyard.kube import names
from modelyard.yard import Yard, manifest
from tests.cluster.harness.local import LocalCluster
from tests.cluster.site import Site, fill, site

LIGHT = """
name: {name}
steps:
  base: {{fetch: {{model: modelscope://o/{name}}}}}
  release: {{promote: {{model: base, to: yard://models/{name}@production}}}}
"""
NOWHERE = """
name: {name}
steps:
  far: {{search: {{query: base, hub: [modelscope]}}, resources: {{overlay: {{spec: {{nodeSelector: {{nobody: has-this}}}}}}}}}}
"""
NIGHTLY, EVERY_MINUTE = "0 3 * * *", "* * * * *"


@pytest.fixture(scope="module")
def there(local_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    hub = tmp_path_factory.mktemp("hub")
    for name in ("applied", "triggered", "ticking"):
        write_model(hub / "o" / name, name)
    with site(local_cluster, tmp_path_factory.mktemp("home"), targets=("light",)) as made:
        fill(made.hub, hub)
        yield made


def write_model(folder: Path, word: str) -> None:
    """A model of a few bytes, others for every word."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    header = json.dumps({word: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def apply(there: Site, name: str, cron: str = NIGHTLY, text: str = LIGHT, **options: str) -> dict[str, Any]:
    file = there.write(f"{name}.yaml", text.format(name=name))
    more = [word for option, value in options.items() for word in (f"--{option}", value)]
    return dict(there.json("schedule", "apply", file, "--cron", cron, "--time-zone", "Etc/UTC", *more))


def cron_job(there: Site, name: str) -> dict[str, Any]:
    return there.cluster.get("cronjob", name, namespace=there.namespace)


def jobs(there: Site, name: str) -> list[dict[str, Any]]:
    """The Jobs of a schedule's ticks."""
    return [job for job in there.jobs("driver") if job["metadata"]["labels"].get(names.SCHEDULE) == name]


def ticks(there: Site, name: str, limit: int = 20) -> list[dict[str, Any]]:
    return list(there.json("schedule", "show", name, "--limit", str(limit))["ticks"])


def over(job: dict[str, Any]) -> bool:
    """Whether a Job has ended."""
    return any(one["type"] in ("Complete", "Failed") for one in job["status"].get("conditions") or [])


def step_of(there: Site, run: str, step: str) -> dict[str, Any]:
    """A step of a run, as its driver mirrors it."""
    if not there.cluster.has("configmap", names.status_name(run), namespace=there.namespace):
        return {"state": "waiting"}
    data = there.cluster.get("configmap", names.status_name(run), namespace=there.namespace)["data"]
    return dict(json.loads(data["status.json"])["steps"][step])


def ended(there: Site, name: str, count: int = 1, within: float = 240) -> list[dict[str, Any]]:
    """So many Jobs of a schedule that have ended."""

    def look() -> list[dict[str, Any]] | None:
        found = [job for job in jobs(there, name) if over(job)]
        return found if len(found) >= count else None

    return list(there.cluster.wait(f"{count} ticks of {name} have ended", look, within=within))


def running_driver(there: Site, job: str, avoid: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The pod of a tick's driver, as soon as it has named its run."""

    def look() -> dict[str, Any] | None:
        pods = there.cluster.items("pods", namespace=there.namespace, selector=f"{names.JOB}={job}")
        named = there.cluster.get("job", job, namespace=there.namespace)["metadata"]["labels"].get(names.RUN)
        return next((pod for pod in pods if named and pod["status"]["phase"] == "Running" and pod["metadata"]["uid"] not in avoid), None)

    return dict(there.cluster.wait(f"the driver of {job} runs", look, within=120))


def test_it_is_made_changed_suspended_and_removed(there: Site) -> None:
    assert apply(there, "applied")["change"] == "created"
    uid = cron_job(there, "applied")["metadata"]["uid"]
    assert apply(there, "applied")["change"] == "unchanged", "with all that the API server has filled in"
    found = cron_job(there, "applied")
    assert found["metadata"]["generation"] == 1
    (first,) = there.cluster.items("configmaps", namespace=there.namespace, selector=f"{names.SCHEDULE}=applied")
    assert first["metadata"]["ownerReferences"][0]["uid"] == uid
    there.modelyard("schedule", "suspend", "applied")
    assert apply(there, "applied", jobs="2")["change"] == "updated"
    assert apply(there, "applied", "30 4 * * *", jobs="2")["change"] == "updated"
    (listed,) = there.json("schedule", "ls")["items"]
    assert (listed["schedule"], listed["cron"], listed["timeZone"], listed["suspended"], listed["next"]) == (
        "applied",
        "30 4 * * *",
        "Etc/UTC",
        True,
        "",
    )
    found = cron_job(there, "applied")
    assert (found["spec"]["suspend"], found["spec"]["schedule"], found["metadata"]["uid"]) == (True, "30 4 * * *", uid)
    mounted = found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"]
    config = next(volume["configMap"]["name"] for volume in mounted if volume["name"] == "run")
    assert config != first["metadata"]["name"]
    assert there.cluster.has("configmap", config, namespace=there.namespace)
    there.modelyard("schedule", "resume", "applied")
    assert not cron_job(there, "applied")["spec"]["suspend"]
    there.modelyard("schedule", "rm", "applied")
    assert not there.cluster.has("cronjob", "applied", namespace=there.namespace)
    assert there.cluster.items("configmaps", namespace=there.namespace, selector=f"{names.SCHEDULE}=applied") == []


def test_what_the_api_server_would_not_take_is_never_half_there(there: Site) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/cronjobs.batch": "0"}}}
    there.cluster.apply(quota, namespace=there.namespace)
    there.cluster.wait(
        "the quota counts", lambda: there.cluster.get("resourcequota", "none", namespace=there.namespace).get("status", {}).get("used")
    )
    try:
        done = there.modelyard("schedule", "apply", there.write("refused.yaml", LIGHT.format(name="refused")), "--cron", NIGHTLY, code=None)
    finally:
        there.kubectl("delete", "resourcequota", "none")
    assert done.returncode != 0
    assert "exceeded quota" in done.stderr
    for kind in ("configmaps", "cronjobs"):
        assert there.cluster.items(kind, namespace=there.namespace, selector=f"{names.SCHEDULE}=refused") == []


@pytest.mark.slow
def test_a_triggered_tick_survives_its_driver_and_the_next_one_reuses(there: Site) -> None:
    apply(there, "triggered")
    job = there.modelyard("schedule", "trigger", "triggered", "-d", "-q").stdout.strip()
    driver = running_driver(there, job)
    there.kubectl("delete", "pod", driver["metadata"]["name"], "--grace-period=0", "--force")
    again = there.modelyard("schedule", "trigger", "triggered", code=64)
    assert "is at work" in again.stderr
    assert "is at work" in there.modelyard("schedule", "rm", "triggered", code=64).stderr
    there.modelyard("wait", job)
    (done,) = ended(there, "triggered")
    run = done["metadata"]["labels"][names.RUN]
    assert [found["run"] for found in there.json("ls")["items"] if found["pipeline"] == "triggered"] == [run], "the second driver went on with it"
    shown = there.json("show", run)
    assert {name: (step["state"], step["attempt"]) for name, step in shown["steps"].items()} == {"base": ("done", 1), "release": ("done", 1)}
    assert there.json("show", job)["run"] == run
    assert "base" in there.modelyard("logs", run).stdout
    second = there.json("schedule", "trigger", "triggered")
    assert (second["state"], second["steps"]["base"]["state"], second["run"] != run) == ("done", "reused", True)
    write_model(there.hub / "o" / "triggered", "moved")
    third = there.json("schedule", "trigger", "triggered")
    assert (third["steps"]["base"]["state"], third["steps"]["base"]["artifact"] != shown["steps"]["base"]["artifact"]) == ("done", True)
    told = ticks(there, "triggered")
    assert [(tick["state"], tick["run"], tick["triggered"]) for tick in told] == [("done", one, True) for one in (third["run"], second["run"], run)]
    there.modelyard("schedule", "rm", "triggered")
    assert there.json("show", run)["state"] == "done", "how it ended is kept"


@pytest.mark.slow
def test_the_clock_ticks_and_never_two_at_once(there: Site) -> None:
    """The controller's own tick; and one that cannot end, so that the following are skipped until it is cancelled."""
    apply(there, "ticking", EVERY_MINUTE)
    apply(there, "stuck", EVERY_MINUTE, NOWHERE)
    try:
        (first, *_) = ended(there, "ticking", within=150)
        assert first["metadata"]["annotations"][names.SCHEDULED].endswith("Z")
        there.modelyard("schedule", "suspend", "ticking")
        at = datetime.fromisoformat(first["metadata"]["annotations"][names.SCHEDULED])
        told = {tick["at"]: tick for tick in ticks(there, "ticking")}
        tick = told[f"{at:%Y-%m-%dT%H:%M:%SZ}"]
        assert (tick["state"], tick["run"], tick["job"]) == ("done", first["metadata"]["labels"][names.RUN], first["metadata"]["name"])

        def skipped() -> list[dict[str, Any]]:
            return [tick for tick in ticks(there, "stuck") if tick["state"] in ("skipped", "due")]

        waiting = there.cluster.wait("a tick while another one is at work", skipped, within=150)
        (job,) = jobs(there, "stuck")
        run = job["metadata"]["labels"][names.RUN]
        assert run in waiting[0]["reason"]
        there.modelyard("schedule", "suspend", "stuck")
        there.modelyard("cancel", run)
        ended(there, "stuck")
        assert len(jobs(there, "stuck")) == 1
        outcomes = {tick["run"]: tick["state"] for tick in ticks(there, "stuck")}
        assert outcomes[run] == "cancelled"
        there.modelyard("schedule", "rm", "stuck")
    finally:
        for name in ("ticking", "stuck"):
            there.kubectl("delete", "cronjob", name, "--ignore-not-found")


# --- a champion that learns on every minute

CHAMPION = "models/reviews@champion"
SAME = """
resources: {cpu: 1, memory: 3Gi}
steps:
  reviews: {fetch: {dataset: modelscope://datasets/hutto/movie-reviews, fresh: true}}
"""
FIRST = f"""
name: first
{SAME}
  tuned:
    finetune:
      {{model: modelscope://sentence-transformers/all-MiniLM-L6-v2, data: reviews, epochs: 1, batch_size: 16, learning_rate: 2e-4, max_length: 64,
       train_rows: 1000}}
  champion: {{promote: {{model: tuned, to: yard://{CHAMPION}}}}}
"""
RETRAIN = f"""
name: retraining
{SAME}
  candidate:
    finetune:
      {{model: yard://{CHAMPION}, data: reviews, epochs: 1, batch_size: 16, learning_rate: 2e-4, max_length: 64, train_rows: 600}}
  score: {{evaluate: {{model: candidate, against: yard://{CHAMPION}, data: reviews, split: test, rows: 400, max_length: 64}}}}
  champion:
    promote: {{model: candidate, to: yard://{CHAMPION}, gate: {{metrics: score, not_worse_than_champion: 0.1, at_least: {{accuracy: 0.6}}}}}}
"""


class Watched:
    """The hub's reviews, the champion at every look, and the ticks in their order."""

    def __init__(self, made: Site) -> None:
        self.site = made
        self.yard = Yard.open(made.yard, write=False)
        self.folder = made.hub / "datasets" / "hutto" / "movie-reviews"
        self.train = pq.read_table(self.folder / "train.parquet")
        self.champions = [self.look()]
        self.begun: list[str] = []
        """Jobs of ticks that have their reviews."""

    def look(self) -> str:
        """The champion, which is whole."""
        digest = self.yard.refs.get(CHAMPION).digest
        assert manifest.problems(self.yard.artifacts.get(digest), rehash=False) == []
        return digest

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        """Until that is so, with an eye on the champion."""

        def look() -> Any:
            if (champion := self.look()) != self.champions[-1]:
                assert self.yard.artifacts.verify(champion) == []
                self.champions.append(champion)
            return ready()

        return self.site.cluster.wait(what, look, within=400)

    def publish(self, train: pa.Table) -> None:
        """Other reviews to learn from, on the hub; those that are measured on stay the same."""
        pq.write_table(train, self.folder / "train.parquet.new")
        (self.folder / "train.parquet.new").rename(self.folder / "train.parquet")
        (self.folder / "SHA256SUMS").unlink()
        demo_hub.write_sums(self.folder)

    def tick(self) -> str:
        """The Job of the next tick, when it has the reviews that the hub has now: what is published then is the following tick's."""

        def look() -> str | None:
            for job in jobs(self.site, "retraining"):
                name, run = job["metadata"]["name"], job["metadata"]["labels"].get(names.RUN)
                if run and name not in self.begun and step_of(self.site, run, "reviews")["state"] in ("done", "reused"):
                    self.begun.append(name)
                    return str(name)
            return None

        return str(self.wait("a tick that has its reviews", look))

    def kill_the_driver_of(self, job: str) -> None:
        """While it trains."""
        run = self.site.cluster.get("job", job, namespace=self.site.namespace)["metadata"]["labels"][names.RUN]
        self.wait("it trains", lambda: step_of(self.site, run, "candidate")["state"] == "running")
        self.site.kubectl("delete", "pod", running_driver(self.site, job)["metadata"]["name"], "--grace-period=0", "--force")


def relabelled(table: pa.Table, labels: dict[str, str]) -> pa.Table:
    column = table.column_names.index("label")
    return table.set_column(column, "label", pa.array([labels[label] for label in table["label"].to_pylist()]))


@pytest.mark.slow
def test_a_champion_is_retrained_every_minute_and_never_becomes_worse(demo_site: Site) -> None:
    """One tick's driver is killed, one gets bad data, one makes a worse candidate; the others replace the champion."""
    demo_site.modelyard("run", demo_site.write("first.yaml", FIRST))
    watched = Watched(demo_site)
    first = watched.champions[0]
    demo_site.modelyard("schedule", "apply", demo_site.write("retraining.yaml", RETRAIN), "--cron", EVERY_MINUTE, "--time-zone", "Asia/Shanghai")
    try:
        good = watched.tick()
        watched.publish(watched.train.slice(10))
        killed = watched.tick()
        watched.publish(relabelled(watched.train, {"positive": "positive", "negative": "positive"}))
        watched.kill_the_driver_of(killed)
        bad = watched.tick()
        watched.publish(relabelled(watched.train, {"positive": "negative", "negative": "positive"}))
        worse = watched.tick()
        watched.publish(watched.train.slice(20))
        last = watched.tick()
    finally:
        demo_site.modelyard("schedule", "suspend", "retraining")
    watched.wait("all ticks have ended", lambda: all(over(job) for job in jobs(demo_site, "retraining")))
    told = ticks(demo_site, "retraining", limit=100)
    by_job = {tick["job"]: tick for tick in told if tick["job"]}
    assert {job: by_job[job]["state"] for job in watched.begun} == {good: "done", killed: "done", bad: "failed", worse: "refused", last: "done"}
    assert by_job[bad]["category"] == "data"
    assert "one label only" in by_job[bad]["reason"]
    assert "the gate said no" in by_job[worse]["reason"]
    runs = {job: demo_site.json("show", tick["run"]) for job, tick in by_job.items()}
    assert {step["attempt"] for step in runs[killed]["steps"].values() if step["state"] == "done"} == {1}, "its second driver went on"
    pods = demo_site.cluster.items("pods", namespace=demo_site.namespace, selector=f"{names.JOB}={killed}")
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"], "the first one is gone"

    scheduled = [datetime.fromisoformat(tick["at"]) for tick in told if not tick["triggered"]]
    assert len(scheduled) >= 5
    assert scheduled == [scheduled[0] - timedelta(minutes=number) for number in range(len(scheduled))], "each minute once"
    assert {tick["state"] for tick in told} <= {"done", "failed", "refused", "skipped", "suspended", "due"}
    assert all(tick["reason"] for tick in told if tick["state"] != "done"), told

    at_work = sorted((job["metadata"]["creationTimestamp"], _end(job)) for job in jobs(demo_site, "retraining"))
    assert len(at_work) >= 5
    assert all(ended <= begun for (_, ended), (begun, _) in itertools.pairwise(at_work)), at_work

    candidates = {job: run["steps"]["candidate"]["artifact"] for job, run in runs.items()}
    promoted = {candidates[job] for job, tick in by_job.items() if tick["state"] == "done"}
    assert set(watched.champions) <= {first, *promoted}
    assert candidates[worse] not in {*watched.champions, None}
    assert runs[good]["metrics"]["score"]["accuracy"]["difference"]["value"] >= -0.1
    assert runs[worse]["metrics"]["score"]["accuracy"]["difference"]["value"] < -0.1
    before = watched.yard.refs.get(CHAMPION)
    assert before.digest == watched.look()
    assert before.previous
    assert before.digest == candidates[last]
    demo_site.modelyard("promote", "--to", f"yard://{CHAMPION}", "--rollback")
    assert watched.look() == before.previous.digest
    assert watched.yard.artifacts.verify(watched.look()) == []
    demo_site.modelyard("schedule", "rm", "retraining")


def _end(job: dict[str, Any]) -> str:
    """When a Job had no pod any more."""
    return str(next(one["lastTransitionTime"] for one in job["status"]["conditions"] if one["type"] in ("Complete", "Failed")))
