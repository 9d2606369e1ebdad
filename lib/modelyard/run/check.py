"""Would a run work on the cluster that the settings name? What is looked at is `kube.survey`'s, what is thought of it `kube.check`'s."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelyard import refs
from modelyard.config import SETTINGS, Config
from modelyard.errors import Failure
from modelyard.kube import check, survey
from modelyard.kube.cluster import Cluster, Manifest
from modelyard.kube.verdict import Verdict
from modelyard.run.settings import Settings, place_of
from modelyard.spec import Pipeline
from modelyard.steps import Fetch, Publish, Search


def look(
    in_force: Config, pipeline: Pipeline | None, connect: Callable[[], Cluster], ask: survey.Ask = survey.answers
) -> tuple[list[Verdict], list[Manifest]]:
    """The verdicts, and what an admin would apply for the rights that are missing. Nothing is created.

    connect: gives the cluster. ask: how an address outside is asked. Raises Usage: the settings name no image that could be one.
    """
    place_of(in_force)
    try:
        cluster = connect()
        place = place_of(in_force, cluster.namespace)
        settings: dict[str, Any] = Settings(in_force.yard, in_force.hubs).told()
        hubs = {name: address for name, address in in_force.hubs.items() if "://" in address and (pipeline is None or name in asked(pipeline))}
        found = survey.survey(cluster, place, pipeline, settings, hubs=hubs, ask=ask)
    except Failure as failure:
        return [check.unreached(failure)], []
    needs = check.Needs(in_force["secret"] != SETTINGS["secret"], published(pipeline) if pipeline else frozenset())
    return check.check(found, needs), check.grants(found)


def asked(pipeline: Pipeline) -> frozenset[str]:
    """The hubs that a pipeline's steps speak with."""
    found = set(published(pipeline))
    for step in pipeline.steps.values():
        if isinstance(step, Search):
            found |= set(step.hub)
        if isinstance(step, Fetch) and isinstance(ref := refs.parse(step.ref), refs.HubRef):
            found.add(refs.HUB_NAMES[ref.scheme])
    return frozenset(found)


def published(pipeline: Pipeline) -> frozenset[str]:
    """The hubs that a pipeline writes to."""
    targets = [refs.parse(step.to) for step in pipeline.steps.values() if isinstance(step, Publish)]
    return frozenset(refs.HUB_NAMES[ref.scheme] for ref in targets if isinstance(ref, refs.HubRef))
