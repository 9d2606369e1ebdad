"""Objects that lack what an API server leaves out, or hold what nobody expects: an answer, or a failure with a name, and never a traceback."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from modelyard.errors import Corrupt, NoInput
from modelyard.kube.cluster import Manifest
from modelyard.kube.diagnose import diagnose
from modelyard.kube.diagnosis import CATEGORIES, LONGEST, Diagnosis
from modelyard.kube.facts import LIMIT, gather

from . import objects
from .objects import RUN
from .test_diagnose import ROWS

SEED, ROUNDS = 6, 300
KEPT = {("kind",), ("metadata",), ("metadata", "name")}
"""What no server leaves out."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for at, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, at)
        yield from places(one, (*path, at))


def mutate(chance: random.Random, one: Manifest) -> str:
    """Leave out one key of an object, or write into it what is empty or strange; what was done."""
    path = chance.choice([path for path in places(one) if path not in KEPT] or [("spec",)])
    one.setdefault(path[0], {})
    parent = one
    for part in path[:-1]:
        parent = parent[part]
    old = parent[path[-1]]
    kind = chance.choice(["left out", "null", "other"])
    if kind == "left out":
        del parent[path[-1]]
    elif kind == "null":
        parent[path[-1]] = None
    else:
        strange: Sequence[Any] = ["", "x", "\x1b[2J", "{", "1e400", "[" * 4096, '{"category": "\\ud800"}', "y" * 100_000]
        empty = {dict: {}, list: [], int: chance.choice([0, 1 << 40]), bool: not old}
        parent[path[-1]] = chance.choice(strange) if isinstance(old, str) else empty.get(type(old))
    return f"{one['kind']}{list(path)} {kind}"


def answer(chance: random.Random) -> tuple[list[str], Diagnosis | None]:
    row = chance.choice(list(ROWS.values()))
    found = [copy.deepcopy(one) for one in row.objects]
    did = [mutate(chance, chance.choice(found)) for _ in range(chance.randint(1, 3))]
    cluster = objects.cluster(*found)
    if chance.random() < 0.3:
        cluster.forbidden = {("list", "Node"), ("list", "Event")}
    try:
        told = diagnose(gather(cluster, chance.choice([RUN, None]), chance.choice([row.of, None])))
    except (NoInput, Corrupt):
        return did, None
    except Exception as error:
        raise AssertionError(f"{did}: {error!r}") from error
    assert cluster.requests <= LIMIT, did
    return did, told


def test_no_object_makes_a_traceback() -> None:
    chance = random.Random(SEED)
    categories: Counter[str] = Counter()
    for _ in range(ROUNDS):
        did, told = answer(chance)
        if told is None:
            continue
        assert told.category in CATEGORIES, did
        assert max([len(told.what), *(len(one.value) for one in told.evidence)]) <= 2 * LONGEST, did
        told.model_dump_json()
        categories[told.category] += 1
    assert categories.total() > ROUNDS * 0.8
    assert len(categories) > 40
