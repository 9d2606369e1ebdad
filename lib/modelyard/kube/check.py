"""Would it run? One verdict for each thing that a run on a cluster needs, from what a survey found. Pure: nothing is asked, nothing is created.

`no` has a category, which is the one that `explain` would give afterwards, and the exit code of a class of the table of failures:
66 no-input: namespace, claim, storage class, service account, Secret, priority class or queue is not there; 77 no-permission: rights of the person
or of the driver; 64 usage: what can never work as it is written (access mode, LimitRange, more than a quota or any node has, a label or a taint that
keeps it from all nodes, the server's version); 69 unavailable: what may pass (no volume yet, quota in use, nodes busy, cordoned or not ready, a
queue or hub that does not answer); 74 io: the claim has lost its volume; 81 refused: Pod Security or another admission.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.errors import Failure, NoInput, NoPermission, Refused, Unavailable, Usage, VolumeFailed
from modelyard.kube import access, claims, names, pods, room
from modelyard.kube.cluster import Answer, Manifest
from modelyard.kube.quota import Excess, out_of_limits, over_quota
from modelyard.kube.survey import DRIVER, PURPOSES, HubLook, Keys, Right, Survey, Unseen
from modelyard.kube.verdict import Verdict, no, unseen

FLOOR = (1, 31)
"""The oldest API server whose Jobs have all that ours use, on by default."""

_PULLS = frozenset({"kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg"})
_SECURITY = re.compile(r"violates? PodSecurity")
_CREATES_NONE = "for what may not be listed, ask who owns the namespace"


@dataclass(frozen=True)
class Needs:
    """What a pipeline asks of the Secret with the hubs' tokens. named: somebody wrote that Secret's name. publishes: keys without which it cannot."""

    named: bool = False
    publishes: frozenset[str] = frozenset()


def unreached(failure: Failure) -> Verdict:
    """The verdict where there is no API server, or it does not know who asks."""
    return Verdict("cluster", "no", str(failure), failure.remedy, category=failure.category, failure=type(failure))


def check(survey: Survey, needs: Needs) -> list[Verdict]:
    """All verdicts, in the order in which a run would meet them."""
    verdicts = [_cluster(survey), _namespace(survey)]
    if verdicts[-1].verdict == "no":
        return verdicts
    if survey.unmade is not None:
        unmade = survey.unmade
        verdicts.append(Verdict("pipeline", "no", str(unmade), unmade.remedy, category=unmade.category, failure=Usage))
    verdicts += [*_rights(survey), *_driver(survey), *_claim(survey), *_numbers(survey), *_admission(survey), *_secrets(survey, needs)]
    return [*verdicts, *_named(survey), *_images(survey), *(_hub(name, look) for name, look in survey.hubs.items()), *_fits(survey)]


def failed(verdicts: Sequence[Verdict]) -> Failure | None:
    """The failure that a run would end with, by the first `no` among what it needs."""
    for one in verdicts:
        if one.verdict == "no" and one.needed and one.failure is not None:
            return one.failure(one.why, where=one.check, why="; ".join(one.lines[:3]), remedy=one.remedy)
    return None


def grants(survey: Survey) -> list[Manifest]:
    """What an admin would apply, for the rights that are missing."""
    found: list[Manifest] = []
    if survey.account is None or _refused(survey.driver_rights):
        found += access.driver_access(survey.place.namespace)
    return found + (access.person_access("YOUR-NAME", survey.place.namespace) if _refused(survey.rights) else [])


def _cluster(survey: Survey) -> Verdict:
    if isinstance(survey.version, Unseen):
        return unseen("cluster", survey.version)
    match = re.match(r"v?(\d+)\.(\d+)", survey.version)
    if match is None:
        return Verdict("cluster", "unknown", f"it answers, and calls itself {survey.version!r}")
    if (int(match[1]), int(match[2])) < FLOOR:
        why = f"the API server is {survey.version}; Jobs of modelyard need {'.'.join(map(str, FLOOR))} or newer"
        return no("cluster", "usage", Usage, why, "use a newer cluster: --context NAME")
    return Verdict("cluster", "ok", f"the API server answers: {survey.version}; its Jobs have all features that are used")


def _namespace(survey: Survey) -> Verdict:
    name = survey.place.namespace
    if isinstance(survey.namespace, Unseen):
        return unseen("namespace", survey.namespace)
    if not survey.namespace:
        return no("namespace", "no-input", NoInput, f"there is no namespace {name!r}", f"kubectl create namespace {name}, or name another with -n")
    return Verdict("namespace", "ok", name)


def _rights(survey: Survey) -> Iterator[Verdict]:
    """The person's, verb by verb, by what they are for."""
    for purpose, rights in PURPOSES.items():
        asked = {right: survey.rights[right] for right in rights}
        remedy = f"have an admin apply the Role {access.PERSON} below: kubectl apply -n {survey.place.namespace} -f FILE"
        yield _granted(f"rights to {purpose}", asked, "you", remedy, needed=purpose == "run")


def _driver(survey: Survey) -> Iterator[Verdict]:
    """The driver's account, and what it may do."""
    place, account = survey.place, names.DRIVER_ACCOUNT
    remedy = f"have an admin apply the Role {account} below: kubectl apply -n {place.namespace} -f FILE; or run with --driver here"
    if isinstance(survey.account, Unseen):
        yield unseen("driver's account", survey.account, f"kubectl -n {place.namespace} get serviceaccount {account}")
    elif survey.account is None:
        yield no("driver's account", "service-account-missing", NoInput, f"there is no service account {account!r}", remedy)
    else:
        yield Verdict("driver's account", "ok", account)
    yield _granted("driver's rights", survey.driver_rights, account, remedy)


def _granted(check: str, rights: Mapping[Right, bool | Unseen], who: str, remedy: str, *, needed: bool = True) -> Verdict:
    hidden = [found.why for found in rights.values() if isinstance(found, Unseen)]
    refused, lines = _refused(rights), _by_resource(rights)
    if refused:
        why = f"{who} may not {', '.join(map(str, refused[:3]))}{f' and {len(refused) - 3} more' * (len(refused) > 3)}"
        return no(check, "no-permission", NoPermission, why, remedy, lines=lines, needed=needed)
    if hidden:
        return Verdict(check, "unknown", hidden[0], lines=tuple(lines), needed=needed)
    return Verdict(check, "ok", "; ".join(lines), lines=tuple(lines), needed=needed)


def _by_resource(rights: Mapping[Right, bool | Unseen]) -> list[str]:
    """Verb by verb: `jobs: get, list; not create`."""
    resources: dict[str, dict[str, list[str]]] = {}
    for right, found in rights.items():
        verb, _, resource = str(right).partition(" ")
        state = "unknown whether " if isinstance(found, Unseen) else "" if found else "not "
        resources.setdefault(resource, {}).setdefault(state, []).append(verb)
    return [f"{name}: {'; '.join(state + ', '.join(verbs) for state, verbs in states.items())}" for name, states in resources.items()]


def _refused(rights: Mapping[Right, bool | Unseen]) -> list[Right]:
    return [right for right, found in rights.items() if found is False]


def _claim(survey: Survey) -> Iterator[Verdict]:
    """Whether the yard is there, has a volume, and can be mounted by a driver and a step at the same time."""
    place, claim = survey.place, survey.claim
    make = f"modelyard yard create --on kubernetes -n {place.namespace} --yard {place.claim}"
    if isinstance(claim, Unseen):
        yield unseen("claim", claim, f"kubectl -n {place.namespace} get pvc {place.claim}")
        return
    if claim is None:
        yield no("claim", "claim-missing", NoInput, f"there is no claim {place.claim!r}", make)
        return
    yield _bound(survey, claim)
    try:
        mode = claims.access_of(claim)
    except Usage as failure:
        yield no("access mode", "claim-access-mode", Usage, f"{failure.what}: {failure.why}", failure.remedy)
        return
    together = "" if mode == "ReadWriteMany" else ": all pods of its runs go to one node"
    yield Verdict("access mode", "ok", f"{mode}{together}")


def _bound(survey: Survey, claim: Manifest) -> Verdict:
    name, phase = survey.place.claim, claim.get("status", {}).get("phase", "Pending")
    described = f"kubectl -n {survey.place.namespace} describe pvc {name}"
    wanted, found = claim["spec"].get("storageClassName"), survey.storage_class
    if claim["metadata"].get("deletionTimestamp"):
        return no("claim", "claim-being-deleted", Unavailable, f"{name} is being deleted", "use another claim: --yard NAME")
    if phase == "Bound":
        return Verdict("claim", "ok", f"{name}, {claims.size_of(claim)}, storage class {wanted or 'none'}")
    if phase == "Lost":
        return no("claim", "claim-lost", VolumeFailed, f"{name} has lost its volume", described)
    if wanted and found is None:
        return no("claim", "storage-class-missing", NoInput, f"{name} wants storage class {wanted!r}, which is not there", "kubectl get storageclass")
    if isinstance(found, dict) and found.get("volumeBindingMode") == "WaitForFirstConsumer":
        return Verdict("claim", "ok", f"{name} gets its volume of class {wanted} when the first pod asks for it")
    if wanted and isinstance(found, Unseen):
        return Verdict("claim", "unknown", f"{name} has no volume; whether class {wanted} waits for a pod is not known: {found.why}", described)
    why = f"{name} has no volume: it is {phase}, storage class {wanted or 'none'}"
    return no("claim", "claim-unbound", Unavailable, why, described)


def _numbers(survey: Survey) -> Iterator[Verdict]:
    """Quotas and limits against what is asked; where they may not be listed, the server's own word to a dry run."""
    said = [cause.message for answer in survey.answers.values() if isinstance(answer, Answer) for cause in answer.causes]
    refusals = [text for text in said if "exceeded quota" in text or "failed quota" in text]
    try:
        excess = [] if isinstance(survey.quotas, Unseen) else over_quota(survey.quotas, survey.asks, besides=DRIVER)
        outside = [] if isinstance(survey.limits, Unseen) else out_of_limits(survey.limits, survey.asks)
    except ValueError as error:
        yield no("resources", "usage", Usage, f"what is asked cannot be counted: {error}", "correct resources or overlay of the step")
        return
    excess += [] if excess else [Excess(text, False) for text in dict.fromkeys(refusals)]
    if excess and any(one.lasting for one in excess):
        lines = [one.line for one in sorted(excess, key=lambda one: not one.lasting)]
        yield no("quota", "quota", Usage, lines[0], "ask for less under resources, or have the quota raised", lines=lines)
    elif excess:
        lines = [one.line for one in excess]
        yield no(
            "quota", "quota", Unavailable, lines[0], f"wait for others, or see who uses it: kubectl -n {survey.place.namespace} get pods", lines=lines
        )
    elif isinstance(survey.quotas, Unseen):
        yield unseen("quota", survey.quotas, _CREATES_NONE)
    else:
        yield Verdict("quota", "ok", f"{_count(survey.quotas, 'quota')}, none in the way")
    refusals = [text for text in said if re.search(r"(maximum|minimum) .+ usage per|limit to request ratio", text)]
    lines = [one.line for one in outside] or list(dict.fromkeys(refusals))
    if lines:
        yield no("limit range", "limit-range", Usage, lines[0], "ask for what it allows: memory, cpu under resources", lines=lines)
    elif isinstance(survey.limits, Unseen):
        yield unseen("limit range", survey.limits, _CREATES_NONE)
    else:
        yield Verdict("limit range", "ok", f"{_count(survey.limits, 'limit range')}, none in the way")


_JUDGED = re.compile(r"exceeded quota|failed quota|(maximum|minimum) .+ usage per|limit to request ratio|PriorityClass|service account")
"""Refusals that are other verdicts' business."""


_MALFORMED = "cannot be handled as a"
"""What a server says that cannot even read an object."""


def _admission(survey: Survey) -> Iterator[Verdict]:
    """The server's own word to what would be created: a dry run of each Job, and of a bare pod of it."""
    security: dict[str, None] = {}
    others: dict[str, type[Failure]] = {}
    warnings: dict[str, None] = {}
    for name, answer in survey.answers.items():
        if isinstance(answer, Unseen):
            continue
        for text in [*answer.warnings, *(cause.message for cause in answer.causes)]:
            if _SECURITY.search(text):
                security.setdefault(f"{name.removeprefix('pod of ')}: {text[_SECURITY.search(text).start() :]}")  # type: ignore[union-attr]
        for cause in answer.causes:
            if not _SECURITY.search(cause.message) and not _JUDGED.search(cause.message):
                others.setdefault(
                    f"{name}: {cause.field}: {cause.message}" if cause.field else f"{name}: {cause.message}",
                    Usage if cause.field or _MALFORMED in cause.message else Refused,
                )
        warnings |= {f"{name}: {text}": None for text in answer.warnings if not _SECURITY.search(text)}
    hidden = [answer for answer in survey.answers.values() if isinstance(answer, Unseen)]
    if security:
        lines = list(security)
        yield no("pod security", "pod-security", Refused, lines[0], "take out of the overlay what it names", lines=lines)
    elif hidden:
        yield unseen("pod security", hidden[0])
    elif survey.answers:
        yield Verdict("pod security", "ok", "the namespace takes the pods")
    if others:
        lines = list(others)
        yield no("admission", "admission", others[lines[0]], lines[0], "correct what it names", lines=lines)
    elif survey.answers and not hidden:
        yield Verdict("admission", "ok", "the API server would take the Jobs and their pods", lines=tuple(warnings))


def _secrets(survey: Survey, needs: Needs) -> Iterator[Verdict]:
    place = survey.place
    if place.secret:
        yield _tokens(place.secret, survey.secrets[place.secret], needs, place.namespace)
    if not place.pull_secret:
        return
    found = survey.secrets[place.pull_secret]
    make = f"kubectl -n {place.namespace} create secret docker-registry {place.pull_secret} --docker-server=REGISTRY --docker-username=NAME"
    if isinstance(found, Unseen):
        yield unseen("pull secret", found, f"kubectl -n {place.namespace} get secret {place.pull_secret}")
    elif found is None:
        yield no("pull secret", "secret-missing", NoInput, f"there is no Secret {place.pull_secret!r}", make)
    elif found.type not in _PULLS:
        why = f"Secret {place.pull_secret} is of type {found.type or 'Opaque'}, and pods can pull by {' and '.join(sorted(_PULLS))} alone"
        yield no("pull secret", "image-refused", Usage, why, make)
    else:
        yield Verdict("pull secret", "ok", f"{place.pull_secret}, {found.type}")


def _tokens(name: str, found: Keys | Unseen | None, needs: Needs, namespace: str) -> Verdict:
    """The hubs' tokens. A run that only reads what is public needs none."""
    wanted = sorted(needs.publishes) or list(pods.TOKENS.values())
    make = f"kubectl -n {namespace} create secret generic {name} " + " ".join(f"--from-literal={key}=TOKEN" for key in wanted)
    if isinstance(found, Unseen):
        return unseen("token secret", found, f"kubectl -n {namespace} get secret {name}")
    if found is None:
        why = f"there is no Secret {name!r}"
        if needs.publishes or needs.named:
            return no("token secret", "secret-missing", NoInput, why, make)
        return Verdict("token secret", "ok", f"{why}: hubs are asked without a token")
    missing = sorted(needs.publishes - found.keys)
    if missing:
        return no("token secret", "key-missing", NoInput, f"Secret {name} has no key {' and '.join(missing)}", make)
    keys = sorted(found.keys & set(pods.TOKENS.values()))
    return Verdict("token secret", "ok", f"{name} with {', '.join(keys) or 'no key of a hub: they are asked without a token'}")


def _named(survey: Survey) -> Iterator[Verdict]:
    """Priority classes and queues that are asked for."""
    for name, found in survey.priorities.items():
        if isinstance(found, Unseen):
            yield unseen(f"priority {name}", found, "kubectl get priorityclass")
        elif found is None:
            yield no(f"priority {name}", "priority-missing", NoInput, f"there is no priority class {name!r}", "kubectl get priorityclass")
        else:
            yield Verdict(f"priority {name}", "ok", f"value {found.get('value')}")
    for name, found in survey.queues.items():
        remedy = f"kubectl -n {survey.place.namespace} get localqueues"
        if isinstance(found, Unseen):
            yield unseen(f"queue {name}", found, remedy)
        elif found is None:
            yield no(f"queue {name}", "queue-missing", NoInput, f"there is no LocalQueue {name!r}: Jobs in it would stay suspended", remedy)
        else:
            active = next((one for one in found.get("status", {}).get("conditions") or [] if one["type"] == "Active"), None)
            if active is not None and active["status"] != "True":
                why = f"the queue takes nothing: {active.get('message') or active.get('reason', '')}"
                yield no(f"queue {name}", "queue-inactive", Unavailable, why, remedy)
            else:
                yield Verdict(f"queue {name}", "ok", f"cluster queue {found['spec'].get('clusterQueue')}")


def _images(survey: Survey) -> Iterator[Verdict]:
    """Whether nodes have them. Whether a registry would give them is known only when a node asks."""
    for image in dict.fromkeys(str(one.get("image", "")) for manifest in survey.asks.values() for one in room.pod_of(manifest)[0]["containers"]):
        name = f"image {image.rpartition('/')[2]}"
        untried = "whether it can be pulled is known when a node tries"
        if isinstance(survey.nodes, Unseen):
            yield Verdict(name, "unknown", f"{untried}; nodes may not be listed")
            continue
        has = [node["metadata"]["name"] for node in survey.nodes if any(_is(image, one) for one in node.get("status", {}).get("images") or [])]
        if has:
            yield Verdict(name, "ok", f"{len(has)} of {_count(survey.nodes, 'node')} have it: {', '.join(has[:5])}{' …' * (len(has) > 5)}")
        else:
            yield Verdict(name, "unknown", f"no node names it; {untried}", f"docker manifest inspect {image}")


def _is(image: str, listed: Manifest) -> bool:
    """Node's names have the registry that a short name stands for in front."""
    return any(name == image or name.removeprefix("docker.io/").removeprefix("library/") == image for name in listed.get("names") or [])


def _hub(name: str, look: HubLook) -> Verdict:
    check = f"hub {name}"
    if look.service is None:
        if isinstance(look.silence, Unseen):
            return Verdict(check, "unknown", f"{look.address} does not answer this machine, and may answer pods: {look.silence.why}")
        if look.silence:
            why = f"{look.address} does not answer this machine: {look.silence}"
            return no(check, "unavailable", Unavailable, why, f"correct hubs.{name}, or look whether it is up: curl -I {look.address}")
        return Verdict(check, "ok", f"{look.address} answers this machine; whether pods reach it is not known")
    service, namespace = look.service
    shown = f"Service {service} in namespace {namespace}"
    remedy = f"kubectl -n {namespace} get service,endpointslices"
    if isinstance(look.there, Unseen):
        return unseen(check, look.there, remedy)
    if not look.there:
        return no(check, "unavailable", Unavailable, f"{look.address}: there is no {shown} with that port", remedy)
    if isinstance(look.ready, Unseen):
        return unseen(check, look.ready, remedy)
    if not look.ready:
        return no(check, "unavailable", Unavailable, f"{look.address}: nothing is ready behind {shown}", remedy)
    return Verdict(check, "ok", f"{shown}, {_count(range(look.ready), 'endpoint')} ready")


_CATEGORIES: Mapping[str, tuple[str, str]] = {
    "too-large": ("never-fits", "ask for less under resources, or for what is there: modelyard gpus"),
    "gpu-model": ("gpu-model", "set resources.gpu_model to one that is there: modelyard gpus -o name"),
    "selector": ("node-label", "correct the overlay, or label a node: kubectl label node NODE KEY=VALUE"),
    "taint": ("taint", "tolerate it: resources: {tolerations: [{key: KEY, operator: Exists}]}"),
    "volume": ("volume-elsewhere", "free room on the volume's node, or use another claim"),
    "beside": ("yard-node", "wait for the pods there, or use a claim that is ReadWriteMany"),
    "busy": ("busy", "submit it: it waits for its turn; or ask for less: modelyard gpus"),
    "cordoned": ("cordoned", "kubectl uncordon NODE"),
    "not-ready": ("nodes-not-ready", "kubectl describe node NODE"),
    "no-nodes": ("nodes-not-ready", "ask who runs the cluster for nodes"),
}
"""Code of `room` -> the category that `explain` gives, and what to do."""


def _fits(survey: Survey) -> Iterator[Verdict]:
    """Never, not now, or now, for each pod by itself."""
    volume = survey.volume if isinstance(survey.volume, dict) else None
    found = None if isinstance(survey.nodes, Unseen) else room.spaces(survey.nodes, None if isinstance(survey.pods, Unseen) else survey.pods)
    for name, manifest in survey.asks.items():
        check = f"fit of {name}"
        try:
            fit = room.fit(manifest, found, volume)
        except ValueError as error:
            yield no(check, "usage", Usage, f"what is asked cannot be counted: {error}", "correct resources or overlay of the step")
            continue
        if fit.verdict == "now":
            yield Verdict(check, "ok", f"now: {fit.lines[0]}", lines=fit.lines)
        elif fit.verdict == "unknown":
            why = f"capacity unknown: {'nodes' if found is None else 'pods of other namespaces'} may not be listed"
            yield Verdict(check, "unknown", why, f"have an admin grant the ClusterRole {access.NODES}: modelyard gpus says how", lines=fit.lines)
        else:
            category, remedy = _CATEGORIES[fit.code]
            key = re.search(r"taint ([^=:]+)", fit.lines[0])
            remedy = remedy.replace("NODE", fit.lines[0].partition(":")[0]).replace("KEY", key[1] if key else "KEY")
            yield no(check, category, Usage if fit.verdict == "never" else Unavailable, f"{fit.verdict}: {fit.lines[0]}", remedy, lines=fit.lines)


def _count(things: Sequence[Any] | Mapping[Any, Any], noun: str) -> str:
    return f"{len(things) or 'no'} {noun}{'s' * (len(things) != 1)}"
