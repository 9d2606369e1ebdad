"""A run on a cluster as `submit` hands it out: seen through the cluster's objects, without the yard."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.config import Config
from modelyard.kube import runs
from modelyard.kube.client import connect
from modelyard.kube.cluster import Cluster
from modelyard.run import remote
from modelyard.run.explain import kept_there
from modelyard.run.settings import Settings, place_of
from modelyard.run.submit import Result, ended_well, made_by
from modelyard.run.view import View
from modelyard.spec import Pipeline
from modelyard.yard.runs import RunStatus


def begin(pipeline: Pipeline, settings: Settings, in_force: Config) -> There:
    """Submit a pipeline to the cluster in force, or join the run of it that is live."""
    cluster = connect(in_force["context"], in_force["namespace"])
    run, _ = remote.submit(pipeline, settings, place_of(in_force, cluster.namespace), cluster)
    return There(run, cluster)


@dataclass(frozen=True)
class There:
    """A run on a cluster, seen through its objects."""

    id: str
    cluster: Cluster

    def status(self) -> RunStatus:
        """As its driver mirrors it."""
        return runs.look(self.cluster, self.id).status

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Until its driver's Job has ended."""
        status = runs.follow(self.cluster, self.id, View(), timeout=timeout)
        return ended_well(status, kept_there(self.cluster, self.id) if status.exit_code else {})

    def cancel(self) -> None:
        """The driver first, then its steps."""
        runs.cancel(self.cluster, self.id)

    def artifact(self, step: str) -> Result:
        """Its name and its metrics; the files stay in the yard there."""
        seen = runs.look(self.cluster, self.id)
        return Result(made_by(seen.status, step), seen.status.steps[step].kind, None, seen.told.get("metrics", {}).get(step, {}))
