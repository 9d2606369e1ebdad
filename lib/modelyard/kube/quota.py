"""What a namespace allows in numbers: its ResourceQuotas and LimitRanges against what pods ask. Pure: nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from modelyard.kube.cluster import Manifest
from modelyard.kube.room import amounts, pod_of, requests, shown

CONFIG_MAPS = 2
"""Of a run: what its driver is told, and how it stands."""


@dataclass(frozen=True)
class Excess:
    """Something that is not allowed. lasting: it would not be even if nobody else had anything in the namespace. line: the arithmetic."""

    line: str
    lasting: bool


def over_quota(quotas: Sequence[Manifest], asks: Mapping[str, Manifest], *, besides: str = "") -> list[Excess]:
    """Where a quota leaves no room. asks: name -> Job or Pod. besides: the one of them that runs beside each of the others."""
    found: dict[tuple[str, str], Excess] = {}
    for quota in quotas:
        name, status = quota["metadata"]["name"], quota.get("status", {})
        hard = amounts(status.get("hard") or quota.get("spec", {}).get("hard") or {})
        used = amounts(status.get("used") or {})
        for words, wanted in _wanted(quota, asks, besides):
            for resource, amount in wanted.items():
                if resource in hard and amount and used.get(resource, 0) + amount > hard[resource]:
                    numbers = [shown(resource, one) for one in (hard[resource], used.get(resource, 0), amount)]
                    line = f"quota {name}: {resource}: {numbers[0]} allowed, {numbers[1]} used, {numbers[2]} asked ({words})"
                    found.setdefault((name, resource), Excess(line, amount > hard[resource]))
    return list(found.values())


def out_of_limits(ranges: Sequence[Manifest], asks: Mapping[str, Manifest]) -> list[Excess]:
    """Where a pod or a container of it asks for more or less than a LimitRange lets it."""
    lines = [
        f"limit range {limits['metadata']['name']}: {line} ({name})"
        for limits in ranges
        for item in limits["spec"].get("limits") or []
        for name, manifest in asks.items()
        for line in _outside(item, pod_of(manifest)[0])
    ]
    return [Excess(line, True) for line in dict.fromkeys(lines)]


def _wanted(quota: Manifest, asks: Mapping[str, Manifest], besides: str) -> Iterator[tuple[str, dict[str, int]]]:
    """What is asked for at one time, by what asks for it; and what the run leaves behind it, which nobody has to ask for at one time."""
    scoped = bool(quota.get("spec", {}).get("scopes") or quota.get("spec", {}).get("scopeSelector"))
    alone = {name: _of_pod(manifest) if _applies(quota, pod_of(manifest)[0]) else {} for name, manifest in asks.items()}
    others = [name for name in asks if name != besides]
    for name in others:
        both = [name, besides] if besides in alone else [name]
        yield " and ".join(both), {resource: sum(alone[one].get(resource, 0) for one in both) for one in both for resource in alone[one]}
    jobs = sum(manifest["kind"] == "Job" for manifest in asks.values())
    if jobs and not scoped:
        counted = {"count/jobs.batch": jobs, "count/pods": jobs, "configmaps": CONFIG_MAPS, "count/configmaps": CONFIG_MAPS}
        yield "the whole run where nothing is reused", counted


def _of_pod(manifest: Manifest) -> dict[str, int]:
    """Under all the names that a quota may count it by."""
    spec, _ = pod_of(manifest)
    asked, limits = requests(spec), requests(spec, "limits")
    return {
        "pods": 1,
        "count/pods": 1,
        **asked,
        **{f"requests.{name}": amount for name, amount in asked.items()},
        **{f"limits.{name}": amount for name, amount in limits.items()},
    }


def _applies(quota: Manifest, spec: Manifest) -> bool:
    """Whether a quota counts such a pod; a scope that is not known here counts all."""
    own = quota.get("spec", {})
    scopes = [{"scopeName": name, "operator": "Exists"} for name in own.get("scopes") or []]
    scopes += (own.get("scopeSelector") or {}).get("matchExpressions") or []
    ends = spec.get("activeDeadlineSeconds") is not None
    asks = bool(requests(spec) or requests(spec, "limits"))
    priority = spec.get("priorityClassName")
    for scope in scopes:
        name, operator, values = scope["scopeName"], scope["operator"], scope.get("values") or []
        simple = {"Terminating": ends, "NotTerminating": not ends, "BestEffort": not asks, "NotBestEffort": asks, "CrossNamespacePodAffinity": False}
        if name == "PriorityClass":
            among = {"Exists": bool(priority), "DoesNotExist": not priority, "In": priority in values, "NotIn": priority not in values}
            held = among.get(operator, True)
        else:
            held = simple.get(name, True)
        if not held:
            return False
    return True


def _outside(item: Manifest, spec: Manifest) -> Iterator[str]:
    """What an item of a LimitRange has against a pod; what a container leaves open, the item itself fills in."""
    if item["type"] == "Pod":
        parts = [("a pod", requests(spec), requests(spec, "limits"))]
    elif item["type"] == "Container":
        parts = []
        for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
            alone = {"containers": [container]}
            parts.append(("a container", requests(alone), requests(alone, "limits")))
    else:
        return
    most, least = amounts(item.get("max") or {}), amounts(item.get("min") or {})
    ratios = amounts({f"{name}.ratio": value for name, value in (item.get("maxLimitRequestRatio") or {}).items()})
    for whose, asked, limits in parts:
        for name, amount in most.items():
            if limits.get(name, 0) > amount:
                yield f"{name} of {whose}: at most {shown(name, amount)}, {shown(name, limits[name])} asked"
        for name, amount in least.items():
            if name in asked and asked[name] < amount:
                yield f"{name} of {whose}: at least {shown(name, amount)}, {shown(name, asked[name])} asked"
        for ratio, allowed in ratios.items():
            name = ratio.removesuffix(".ratio")
            if asked.get(name) and limits.get(name, 0) > allowed * asked[name]:
                numbers = f"{shown(name, limits[name])} and {shown(name, asked[name])} asked"
                yield f"{name} of {whose}: the limit at most {allowed} times the request, {numbers}"
