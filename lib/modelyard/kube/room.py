"""Room on a cluster: what its nodes have, what is in use there, and whether a pod fits, by the scheduler's own rules. Pure: nothing is asked.

Known are requests, tolerations, nodeSelector, required affinity to nodes and to pods, where a volume is, and how many pods a node takes. Not
known are anti-affinity, spread constraints, and nodes that an autoscaler would add.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.devices import VENDORS, Vendor
from modelyard.kube.cluster import Manifest
from modelyard.quantities import format_bytes, parse_milli

Verdict = Literal["now", "not now", "never", "unknown"]
"""never: no node could take the pod even if nothing else ran on it. not now: one could, but for what runs there, or for its own state."""

Code = Literal["fits", "busy", "cordoned", "not-ready", "taint", "gpu-model", "selector", "beside", "volume", "too-large", "no-nodes", "unknown"]
"""Why. beside: the pod has to be on the node of others, which has no place for it. volume: its volume cannot be
mounted on the node. no-nodes: there is none at all. unknown: nodes, or what runs on
them, may not be looked at."""

SHOWN = 12
"""Nodes that the arithmetic names; the others are counted."""

_PASSING = frozenset({"busy", "cordoned", "not-ready"})
_HARDEST: tuple[Code, ...] = ("busy", "not-ready", "cordoned", "taint", "beside", "volume", "selector", "gpu-model", "too-large")
"""From what passes by itself to what no one can mend: of several nodes the one that is nearest to taking the pod speaks."""
_UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_ABSENT = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@dataclass(frozen=True)
class Space:
    """One node.

    capacity, allocatable, used: resource -> amount: `cpu` in thousandths, memory and storage in bytes, all others counted. used is None where
    pods may not be listed everywhere. pods: (namespace, labels) of those that are on the node.
    """

    name: str
    ready: bool
    cordoned: bool
    taints: tuple[Mapping[str, str], ...]
    labels: Mapping[str, str]
    capacity: Mapping[str, int]
    allocatable: Mapping[str, int]
    used: Mapping[str, int] | None
    pods: tuple[tuple[str, Mapping[str, str]], ...] = ()

    def free(self, resource: str) -> int | None:
        """What is left of a resource; None where its use is not known."""
        return None if self.used is None else max(0, self.allocatable.get(resource, 0) - self.used.get(resource, 0))

    def model(self, resource: str) -> str:
        """The model of an accelerator by the node's labels; empty where none says it."""
        keys = _model_keys(resource)
        return next((self.labels[key] for key in keys if self.labels.get(key)), "")


@dataclass(frozen=True)
class Fit:
    """Whether a pod fits. lines: the arithmetic per node, then per model of the accelerator that it asks for."""

    verdict: Verdict
    code: Code
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Obstacle:
    code: Code
    text: str


def spaces(nodes: Sequence[Manifest], pods: Sequence[Manifest] | None) -> list[Space]:
    """The nodes, with what is in use on each. pods: those of all namespaces; None where they may not be listed."""
    there: dict[str, list[Manifest]] = {}
    for pod in pods or []:
        node = pod.get("spec", {}).get("nodeName")
        if node and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            there.setdefault(node, []).append(pod)
    return [_space(node, None if pods is None else there.get(node["metadata"]["name"], [])) for node in nodes]


def fit(manifest: Manifest, found: Sequence[Space] | None, volume: Manifest | None = None) -> Fit:
    """Whether one pod finds a place.

    manifest: a Pod, or a Job whose pods are meant. found: None where nodes may not be looked at. volume: the PersistentVolume of its claim.
    Raises ValueError: the manifest, which an overlay may have made, is none that could be read.
    """
    if found is None:
        return Fit("unknown", "unknown", ("capacity unknown: nodes may not be listed",))
    if not found:
        return Fit("not now", "no-nodes", ("the cluster has no node",))
    with _readable():
        spec, metadata = pod_of(manifest)
        asked = requests(spec)
        obstacles = {space.name: [*_by_volume(volume, space), *_obstacles(spec, metadata, asked, space, found)] for space in found}
    lines = tuple(_lines(asked, found, obstacles))
    lasting = {name: [one.code for one in some if one.code not in _PASSING] for name, some in obstacles.items()}
    near = [name for name, codes in lasting.items() if not codes]
    if not near:
        fewest = min(len(codes) for codes in lasting.values())
        return Fit("never", _mildest(code for codes in lasting.values() if len(codes) == fewest for code in codes), lines)
    if any(not obstacles[space.name] and space.used is not None for space in found):
        return Fit("now", "fits", lines)
    if any(not obstacles[name] for name in near):  # what is in use there is not known
        return Fit("unknown", "unknown", (*lines, "what is in use is unknown: pods of other namespaces may not be listed"))
    fewest = min(len(obstacles[name]) for name in near)
    return Fit("not now", _mildest(one.code for name in near if len(obstacles[name]) == fewest for one in obstacles[name]), lines)


def pod_of(manifest: Manifest) -> tuple[Manifest, Manifest]:
    """The spec and the metadata of the pod that a manifest is, or that it makes."""
    spec = manifest["spec"]
    if "template" not in spec:
        return spec, manifest.get("metadata", {})
    template = spec["template"]
    namespace = manifest.get("metadata", {}).get("namespace", "")
    return template["spec"], {"namespace": namespace, **template.get("metadata", {})}


def requests(spec: Manifest, of: Literal["requests", "limits"] = "requests") -> dict[str, int]:
    """What a pod asks for: its containers together, or the largest of its init containers; with its overhead. A limit stands for a request.

    Raises ValueError, as `fit` does.
    """
    with _readable():
        return _requests(spec, of)


def amounts(written: Mapping[str, Any]) -> dict[str, int]:
    """Resource -> amount of what an API server writes: `cpu` in thousandths, others whole, rounded up."""
    return {name: (milli if _is_cpu(name) else -(-milli // 1000)) for name, value in written.items() for milli in [parse_milli(value)]}


def shown(resource: str, amount: int) -> str:
    """An amount for people: `1.5`, `16 GiB`, `8`."""
    if _is_cpu(resource):
        return f"{amount / 1000:g}"
    return format_bytes(amount) if any(word in resource for word in ("memory", "storage", "hugepages")) else str(amount)


def vendor_of_resource(resource: str) -> Vendor | None:
    """The row of the table whose accelerators a resource counts, parts of them included; None for any other resource."""
    domain, _, kind = resource.partition("/")
    for vendor in VENDORS.values():
        of_it = domain == vendor.resource.partition("/")[0]
        if kind and of_it and (resource in (vendor.resource, *vendor.taints) or kind.startswith("mig-") or resource == f"{vendor.resource}.shared"):
            return vendor
    return None


def tolerated(taint: Mapping[str, str], tolerations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a taint keeps no pod away that has these tolerations."""
    if taint.get("effect") not in ("NoSchedule", "NoExecute"):
        return True
    for one in tolerations:
        key = one.get("key") or ""
        if one.get("effect") not in (None, "", taint["effect"]) or key not in ("", taint["key"]):
            continue
        if one.get("operator") == "Exists" or (key and (one.get("value") or "") == (taint.get("value") or "")):
            return True
    return False


def written(taint: Mapping[str, str]) -> str:
    """A taint as kubectl writes it."""
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint.get('effect', '')}"


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"it is not of the form that Kubernetes has for it: {error}") from error


def _requests(spec: Manifest, of: Literal["requests", "limits"]) -> dict[str, int]:
    def asks(part: Manifest) -> dict[str, int]:
        resources = part.get("resources") or {}
        limits = resources.get("limits") or {}
        return amounts({**limits, **(resources.get("requests") or {})} if of == "requests" else limits)

    beside: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.get("initContainers") or []:
        own = asks(container)
        if container.get("restartPolicy") == "Always":  # a sidecar goes on beside all that come after it
            beside = _sum(beside, own)
            peak = _most(peak, beside)
        else:
            peak = _most(peak, _sum(beside, own))
    whole = beside
    for container in spec.get("containers") or []:
        whole = _sum(whole, asks(container))
    return _sum({**_most(whole, peak), **asks(spec)}, amounts(spec.get("overhead") or {}))


def _space(node: Manifest, pods: Sequence[Manifest] | None) -> Space:
    spec, status = node.get("spec", {}), node.get("status", {})
    used: dict[str, int] = {}
    for pod in pods or []:
        used = _sum(used, {**requests(pod["spec"]), "pods": 1})
    return Space(
        name=node["metadata"]["name"],
        ready=any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or []),
        cordoned=bool(spec.get("unschedulable")),
        taints=tuple(spec.get("taints") or ()),
        labels={"kubernetes.io/hostname": node["metadata"]["name"], **(node["metadata"].get("labels") or {})},
        capacity=amounts(status.get("capacity") or {}),
        allocatable=amounts(status.get("allocatable") or {}),
        used=None if pods is None else used,
        pods=tuple((pod["metadata"].get("namespace", ""), pod["metadata"].get("labels") or {}) for pod in pods or []),
    )


def _obstacles(spec: Manifest, metadata: Manifest, asked: Mapping[str, int], space: Space, others: Sequence[Space]) -> list[_Obstacle]:
    """All that keeps the pod from the node."""
    found: list[_Obstacle] = []
    tolerations = spec.get("tolerations") or []
    if space.cordoned and not tolerated({"key": _UNSCHEDULABLE, "effect": "NoSchedule"}, tolerations):
        found.append(_Obstacle("cordoned", "cordoned"))
    if not space.ready and not all(tolerated({"key": key, "effect": "NoSchedule"}, tolerations) for key in _ABSENT):
        found.append(_Obstacle("not-ready", "not ready"))
    own_state = {_UNSCHEDULABLE, *_ABSENT}
    refused = [written(taint) for taint in space.taints if taint["key"] not in own_state and not tolerated(taint, tolerations)]
    if refused:
        found.append(_Obstacle("taint", f"taint {', '.join(refused)} is not tolerated"))
    found += _by_labels(spec, space)
    found += _by_pods(spec, metadata, space, others)
    short = {name: amount for name, amount in {**asked, "pods": 1}.items() if amount > space.allocatable.get(name, 0)}
    if short:
        found.append(_Obstacle("too-large", "; ".join(f"{_has(name, space)}; {shown(name, amount)} asked" for name, amount in short.items())))
    busy = {name: amount for name, amount in {**asked, "pods": 1}.items() if name not in short and amount > (space.free(name) or 0)}
    if busy and space.used is not None:
        found.append(_Obstacle("busy", "; ".join(f"{_has(name, space)}; {shown(name, amount)} asked" for name, amount in busy.items())))
    return found


def _by_labels(spec: Manifest, space: Space) -> list[_Obstacle]:
    """By nodeSelector and required affinity: `gpu-model` where a label of the model alone is in the way."""
    selector = spec.get("nodeSelector") or {}
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    terms = [] if required is None else required.get("nodeSelectorTerms") or []

    def passes(*, models: bool) -> bool:
        """Whether the node is one that is asked for; without models, whatever its accelerator is."""
        wrong = [key for key, value in selector.items() if space.labels.get(key) != value and (models or not _names_model(key))]
        return not wrong and (required is None or any(_matches(term, space, models=models) for term in terms))

    if passes(models=True):
        return []
    if passes(models=False):
        wanted = sorted({value for one in _expressions(terms) if _names_model(one["key"]) for value in one.get("values") or []})
        wanted += sorted(value for key, value in selector.items() if _names_model(key))
        return [_Obstacle("gpu-model", f"not the model asked for, {' or '.join(wanted)}")]
    keys = [*(f"{key}={value}" for key, value in selector.items()), *(_expression(one) for one in _expressions(terms))]
    return [_Obstacle("selector", f"no node that is asked for: {', '.join(dict.fromkeys(keys))}")]


def _by_pods(spec: Manifest, metadata: Manifest, space: Space, others: Sequence[Space]) -> list[_Obstacle]:
    """Required affinity to pods of the same namespace, which holds together the pods of a volume that one node alone can mount."""
    affinity = (spec.get("affinity") or {}).get("podAffinity") or {}
    found = []
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or []:
        key, selector = term["topologyKey"], term.get("labelSelector") or {}
        namespaces = term.get("namespaces") or [metadata.get("namespace", "")]
        at = sorted({one.labels.get(key, "") for one in others for where, labels in one.pods if where in namespaces and _selects(selector, labels)})
        alone = not at and _selects(selector, metadata.get("labels") or {})  # the first of its kind may go anywhere
        if not alone and space.labels.get(key, "") not in at:
            found.append(_Obstacle("beside", f"the pod has to be where those with the same volume are: {', '.join(at) or 'nowhere yet'}"))
    return found


def _by_volume(volume: Manifest | None, space: Space) -> list[_Obstacle]:
    required = (((volume or {}).get("spec") or {}).get("nodeAffinity") or {}).get("required") or {}
    terms = required.get("nodeSelectorTerms") or []
    if not terms or any(_matches(term, space, models=True) for term in terms):
        return []
    return [_Obstacle("volume", f"the volume is not there: {', '.join(map(_expression, _expressions(terms)))}")]


def _matches(term: Manifest, space: Space, *, models: bool) -> bool:
    """A term of affinity: all of it has to hold; one that is empty matches nothing."""
    expressions, names = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not names:
        return False
    held = all(_holds(one, space.labels) for one in expressions if models or not _names_model(one["key"]))
    return held and all(_holds(one, {"metadata.name": space.name}) for one in names)


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    has = labels.get(key)
    if operator in ("Exists", "DoesNotExist"):
        return (has is not None) is (operator == "Exists")
    if operator in ("Gt", "Lt"):
        try:
            return has is not None and (int(has) > int(values[0]) if operator == "Gt" else int(has) < int(values[0]))
        except ValueError:
            return False
    return (has in values) if operator == "In" else has is None or has not in values


def _selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        _holds(one, labels) for one in selector.get("matchExpressions") or []
    )


def _expressions(terms: Sequence[Manifest]) -> list[Manifest]:
    return [one for term in terms for part in ("matchExpressions", "matchFields") for one in term.get(part) or []]


def _expression(one: Manifest) -> str:
    return " ".join(filter(None, [one["key"], one["operator"], ",".join(one.get("values") or [])]))


def _names_model(key: str) -> bool:
    return any(key in vendor.labels for vendor in VENDORS.values()) or (key.startswith("nvidia.com/mig-") and key.endswith(".product"))


def _model_keys(resource: str) -> tuple[str, ...]:
    vendor = vendor_of_resource(resource)
    return (f"{resource}.product", *vendor.labels) if vendor else ()


def _lines(asked: Mapping[str, int], found: Sequence[Space], obstacles: Mapping[str, Sequence[_Obstacle]]) -> Iterable[str]:
    """Nodes, the nearest to taking the pod first; then the models."""
    device = next((name for name in asked if vendor_of_resource(name)), None)
    order = sorted(found, key=lambda space: (sorted(_HARDEST.index(one.code) for one in obstacles[space.name])[::-1], space.name))
    for space in order[:SHOWN]:
        yield f"{space.name}: {_says(asked, space, device, obstacles[space.name])}"
    if len(order) > SHOWN:
        codes = [_mildest(one.code for one in obstacles[space.name]) if obstacles[space.name] else "fits" for space in order[SHOWN:]]
        yield f"and {len(codes)} more nodes: {', '.join(f'{codes.count(code)} {code}' for code in dict.fromkeys(codes))}"
    if device is None:
        return
    for model in sorted({space.model(device) for space in found if space.allocatable.get(device)}):
        of_it = [space for space in found if space.allocatable.get(device) and space.model(device) == model]
        total = sum(space.allocatable[device] for space in of_it)
        text = f"{model or 'unnamed model'}: {total} {device} on {len(of_it)} node{'s' * (len(of_it) > 1)}"
        free = [space.free(device) for space in of_it]
        known = [one for one in free if one is not None]
        if len(known) == len(free):
            text += f", {total - sum(known)} in use, {sum(known)} free, {max(known)} of them on one node"
        yield f"{text}; {asked[device]} asked on one node"


def _says(asked: Mapping[str, int], space: Space, device: str | None, obstacles: Sequence[_Obstacle]) -> str:
    told = [one.text for one in obstacles]
    counted = device is not None and not any(f" {device}" in text for text in told)
    if counted and device is not None:
        told = [f"{_has(device, space)}; {asked[device]} asked", *told]
    if not told:
        told = [f"{_has(name, space)}; {shown(name, amount)} asked" for name, amount in asked.items() if name in ("cpu", "memory")]
    return "; ".join(told) or "nothing asked"


def _has(resource: str, space: Space) -> str:
    """`8 nvidia.com/gpu (NVIDIA-H100-80GB-HBM3), 6 in use, 2 free`."""
    model = space.model(resource)
    text = f"{shown(resource, space.allocatable.get(resource, 0))} {resource}" + (f" ({model})" if model else "")
    free = space.free(resource)
    if free is None or space.used is None or not space.allocatable.get(resource):
        return text
    return f"{text}, {shown(resource, space.used.get(resource, 0))} in use, {shown(resource, free)} free"


def _mildest(codes: Iterable[Code]) -> Code:
    return min(codes, key=_HARDEST.index)


def _is_cpu(resource: str) -> bool:
    return resource.rpartition(".")[2] == "cpu"


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _most(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}
