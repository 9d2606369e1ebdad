"""What can be wrong with what a pod is given: the ConfigMap of a driver, as `render` makes it, and the order of a step."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelyard.errors import NoInput, Usage

Files = dict[str, bytes]
Change = Callable[[Files, random.Random], object]
BAD, NOTHING = Usage.exit_code, NoInput.exit_code


@dataclass(frozen=True)
class Mutation:
    """change: alters the files. expected: the exit code. says: words of the message."""

    name: str
    expected: int
    change: Change
    says: str = ""

    def files(self, files: Files, seed: str) -> Files:
        """The mutated files."""
        made = dict(files)
        self.change(made, random.Random(f"{self.name} {seed}"))
        return made


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the JSON of one file."""

    def do(files: Files, _: random.Random) -> None:
        tree = json.loads(files[name])
        change(tree)
        files[name] = json.dumps(tree).encode()

    return do


def _cut(name: str) -> Change:
    def do(files: Files, chance: random.Random) -> None:
        files[name] = files[name][: chance.randrange(1, len(files[name]) - 1)]

    return do


def _is(name: str, data: bytes) -> Change:
    return lambda files, _: files.update({name: data})


def _gone(name: str) -> Change:
    return lambda files, _: files.pop(name)


def _drops(name: str, *keys: str) -> Change:
    """Drop one of the keys at random."""

    def do(files: Files, chance: random.Random) -> None:
        tree = json.loads(files[name])
        del tree[chance.choice(keys)]
        files[name] = json.dumps(tree).encode()

    return do


RUN, PIPELINE, ORDER = "run.json", "pipeline.yaml", "order.json"


def _place(**values: Any) -> Change:
    return _json(RUN, lambda told: told["place"].update(values))


def _asked(**values: Any) -> Change:
    return _json(RUN, lambda told: told["settings"].update(values))


DRIVER = [
    Mutation("run.json torn", BAD, _cut(RUN), RUN),
    Mutation("run.json empty", BAD, _is(RUN, b""), RUN),
    Mutation("run.json a list", BAD, _is(RUN, b"[]"), RUN),
    Mutation("run.json not UTF-8", BAD, _is(RUN, b'{"run": "\xff"}'), RUN),
    Mutation("run.json nested without end", BAD, _is(RUN, b'{"run":' + b"[" * 5000), RUN),
    Mutation("run.json gone", NOTHING, _gone(RUN), RUN),
    Mutation("a key of run.json gone", BAD, _drops(RUN, "run", "settings", "place"), RUN),
    Mutation("a key too much", BAD, _json(RUN, lambda told: told.update(pipelin={})), "pipelin"),
    Mutation("run a path", BAD, _json(RUN, lambda told: told.update(run="../../x")), "run"),
    Mutation("run a number", BAD, _json(RUN, lambda told: told.update(run=1)), "run"),
    Mutation("run too long", BAD, _json(RUN, lambda told: told.update(run="a" * 64)), "run"),
    Mutation("hubs a list", BAD, _asked(hubs=[]), "settings.hubs"),
    Mutation("hub a folder", BAD, _asked(hubs={"modelscope": "./hub"}), "hubs.modelscope"),
    Mutation("hub with a password", BAD, _asked(hubs={"modelscope": "https://me:secret@host"}), "hubs.modelscope"),
    Mutation("no steps side by side", BAD, _asked(jobs=0), "settings.jobs"),
    Mutation("many steps side by side", BAD, _asked(jobs="many"), "settings.jobs"),
    Mutation("an unknown step forced", BAD, _asked(force=["nowhere"]), "nowhere"),
    Mutation("place without a claim", BAD, _json(RUN, lambda told: told["place"].pop("claim")), "place.claim"),
    Mutation("access for one pod", BAD, _place(access="ReadWriteOncePod"), "place.access"),
    Mutation("claim no label", BAD, _place(claim="a/b"), "label"),
    Mutation("place with a key too much", BAD, _place(clam="x"), "place.clam"),
    Mutation("pipeline torn", BAD, _cut(PIPELINE), PIPELINE),
    Mutation("pipeline gone", NOTHING, _gone(PIPELINE), PIPELINE),
    Mutation("pipeline not UTF-8", BAD, _is(PIPELINE, b"name: \xff"), PIPELINE),
    Mutation("pipeline without steps", BAD, _drops(PIPELINE, "steps", "name"), PIPELINE),
    Mutation("pipeline with a path", BAD, _json(PIPELINE, lambda it: it["steps"].update(extra={"fetch": {"dataset": "/data"}})), "steps.extra"),
    Mutation(
        "pipeline whose step has an overlay of its command",
        BAD,
        _json(PIPELINE, lambda it: it["steps"]["score"]["resources"].update(overlay={"spec": {"containers": [{"name": "step", "command": ["sh"]}]}})),
        "steps.score",
    ),
]

GOOD_ORDER: dict[str, Any] = {
    "run": "reviews-0123456789-r1",
    "step": "tuned",
    "attempt": None,
    "verb": "finetune",
    "settings": {"model": "base", "data": "rows"},
    "resources": {},
    "inputs": {"model": "a" * 64, "data": "b" * 64},
    "key": "c" * 64,
}


def good_order() -> Files:
    """An order that can be read, of a run that is not there."""
    return {ORDER: json.dumps(copy.deepcopy(GOOD_ORDER)).encode()}


def _order(**values: Any) -> Change:
    return _json(ORDER, lambda order: order.update(values))


ORDERS = [
    Mutation("as it should be, of a run that is not there", NOTHING, lambda *_: None, "there is no run"),
    Mutation("torn", BAD, _cut(ORDER), ORDER),
    Mutation("empty", BAD, _is(ORDER, b""), ORDER),
    Mutation("a list", BAD, _is(ORDER, b"[]"), ORDER),
    Mutation("not UTF-8", BAD, _is(ORDER, b"\xff\xfe"), ORDER),
    Mutation("gone", BAD, _gone(ORDER), ORDER),
    Mutation("a key gone", BAD, _drops(ORDER, "run", "step", "verb", "settings", "resources"), ORDER),
    Mutation("a key too much", BAD, _order(then="rm"), "then"),
    Mutation("unknown verb", BAD, _order(verb="fintune"), ORDER),
    Mutation("another verb", BAD, _order(verb="search", settings={}), "no order for"),
    Mutation("a setting of a wrong type", BAD, _json(ORDER, lambda order: order["settings"].update(epochs="many")), "epochs"),
    Mutation("an unknown setting", BAD, _json(ORDER, lambda order: order["settings"].update(epoch=1)), "epoch"),
    Mutation("settings a list", BAD, _order(settings=[]), "settings"),
    Mutation("step a path", BAD, _order(step="../../x"), "no order for"),
    Mutation("run a path", NOTHING, _order(run="../../x"), "there is no run"),
    Mutation("run a path, and a pipeline", BAD, _order(run="../../x", pipeline={"name": "a", "steps": {}}), "no name of a run"),
    Mutation("attempt a path", BAD, _order(attempt="../1"), "attempt"),
    Mutation("a ref for what takes none", BAD, _order(refs={"epochs": "hf://a/b"}), "no order for"),
    Mutation("inputs a text", BAD, _order(inputs="base"), "inputs"),
    Mutation("too many accelerators", BAD, _order(resources={"gpus": 1000}), "gpus"),
]
