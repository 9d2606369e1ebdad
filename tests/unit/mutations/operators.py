"""What can be wrong with a pipeline file, one operator each, with the class that it ends in. Seeded: the same example and seed give the same file."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.document import MAX_BYTES, MAX_DEPTH, parse
from modelyard.errors import Usage
from modelyard.steps import STEPS

ROOT = Path(__file__).parents[3]
WHOLE = ("imdb-distilbert", "quickstart", "retrain")
"""The examples that have every kind of step: each operator finds in them what it mutates."""
EXAMPLES = {name: (ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8") for name in WHOLE}
ACCEPTED = 0
SECRET = "hf_" + "s3cretToken" * 2  # the form of a token, and none

Tree = dict[str, Any]


@dataclass
class Subject:
    """An example that is being mutated, and what chance decides about it."""

    tree: Tree
    text: str
    chance: random.Random

    def step(self, *verbs: str) -> str:
        """A step of one of the verbs."""
        return self.chance.choice([name for name in self.tree["steps"] if self.verb(name) in verbs])

    def verb(self, step: str) -> str:
        """Its verb."""
        return next(key for key in self.tree["steps"][step] if key in STEPS)

    def settings(self, step: str) -> Tree:
        """Its settings, to be changed."""
        found: Tree = self.tree["steps"][step][self.verb(step)]
        return found

    def computing(self) -> Tree:
        """The settings of a step that computes."""
        return self.settings(self.step("finetune", "evaluate", "export"))

    def rename(self, name: str) -> None:
        """Give a step that nobody uses another name."""
        last = list(self.tree["steps"])[-1]
        self.tree["steps"][name] = self.tree["steps"].pop(last)

    def own(self, resources: Any) -> None:
        """Give a step that computes resources of its own."""
        self.tree["steps"][self.step("finetune", "evaluate")]["resources"] = resources


Change = Callable[[Subject], bytes | None]


@dataclass(frozen=True)
class Operator:
    """change: mutates the tree, or gives the bytes of the file. expected: the exit code. says: words of the message."""

    name: str
    expected: int
    change: Change
    says: str = ""

    def file(self, example: str, seed: int) -> bytes:
        """The mutated file."""
        subject = Subject(copy.deepcopy(tree_of(example)), EXAMPLES[example], random.Random(f"{self.name} {example} {seed}"))
        told = self.change(subject)
        return json.dumps(subject.tree, ensure_ascii=False).encode() if told is None else told


def tree_of(example: str) -> Tree:
    """An example as plain values."""
    return dict(parse(EXAMPLES[example], example).value)


def _put(target: Mapping[str, Any] | list[Any], key: Any, value: Any) -> None:
    target[key] = value  # type: ignore[index]  # for lambdas


def _top(key: str, value: Any) -> Change:
    return lambda it: _put(it.tree, key, value)


def _set(key: str, value: Any) -> Change:
    return lambda it: _put(it.computing(), key, value)


def _named(name: str) -> Change:
    return lambda it: it.rename(name)


def _own(key: str, value: Any) -> Change:
    return lambda it: it.own({key: value})


def _overlay(value: Any) -> Change:
    return _own("overlay", value)


def _text(old: str, new: str) -> Change:
    return lambda it: it.text.replace(old, new, 1).encode()


def _drop(key: str) -> Change:
    return lambda it: it.tree.pop(key) and None


def _drop_used(it: Subject) -> None:
    del it.tree["steps"][it.chance.choice([name for name in ("reviews", "tuned", "candidate", "score", "onnx") if name in it.tree["steps"]])]


def _drop_required(it: Subject) -> None:
    step = it.step("finetune", "evaluate", "export", "promote", "publish")
    required = [name for name, field in STEPS[it.verb(step)].model_fields.items() if field.is_required()]
    del it.settings(step)[it.chance.choice(required)]


def _drop_optional(it: Subject) -> None:
    settings = it.computing()
    settings.pop(it.chance.choice([name for name in ("epochs", "batch_size", "learning_rate", "max_length", "rows", "int8") if name in settings]))


def _misspell(word: str, chance: random.Random) -> str:
    at = chance.randrange(len(word) - 1)
    return word[:at] + word[at] + word[at:]


def _misspell_verb(it: Subject) -> None:
    step = it.chance.choice(list(it.tree["steps"]))
    verb = it.verb(step)
    it.tree["steps"][step][_misspell(verb, it.chance)] = it.tree["steps"][step].pop(verb)


def _misspell_setting(it: Subject) -> None:
    settings = it.computing()
    setting = it.chance.choice(list(settings))
    settings[_misspell(setting, it.chance)] = settings[setting]


def _two_verbs(it: Subject) -> None:
    it.tree["steps"][it.step("finetune")]["search"] = {}


def _no_settings(it: Subject) -> None:
    step = it.step("finetune", "evaluate", "export", "promote", "publish")
    it.tree["steps"][step][it.verb(step)] = None


def _settings_are(value: Any) -> Change:
    def change(it: Subject) -> None:
        step = it.chance.choice(list(it.tree["steps"]))
        it.tree["steps"][step][it.verb(step)] = value

    return change


def _itself(it: Subject) -> None:
    step = it.step("finetune")
    it.settings(step)["model"] = step


def _circle(it: Subject) -> None:
    it.settings(it.step("finetune"))["model"] = it.step("export")


def _shuffled(it: Subject) -> None:
    steps = list(it.tree["steps"].items())
    it.chance.shuffle(steps)
    it.tree["steps"] = dict(steps)


def _fetch(ref: Any, key: str = "dataset") -> Change:
    return lambda it: _put(it.tree["steps"], "extra", {"fetch": {key: ref}})


def _release(verb: str, key: str, value: Any) -> Change:
    return lambda it: _put(it.settings(it.step(verb)), key, value)


def _gate(value: Any) -> Change:
    def change(it: Subject) -> None:
        gate = it.settings(it.step("publish"))["gate"]
        gate.pop("not_worse_than_champion", None)
        gate |= {"at_least": value}

    return change


def _bomb(it: Subject) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return "\n".join([*lines, it.text]).encode()


def _torn(it: Subject) -> bytes:
    whole = json.dumps(it.tree)
    return whole[: it.chance.randrange(10, len(whole) - 1)].encode()


def _invalid_byte(it: Subject) -> bytes:
    data = it.text.encode()
    at = it.chance.randrange(len(data))
    return data[:at] + b"\xff" + data[at:]


def _container(**fields: Any) -> Tree:
    return {"spec": {"containers": [{"name": "step", **fields}]}}


BAD = Usage.exit_code
OPERATORS = [
    # --- the whole
    Operator("name missing", BAD, _drop("name"), "`name` is missing"),
    Operator("steps missing", BAD, _drop("steps"), "`steps` is missing"),
    Operator("steps empty", BAD, _top("steps", {})),
    Operator("steps a list", BAD, lambda it: _put(it.tree, "steps", list(it.tree["steps"].values()))),
    Operator("unknown top key", BAD, _top("schedul", "@daily"), "unknown key"),
    Operator("name a number", BAD, _top("name", 7)),
    Operator("name in capitals", BAD, _top("name", "Reviews")),
    Operator("name a path", BAD, _top("name", "../../etc")),
    Operator("name too long", BAD, _top("name", "a" * 60), "too long"),
    Operator("name with a newline", BAD, _top("name", "reviews\n")),
    Operator("root a list", BAD, lambda it: json.dumps([it.tree]).encode()),
    Operator("root a word", BAD, lambda _: b"reviews\n"),
    Operator("empty file", BAD, lambda _: b""),
    Operator("two documents", BAD, lambda it: f"{it.text}\n---\n{it.text}".encode()),
    Operator("torn", BAD, _torn),
    # --- as text
    Operator("duplicate key", BAD, _text("steps:", "name: again\nsteps:"), "given twice"),
    Operator("duplicate step", BAD, _text("  reviews:", "  reviews: {search: {}}\n  reviews:"), "given twice"),
    Operator("tab", BAD, _text("  reviews:\n    fetch", "  reviews:\n\tfetch"), "not YAML"),
    Operator("not UTF-8", BAD, _invalid_byte, "UTF-8"),
    Operator("UTF-16", BAD, lambda it: it.text.encode("utf-16")),
    Operator("NUL", BAD, _text("steps:", "steps:\0")),
    Operator("alias bomb", BAD, _bomb, "too large"),
    Operator("nested too deeply", BAD, lambda it: _put(it.tree, "steps", json.loads("[" * 90 + "]" * 90)), f"{MAX_DEPTH} levels"),
    Operator("nested without end", BAD, lambda _: b"a: " + b"[" * 20_000),
    Operator("too large", BAD, lambda it: it.text.encode() + b"#" * MAX_BYTES, "too large"),
    Operator("python tag", BAD, _text("steps:", "steps: !!python/object/apply:os.system"), "tag"),
    Operator("set", BAD, _text("steps:", "steps: !!set"), "tag"),
    Operator("merge key", BAD, _text("steps:", "base: &base {gpus: 1}\nmore: {<<: *base}\nsteps:"), "unknown key"),
    Operator("a key that is a list", BAD, _text("steps:", "? [a]\n: b\nsteps:")),
    # --- steps
    Operator("used step missing", BAD, _drop_used, "there is no step"),
    Operator("required setting missing", BAD, _drop_required),
    Operator("verb misspelt", BAD, _misspell_verb, "did you mean"),
    Operator("setting misspelt", BAD, _misspell_setting, "did you mean"),
    Operator("two verbs", BAD, _two_verbs, "one verb"),
    Operator("no settings", BAD, _no_settings, "missing"),
    Operator("settings a list", BAD, _settings_are([1])),
    Operator("settings a text", BAD, _settings_are("reviews")),
    Operator("step a text", BAD, lambda it: _put(it.tree["steps"], "extra", "search")),
    Operator("step null", BAD, lambda it: _put(it.tree["steps"], "extra", None)),
    Operator("resources under the verb", BAD, _set("resources", {"gpus": 1}), "beside the verb"),
    *(
        Operator(f"step name {name!r}", BAD, _named(name))
        for name in ("../x", "a/b", "..", "", "Release", "-a", "a-", "a b", "é", "a\0b", "a.b", "a" * 41, "$(id)")
    ),
    # --- inputs
    Operator("waits for itself", BAD, _itself, "wait for each other"),
    Operator("circle", BAD, _circle, "wait for each other"),
    Operator("input unknown", BAD, _set("model", "tunde"), "there is no step"),
    Operator("input of another kind", BAD, _set("model", "reviews"), "takes a model"),
    Operator("input a number", BAD, _set("model", 3)),
    Operator("input a list", BAD, _set("model", ["reviews"])),
    Operator("scheme unknown", BAD, _fetch("s3://bucket/rows"), "scheme"),
    Operator("ref leaves its folder", BAD, _fetch("hf://datasets/../etc"), "not allowed"),
    Operator("ref with a NUL", BAD, _fetch("hf://datasets/a/b\0"), "not allowed"),
    Operator("ref with a space in its revision", BAD, _fetch("hf://datasets/a/b@ma in"), "not allowed"),
    Operator("ref of another kind", BAD, _fetch("hf://a/b")),
    Operator("ref with a token", BAD, _fetch(f"hf://me:{SECRET}@huggingface.co/datasets/a/b"), "password"),
    Operator("address with a token", BAD, _fetch(f"https://user:{SECRET}@huggingface.co/datasets/a/b"), "password"),
    Operator("path on a cluster", BAD, _fetch("./rows.csv"), "yard put"),
    Operator("fetch of both", BAD, lambda it: _put(it.tree["steps"], "extra", {"fetch": {"dataset": "hf://datasets/a/b", "model": "hf://a/b"}})),
    Operator("trust unknown", BAD, lambda it: _put(it.settings("reviews"), "trust", ["everything"])),
    # --- values
    Operator("text for a number", BAD, _set("seed", "many")),
    Operator("true for a number", BAD, _set("seed", True)),
    Operator("half a number", BAD, _set("max_length", 2.5)),
    Operator("number for a text", BAD, _set("text", 3)),
    Operator("null for a number", BAD, _set("seed", None)),
    Operator("negative", BAD, _set("seed", -1)),
    Operator("too large a number", BAD, _set("seed", 2**32)),
    Operator("huge number", BAD, _set("seed", 10**99)),
    Operator("number of too many digits", BAD, _text("max_length: ", "max_length: " + "9" * 200), "too long"),
    Operator("not a number", BAD, lambda it: it.text.replace("learning_rate: ", "learning_rate: .nan # ").replace("at_least", "at_leas").encode()),
    Operator("infinite", BAD, _text("train_rows: 1000", "train_rows: 1000\n      max_grad_norm: -.inf")),
    Operator("gate not a number", BAD, lambda it: it.text.replace("{accuracy: 0.", "{accuracy: .nan, f1: 0.").encode()),
    Operator("gate empty", BAD, _gate({})),
    Operator("gate a text", BAD, _gate({"accuracy": "high"})),
    Operator("gate unknown", BAD, lambda it: _put(it.settings(it.step("publish"))["gate"], "atleast", {"accuracy": 1})),
    Operator("published to a path", BAD, _release("publish", "to", "./out")),
    Operator("published to a commit", BAD, _release("publish", "to", "hf://me/x@" + "a" * 40)),
    Operator("promoted on a hub", BAD, _release("promote", "to", "hf://me/x")),
    Operator("promoted and rolled back", BAD, _release("promote", "rollback", True)),
    Operator("split a path", BAD, lambda it: _put(it.settings("score"), "split", "../test")),
    # --- resources
    Operator("resources unknown", BAD, _own("gpu", 1), "did you mean"),
    Operator("resources a list", BAD, lambda it: it.own([1])),
    Operator("too many accelerators", BAD, _own("gpus", 65)),
    Operator("accelerator unknown", BAD, _own("accelerator", "abacus")),
    Operator("memory no amount", BAD, _own("memory", "16 potatoes")),
    Operator("memory negative", BAD, _own("memory", "-1Gi")),
    Operator("time no duration", BAD, _own("time_limit", "soon")),
    Operator("queue no label", BAD, _own("queue", "a b/../c")),
    Operator("tolerations a text", BAD, _own("tolerations", ["all"])),
    # --- overlays over what makes a pod a step
    Operator("overlay unknown", BAD, _overlay({"status": {}}), "overlay"),
    Operator("overlay takes the pod", BAD, _overlay({"spec": None})),
    Operator("overlay replaces the pod", BAD, _overlay({"spec": {"$patch": "replace"}})),
    Operator("overlay a list of containers", BAD, _overlay({"spec": {"containers": {"name": "step"}}})),
    Operator("overlay takes the container", BAD, _overlay(_container(**{"$patch": "delete"}))),
    Operator("overlay of a command", BAD, _overlay(_container(command=["sh"]))),
    Operator("overlay of arguments", BAD, _overlay(_container(args=["-c", "id"]))),
    Operator("overlay restarts", BAD, _overlay({"spec": {"restartPolicy": "Always"}})),
    Operator("overlay takes the yard", BAD, _overlay({"spec": {"volumes": [{"name": "yard", "$patch": "delete"}]}})),
    Operator("overlay of another yard", BAD, _overlay({"spec": {"volumes": [{"name": "yard", "persistentVolumeClaim": {"claimName": "other"}}]}})),
    Operator("overlay of a label", BAD, _overlay({"metadata": {"labels": {"modelyard.dev/run": "other"}}})),
    Operator("overlay takes the order", BAD, _overlay({"metadata": {"annotations": None}})),
    Operator("overlay with an unknown directive", BAD, _overlay({"spec": {"$patch": "explode"}})),
    Operator("overlay item without a name", BAD, _overlay({"spec": {"volumes": [{"emptyDir": {}}]}})),
    Operator("overlay of a number", BAD, _overlay(7)),
    # --- what only looks wrong
    Operator("optional setting missing", ACCEPTED, _drop_optional),
    Operator("shuffled", ACCEPTED, _shuffled),
    Operator("as JSON", ACCEPTED, lambda _: None),
    Operator("line ends of Windows", ACCEPTED, lambda it: it.text.replace("\n", "\r\n").encode()),
    Operator("byte order mark", ACCEPTED, lambda it: b"\xef\xbb\xbf" + it.text.encode()),
    Operator("commands in a text", ACCEPTED, _set("text", "$(HOME) `id`; rm -rf / \" ' \n%s {{ .Values }}")),
    Operator("letters from right to left", ACCEPTED, _set("text", "\u202etxet \U0001f600")),
    Operator("overlay of a sidecar", ACCEPTED, _overlay({"spec": {"containers": [{"name": "beside", "image": "x"}]}})),
    Operator("resources null", ACCEPTED, _top("resources", None)),
]
"""Each is applied to every example."""
