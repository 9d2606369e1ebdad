"""Rows that nobody would write on purpose, through whole steps: each ends with a class of the table that fits, or with an error at the row.

What is no Failure would be a bug with a traceback, and fails these tests by itself. Images have their own (tests/unit/jobs/test_opening_images.py).
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelyard.errors import BadData, Failure, NoInput
from modelyard.steps import Evaluate, Finetune, Infer
from modelyard.yard import Artifact, Yard
from modelyard_jobs import evaluate, finetune, infer
from tests.steps.fake import FakeContext, artifact
from tests.steps.tiny import WORDS, tiny_model

LABELS = ["bad", "good"]
STEPS: dict[str, tuple[Any, Any]] = {
    "infer": (infer.run, Infer(model="m", data="d", split="train", max_length=32)),
    "evaluate": (evaluate.run, Evaluate(model="m", data="d", split="train", max_length=32)),
    "finetune": (finetune.run, Finetune(model="m", data="d", max_length=32, epochs=1, batch_size=8, max_steps=2)),
}
ALL = tuple(STEPS)
LABELLED = ("evaluate", "finetune")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Yard, dict[str, Artifact]]:
    root = tmp_path_factory.mktemp("hostile")
    yard = Yard.open(root / "yard")
    return yard, {
        "trained": artifact(yard, "model", tiny_model(root / "trained", LABELS)),
        "base": artifact(yard, "model", tiny_model(root / "base", spread=0.1)),
    }


@pytest.fixture
def tried(models: tuple[Yard, dict[str, Artifact]], tmp_path: Path) -> Any:
    """tried(verb, files, model=…, **settings) -> the context of the step that came to its end, or the Failure that it ended with."""
    yard, found = models
    numbers = iter(range(100))

    def go(verb: str, files: Mapping[str, bytes | str], *, model: Artifact | None = None, **settings: Any) -> FakeContext | Failure:
        run, usual = STEPS[verb]
        inputs = {"model": model or found["base" if verb == "finetune" else "trained"], "data": artifact(yard, "dataset", files)}
        number = next(numbers)
        key = f"{abs(hash((str(tmp_path), number))):064x}"
        context = FakeContext(usual.model_copy(update=settings), inputs, yard, tmp_path / f"work-{number}", key=key)
        try:
            run(context)
        except Failure as failure:
            return failure
        return context

    return go


def rows(count: int = 60, **more: Any) -> list[dict[str, Any]]:
    """Rows that nothing is wrong with; more: a column's value, or a function of the row's number."""
    made = [{"text": f"{WORDS[number % 8]} film {WORDS[number % 7]} {number}", "label": LABELS[number % 2]} for number in range(count)]
    return [{**row, **{name: value(number) if callable(value) else value for name, value in more.items()}} for number, row in enumerate(made)]


def jsonl(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def parquet(values: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(values), buffer)
    return buffer.getvalue()


def csv(values: list[dict[str, Any]]) -> str:
    return "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in values)


def records(context: FakeContext) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.open()]


def done(found: FakeContext | Failure) -> FakeContext:
    assert isinstance(found, FakeContext), found
    return found


def failed(found: FakeContext | Failure, kind: type[Failure], *words: str) -> None:
    """The failure is of that class and says all of these."""
    assert isinstance(found, Failure), "it came to its end"
    assert type(found) is kind, repr(found)
    said = str(found)
    assert all(word in said for word in words), said
    assert found.exit_code in {65, 66}
    assert "Traceback" not in said


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize(
    ("name", "content"),
    [("train.csv", ""), ("train.csv", "text,label\n"), ("train.jsonl", ""), ("train.jsonl", "\n\n"), ("train.json", "[]"), ("train.parquet", "")],
)
def test_a_file_without_rows(tried: Any, verb: str, name: str, content: str) -> None:
    failed(tried(verb, {name: content}), BadData)


@pytest.mark.parametrize("verb", ALL)
def test_a_parquet_file_without_rows(tried: Any, verb: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), buffer)
    failed(tried(verb, {"train.parquet": buffer.getvalue()}), BadData)


def test_one_row(tried: Any) -> None:
    one = {"train.jsonl": jsonl(rows(1))}
    assert len(records(done(tried("infer", one)))) == 1
    document = json.loads((done(tried("evaluate", one)).out / "metrics.json").read_text())
    found = document["metrics"]["accuracy"]
    assert found["n"] == 1
    assert found["high"] - found["low"] > 0.5, "one row says next to nothing"
    failed(tried("finetune", one), BadData, "one label only")


@pytest.mark.parametrize("text", ["good " * 200_000, "g" * 1_000_000, "\u0928\u092e" * 500_000], ids=["words", "one word", "not ascii"])
def test_a_text_of_a_million_characters(tried: Any, text: str) -> None:
    values = rows(60)
    values[7]["text"] = text
    files = {"train.jsonl": jsonl(values)}
    found = records(done(tried("infer", files)))
    assert [record["row"] for record in found] == list(range(60))
    assert found[7]["label"] in LABELS
    assert found[7]["error"] is None
    assert found[7]["truncated"] is (text[0] == "g" and text[1] == "o"), "a word that no token stands for is one unknown token"
    if text.isascii():  # a tokenizer takes seconds for the others
        document = json.loads((done(tried("evaluate", files)).out / "metrics.json").read_text())
        assert document["rows"]["evaluated"] == 60
        done(tried("finetune", files))


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("name", ["train.csv", "train.jsonl"])
def test_a_file_that_is_no_utf8_names_the_line(tried: Any, verb: str, name: str) -> None:
    values = rows(20)
    values[4]["text"] = "caf\u00e9"
    text = csv(values) if name == "train.csv" else "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    line = 6 if name == "train.csv" else 5
    failed(tried(verb, {name: text.encode("latin-1")}), BadData, f"{name}:{line}", "0xe9 is not UTF-8")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("verb", ALL)
def test_a_file_in_another_encoding(tried: Any, verb: str, encoding: str) -> None:
    failed(tried(verb, {"train.csv": csv(rows(20)).encode(encoding)}), BadData, "train.csv")


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.parquet"])
@pytest.mark.parametrize("verb", LABELLED)
def test_a_label_that_is_missing_or_no_number(tried: Any, verb: str, name: str) -> None:
    values = rows(40, label=lambda number: float("nan") if number in {3, 9} else float(number % 2))
    content = {"train.jsonl": jsonl, "train.parquet": parquet, "train.csv": lambda rows: csv(rows).replace(",nan\n", ",\n")}[name](values)
    failed(tried(verb, {name: content}), BadData, "2 of 40 rows have no label", "3, 9")
    assert len(records(done(tried("infer", {name: content})))) == 40, "who needs no labels is not disturbed by them"


@pytest.mark.parametrize("verb", LABELLED)
@pytest.mark.parametrize(
    ("label", "says"),
    [
        (lambda number: 0.5 + number % 2, "holds no labels"),
        (lambda number: ["good"], "holds no labels"),
        (lambda number: {"name": "good"}, "holds no labels"),
        (None, "have no label"),
        ("good", "label"),
    ],
    ids=["fractions", "lists", "objects", "none", "one label"],
)
def test_labels_that_are_none(tried: Any, verb: str, label: Any, says: str) -> None:
    found = tried(verb, {"train.jsonl": jsonl(rows(40, label=label))})
    if verb == "evaluate" and label == "good":
        assert json.loads((done(found).out / "metrics.json").read_text())["rows"]["evaluated"] == 40
    else:
        failed(found, BadData, says)


def test_a_label_that_the_model_does_not_know(tried: Any) -> None:
    files = {"train.jsonl": jsonl(rows(40, label=lambda number: ["bad", "good", "ugly"][number % 3]))}
    failed(tried("evaluate", files), BadData, "not the model's", "ugly")
    done(tried("finetune", files))
    both = {"train.jsonl": jsonl(rows(40)), "validation.jsonl": jsonl(rows(6, label="ugly"))}
    failed(tried("finetune", both), BadData, "ugly")


@pytest.mark.parametrize("verb", ALL)
def test_duplicate_ids_and_rows(tried: Any, verb: str) -> None:
    """Nothing of ours is found by a column named `id`: rows are known by where they stand, and equal rows are rows."""
    values = rows(40, id=7, row=3, error="none of yours", index=lambda number: number % 3)
    context = done(tried(verb, {"train.jsonl": jsonl([*values, *values])}, text="text"))
    if verb == "infer":
        found = records(context)
        assert [record["row"] for record in found] == list(range(80))
        assert [record["label"] for record in found[:40]] == [record["label"] for record in found[40:]]
    if verb == "evaluate":
        assert [json.loads(line)["row"] for line in (context.out / "predictions.jsonl").open()] == list(range(80))
    if verb == "finetune":
        counts = context.details["rows"]
        assert counts["train"] + counts["validation"] == 80
        assert counts["validation"] % 2 == 0, "equal rows fall on the same side"


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize(
    "text",
    [
        lambda number: number if number % 2 else "good",
        lambda number: {"a": 1} if number % 2 else "good",
        lambda number: ["good"] if number % 2 else "good",
        lambda number: True if number % 2 else 1.5,
    ],
    ids=["numbers", "objects", "lists", "no strings"],
)
def test_a_column_of_mixed_types(tried: Any, verb: str, text: Any) -> None:
    allowed = {"max_error_rate": 0.5} if verb == "evaluate" else {}
    found = tried(verb, {"train.jsonl": jsonl(rows(40, text=text))}, text="text", **allowed)
    if verb == "evaluate" and isinstance(found, FakeContext):
        assert json.loads((found.out / "metrics.json").read_text())["rows"]["evaluated"] == 20, "those that are strings"
    else:
        failed(found, BadData)


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("value", [1, True, ["good"], {"a": "good"}, None, "", " \n\t"], ids=repr)
def test_a_column_that_holds_no_text_at_all(tried: Any, verb: str, value: Any) -> None:
    failed(tried(verb, {"train.jsonl": jsonl(rows(40, text=value))}, text="text"), BadData, "40")


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.9, 0.999])
def test_a_parquet_file_that_is_cut_short(tried: Any, verb: str, where: float) -> None:
    whole = parquet(rows(500))
    failed(tried(verb, {"train.parquet": whole[: int(len(whole) * where)]}), BadData, "train.parquet")


@pytest.mark.parametrize("verb", ALL)
def test_a_parquet_file_with_a_byte_changed(tried: Any, verb: str) -> None:
    whole = bytearray(parquet(rows(500)))
    whole[-8:-4] = b"\xff\xff\xff\x7f"  # the length of what describes it
    failed(tried(verb, {"train.parquet": bytes(whole)}), BadData, "train.parquet")


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("name", ["train.jsonl", "train.json", "train.csv"])
def test_a_file_of_another_kind(tried: Any, verb: str, name: str) -> None:
    failed(tried(verb, {name: parquet(rows(50))}), BadData, name)
    failed(tried(verb, {"train.parquet": csv(rows(50))}), BadData, "train.parquet")


@pytest.mark.parametrize("verb", ALL)
def test_a_line_that_is_cut(tried: Any, verb: str) -> None:
    failed(tried(verb, {"train.jsonl": jsonl(rows(30))[:-20]}), BadData, "train.jsonl:30")


@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("value", ["[" * 100000, "1" * 5000, "[" * 5000 + "]" * 5000], ids=["brackets", "digits", "depth"])
def test_a_value_that_the_reader_gives_up_on(tried: Any, verb: str, value: str) -> None:
    files = {"train.jsonl": jsonl(rows(3)) + '{"text": ' + value + ', "label": "bad"}\n' + jsonl(rows(20, text=["good"]))}
    failed(tried(verb, files), BadData, "train.jsonl:4", "cannot be read")


@pytest.mark.parametrize("verb", ALL)
def test_columns_that_are_not_there(tried: Any, verb: str) -> None:
    files = {"train.jsonl": jsonl([{"a": "good", "b": "bad", "c": 1}] * 20)}
    failed(tried(verb, files), NoInput, "a, b, c")
    failed(tried(verb, {"train.jsonl": jsonl(rows(20))}, text="txet"), NoInput, "txet", "text")


@pytest.mark.parametrize("verb", ALL)
def test_files_that_differ_in_their_columns(tried: Any, verb: str) -> None:
    files = {"train-00000-of-00002.jsonl": jsonl(rows(20)), "train-00001-of-00002.jsonl": jsonl([{"other": "good"}] * 5)}
    failed(tried(verb, files), BadData, "differ in their columns")


@pytest.mark.parametrize(
    "text", ["\x00", "\ufeffgood", "good\u2028film", "\U0001f600" * 9, "\ud83d\ude00 नमस्ते", "a\u0301" * 200, "\u202egood"], ids=ascii
)
def test_strange_characters_are_text(tried: Any, text: str) -> None:
    values = rows(60)
    values[5]["text"] = text
    found = records(done(tried("infer", {"train.jsonl": jsonl(values)})))
    assert [record["row"] for record in found] == list(range(60))
    assert found[5]["label"] in LABELS
    assert json.loads((done(tried("evaluate", {"train.jsonl": jsonl(values)})).out / "metrics.json").read_text())["rows"]["evaluated"] == 60


@pytest.mark.parametrize("verb", ALL)
def test_half_a_character(tried: Any, verb: str) -> None:
    """A lone surrogate can be written in JSON, and is no character: the file cannot be read, or the row cannot be used."""
    values = rows(60)
    values[5]["text"] = "good \ud83d"
    found = tried(verb, {"train.jsonl": jsonl(values)})
    if isinstance(found, Failure):
        failed(found, BadData, "train.jsonl")
    elif verb == "infer":
        assert [record["row"] for record in records(found)] == list(range(60))


def test_a_few_rows_without_text_are_errors_of_theirs(tried: Any) -> None:
    values = rows(60)
    for number, text in {3: None, 8: "", 21: "  \n"}.items():
        values[number]["text"] = text
    files = {"train.jsonl": jsonl(values)}
    found = records(done(tried("infer", files)))
    assert {record["row"]: record["error"]["what"] for record in found if record["error"]} == {
        3: "the text is missing",
        8: "the text is empty",
        21: "the text is empty",
    }
    document = json.loads((done(tried("evaluate", files)).out / "metrics.json").read_text())
    assert (document["rows"]["evaluated"], document["rows"]["faults"]) == (57, {"the text is missing": 1, "the text is empty": 2})
    counts = done(tried("finetune", files)).details["rows"]
    assert counts["train"] + counts["validation"] == 57


def test_more_of_them_than_allowed_fail_the_step_with_counts(tried: Any) -> None:
    values = rows(60, text=lambda number: None if number % 5 == 0 else "" if number % 5 == 1 else "good film")
    files = {"train.jsonl": jsonl(values)}
    failed(tried("infer", files), BadData, "24 of 60 rows", "the text is missing: 12", "the text is empty: 12", "max_error_rate 0.1")
    assert len(records(done(tried("infer", files, max_error_rate=0.4)))) == 60
    failed(tried("infer", files, max_error_rate=0.39), BadData, "24 of 60")
    failed(tried("infer", {"train.jsonl": jsonl([*rows(20), {"text": None, "label": "bad"}])}, max_error_rate=0.0), BadData, "1 of 21")
    failed(tried("evaluate", files), BadData, "24 of 60 rows", "the text is missing: 12", "the text is empty: 12", "max_error_rate 0.1")
    assert json.loads((done(tried("evaluate", files, max_error_rate=0.4)).out / "metrics.json").read_text())["rows"]["evaluated"] == 36


@pytest.mark.parametrize("verb", ["infer", "evaluate"])
def test_the_rate_of_errors_is_that_which_is_written(tried: Any, verb: str) -> None:
    """29 of 100 are not more than 0.29, though 100 times the float 0.29 is a hair less than 29."""
    files = {"train.jsonl": jsonl(rows(100, text=lambda number: None if number < 29 else "good"))}
    done(tried(verb, files, max_error_rate=0.29))
    failed(tried(verb, files, max_error_rate=0.28), BadData, "29 of 100")


@pytest.mark.parametrize("verb", ["infer", "evaluate"])
def test_half_a_character_in_a_label_of_the_model(tried: Any, models: Any, tmp_path: Path, verb: str) -> None:
    yard, found = models
    half = tmp_path / "half"
    shutil.copytree(found["trained"].path, half)
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps({**config, "id2label": {"0": "\ud83d", "1": "good"}, "label2id": {"\ud83d": 0, "good": 1}}))
    values = rows(20, label="good")
    context = done(tried(verb, {"train.jsonl": jsonl(values)}, model=artifact(yard, "model", half)))
    written = records(context) if verb == "infer" else [json.loads(line) for line in (context.out / "predictions.jsonl").open(encoding="utf-8")]
    assert {record["label" if verb == "infer" else "predicted"] for record in written} <= {"\ud83d", "good"}
    assert len(written) == 20


def test_too_many_errors_end_the_step_as_soon_as_that_is_certain(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelyard_jobs.engine import Engine
    from modelyard_jobs.tasks.text_classification import TextClassification

    monkeypatch.setattr(TextClassification, "window", 10)
    answer, asked = Engine.answer, []
    monkeypatch.setattr(Engine, "answer", lambda self, items, tick: (asked.append(len(items)), answer(self, items, tick))[1])
    values = rows(200, text=lambda number: None if 20 <= number < 60 else "good")
    failed(tried("infer", {"train.jsonl": jsonl(values)}), BadData, "rows cannot be used so far")
    assert sum(asked) == 50, "21 of 200 are more than a tenth"
