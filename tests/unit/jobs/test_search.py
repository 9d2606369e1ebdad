"""search: hubs are asked at once, their answers merged; one that gives none takes nothing from the others."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modelyard import hubs
from modelyard.errors import Failure, NoPermission, Unavailable
from modelyard.hubs import Found, Query
from modelyard.refs import HUB_NAMES, HubRef
from modelyard.steps import Search
from modelyard.yard import Yard
from modelyard_jobs import search
from modelyard_jobs.atonce import at_once
from tests.steps.fake import FakeContext


class Shelf:
    """A hub in memory: what it has, or why it does not say."""

    def __init__(self, answer: list[Found] | Failure) -> None:
        self.answer = answer
        self.asked: list[Query] = []

    def search(self, query: Query) -> list[Found]:
        self.asked.append(query)
        if isinstance(self.answer, Failure):
            raise self.answer
        return self.answer


def found(ref: str, **facts: Any) -> Found:
    scheme, _, path = ref.partition("://")
    owner, _, name = path.partition("/")
    return Found(HubRef(scheme, "model", owner, name), **facts)  # type: ignore[arg-type]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def look(shelves: Mapping[str, Shelf], **settings: Any) -> tuple[Any, Failure | None]:
        monkeypatch.setattr(hubs, "open_hub", lambda scheme, addresses: shelves[HUB_NAMES[scheme]])
        context = FakeContext(Search(**settings), {}, Yard.open(tmp_path / "yard"), tmp_path)
        failure = None
        try:
            assert search.run(context).kind is None
        except Failure as raised:
            failure = raised
        return next((message["value"] for message in context.said if message["type"] == "result"), None), failure

    return look


def test_answers_are_merged_in_the_order_asked_for(look: Any) -> None:
    scope = Shelf([found("modelscope://o/a", downloads=5, size=10, gated=True), found("modelscope://o/b", downloads=None)])
    face = Shelf([found("hf://o/c", downloads=7, updated="2026-02-01"), found("hf://o/d", downloads=1)])
    result, failure = look({"modelscope": scope, "huggingface": face}, query="senti", task="text-classification", limit=5)
    assert failure is None
    assert [row["ref"] for row in result["found"]] == ["hf://o/c", "modelscope://o/a", "hf://o/d", "modelscope://o/b"]
    assert result["found"][1] == {
        "ref": "modelscope://o/a",
        "task": None,
        "size": 10,
        "licence": None,
        "downloads": 5,
        "updated": None,
        "gated": True,
        "private": None,
    }
    assert (result["query"]["query"], result["unanswered"]) == ("senti", [])
    assert scope.asked == face.asked == [Query("senti", "model", None, "text-classification", None, "downloads", 5)]


def test_the_last_updated_first(look: Any) -> None:
    shelf = Shelf(
        [found("modelscope://o/a"), found("modelscope://o/b", updated="2025-12-31"), found("modelscope://o/c", updated="2026-01-01T00:00:00Z")]
    )
    result, _ = look({"modelscope": shelf}, hub=("modelscope",), sort="updated")
    assert [row["ref"][-1] for row in result["found"]] == ["c", "b", "a"]


def test_a_ref_that_comes_twice_counts_once_and_more_than_asked_for_is_cut(look: Any) -> None:
    shelf = Shelf([found("modelscope://o/a", downloads=9), found("modelscope://o/a", downloads=9), found("modelscope://o/b", downloads=1)])
    result, _ = look({"modelscope": shelf}, hub=("modelscope", "modelscope"), limit=2)
    assert [row["ref"] for row in result["found"]] == ["modelscope://o/a"]
    assert len(shelf.asked) == 1


def test_a_hub_that_gives_no_answer_is_a_row(look: Any) -> None:
    silent = Shelf(Unavailable("the hub does not answer", why="connection refused", remedy="look at it"))
    result, failure = look({"modelscope": silent, "huggingface": Shelf([found("hf://o/c")])})
    assert failure is None
    assert [row["ref"] for row in result["found"]] == ["hf://o/c"]
    assert result["unanswered"] == [{"hub": "modelscope", "what": "the hub does not answer: connection refused", "remedy": "look at it"}]


def test_when_none_answers_the_step_fails_as_the_first_did(look: Any) -> None:
    shelves = {"huggingface": Shelf(NoPermission("no")), "modelscope": Shelf(Unavailable("gone"))}
    result, failure = look(shelves, hub=("huggingface", "modelscope"))
    assert isinstance(failure, NoPermission)
    assert [row["hub"] for row in result["unanswered"]] == ["huggingface", "modelscope"]
    assert result["found"] == []


def test_offline_no_hub_is_asked(look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_OFFLINE", "1")
    shelf = Shelf([found("modelscope://o/a")])
    result, failure = look({"modelscope": shelf, "huggingface": shelf})
    assert isinstance(failure, Unavailable)
    assert (result, shelf.asked) == (None, [])


def test_an_error_of_ours_is_not_taken_for_a_silent_hub(look: Any) -> None:
    class Broken(Shelf):
        def search(self, query: Query) -> list[Found]:
            raise KeyError("data")

    with pytest.raises(KeyError):
        look({"modelscope": Broken([]), "huggingface": Shelf([])})


def test_who_does_not_answer_in_time_is_unavailable() -> None:
    never, met = threading.Event(), threading.Barrier(2)
    answers = at_once({"never": lambda: str(never.wait(60)), "now": lambda: "here"}, 0.05)
    assert answers["now"] == "here"
    assert isinstance(answers["never"], Unavailable)
    never.set()
    assert at_once(dict.fromkeys(("a", "b"), met.wait), 60).keys() == {"a", "b"}, "they wait for each other: both are asked at once"
