"""Pipelines: what is accepted, what is said about the rest, and what their digest depends on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from modelyard import document, spec
from modelyard.errors import Usage
from modelyard.spec import Pipeline
from modelyard.steps import STEPS, Evaluate, Export, Fetch, Finetune, Infer, Resources, Step

GOOD = """
name: movie-sentiment
resources: {gpus: 1, memory: 16Gi}
steps:
  reviews:
    fetch: {dataset: modelscope://datasets/OWNER/imdb}
  tuned:
    finetune:
      model: modelscope://AI-ModelScope/distilbert-base-uncased
      data: reviews
      epochs: 2
      learning_rate: 5e-5
      checkpoint_every: 2m
    resources: {memory: 24Gi}
  score:
    evaluate: {model: tuned, data: reviews, rows: 2000}
"""


def load(text: str) -> Pipeline:
    return spec.from_document(document.parse(text, "f.yaml"), base=Path("/base"))


def test_a_ref_as_input_becomes_a_fetch_step_once_per_ref() -> None:
    pipeline = load(GOOD + "  other:\n    infer: {model: modelscope://AI-ModelScope/distilbert-base-uncased, data: reviews}\n")
    fetched = [name for name in pipeline.steps if name.startswith("fetch-")]
    assert len(fetched) == 1
    assert pipeline.steps[fetched[0]] == Fetch(model="modelscope://AI-ModelScope/distilbert-base-uncased")
    assert pipeline.inputs("tuned") == {"model": fetched[0], "data": "reviews"}
    assert pipeline.inputs("other")["model"] == fetched[0]


def test_settings_arrive_as_typed_values() -> None:
    tuned = load(GOOD).steps["tuned"]
    assert isinstance(tuned, Finetune)
    assert (tuned.epochs, tuned.learning_rate, tuned.checkpoint_every) == (2, 5e-5, 120)


def test_a_steps_resources_stand_in_place_of_the_pipelines() -> None:
    pipeline = load(GOOD)
    assert pipeline.resources_of("tuned") == Resources(gpus=1, memory="24Gi")
    assert pipeline.resources_of("score") == Resources(gpus=1, memory="16Gi")


def test_a_step_that_does_not_compute_takes_nothing_of_what_the_pipeline_says_of_size() -> None:
    assert load(GOOD).resources_of("reviews") == Resources()
    beside = Fetch(dataset="hf://datasets/me/rows", resources=Resources(memory="2Gi"))
    pipeline = Pipeline("rows", {"reviews": beside}, Resources(gpus=1, memory="16Gi", cpu=8, queue="night"))
    assert pipeline.resources_of("reviews") == Resources(memory="2Gi", queue="night")


def test_an_export_has_the_pipelines_memory_and_no_accelerator() -> None:
    step = Export(model="hf://me/model", parity="hf://datasets/me/rows")
    assert Pipeline("onnx", {"onnx": step}, Resources(gpus=1, memory="16Gi")).resources_of("onnx") == Resources(memory="16Gi")


def test_accelerator_none_means_the_cpu() -> None:
    step = Evaluate(model="hf://me/model", data="hf://datasets/me/rows")
    pipeline = Pipeline("score", {"score": step}, Resources(gpus=2, accelerator="none", fallback="cpu"))
    assert pipeline.resources_of("score") == Resources(accelerator="none")


def test_the_order_follows_the_inputs() -> None:
    pipeline = load(
        "name: a\nsteps:\n  c: {evaluate: {model: b, data: d}}\n  b: {finetune: {model: hf://o/n, data: d}}\n  d: {fetch: {dataset: ./x.csv}}\n"
    )
    order = pipeline.order()
    assert order.index("d") < order.index("b") < order.index("c")
    assert set(order) == set(pipeline.steps)


def test_relative_paths_count_from_the_file() -> None:
    pipeline = load("name: a\nsteps: {d: {fetch: {dataset: ./x.csv}}}")
    assert pipeline.steps["d"] == Fetch(dataset="/base/x.csv")


def test_python_and_yaml_give_the_same_pipeline() -> None:
    reviews = Fetch(dataset="modelscope://datasets/OWNER/imdb")
    tuned = Finetune(
        model="modelscope://AI-ModelScope/distilbert-base-uncased",
        data=reviews,
        epochs=2,
        learning_rate=5e-5,
        checkpoint_every="2m",
        resources=Resources(memory="24Gi"),
    )
    score = Evaluate(model=tuned, data=reviews, rows=2000)
    built = Pipeline("movie-sentiment", {"reviews": reviews, "tuned": tuned, "score": score}, Resources(gpus=1, memory="16Gi"))
    assert built.digest == load(GOOD).digest


def test_a_pipeline_survives_being_written_down() -> None:
    pipeline = load(GOOD)
    again = spec.from_document(document.Document("spec.json", pipeline.to_dict(), {}))
    assert again.digest == pipeline.digest
    assert again.to_dict() == pipeline.to_dict()


def test_the_digest_sees_defaults_not_writing() -> None:
    pipeline = load(GOOD)
    assert load(GOOD.replace("epochs: 2", "epochs: 2\n      seed: 42")).digest == pipeline.digest
    assert load(GOOD.replace("epochs: 2", "epochs: 3")).digest != pipeline.digest
    assert load(GOOD.replace("24Gi", "25Gi")).digest != pipeline.digest


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        (GOOD.replace("epochs", "epoch"), "f.yaml:11: steps.tuned.finetune.epoch", "did you mean 'epochs'?"),
        (GOOD.replace("evaluate:", "evaluat:"), "f.yaml:16: steps.score.evaluat", "did you mean 'evaluate'?"),
        (GOOD.replace("epochs: 2", "epochs: two"), "f.yaml:11: steps.tuned.finetune.epochs", "not 'two'"),
        (GOOD.replace("epochs: 2", "epochs: '2'"), "f.yaml:11: steps.tuned.finetune.epochs", "not '2'"),
        (GOOD.replace("epochs: 2", "epochs: true"), "f.yaml:11: steps.tuned.finetune.epochs", "not True"),
        (GOOD.replace("epochs: 2", "epochs: 0"), "f.yaml:11: steps.tuned.finetune.epochs", "greater than or equal to 1"),
        (GOOD.replace("5e-5", ".nan"), "f.yaml:12: steps.tuned.finetune.learning_rate", "nan"),
        (GOOD.replace("2m", "2 weeks"), "f.yaml:13: steps.tuned.finetune.checkpoint_every", "90s, 15m, 1h or 2d"),
        (GOOD.replace("16Gi", "16 gigs"), "f.yaml:3: resources.memory", "512Mi or 16Gi"),
        (GOOD.replace("model: tuned", "model: tunde"), "f.yaml:16: steps.score.evaluate.model", "did you mean 'tuned'?"),
        (GOOD.replace("model: tuned", "model: reviews"), "f.yaml:16: steps.score.evaluate.model", "makes a dataset"),
        (GOOD.replace("model: tuned", "model: score"), "f.yaml:16: steps.score.evaluate.model", "makes metrics"),
        (GOOD.replace("model: tuned", "model: tuned.bin"), "f.yaml:16: steps.score.evaluate.model", "neither a ref, a path nor the name of a step"),
        (GOOD.replace("model: tuned", "model: 3"), "f.yaml:16: steps.score.evaluate.model", "should be a ref"),
        (GOOD.replace("data: reviews, rows", "data: hf://o/n, rows"), "f.yaml:16: steps.score.evaluate.data", "names a model, not a dataset"),
        (GOOD.replace("dataset: modelscope://datasets/OWNER/imdb", "dataset: reviews"), "f.yaml:6: steps.reviews.fetch.dataset", "a bare word"),
        (GOOD.replace("{dataset: modelscope://datasets/OWNER/imdb}", "{}"), "f.yaml:6: steps.reviews.fetch", "either `model` or `dataset`"),
        (GOOD.replace("  score:", "  Score:"), "f.yaml:15: steps.Score", "cannot be a step's name"),
        (GOOD.replace("movie-sentiment", "movie_sentiment"), "f.yaml:2: name", "cannot be a pipeline's name"),
        (GOOD.replace("movie-sentiment", "m" * 37), "f.yaml:5: steps.reviews", "too long together"),
        (GOOD.replace("name: movie-sentiment", ""), "f.yaml:3", "`name` is missing"),
        (GOOD.replace("rows: 2000}", "rows: 2000, resources: {gpus: 1}}"), "f.yaml:16: steps.score.evaluate.resources", "beside the verb"),
        (GOOD.replace("{memory: 24Gi}", "{memory: 24Gi, disk: 1Gi}"), "f.yaml:14: steps.tuned.resources.disk", "unknown setting 'disk'"),
        ("name: a\nsteps: {b: {fetch: {model: hf://a/b}, infer: {}}}", "f.yaml:2: steps.b", "one verb, not 2"),
        ("name: a\nsteps: {b: [1]}", "f.yaml:2: steps.b", "a mapping of one verb"),
        ("name: a\nsteps: {}", "f.yaml:2: steps", "missing or empty"),
        ("name: a", "f.yaml:1", "`steps` is missing or empty"),
        ("- a", "f.yaml", "this is no pipeline"),
        ("", "f.yaml", "this is no pipeline"),
        ("name: a\nsteps:\n  b: {infer: {model: ./m, data: c}}\n  c: {infer: {model: ./m, data: b}}", "f.yaml:3: steps.b", "b -> c -> b"),
        ("name: a\nsteps:\n  b: {infer: {model: ./m, data: b}}", "f.yaml:3: steps.b", "b -> b"),
    ],
)
def test_every_error_names_line_and_path(text: str, place: str, part: str) -> None:
    with pytest.raises(Usage) as caught:
        load(text)
    told = f"{caught.value} {caught.value.remedy}"
    assert told.startswith(f"{place}: ")
    assert part in told


def test_all_errors_of_a_file_are_told_at_once() -> None:
    with pytest.raises(Usage) as caught:
        load(GOOD.replace("epochs: 2", "epochs: two").replace("evaluate:", "evaluat:").replace("{gpus: 1,", "{gpu: 1,"))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["f.yaml:3", "f.yaml:11", "f.yaml:16"]


def test_a_step_that_cannot_be_read_hides_nothing_of_the_others() -> None:
    """Its name is a step's all the same: who takes it as an input is not told that it is not there."""
    with pytest.raises(Usage) as caught:
        load(GOOD.replace("epochs: 2", "epochs: two").replace("rows: 2000}", "rows: 2000}\n  other: {export: {model: tuned, parity: revews}}"))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["f.yaml:11", "f.yaml:17"]
    assert "there is no step 'revews' (did you mean 'reviews'?" in lines[1]
    with pytest.raises(Usage) as caught:
        load(GOOD.replace("epochs: 2", "epochs: two").replace("movie-sentiment", "Movies"))
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["f.yaml:11", "f.yaml:2"]


@pytest.mark.parametrize(
    ("wrong", "what", "remedy"),
    [
        ("memory: 16 gigs", "'16 gigs' is no amount of memory; write it as 512Mi or 16Gi", "memory: "),
        ("time_limit: soon", "'soon' is no duration; write it as 90s, 15m, 1h or 2d", "time_limit: "),
        ("fallback: gpu", "should be 'cpu', not 'gpu'", "fallback: "),
        ("gpu_model: ''", "should have at least 1 character, not ''", "gpu_model: "),
    ],
)
def test_what_was_given_is_said_once(wrong: str, what: str, remedy: str) -> None:
    with pytest.raises(Usage) as caught:
        load(GOOD.replace("memory: 16Gi", wrong))
    assert caught.value.what == what
    assert caught.value.remedy.startswith(remedy)


def test_a_word_that_is_misspelt_gets_the_one_that_was_meant() -> None:
    for task, remedy in {"text-clasification": "did you mean 'text-classification'?", "zero-shot-classification": "task: what"}.items():
        with pytest.raises(Usage) as caught:
            load(GOOD.replace("epochs: 2", f"task: {task}"))
        assert caught.value.remedy.startswith(remedy)


def test_a_foreign_step_object_is_named() -> None:
    with pytest.raises(Usage, match="not one of the pipeline's"):
        Pipeline("a", {"e": Infer(model=Fetch(model="hf://o/n"), data="./x.csv")})


@pytest.mark.parametrize("verb", STEPS)
def test_the_schema_knows_every_setting(verb: str) -> None:
    schema = spec.schema()
    settings = schema["$defs"][verb]
    assert set(settings["properties"]) == set(STEPS[verb].model_fields) - {"resources"}
    assert settings["additionalProperties"] is False
    assert all(STEPS[verb].model_fields[name].description for name in settings["properties"])


@pytest.mark.parametrize(
    "step", [Finetune(model="hf://o/n", data="./x"), Evaluate(model="hf://o/n", data="./x", rows=10), Infer(model="hf://o/n", data="./x")]
)
def test_smoke_shrinks_and_never_grows(step: Step) -> None:
    small = step.smoke()
    assert small != step or isinstance(step, Evaluate)
    assert small.smoke() == small
    assert getattr(small, "rows", None) in (None, 10, 64)


def test_settings_that_do_not_affect_results_are_no_part_of_them() -> None:
    step = Finetune(model="hf://o/n", data="./x")
    assert "checkpoint_every" not in step.result_settings()
    assert "model" not in step.result_settings()
    assert step.result_settings()["seed"] == 42


COMPARED = (
    GOOD.replace("score:\n    evaluate: {model: tuned,", "score:\n    evaluate: {model: tuned, against: yard://models/reviews@champion,")
    + "  champion:\n    promote: {model: tuned, to: yard://models/reviews@champion, gate: {metrics: score, not_worse_than_champion: 0.01}}\n"
)


def test_a_gate_names_metrics_that_its_step_measures() -> None:
    """Said before anything is trained; without a task any task's may be meant."""
    gated = GOOD + "  champion:\n    promote: {model: tuned, to: yard://models/reviews@champion, gate: {metrics: score, at_least: {METRIC: 0.5}}}\n"
    of_task = gated.replace("evaluate: {model", "evaluate: {task: text-classification, model")
    for text, metric in ((gated, "accuracy"), (gated, "map"), (of_task, "f1_macro")):
        assert load(text.replace("METRIC", metric)).steps["champion"]
    for text, metric, remedy in ((gated, "acuracy", "did you mean 'accuracy'?"), (of_task, "map", "known are accuracy, ")):
        with pytest.raises(Usage) as wrong:
            load(text.replace("METRIC", metric))
        assert (wrong.value.what, wrong.value.where.partition(": ")[2]) == (
            f"'score' measures no {metric!r}",
            f"steps.champion.promote.gate.at_least.{metric}",
        )
        assert wrong.value.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("gate", "where", "what", "remedy"),
    [
        ("{metric: score, metrics: score, at_least: {accuracy: 0.5}}", "gate.metric", "unknown setting 'metric'", "did you mean 'metrics'?"),
        ("{metrics: score, at_leest: {accuracy: 0.5}}", "gate.at_leest", "unknown setting 'at_leest'", "did you mean 'at_least'?"),
        ("{at_least: {accuracy: 0.5}}", "gate", "'metrics' is missing", "metrics: the evaluate step that measured it"),
        ("{metrics: score, at_least: {accuracy: high}}", "gate.at_least.accuracy", "should be a valid number, not 'high'", "at_least: metric -> "),
        ("{metrics: score, at_least: 0.8}", "gate.at_least", "should be a mapping, not 0.8", "at_least: metric -> "),
        ("0.8", "gate", "should be a mapping, not 0.8", "gate: what has to hold first"),
    ],
)
def test_what_is_wrong_in_a_gate_is_said_of_the_gate(gate: str, where: str, what: str, remedy: str) -> None:
    with pytest.raises(Usage) as wrong:
        load(GOOD + f"  champion:\n    promote: {{model: tuned, to: yard://models/reviews@champion, gate: {gate}}}\n")
    assert (wrong.value.where, wrong.value.what) == (f"f.yaml:18: steps.champion.promote.{where}", what)
    assert wrong.value.remedy.startswith(remedy)


def test_the_model_that_is_compared_with_is_an_input() -> None:
    pipeline = load(COMPARED)
    source = pipeline.inputs("score")["against"]
    assert pipeline.steps[source] == Fetch(model="yard://models/reviews@champion")
    assert set(pipeline.inputs("score")) == {"model", "against", "data"}
    assert set(load(GOOD).inputs("score")) == {"model", "data"}
    base = load(COMPARED.replace("modelscope://AI-ModelScope/distilbert-base-uncased", "yard://models/reviews@champion"))
    assert base.inputs("tuned")["model"] == base.inputs("score")["against"] == source


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("against: yard://models/reviews@champion,", "", "steps.champion.promote.gate.not_worse_than_champion", "measures one model alone"),
        (
            "not_worse_than_champion: 0.01",
            "not_worse_than_champion: -1",
            "steps.champion.promote.gate.not_worse_than_champion",
            "greater than or equal",
        ),
        (", not_worse_than_champion: 0.01", "", "steps.champion.promote.gate", "give `at_least`, `not_worse_than_champion`, or both"),
        ("against: yard://models/reviews@champion", "against: reviews", "steps.score.evaluate.against", "'reviews' makes a dataset"),
        ("against: yard://models/reviews@champion", "against: hf://datasets/me/rows", "steps.score.evaluate.against", "names a dataset"),
        ("against: yard://models/reviews@champion", "against: champion", "steps.score.evaluate.against", "'champion' makes nothing"),
    ],
)
def test_a_comparison_that_cannot_be_is_said_before_anything_runs(old: str, new: str, where: str, what: str) -> None:
    assert old in COMPARED
    with pytest.raises(Usage) as wrong:
        load(COMPARED.replace(old, new))
    told = f"{wrong.value.what} {wrong.value.where} {wrong.value.why} {wrong.value.remedy}"
    assert where in told
    assert what in told


def test_every_definition_that_the_schema_names_is_in_it() -> None:
    schema = spec.schema()
    text = json.dumps(schema)
    assert set(re.findall(r'"#/\$defs/([^"]+)"', text)) <= set(schema["$defs"])
    assert set(schema["$defs"]["Gate"]["properties"]) == {"metrics", "at_least", "not_worse_than_champion", "sure"}
