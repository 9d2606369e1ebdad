"""What keeps a container from beginning: images, configuration, volumes. Pure.

The texts of container runtimes are nobody's contract: where none of the known ones is there, the category says only how far the pod came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from modelyard.kube import ends
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnosis import Diagnosis, Evidence, by_words
from modelyard.kube.endings import START_WORDS, not_started
from modelyard.kube.facts import Facts

_QUIET = frozenset({"ContainerCreating", "PodInitializing", ""})
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable", "ErrImageNeverPull", "InvalidImageName"})
_PULL_WORDS: Sequence[tuple[str, str]] = (
    (r"no match for platform|exec format", "image-architecture"),
    (
        r"dial tcp|i/o timeout|no such host|connection refused|handshake|x509|deadline exceeded|no route to host|HTTP response to HTTPS",
        "registry-unreachable",
    ),
    (r"\b40[13]\b|unauthorized|authoriz|denied|forbidden|credential", "image-refused"),
    (r"not found|NotFound|manifest unknown|name unknown|not present with pull policy", "image-not-found"),
)
"""Words of container runtimes and registries -> category; a registry says of an image that one may not see that it is not found, or denied."""
_CONFIG_WORDS: Sequence[tuple[str, str]] = (
    (r"couldn't find key|non-existent (?:secret|config) key", "key-missing"),
    (r"secret \\?\"[^\"]+\" not found", "secret-missing"),
    (r"configmap \\?\"[^\"]+\" not found", "config-map-missing"),
    (r"runAsNonRoot", "runs-as-root"),
)
# --- before it begins


def waiting(facts: Facts, pod: Manifest) -> Diagnosis | None:
    """Why a container of the pod does not begin; None where nothing is wrong so far."""
    status = pod.get("status", {})
    for kind in ("initContainerStatuses", "containerStatuses"):
        for index, container in enumerate(status.get(kind) or []):
            found = container.get("state", {}).get("waiting") or {}
            at = f"status.{kind}[{index}].state.waiting"
            reason, message = found.get("reason") or "", found.get("message") or ""
            if reason not in _QUIET:
                evidence = [Evidence.of(pod, f"{at}.reason", reason), *([Evidence.of(pod, f"{at}.message", message)] if message else [])]
                return _waits(facts, pod, str(container.get("image") or ""), evidence)
            if kind == "initContainerStatuses" and (ended := container.get("state", {}).get("terminated")) and ended.get("exitCode"):
                name = container.get("name", "")
                what = f"the container {name!r}, which comes before the step, ended with {ended['exitCode']}"
                remedy = f"kubectl logs {pod['metadata']['name']} -c {name} -n {facts.namespace}"
                evidence = [Evidence.of(pod, f"status.{kind}[{index}].state.terminated.exitCode", ended["exitCode"])]
                return Diagnosis(category="init-failed", what=what, evidence=tuple(evidence), remedy=remedy)
    return _mounts(facts, pod)


def _waits(facts: Facts, pod: Manifest, image: str, evidence: list[Evidence]) -> Diagnosis:
    """evidence: the reason, and where there is one, the message."""
    reason, message = evidence[0].value, evidence[-1].value
    if reason in _PULL:
        return _image(facts, pod, image, evidence)
    if category := by_words(_CONFIG_WORDS, message):
        return _configuration(facts, category, message, evidence)
    return not_started(facts, pod, by_words(START_WORDS, message) or "container-refused", evidence)


def _image(facts: Facts, pod: Manifest, image: str, evidence: list[Evidence]) -> Diagnosis:
    reason, message = evidence[0].value, evidence[-1].value
    of_pod = [event for event in facts.events if event["involvedObject"].get("name") == pod["metadata"]["name"]]
    failed = [event for event in of_pod if "Failed to pull image" in (event.get("message") or "")]
    secrets = [event for event in of_pod if event.get("reason") == "FailedToRetrieveImagePullSecret"]
    said = message if "desc" in message or "failed to" in message else " ".join([message, *(event.get("message") or "" for event in failed[-1:])])
    evidence += [Evidence.of_event(event) for event in (*secrets[-1:], *(failed[-1:] if said != message else []))]
    category = {"InvalidImageName": "image-name", "ErrImageNeverPull": "image-not-found", "RegistryUnavailable": "registry-unreachable"}.get(reason)
    category = category or by_words(_PULL_WORDS, said.replace(image, "")) or "image-pull"
    first = image.partition("/")[0]
    host = first if "/" in image and ("." in first or ":" in first or first == "localhost") else "docker.io"
    name = re.sub(r"-(light|cuda)$", "", image)
    match category:
        case "image-refused":
            return _pull_secret(facts, pod, (image, host), [event.get("message") or "" for event in secrets], evidence)
        case "image-not-found":
            what = f"there is no image {image!r}" + (" on the node, which may not pull it" if reason == "ErrImageNeverPull" else f" at {host}")
            remedy = f'image = "REGISTRY/NAME:VERSION" in modelyard.toml (it is {name!r} now, and needs -light and -cuda)'
        case "registry-unreachable":
            what, remedy = f"the registry {host} does not answer the node", f'image = "REGISTRY/NAME:VERSION" in modelyard.toml (it is {name!r} now)'
        case "image-name":
            what, remedy = f"{image!r} is no name of an image", f'image = "REGISTRY/NAME:VERSION" in modelyard.toml (it is {name!r} now)'
        case "image-architecture":
            what, remedy = f"{image!r} is for another kind of processor than the node's", "kubectl get nodes -L kubernetes.io/arch"
        case _:
            what, remedy = f"the image {image!r} could not be pulled", f"kubectl describe pod {pod['metadata']['name']} -n {facts.namespace}"
    return Diagnosis(category=category, what=what, evidence=tuple(evidence), remedy=remedy)


def _pull_secret(facts: Facts, pod: Manifest, asked: tuple[str, str], said: Sequence[str], evidence: list[Evidence]) -> Diagnosis:
    """asked: the image and its registry. said: that a pull Secret cannot be had."""
    image, host = asked
    named = [one["name"] for one in pod["spec"].get("imagePullSecrets") or [] if one.get("name")]
    missing = [name for name in named if any(name in text for text in said)]
    name = (missing or named or ["regcred"])[0]
    create = (
        f"kubectl create secret docker-registry {name} -n {facts.namespace} --docker-server={host} --docker-username=USER --docker-password=TOKEN"
    )
    evidence.append(Evidence.of(pod, "spec.imagePullSecrets", ", ".join(named) or "none"))
    if missing:
        what, remedy = f"the pull Secret {name!r} does not exist, and {host} gives {image!r} to nobody unknown", create
    elif named:
        what, remedy = f"{host} does not accept the pull Secret {name!r} for {image!r}", f"{create} --dry-run=client -o yaml | kubectl apply -f -"
    else:
        what, remedy = (
            f"{host} gives {image!r} to nobody unknown, and no pull Secret is set",
            f'{create}, then pull_secret = "{name}" in modelyard.toml',
        )
    return Diagnosis(category="image-refused", what=what, evidence=tuple(evidence), remedy=remedy)


def _configuration(facts: Facts, category: str, said: str, evidence: Sequence[Evidence]) -> Diagnosis:
    """A Secret, a ConfigMap, or a key of one is missing; or the image runs as root."""
    key = re.search(r"key:? (\S+?)(?: in (Secret|ConfigMap) (?:[^/\s]+/)?(\S+))?$", said.strip()) if category == "key-missing" else None
    named = re.search(r"(?:secret|configmap) \\?\"([^\"\\]+)", said)
    name = (key[3] if key and key[3] else "") or (named[1] if named else "NAME")
    kind = "configmap" if category == "config-map-missing" or (key and key[2] == "ConfigMap") or "config key" in said else "secret generic"
    if category == "runs-as-root":
        what, remedy = "the image would run as root, which the pod forbids", "give the image a USER that is a number, such as 10001"
    elif category == "key-missing":
        thing = "ConfigMap" if kind == "configmap" else "Secret"
        what = f"the {thing} {name!r} has no key {key[1].strip(chr(34))!r}" if key else f"a key is missing: {said}"
        patch = {"data" if kind == "configmap" else "stringData": {key[1] if key else "KEY": "VALUE"}}
        remedy = f"kubectl patch {thing.lower()} {name} -n {facts.namespace} -p '{json.dumps(patch)}'"
    else:
        what = f"there is no {'ConfigMap' if kind == 'configmap' else 'Secret'} {name!r}"
        remedy = f"kubectl create {kind} {name} -n {facts.namespace} --from-literal=KEY=VALUE"
    return Diagnosis(category=category, what=what, evidence=tuple(evidence), remedy=remedy)


def _mounts(facts: Facts, pod: Manifest) -> Diagnosis | None:
    told = [event for event in facts.events if event.get("reason") in ("FailedMount", "FailedAttachVolume")]
    told = [event for event in told if event["involvedObject"].get("name") == pod["metadata"]["name"]]
    if not told:
        return None
    said, evidence = told[-1].get("message") or "", (Evidence.of_event(told[-1]),)
    if category := by_words(_CONFIG_WORDS, said):
        return _configuration(facts, category, said, evidence)
    volume = re.search(r'volume \\?"([^"\\]+)', said)
    name = f" {volume[1]!r}" if volume else ""
    if "Multi-Attach" in said:
        remedy = f"modelyard yard create --on kubernetes -n {facts.namespace} --yard NEW --access-mode ReadWriteMany"
        return Diagnosis(category="volume-in-use", what=f"the volume{name} is attached to another node", evidence=evidence, remedy=remedy)
    if 'persistentvolumeclaim "' in said and "not found" in said:
        claim = re.search(r'persistentvolumeclaim "([^"]+)"', said)
        remedy = f"modelyard yard create --on kubernetes -n {facts.namespace} --yard {claim[1] if claim else 'NEW'}"
        return Diagnosis(category="claim-missing", what="the claim does not exist", evidence=evidence, remedy=remedy)
    remedy = f"kubectl describe node {ends.node(pod)}"
    return Diagnosis(category="mount-failed", what=f"the node could not mount the volume{name}", evidence=evidence, remedy=remedy)
