"""The page of a run: what is in the record is on it, what is not is not, and nothing from outside gets the better of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from modelyard import report
from modelyard.order import Outcome
from modelyard.report import page, record
from modelyard.yard import Yard
from modelyard.yard.runs import Run, RunState, RunStatus, StepState
from tests.unit.report import example

STYLE = (Path(page.__file__).parent / "templates" / "style.css").read_text()
HOSTILE = '"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)>\u202egnp.\x00 {{ 7 * 7 }} </style></title>'
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text; fails where tags do not close as they opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def rendered(yard: Yard, run: Run) -> Page:
    return Page(report.render(yard, run))


def sealed(found: Page) -> None:
    """Nothing runs, nothing is asked for, every link leads somewhere on the page."""
    assert not {"script", "iframe", "object", "embed", "base", "form", "foreignobject"} & set(found.tags)
    for name, value in found.attributes:
        assert not name.startswith("on"), name
        if name in ("href", "src", "xlink:href", "action", "data"):
            assert value == "data:," or re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", value) or value.removeprefix("#") in found.ids
    assert len(found.ids) == len(set(found.ids))


def test_a_whole_run(yard: Yard) -> None:
    found = rendered(yard, example.whole(yard))
    sealed(found)
    assert found.ids == [
        *("top", "notes", "lineage", "steps", "evaluation", "training", "export", "release"),
        *("preflight", "search", "machine", "decisions", "pipeline"),
    ]
    for wanted in (
        "All 10 steps finished, 2 of them reused. Promoted to yard://models/movie-sentiment@champion.",
        "Published to modelscope://me/movie-sentiment, tag v-fc64b217fe1e.",
        "5m51s",
        "the hub did not answer",  # a note of the run
        "made by movie-sentiment-9d23e68415-r3",  # a reused step
        "A portrait of alienation so perfect",  # a worst error
        "negative taken for positive with 97 %",
        "No evaluated text also stands in train.",
        "split test: 2000 of 2644 rows, a sample (seed 42)",
        "epoch 2 is kept: highest validation accuracy of 2 epochs",
        "100 % of 500 labels in 500 real rows are equal, the largest difference is 1.3\u00d710⁻⁶, within the tolerance of 1\u00d710⁻⁴.",
        "8-bit weights were dropped: 96.2 % of the labels agree, fewer than 98 %.",
        "401.7 rows a second",
        "11.3 ms · p95 13.8 ms",
        "The gate is passed.",
        "onnx/model.onnx",
        "there is no /dev/nvidia[0-9]*",
        "modelscope://AI-ModelScope/bge-small-en-v1.5",
        "exact, and the default on a CPU",  # a decision's reason
        "x86_64 AVX512",
        "learning_rate: 0.0001",  # the spec
    ):
        assert wanted in found.text, wanted
    assert "Missing here" not in found.text
    assert found.tags.count("svg") >= 12


def test_every_number_is_the_records(yard: Yard) -> None:
    found = rendered(yard, example.whole(yard))
    document = example.evaluation()
    for metric in document["metrics"].values():
        assert f"{metric['value']:.4f} · {metric['low']:.4f} to {metric['high']:.4f}" in found.text
    for row in document["confusion"]:
        for count in row:
            assert str(count) in found.texts
            assert f"{count / sum(row) * 100:.1f} %" in found.texts
    for each in document["classes"]:
        assert f"{each['recall']['low']:.4f} to {each['recall']['high']:.4f}" in found.text


def test_a_refused_gate(yard: Yard) -> None:
    found = rendered(yard, example.whole(yard, passed=False, overlap=40))
    sealed(found)
    for wanted in (
        "release was refused: the gate refused it: accuracy 0.8100 is under 0.9. 9 of 10 steps finished",
        "train longer, or lower the floor",
        "refused, exit 81",
        "Not published: the gate refused it",
        "0.9000 value refused",
        "40 evaluated texts (2 %) also stand in train: the model may know them, and the metrics flatter it.",
    ):
        assert wanted in found.text, wanted
    assert "Published to" not in found.text
    assert "is-refused" in dict.fromkeys(part for name, value in found.attributes if name == "class" for part in value.split())


def test_a_failed_training_shows_what_its_log_has(yard: Yard) -> None:
    found = rendered(yard, example.crashed(yard))
    sealed(found)
    for wanted in ("tuned failed: training diverged at step 40: loss nan.", "lower learning_rate", "half the memory", "from its log", "skipped"):
        assert wanted in found.text, wanted
    assert {"evaluation", "export", "release", "search", "preflight"}.isdisjoint(found.ids)
    assert "training" in found.ids
    assert "Learning rate of tuned per step" in found.text


def test_a_failed_export_shows_how_far_it_was_off(yard: Yard) -> None:
    build = example.Builder(yard)
    said = {"exit_code": 65, "category": "data", "what": "the exported model does not answer as the model does"}
    log = [
        {"event": "compared", "rows": 500, "answers": 500, "unit": "label", "max_abs": 0.25, "max_rel": 0.2, "agreement": 0.914, "tolerance": 2e-4}
    ]
    build.step("onnx", "export", {"model": "tuned", "parity": "reviews"}, state=StepState.FAILED, log=log, seconds=60.0, **said)
    found = rendered(yard, build.end(RunState.FAILED, exit_code=65))
    assert "export" in found.ids
    for wanted in ("91.4", "0.25"):
        assert wanted in found.text, wanted


def test_a_running_run(yard: Yard) -> None:
    found = rendered(yard, example.running(yard))
    sealed(found)
    assert "It had not ended when this was written: 1 of 3 steps finished, 1 of them reused." in found.text
    assert "from its log: the step is running and has no result" in found.text
    assert "ended" not in found.texts


def test_attempts_of_a_step_at_work(yard: Yard) -> None:
    run = example.running(yard)
    run.attempt("tuned", 1).write_outcome(Outcome(exit_code=69, category="unavailable"))
    run.new_attempt("tuned")
    status = run.status()
    run.write_status(status.model_copy(update={"steps": {**status.steps, "tuned": status.steps["tuned"].model_copy(update={"attempt": 2})}}))
    assert "2 attempts: 1 unavailable, 2 running" in rendered(yard, run).text
    run.write_status(run.status().over(RunState.STOPPED, 75, "the driver is gone"))
    assert "2 attempts: 1 unavailable, 2 killed without a word" in rendered(yard, run).text


def test_what_an_attempt_left_cannot_be_read(yard: Yard) -> None:
    run = example.crashed(yard)
    attempt = run.attempt("tuned", 1)
    (attempt.path / "outcome.json").write_bytes(b"{")
    (attempt.path / "samples.jsonl").mkdir()
    attempt.add_log(b'{"event": "validated", "epoch": 1, "step": 20, "loss": NaN, "accuracy": 0.8125}\n')
    found = rendered(yard, run)
    assert "Missing here: tuned: how attempt 1 ended cannot be read" in found.text
    assert "Missing here: tuned: the memory of attempt 1 cannot be read" in found.text
    assert "0.8125" in found.text


def test_a_page_hardly_grows_with_what_it_is_told(yard: Yard) -> None:
    def size(count: int) -> int:
        build = example.Builder(yard, f"run-{count}-r1")
        model = build.artifact("model", {"model.bin": b"x"})
        curve = example.history(steps=2 * count, epochs=count)
        details = {"history": {**curve, "train": curve["train"][:100]}}  # a training keeps no more than some hundred points
        build.step("tuned", "finetune", {}, made=model, details=details)
        build.step("look", "search", {}, result={"query": {"query": "q" * count}, "found": [{"ref": "hf://o/n"}] * count})
        told = example.release() | {"to": "t" * count, "tag": "t" * count, "revision": "r" * count, "visibility": "v" * count}
        build.step("release", "publish", {}, state=StepState.FAILED, result=told, exit_code=70, category="bug", what="w" * count * 10)
        return len(report.render(yard, build.end(RunState.FAILED, exit_code=70)))

    assert (size(10_000) - size(1000)) / 9000 < 60, "an epoch is a point of three curves"


def test_a_run_that_never_began(yard: Yard) -> None:
    run = yard.runs.create("empty-0123456789-r1", {"pipeline": {}}, RunStatus(run="empty-0123456789-r1", pipeline="empty", state=RunState.FAILED))
    assert run
    found = rendered(yard, run)
    sealed(found)
    assert "It failed outside of its steps. 0 of 0 steps finished." in found.text
    assert found.ids == ["top"]


def compared(yard: Yard, value: float, digest: str = "", **settings: str) -> Page:
    """The page of a run that measured a model against another, and promoted it behind a gate on the difference."""
    build = example.Builder(yard)
    build.fetch("base", "yard://models/movie-sentiment@champion", "model", 90)
    build.fetch("tuned", "modelscope://o/tuned", "model", 91)
    document = example.against(example.evaluation(), value)
    document["against"]["digests"]["model"] = digest or document["against"]["digests"]["model"]
    metrics = build.artifact("metrics", {"metrics.json": json.dumps(document).encode()})
    build.step("score", "evaluate", {"model": "tuned", "against": "base", "data": None, **settings}, made=metrics)
    less = document["metrics"]["accuracy"]["difference"]
    line = {"metric": "accuracy", **less, "at_least": -0.01, "sure": False, "passed": value >= -0.01, "difference": True}
    told = {"to": "yard://models/movie-sentiment@champion", "gate": {"passed": line["passed"], "lines": [line]}}
    gate = {"metrics": "score", "not_worse_than_champion": 0.01}
    build.step("champion", "promote", {"model": "tuned", "to": told["to"], "gate": gate}, result=told)
    return rendered(yard, build.end())


def test_a_comparison_shows_both_models_the_difference_and_the_rows_that_changed(yard: Yard) -> None:
    found = compared(yard, -0.018)
    sealed(found)
    document = example.against(example.evaluation())
    for name, metric in document["metrics"].items():
        other = document["against"]["metrics"][name]
        cells = [f"{part:.4f}" for part in (metric["value"], metric["low"], metric["high"], other["value"], other["low"], other["high"])]
        row = f"{name.replace('_', ' ')} {cells[0]} {cells[1]} to {cells[2]} {cells[3]} {cells[4]} to {cells[5]} -0.0180 -0.0291 to -0.0068"
        assert row in found.text
    for wanted in (
        "Worse than the other model: accuracy -0.0180 (-0.0291 to -0.0068, 95 %).",
        "-0.0180 · -0.0291 to -0.0068",
        "The mark across a line is the floor of the gate; elsewhere it is zero.",
        "fixed 57 rows",
        "broken 93 rows",
        "a1a1a1a1a1a1",
        "b2b2b2b2b2b2",
        "accuracy less the champion's -0.0180",
        "accuracy difference at least -0.01",
    ):
        assert wanted in found.text, wanted
    assert "Missing here" not in found.text


@pytest.mark.parametrize(
    ("value", "digest", "said"),
    [
        (0.02, "", "Better than the other model: accuracy +0.0200"),
        (0.004, "", "Neither better nor worse than the other model beyond chance: accuracy +0.0040"),
        (-0.004, "", "Neither better nor worse than the other model beyond chance: accuracy -0.0040"),
        (0.0, "b2" * 32, "It was compared with itself: both are the same artifact."),
    ],
)
def test_a_comparison_is_judged_by_its_interval(yard: Yard, value: float, digest: str, said: str) -> None:
    assert said in compared(yard, value, digest).text


def test_a_model_against_the_one_that_its_step_takes_twice_is_drawn(yard: Yard) -> None:
    sealed(compared(yard, 0.0, "b2" * 32, model="base"))


def test_one_model_alone_has_no_comparison(yard: Yard) -> None:
    assert "Against another model" not in rendered(yard, example.whole(yard)).text


def test_hostile_texts(yard: Yard) -> None:
    build = example.Builder(yard, pipeline=HOSTILE)
    document = example.evaluation([HOSTILE, "b", "x" * 5000], [HOSTILE, "w" * 100_000])
    document["metrics"][HOSTILE] = document["metrics"]["accuracy"]
    document = example.against(document)
    document["against"]["digests"] = {"model": HOSTILE, "against": HOSTILE * 2}
    document["baseline"]["label"] = HOSTILE
    metrics = build.artifact("metrics", {"metrics.json": json.dumps(document).encode()})
    build.step("score", "evaluate", {"model": HOSTILE}, made=metrics, decisions={HOSTILE: ({HOSTILE: [HOSTILE]}, HOSTILE)}, note=HOSTILE)
    rows = [{"check": HOSTILE, "verdict": HOSTILE, "found": {HOSTILE: 1}, "needed": [HOSTILE], "reason": HOSTILE, "remedy": HOSTILE}]
    build.step("ready", "preflight", {}, result={"verdict": HOSTILE, "rows": rows})
    build.step("look", "search", {}, result={"query": HOSTILE, "found": [{"ref": HOSTILE, "task": HOSTILE, "licence": HOSTILE, "updated": HOSTILE}]})
    told = {**example.release(), "to": HOSTILE, "tag": HOSTILE, "revision": HOSTILE, "files": [HOSTILE, {"path": HOSTILE}, 7, None]}
    told["gate"]["lines"][0]["metric"] = HOSTILE
    build.step("release", "publish", {"to": f"hf://{HOSTILE}"}, result=told)
    said = {"exit_code": 70, "category": "bug", "what": HOSTILE, "where": HOSTILE, "why": HOSTILE, "remedy": HOSTILE}
    build.step("tuned", "finetune", {}, state=StepState.FAILED, **said)
    text = report.render(yard, build.end(RunState.FAILED, exit_code=70, notes=(HOSTILE, "half a pair: \ud800")))
    found = Page(text)
    sealed(found)
    assert text.encode()
    assert "alert(1)" in found.text
    assert "\u202e" not in text
    assert "\x00" not in text
    assert "{{ 7 * 7 }}" in found.text
    assert "w" * (page.TEXT + 1) not in text
    assert "x" * 400 not in text


def test_what_cannot_be_read_is_said_and_left_out(yard: Yard) -> None:
    build = example.Builder(yard)
    broken = build.artifact("metrics", {"metrics.json": b'{"metrics": {"accuracy": {"value": NaN, "low": 0, "high": 1, "n": 5}}}'})
    build.step("score", "evaluate", {}, made=broken, details={"speed": "fast"})
    model = build.artifact("model", {"model.onnx": b"onnx"})
    details = {"parity": {"rows": "many"}, "int8": {"kept": False, "why": "it cannot be quantized"}, "speed": {"torch": {"latency": 5}, "rows": 64}}
    build.step("onnx", "export", {}, made=model, details=details)
    build.step("ready", "preflight", {}, result={"rows": []})
    run = build.end()
    yard.actions.forget(build.steps["onnx"].key)
    found = rendered(yard, run)
    sealed(found)
    assert "evaluation" not in found.ids
    assert "preflight" not in found.ids
    for wanted in (
        "Missing here: score: metrics.json: not in a form that this report reads (metrics.accuracy.value:",
        "Missing here: score: speed:",
        "Missing here: onnx: its action is gone from the yard",
        "Missing here: ready: its result: not in a form that this report reads (verdict:",
    ):
        assert wanted in found.text, wanted
    assert "nan" not in re.findall(r"\w+", found.text.lower())


def test_parts_of_an_export_stand_alone(yard: Yard) -> None:
    build = example.Builder(yard)
    model = build.artifact("model", {"model.onnx": b"onnx"})
    build.step("onnx", "export", {}, made=model, details={"int8": {"kept": False, "why": "it cannot be quantized"}, "speed": {"rows": 64}})
    found = rendered(yard, build.end())
    assert "8-bit weights were dropped: it cannot be quantized." in found.text
    assert "Missing here" not in found.text
    assert "PyTorch" not in found.text


def test_an_action_of_another_result_is_not_this_steps(yard: Yard) -> None:
    run = example.whole(yard)
    status = run.status().steps["tuned"]
    later = yard.actions.get(status.key)
    assert later
    other = next(digest for digest in yard.artifacts.digests() if digest != status.artifact)
    yard.actions.put(status.key, later.model_copy(update={"artifact": other}))
    found = rendered(yard, run)
    assert "tuned: it was done again since, with another result" in found.text
    assert "epoch 2 is kept" not in found.text


def test_an_artifact_that_is_gone(yard: Yard) -> None:
    run = example.whole(yard)
    yard.artifacts.discard(str(run.status().steps["score"].artifact))
    yard.artifacts.delete(str(run.status().steps["score"].artifact))
    found = rendered(yard, run)
    assert "Missing here: score: its artifact" in found.text
    assert "evaluation" not in found.ids


def test_fifty_labels(yard: Yard) -> None:
    text = report.render(yard, example.whole(yard, labels=[f"label number {place}" for place in range(50)]))
    found = Page(text)
    sealed(found)
    assert "Taken for each other most often" in found.text
    assert found.text.count("label number 49") >= 4
    assert len(text) < 250_000


def test_the_size_is_bounded(yard: Yard) -> None:
    labels, texts = [f"label {place} " + "y" * 300 for place in range(400)], ["z" * 10_000] * 300
    text = report.render(yard, example.whole(yard, labels=labels, texts=texts))
    assert len(text) < 1_000_000
    assert text.count("<blockquote>") == record.CASES


def test_the_same_run_gives_the_same_page(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    run = example.whole(yard)
    first = report.render(yard, run)
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "MODELYARD_YARD", "LANG", "TZ"):
        monkeypatch.setenv(name, "planted-secret")
    assert report.render(yard, run) == first
    assert "planted-secret" not in first
    assert str(yard.root) not in first


def test_hubs_and_their_addresses_stay_out(yard: Yard) -> None:
    run = example.whole(yard)
    run.write_spec({**run.spec(), "settings": {"hubs": {"modelscope": "https://me:planted-secret@hub.example"}}})
    assert "planted-secret" not in report.render(yard, run)


def test_a_reader_without_the_right_to_write(yard: Yard) -> None:
    run = example.whole(yard)
    before = {path: path.stat().st_mtime_ns for path in yard.root.rglob("*")}
    reading = Yard.open(yard.root, write=False)
    assert report.render(reading, reading.runs.get(run.id)) == report.render(yard, run)
    assert {path: path.stat().st_mtime_ns for path in yard.root.rglob("*")} == before


def test_samples_are_thinned_and_keep_their_peak(yard: Yard) -> None:
    build = example.Builder(yard)
    model = build.artifact("model", {"model.bin": b"x"})
    samples = [{"t": 2.0 * place, "used": 1000.0 + (place == 777) * 10**9, "limit": None} for place in range(1000)]
    build.step("tuned", "finetune", {}, made=model, samples=samples)
    run = build.end()
    (step,) = record.collect(yard, run).steps
    assert len(step.samples) == record.SAMPLES
    assert max(sample.used for sample in step.samples) == 1000.0 + 10**9
    assert "peak 954 MiB" in rendered(yard, run).text


# --- colours ---------------------------------------------------------------------------------------------------------------------------------


def colours(dark: bool) -> dict[str, tuple[float, ...]]:
    blocks = re.findall(r":root\s*{(.*?)}", STYLE, re.DOTALL)
    text = "".join(blocks if dark else blocks[:1])
    found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", text))
    return {name: tuple(int(value[place : place + 2], 16) / 255 for place in (1, 3, 5)) for name, value in found.items()}


def contrast(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """WCAG 2.2: relative luminance, contrast ratio."""

    def luminance(colour: tuple[float, ...]) -> float:
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(dark: bool) -> None:
    found = colours(dark)
    assert (contrast(found["page"], (0.0, 0.0, 0.0)) < 2) is dark
    for ground in ("page", "surface", "sunken"):
        for name in ("text", "quiet"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
    for ground in ("page", "surface"):
        for name in ("good", "warn", "bad", "info"):
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
        for name in ("one", "two", "three"):
            assert contrast(found[name], found[ground]) >= 3, (name, ground)
    opacity = float(re.findall(r"calc\(var\(--share\) \* ([0-9.]+)\)", STYLE)[0])
    for ground in ("surface", "sunken"):
        heat = tuple(opacity * one + (1 - opacity) * under for one, under in zip(found["one"], found[ground], strict=True))
        assert contrast(found["text"], heat) >= 4.5


def test_the_style_asks_for_nothing() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "</" not in STYLE
