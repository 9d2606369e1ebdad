"""The model card: what hubs read of it, what people read in it, and what never gets into it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from modelyard import refs
from modelyard.hubs import card as hub_card
from modelyard.refs import HubRef
from modelyard.yard import Action, Artifact, Decision
from modelyard_jobs.card import LICENCES, Facts, Measured, front_matter, readme
from modelyard_jobs.provenance import Licence, Provenance, Source

COMMIT = "c0ffee" * 6 + "c0ff"
BASE, DATA, TUNED, ONNX, SCORE = (letter * 64 for letter in "12345")


def metric(value: float, n: int = 2000, interval: str = "wilson") -> dict[str, Any]:
    return {"value": value, "low": value - 0.017, "high": value + 0.016, "n": n, "interval": interval}


def difference() -> dict[str, Any]:
    return {"value": -0.002, "low": -0.0071, "high": 0.0031, "n": 500}


def document(labels: tuple[str, ...] = ("negative", "positive")) -> dict[str, Any]:
    scores = {"precision": metric(0.84), "recall": metric(0.8), "f1": metric(0.82, interval="bootstrap")}
    return {
        "split": "test",
        "rows": {"split": 25000, "usable": 25000, "evaluated": 2000, "faults": {}, "seed": 42},
        "metrics": {"accuracy": metric(0.8155), "f1_macro": metric(0.8153, interval="bootstrap")},
        "classes": [{"label": label, "support": 1000, "predicted": 990, **scores} for label in labels],
        "baseline": {"label": labels[0], "accuracy": metric(0.5)},
        "truncated": {"rows": 212, "share": 0.106, "max_length": 256},
        "overlap": {"split": "train", "rows": 9, "share": 0.0045},
    }


def artifact(digest: str) -> Artifact:
    return Artifact(digest, "model", "safetensors", Path("/somewhere/else"), ())


def training(**settings: Any) -> Action:
    given = {
        "model": "base",
        "data": "reviews",
        "task": "text-classification",
        "epochs": 2,
        "learning_rate": 2e-5,
        "label": None,
        "max_length": 256,
        "checkpoint_every": 60,
    }
    return Action(
        key="a" * 64,
        verb="finetune",
        artifact=TUNED,
        settings={**given, **settings},
        versions={"torch": "2.15.0", "transformers": "5.23.0", "onnxruntime": "absent"},
        decisions={"dtype": Decision(value="float32", reason="cpu"), "best_epoch": Decision(value=2, reason="validation")},
        details={"rows": {"split": 25000, "train": 1000, "validation": 1000}, "environment": {"device": "a machine by name"}},
        attempt="a-run-r1.tuned.1",
    )


def facts(**other: Any) -> Facts:
    parity = {
        "rows": 500,
        "max_abs": 3.1e-6,
        "max_rel": 1e-6,
        "scale": 4.25,
        "answers": 500,
        "unit": "label",
        "output": "logits",
        "agreement": 1.0,
        "close": 0,
        "flipped": 0,
        "tolerance": 4.25e-4,
    }
    accuracy = {name: metric(0.81, 500) for name in ("torch", "onnx", "int8")}
    int8 = {
        "kept": True,
        "why": "99.2% of the labels are float32's",
        "agreement": 0.992,
        "metric": "accuracy",
        "scores": accuracy,
        "difference": difference(),
        "size": 1,
    }
    data = Source(DATA, "modelscope://datasets/stanfordnlp/imdb", COMMIT)
    traced = Provenance(
        model=artifact(ONNX),
        weights=artifact(TUNED),
        origin=Source(TUNED),
        base=Source(BASE, "modelscope://AI-ModelScope/distilbert-base-uncased@master", COMMIT),
        data=data,
        training=training(),
        export=Action(
            key="b" * 64,
            verb="export",
            artifact=ONNX,
            settings={"split": "test", "rows": 500},
            details={"parity": parity, "int8": int8, "speed": {"a": 1}},
        ),
        licence=Licence("apache-2.0", "README.md"),
        languages=("en",),
    )
    given = Facts(
        to=HubRef("modelscope", "model", "me", "movie-sentiment"),
        version="1.2.3",
        task="text-classification",
        labels=["negative", "positive"],
        provenance=traced,
        licence=traced.licence,
        paths=["config.json", "model.safetensors", "onnx/model.onnx", "onnx/model_int8.onnx"],
        measured=Measured(SCORE, document(), data, TUNED, "torch"),
        gate={
            "passed": True,
            "lines": [
                {"metric": "accuracy", "at_least": 0.8, "sure": False},
                {"metric": "accuracy", "at_least": -0.01, "sure": False, "difference": True},
            ],
        },
    )
    provenance = {name: other.pop(name) for name in list(other) if name in Provenance.__dataclass_fields__ and name != "licence"}
    return replace(given, provenance=replace(traced, **provenance), **other)


def test_both_hubs_read_the_front_matter() -> None:
    found = ModelCard(readme(facts())).data
    told = {name: getattr(found, name) for name in ("license", "language", "library_name", "pipeline_tag", "base_model", "datasets", "metrics")}
    assert told == {
        "license": "apache-2.0",
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "base_model": "AI-ModelScope/distilbert-base-uncased",
        "datasets": ["stanfordnlp/imdb"],
        "metrics": ["accuracy", "f1"],
    }
    results = [
        (each.task_type, each.dataset_type, each.dataset_split, each.metric_type, each.metric_name, each.metric_value) for each in found.eval_results
    ]
    assert results == [
        ("text-classification", "stanfordnlp/imdb", "test", "accuracy", "accuracy", 0.8155),
        ("text-classification", "stanfordnlp/imdb", "test", "f1", "f1_macro", 0.8153),
    ]
    front = front_matter(facts())
    assert (front["tasks"], front["frameworks"]) == (["text-classification"], ["pytorch"])
    ours = hub_card.read({"README.md": readme(facts()).encode()}.get)
    assert (ours.licence, ours.task, ours.languages) == ("apache-2.0", "text-classification", ("en",))


def test_boxes_that_nobody_found_are_not_equal() -> None:
    made = facts()
    export = made.provenance.export
    parity = {**export.details["parity"], "unit": "box", "answers": 0}
    text = readme(replace(made, provenance=replace(made.provenance, export=export.model_copy(update={"details": {"parity": parity}}))))
    assert "(tolerated are 4.2e-04; the largest is 4.25), and neither gave a box that could be compared." in text
    assert "are equal" not in text


def test_people_read_values_with_intervals_rows_and_digests() -> None:
    text = readme(facts())
    for part in (
        "| `accuracy` | 0.8155 | 0.7985 to 0.8315 | 2000 | wilson |",
        "2000 of 25000 rows, a sample with seed 42",
        "Always answering `negative` would reach an accuracy of 0.5000.",
        "212 of the rows (10.6%) were cut at 256 tokens",
        "**9 (0.4%)** also stand in the split `train`",
        "1000 of 25000 rows of train; 1000 to choose the epoch by",
        "| `learning_rate` | `2e-05` |",
        'truncation=True, max_length=256, return_tensors="np")',
        "the logits differ by 3.1e-06 at most",
        "100.00% of the labels are equal",
        "8-bit weights are in `onnx/model_int8.onnx`: 99.2% of the labels are float32's.",
        "| int8 less onnx, paired | -0.0020 | -0.0071 to 0.0031 | 500 |",
        "gate: `accuracy` at least 0.8; `accuracy` less that of the model before it at least -0.01.",
        "With torch 2.15.0, transformers 5.23.0.",
        f"finetuned from `AI-ModelScope/distilbert-base-uncased` (ModelScope, commit `{COMMIT[:12]}`) on `stanfordnlp/imdb`",
        f"`modelscope://AI-ModelScope/distilbert-base-uncased@master` at `{COMMIT}`",
        "Its accuracy is 0.8155 (0.7985 to 0.8315), measured on 2000 rows.",
        "The weights of this repository were measured, run by `torch`.",
        "Made by modelyard 1.2.3",
        *(f"`{digest}`" for digest in (BASE, DATA, TUNED, ONNX, SCORE)),
    ):
        assert part in text, part


def test_the_same_facts_give_the_same_bytes_and_no_machine_is_named() -> None:
    text = readme(facts())
    assert text == readme(facts())
    for word in ("/somewhere", "a machine", "a-run-r1", "checkpoint_every", "onnxruntime absent", "`None`", "null"):
        assert word not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("My Licence 1.0", {"license": "other", "license_name": "My Licence 1.0"}),
        (None, {}),
    ],
)
def test_a_licence_is_one_of_the_hubs_or_named_or_absent(name: str | None, expected: dict[str, str]) -> None:
    front = front_matter(facts(licence=Licence(name, "the step")))
    assert {key: value for key, value in front.items() if key.startswith("license")} == expected
    assert "apache-2.0" in LICENCES


def test_an_unknown_licence_is_said_to_be_unknown() -> None:
    traced = replace(facts().provenance, licence=Licence(None, ""))
    text = readme(replace(facts(licence=Licence(None, "")), provenance=traced))
    assert "The base model's licence is not known" in text
    text = readme(replace(facts(licence=Licence("mit", "the step")), provenance=traced))
    assert "`mit`, as whoever published it says. The base model's licence is not known" in text


def test_paths_of_this_machine_have_no_place_in_the_front_matter() -> None:
    own = Source(DATA, "reviews.csv")
    given = facts(data=own, base=Source(BASE, "yard://models/reviews@champion"), measured=Measured(SCORE, document(), own, TUNED))
    front = front_matter(given)
    assert {"base_model", "datasets"}.isdisjoint(front)
    assert front["model-index"][0]["results"][0]["dataset"] == {"type": "unknown", "name": "reviews.csv", "split": "test"}
    assert "| training | `reviews.csv` |" in readme(given)


def test_what_is_not_known_is_left_out() -> None:
    given = facts(
        base=None, data=None, training=None, export=None, languages=(), measured=None, gate=None, labels=[], task=None, paths=["config.json"]
    )
    text = readme(given)
    front = yaml.safe_load(text.split("---")[1])
    assert set(front) == {"license", "library_name", "frameworks", "tags"}
    assert "nothing is known of how good it is" in text
    for word in ("onnx", "How it was trained", "## Data", "None"):
        assert word not in text


def test_it_says_whether_the_weights_or_the_export_were_measured() -> None:
    data = facts().provenance.data
    text = readme(facts(measured=Measured(SCORE, document(), data, ONNX, "onnx-int8")))
    assert "The export of this repository was measured, run by `onnx-int8`." in text


def test_int8_that_was_refused_is_told_with_its_figures() -> None:
    given = facts()
    export = given.provenance.export
    assert export
    details = {**export.details, "int8": {**export.details["int8"], "kept": False, "why": "91.0% of the labels are float32's; 98% are asked for"}}
    text = readme(facts(export=export.model_copy(update={"details": details})))
    assert "8-bit weights were tried and refused: 91.0% of the labels" in text
    assert "model_int8.onnx" not in text


HOSTILE = "</td><script>alert(1)</script> `| --- |\n# heading\n[x](javascript:y)"


def test_labels_and_refs_of_others_cannot_be_markup() -> None:
    given = facts(labels=[HOSTILE, "b"], data=Source(DATA, HOSTILE), measured=Measured(SCORE, document((HOSTILE, "b")), None, TUNED))
    lines = readme(given).splitlines()
    assert "# heading" not in lines
    shown = [line for line in lines if "<script>" in line]
    assert len(shown) >= 3
    for line in shown:
        inside = line.split("`")[1::2]  # an even number of backticks: what is between them is code
        assert line.count("`") % 2 == 0
        assert sum("<script>" in part for part in inside) == line.count("<script>")
        assert line.startswith("|") == (" | " in line)


def test_a_backslash_before_a_bar_does_not_open_a_cell() -> None:
    label = "x\\|[free](https://evil.example)"
    text = readme(facts(measured=Measured(SCORE, document((label, "b")), None, TUNED)))
    row = next(line for line in text.splitlines() if line.startswith("| `x"))
    head = next(line for line in text.splitlines() if line.startswith("| label |"))
    assert row.count("|") == head.count("|")
    assert "[free]" in row.split("`")[1]


def test_a_label_that_is_no_text_does_not_break_the_card() -> None:
    assert "`bad?`" in readme(facts(labels=["bad\ud800", "b"])).encode().decode()


def test_the_card_shows_how_to_load_it_from_its_own_hub() -> None:
    assert "from modelscope import snapshot_download" in readme(facts())
    text = readme(facts(to=refs.parse("hf://me/movie-sentiment")))
    assert "from huggingface_hub import snapshot_download" in text
    assert "from modelscope" not in text
    for block in text.split("```python\n")[1:]:
        compile(block.split("```")[0], "card", "exec")


TASKS = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_called_loaded_and_fed_by_its_own_names(task: str) -> None:
    given = facts(task=task, labels=[], measured=None)
    front, text = front_matter(given), readme(given)
    assert front["pipeline_tag"] == task
    assert front["tasks"] == [{"object-detection": "image-object-detection"}.get(task, task)]
    blocks = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) == (1 if task == "text-generation" else 2), "a graph of a language model has no cache: it does not generate"
    assert f"{TASKS[task]}.from_pretrained(folder)" in blocks[0]
    for block in blocks:
        compile(block, "card", "exec")
        assert ("Image.open" in block) == (task in ("image-classification", "object-detection"))
    assert ("images like those" in text) == (task in ("image-classification", "object-detection"))
    assert ("text-classification" in text) == (task == "text-classification") or "| `task` | `text-classification` |" in text


def test_a_word_has_the_label_of_its_first_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The block is run; what it imports is replaced by something that cuts words into pieces, each with a label of its own."""

    class Pieces(dict[str, Any]):
        def word_ids(self) -> list[int | None]:
            return [None, 0, 0, 1, 2, 3, 3, 3, 4, None]

    class Loaded:
        config = SimpleNamespace(id2label={place: f"label {place}" for place in range(10)})

        @classmethod
        def from_pretrained(cls, _: str) -> Loaded:
            return cls()

        def __call__(self, *words: list[str], **_: Any) -> Any:
            return Pieces() if words else SimpleNamespace(logits=[np.eye(10)])

    transformers = SimpleNamespace(AutoTokenizer=Loaded, AutoModelForTokenClassification=Loaded)
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    monkeypatch.setitem(sys.modules, "modelscope", SimpleNamespace(snapshot_download=str))
    text = readme(facts(task="token-classification", labels=[], measured=None))
    exec(text.partition("```python\n")[2].partition("```")[0], {})
    words = ("Ada", "Lovelace", "lives", "in", "London")
    assert capsys.readouterr().out.strip() == str([(word, f"label {place}") for word, place in zip(words, (1, 3, 4, 5, 8), strict=True)])


@pytest.mark.parametrize(
    ("metric", "word"),
    [("f1_macro", "f1"), ("accuracy_top5", "accuracy"), ("log_likelihood", "log_likelihood"), ("token_accuracy", "token_accuracy"), ("ap50", "ap50")],
)
def test_a_metric_has_its_own_word(metric: str, word: str) -> None:
    measured = {**document(), "main": metric, "metrics": {metric: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 5}}}
    assert front_matter(facts(measured=Measured(SCORE, measured, None, TUNED)))["metrics"] == [word]


def test_a_chat_is_asked_by_its_template() -> None:
    assert "apply_chat_template" not in readme(facts(task="text-generation"))
    assert "apply_chat_template(chat" in readme(facts(task="text-generation", chats=True))


def test_boxes_and_spans_are_told_by_their_own_metrics() -> None:
    found = document()
    ap = {name: metric(0.41, 60, "bootstrap") for name in ("ap", "ap50")}
    boxes = {
        **found,
        "main": "map",
        "metrics": {"map": metric(0.41, 60)},
        "baseline": None,
        "classes": [{"label": "bag", "boxes": 90, "images": 41, **ap}],
    }
    text = readme(facts(task="object-detection", measured=Measured(SCORE, boxes, None, TUNED)))
    assert "Its map is 0.4100 (0.3930 to 0.4260), measured on 60 rows." in text
    assert "| label | boxes | ap | ap50 |" in text
    assert "| `bag` | 90 | 0.4100 (0.3930 to 0.4260) | 0.4100 (0.3930 to 0.4260) |" in text
    spans = {**found, "main": "f1_macro"}
    assert "| label | spans | precision | recall | f1 |" in readme(facts(task="token-classification", measured=Measured(SCORE, spans, None, TUNED)))


def test_8_bits_that_could_not_be_made_are_told_without_figures() -> None:
    given = facts()
    export = given.provenance.export
    assert export
    details = {**export.details, "int8": {"kept": False, "why": "it cannot be quantized: no such operator"}}
    text = readme(facts(export=export.model_copy(update={"details": details})))
    assert "8-bit weights were tried and refused: it cannot be quantized: no such operator." in text
