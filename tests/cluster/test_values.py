"""Wrong values are refused, by the schema or by the chart, in words that name the place, and nothing is rendered; right ones give whole manifests.

Each operator makes one mistake, or none, and says beforehand what comes of it. The seed is fixed: a failure can be repeated.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import yaml

from tests.cluster.chart import CHART, Helm, conform, of_kind, write_schemas
from tests.cluster.harness.cluster import Cluster

SEED = 20261123
EACH = 4
"""Mutations by each operator."""
LOOK = "name: look\nsteps:\n  encoders: {search: {query: bert}}\n"
GIVEN: Mapping[str, Any] = {
    "image": {"repository": "registry.example/modelyard", "tag": "1.2.3"},
    "pullSecret": "registry",
    "tokensSecret": "tokens",
    "queue": "night",
    "driverMemory": "1Gi",
    "yard": {"create": True, "claim": "mine", "size": "500Gi", "storageClass": "shared", "accessModes": ["ReadWriteMany"]},
    "hubs": {"modelscope": "https://mirror.example", "huggingface": ""},
    "hub": {"enabled": True, "uploads": True, "claim": "hub", "size": "10Gi", "cpu": "1", "memory": "1Gi"},
    "nodeReader": True,
    "networkPolicy": {"enabled": True, "apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [6443]}, "hubs": {"cidrs": ["10.0.0.0/8"], "ports": [3128]}},
    "pipelines": {
        "look": {"spec": LOOK, "jobs": 2, "force": ["encoders"], "hubs": {"modelscope": "http://other.example:8080"}},
        "nightly": {"spec": LOOK, "schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "suspend": False, "startingDeadlineSeconds": 600},
    },
}
"""Values in which each key has something."""

Keys = tuple[str, ...]
Outcome = Literal["schema", "chart", "accepted"]


class Mutation(NamedTuple):
    """says: what the refusal names."""

    operator: str
    values: dict[str, Any]
    outcome: Outcome
    says: str


Made = tuple[dict[str, Any], str]
"""Values, and what a refusal has to name."""


def changed(path: Keys, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(dict(GIVEN))
    inner = values
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    return values


def paths(of: type, tree: Mapping[str, Any] = GIVEN, at: Keys = ()) -> list[Keys]:
    """Where values of a type stand. A bool is no int here."""
    found: list[Keys] = []
    for key, value in tree.items():
        found += [(*at, key)] if type(value) is of else []
        found += paths(of, value, (*at, key)) if isinstance(value, dict) else []
    return found


def refusal(path: Keys) -> str:
    return "/" + "/".join(path)


# --- by the schema


def unknown_key(rng: random.Random) -> Made:
    path = rng.choice([one for one in [(), *paths(dict)] if one != ("pipelines",)])
    word = rng.choice(["replicas", "nodeSelector", "extraEnv", "enable", "x"])
    return changed((*path, word), rng.choice([1, "a", {}, [], True])), f"additional properties '{word}' not allowed"


def misspelt_key(rng: random.Random) -> Made:
    path = rng.choice([one for kind in (str, bool, int, list) for one in paths(kind)])
    at = rng.randrange(len(path[-1]))
    word = path[-1][:at] + path[-1][at] * 2 + path[-1][at + 1 :]
    return changed((*path[:-1], word), 1), f"additional properties '{word}' not allowed"


def another_type(rng: random.Random) -> Made:
    of = rng.choice([str, bool, int, list])
    path = rng.choice(paths(of))
    others: dict[type, list[Any]] = {
        str: [1, True, ["a"], {"a": 1}],
        bool: ["true", 1, "no"],
        int: ["8", 1.5, True, "many"],
        list: ["a", {"a": 1}, 1],
    }
    return changed(path, rng.choice(others[of])), refusal(path)


def a_claim_that_is_no_name(rng: random.Random) -> Made:
    path = rng.choice([("yard", "claim"), ("hub", "claim")])
    return changed(path, rng.choice(["", "Mine", "my_yard", "-yard", "yard-", "a" * 64, "a/b", "a b", "a..b", "a.-b"])), refusal(path)


def a_secret_that_is_no_name(rng: random.Random) -> Made:
    path = rng.choice([("pullSecret",), ("tokensSecret",)])
    return changed(path, rng.choice(["Tokens", "my_tokens", "a:b", "a" * 254, "tokens\n", "a..b"])), refusal(path)


def no_size(rng: random.Random) -> Made:
    path = rng.choice([("yard", "size"), ("hub", "size"), ("hub", "memory"), ("driverMemory",)])
    return changed(path, rng.choice(["", "lots", "-1Gi", "10 Gi", "0Gi", "10GB", "1e3Gi"])), refusal(path)


def access_modes(rng: random.Random) -> Made:
    path = rng.choice([("yard", "accessModes"), ("hub", "accessModes")])
    return changed(path, rng.choice([[], ["ReadWriteOncePod"], ["ReadOnlyMany"], ["ReadWriteMany"] * 2, ["rwx"]])), refusal(path)


def no_repository(rng: random.Random) -> Made:
    path = ("image", "repository")
    return changed(
        path, rng.choice(["", "Modelyard", "https://registry.example/modelyard", "modelyard:1.2", f"a@sha256:{'0' * 64}", "a//b"])
    ), refusal(path)


def no_tag(rng: random.Random) -> Made:
    return changed(("image", "tag"), rng.choice(["1.2.3-light", "1.2.3-cuda", "a b", "-1", ":1", "1" * 130])), "/image/tag"


def no_address(rng: random.Random) -> Made:
    path = rng.choice([("hubs", "modelscope"), ("hubs", "huggingface"), ("pipelines", "look", "hubs", "modelscope")])
    bad = [
        "./models",
        "/models",
        "ftp://hub.example",
        "https://me:secret@hub.example",
        "https://hub.example?token=1",
        "hub.example",
        "http://",
        "http://a b",
        "http://hub.example:65536",
        "http://hub.example:0",
    ]
    return changed(path, rng.choice(bad)), refusal(path)


def no_network(rng: random.Random) -> Made:
    part = rng.choice(["apiServer", "hubs"])
    if rng.random() < 0.5:
        return changed(("networkPolicy", part, "ports"), rng.choice([[0], [65536], [443, 443], ["https"], [-1]])), f"/networkPolicy/{part}/ports"
    bad = [[], ["10.0.0.1"], ["hub.example"], ["0.0.0.0/0", "0.0.0.0/0"], ["10.0.0.256/32"], ["10.0.0.0/33"], ["10.0.0/8"], ["::/129"], [":/0/0"]]
    return changed(("networkPolicy", part, "cidrs"), rng.choice(bad)), f"/networkPolicy/{part}/cidrs"


def no_key_of_a_pipeline(rng: random.Random) -> Made:
    key = rng.choice(["Nightly", "my_pipeline", "1st", "a" * 41, "a.b", "-a", "a-"])
    return changed(("pipelines", key), {"spec": LOOK}), key


def no_text(rng: random.Random) -> Made:
    """The classic: the pipeline itself where its text should be."""
    value = rng.choice([{"spec": yaml.safe_load(LOOK)}, {"spec": ""}, {}, {"spec": None}, {"file": "retrain.yaml"}, LOOK, ["a"]])
    return changed(("pipelines", "look"), value), "/pipelines/look"


def no_settings(rng: random.Random) -> Made:
    field, value = rng.choice([("jobs", 0), ("jobs", "2"), ("jobs", 1.5), ("force", "encoders"), ("force", ["a", "a"]), ("force", ["No Step"])])
    return changed(("pipelines", "look", field), value), f"/pipelines/look/{field}"


def parts_of_a_schedule(rng: random.Random) -> Made:
    field, value = rng.choice([("timeZone", "Etc/UTC"), ("suspend", True), ("startingDeadlineSeconds", 60)])
    return changed(("pipelines", "look", field), value), "properties 'schedule' required, if"


def no_schedule(rng: random.Random) -> Made:
    field, value = rng.choice([("timeZone", "Local"), ("timeZone", "two words"), ("schedule", ""), ("suspend", "no"), ("startingDeadlineSeconds", 5)])
    return changed(("pipelines", "nightly", field), value), f"/pipelines/nightly/{field}"


def removed(rng: random.Random) -> Made:
    """Helm takes null for the removal of a default."""
    path = rng.choice([("yard",), ("hub",), ("hubs",), ("networkPolicy",), ("image", "repository"), ("yard", "claim"), ("networkPolicy", "hubs")])
    return changed(path, None), f"missing property '{path[-1]}'"


# --- by the chart


def no_pipeline(rng: random.Random) -> Made:
    text = rng.choice(
        ["retrain.yaml", "- a\n- b\n", "name: look\n", "name: look\nsteps: [a]\n", "steps: {a: {search: {}}\n", "\t", "name: x\nsteps: {}\nsteps"]
    )
    return changed(("pipelines", "look", "spec"), text), "pipelines.look.spec: this is no pipeline's file"


def no_name(rng: random.Random) -> Made:
    line = rng.choice(["", "name: 12", "name: on", "name: [a]", "name: null"])
    return changed(("pipelines", "look", "spec"), f"{line}\nsteps:\n  encoders: {{search: {{}}}}\n"), "pipelines.look.spec: the file needs a name"


def another_name(rng: random.Random) -> Made:
    name = rng.choice(["Look", "my_look", "a" * 53, "look-", "-look", "1st", "a.b"])
    return changed(("pipelines", "look", "spec"), LOOK.replace("name: look", f"name: '{name}'")), "cannot be a pipeline's name"


def no_step_to_force(rng: random.Random) -> Made:
    step = rng.choice(["encoder", "tuned", "fetch", "fetch-12"])
    return changed(("pipelines", "look", "force"), [step]), f'pipelines.look.force: there is no step "{step}"; the steps are encoders'


def itself(rng: random.Random) -> Made:
    path = rng.choice([("hubs", "modelscope"), ("hubs", "huggingface"), ("pipelines", "nightly", "hubs")])
    address = rng.choice(["http://localhost:8000", "http://127.0.0.1", "https://127.1.2.3:8000/hub", "http://0.0.0.0:80", "http://LocalHost"])
    return changed(path, {"modelscope": address} if path[-1] == "hubs" else address), "is another machine for a pod: itself"


def no_cron(rng: random.Random) -> Made:
    bad = [
        "@daily",
        "0 3 * *",
        "0 3 * * * *",
        "60 3 * * *",
        "0 24 * * *",
        "0 3 0 * *",
        "0 3 32 * *",
        "0 3 * 13 *",
        "0 3 * * 7",
        "5-3 * * * *",
        "*/0 * * * *",
    ]
    bad += ["0 3 * * mo", "0 3 ? * *", "TZ=UTC 0 3 * * *", "a b c d e", "0,,1 3 * * *", "1- * * * *"]
    return changed(("pipelines", "nightly", "schedule"), rng.choice(bad)), "pipelines.nightly.schedule: "


def uploads_without_a_token(rng: random.Random) -> Made:
    values = changed(("tokensSecret",), "")
    values["hub"]["size"] = f"{rng.randrange(1, 99)}Gi"
    return values, "hub.uploads: uploads need a token"


def one_claim_for_two(rng: random.Random) -> Made:
    values = changed(("hub", "claim"), "mine")
    values["hub"]["size"] = f"{rng.randrange(1, 99)}Gi"
    return values, 'hub.claim: "mine" is the yard\'s'


def too_large(rng: random.Random) -> Made:
    return changed(("pipelines", "look", "spec"), LOOK + "# much\n" * rng.randrange(140_000, 150_000)), "pipelines.look: the pipeline is too large"


# --- right


def right_words(rng: random.Random) -> Made:
    choices: list[tuple[Keys, Any]] = [
        (("yard", "size"), f"{rng.randrange(1, 999)}{rng.choice(['Gi', 'Ti', 'G', ''])}"),
        (("yard", "storageClass"), rng.choice([None, "", "fast.example"])),
        (("yard", "accessModes"), ["ReadWriteOnce"]),
        (("yard", "create"), False),
        (("image", "repository"), rng.choice(["a", "registry.example:5000/a/b-c__d", "127.0.0.1:5000/x"])),
        (("image", "tag"), rng.choice(["", "latest", "1_2.3-rc"])),
        (("tokensSecret",), "a.b-c"),
        (("yard", "claim"), rng.choice(["123", "true", "a.b", "a" * 63])),
        (("networkPolicy", "apiServer", "cidrs"), ["10.96.0.1/32", "fd00::1/128", "::/0"]),
        (("hubs", "modelscope"), rng.choice(["", "http://hub.other.svc:65535/path/", "https://hub.example"])),
        (("pipelines",), rng.choice([None, {}])),
        (("hub", "enabled"), False),
        (("networkPolicy", "enabled"), False),
        (("pipelines", "look", "force"), ["fetch-0123abcd"]),
        (("pipelines", "look", "hubs"), {}),
    ]
    return changed(*rng.choice(choices)), ""


def right_crons(rng: random.Random) -> Made:
    crons = ["* * * * *", "*/15 0-6,22-23 1,15 jan-mar MON-fri", "  0   3 * *  0 ", "59 23 31 12 6", "00 03 01 01 00", "0-59/5 * * * sun"]
    return changed(("pipelines", "nightly", "schedule"), rng.choice(crons)), ""


def right_texts(rng: random.Random) -> Made:
    """Also what Go's and Python's YAML see otherwise."""
    more = [
        "# on: off, 1e-4, ~\n",
        "\n\n",
        "# {{ .Values }} {{- fail 1 }}\n",
        "# \u00fc \U0001f642 \u2028\n",
        "# '\"\\n%d%s`\n",
        "# <a>&amp;</a>\n",
        "# a\x85# b\n",
        "# \ufeff\ue000\n",
    ]
    text = rng.choice([LOOK, '{"name": "look", "steps": {"encoders": {"search": {"limit": 3}}}}', LOOK.replace("\n", "\r\n")])
    return changed(("pipelines", "look", "spec"), text + rng.choice(more)), ""


def right_names(rng: random.Random) -> Made:
    key = rng.choice(["a", "a" * 40, "a-1", "nightly2"])
    return changed(("pipelines", key), {"spec": LOOK.replace("look", rng.choice(["a", "a" * 52, "'on'", "look-1"]), 1)}), ""


OPERATORS: Mapping[Outcome, tuple[Callable[[random.Random], Made], ...]] = {
    "schema": (
        unknown_key,
        misspelt_key,
        another_type,
        a_claim_that_is_no_name,
        a_secret_that_is_no_name,
        no_size,
        access_modes,
        no_repository,
        no_tag,
        no_address,
        no_network,
        no_key_of_a_pipeline,
        no_text,
        no_settings,
        parts_of_a_schedule,
        no_schedule,
        removed,
    ),
    "chart": (no_pipeline, no_name, another_name, no_step_to_force, itself, no_cron, uploads_without_a_token, one_claim_for_two, too_large),
    "accepted": (right_words, right_crons, right_texts, right_names),
}


def mutations() -> list[Mutation]:
    """All of them, the same each time."""
    rng = random.Random(SEED)
    made = []
    for outcome, operators in OPERATORS.items():
        for operator in operators:
            for _ in range(EACH):
                values, says = operator(rng)
                made.append(Mutation(operator.__name__, values, outcome, says))
    return made


@pytest.fixture(scope="module")
def answers(helm: Helm) -> list[tuple[Mutation, int, str, str]]:
    """Each mutation, with Helm's exit code and what it wrote to stdout and stderr."""

    def answer(mutation: Mutation) -> tuple[Mutation, int, str, str]:
        done = helm.run("template", "yard", str(CHART), "-n", "research", values=mutation.values, code=None)
        return mutation, done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(answer, mutations()))


def test_each_operator_comes_to_its_end(answers: list[tuple[Mutation, int, str, str]]) -> None:
    """Refused where it has to be, by whom it has to be, in words that name the place; nothing is rendered then, and nothing breaks."""
    assert len(answers) >= 100
    assert {mutation.outcome for mutation, *_ in answers} == set(OPERATORS)
    wrong = [
        (mutation.operator, mutation.says, code, stderr[-500:])
        for mutation, code, stdout, stderr in answers
        if mutation.outcome != outcome(code, stderr) or mutation.says not in stderr or (stdout != "") != (code == 0)
    ]
    assert wrong == []
    said = "".join(stderr for *_, stderr in answers)
    assert not [word for word in ("panic", "goroutine", "nil pointer", "runtime error", "error calling include", "<nil>") if word in said]


def outcome(code: int, stderr: str) -> str:
    if code == 0:
        return "accepted"
    return "schema" if "values don't meet the specifications of the schema" in stderr else "chart" if "execution error at" in stderr else stderr


def test_what_is_accepted_is_whole(answers: list[tuple[Mutation, int, str, str]], cluster: Cluster, tmp_path: Path) -> None:
    """Each object is one that the API server describes, and each pipeline's text is as it was given."""
    accepted = [(mutation, stdout) for mutation, code, stdout, _ in answers if code == 0]
    for mutation, stdout in accepted:
        configs = of_kind([one for one in yaml.safe_load_all(stdout) if one], "ConfigMap")
        texts = [one["spec"] for one in (mutation.values["pipelines"] or {}).values()]
        assert sorted(one["data"]["pipeline.yaml"] for one in configs) == sorted(texts), mutation
    done = conform("\n---\n".join(stdout for _, stdout in accepted), write_schemas(cluster, tmp_path))
    assert (done.returncode, "Invalid: 0, Errors: 0, Skipped: 0" in done.stdout) == (0, True), done.stdout
