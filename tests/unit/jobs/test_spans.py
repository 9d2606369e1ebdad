from __future__ import annotations

import warnings

import numpy as np
import pytest

from modelyard_jobs.metrics import spans
from modelyard_jobs.metrics.spans import Scheme

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-A-B", "I-A-B"]
BIOES = ["S-LOC", "E-LOC", "I-LOC", "B-LOC", "O", "B-PER", "I-PER", "E-PER", "S-PER"]
SEEDS = [1, 2, 3]


def documents(labels, count, seed, longest=12):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, len(labels), rng.integers(0, longest)) for _ in range(count)]


def noisy(truths, labels, seed, share=0.3):
    rng = np.random.default_rng(seed)
    return [np.where(rng.random(len(ids)) < share, rng.integers(0, len(labels), len(ids)), ids) for ids in truths]


def named(labels, ids):
    return [[labels[place] for place in each] for each in ids]


def ids(labels, *documents):
    return [[labels.index(label) for label in each.split()] for each in documents]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("labels", [BIO, BIOES, ["I-X", "I-Y", "B-X", "O"], ["B", "I", "O"], ["B-X", "I-X", "B-Y"]])
def test_values_are_seqevals(labels, seed):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    truths = documents(labels, 60, seed)
    answers = noisy(truths, labels, seed + 100)
    found = spans.spanned(labels, truths, answers, seed=0)
    true, predicted = named(labels, truths), named(labels, answers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        micro, macro = (seqeval.precision_recall_fscore_support(true, predicted, average=how, zero_division=0) for how in ("micro", "macro"))
        by_type = seqeval.precision_recall_fscore_support(true, predicted, average=None, zero_division=0)
        accuracy = seqeval.accuracy_score(true, predicted)
    for name, one, other in zip(("precision", "recall", "f1"), micro, macro, strict=False):
        assert found.metrics[name].value == pytest.approx(one)
        assert found.metrics[f"{name}_macro"].value == pytest.approx(other)
    assert found.metrics["token_accuracy"].value == pytest.approx(accuracy)
    types = sorted(found.types, key=lambda scores: scores.label if scores.label != "span" else "_")
    for scores, precision, recall, f1, support in zip(types, *by_type, strict=True):
        assert (scores.precision.value, scores.recall.value, scores.f1.value) == pytest.approx((precision, recall, f1))
        assert scores.support == support
    assert micro[2] > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_spans_are_seqevals(seed):
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    scheme = Scheme.of(BIOES)
    for each in documents(BIOES, 100, seed):
        expected = [(kind, start, end + 1) for kind, start, end in entities([BIOES[place] for place in each])]
        assert [(scheme.types[kind], start, end) for kind, start, end in scheme.spans(each)] == expected


@pytest.mark.parametrize(
    ("labels", "document", "expected"),
    [
        (["O", "B-PER", "I-PER"], "B-PER I-PER O B-PER B-PER", [("PER", 0, 2), ("PER", 3, 4), ("PER", 4, 5)]),
        (["O", "B-PER", "I-PER"], "I-PER I-PER O", [("PER", 0, 2)]),  # a span without a beginning
        (["O", "B-PER", "I-PER"], "I-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),  # IOB1
        (["O", "I-PER", "I-LOC"], "I-PER I-LOC I-LOC O I-LOC", [("PER", 0, 1), ("LOC", 1, 3), ("LOC", 4, 5)]),
        (["O", "B-X", "I-X", "L-X", "U-X"], "U-X B-X I-X L-X I-X", [("X", 0, 1), ("X", 1, 4), ("X", 4, 5)]),
        (["O", "B-X", "M-X", "E-X", "S-X"], "S-X B-X M-X E-X M-X", [("X", 0, 1), ("X", 1, 4), ("X", 4, 5)]),
        (["O", "PER", "LOC"], "PER PER LOC O PER", [("PER", 0, 2), ("LOC", 2, 3), ("PER", 4, 5)]),
        (["O", "E-mail", "S-Bahn"], "E-mail E-mail S-Bahn S-Bahn", [("E-mail", 0, 2), ("S-Bahn", 2, 4)]),
        (["O", "B-PER", "I-PER", "MISC"], "MISC MISC B-PER", [("MISC", 0, 2), ("PER", 2, 3)]),
        (["B", "I", "O"], "B I B O I", [("span", 0, 2), ("span", 2, 3), ("span", 4, 5)]),
        (["O", "B-", "I-"], "B- I-", [("span", 0, 2)]),
        (["O"], "O O", []),
    ],
)
def test_schemes_follow_from_the_labels(labels, document, expected):
    scheme = Scheme.of(labels)
    assert [(scheme.types[kind], start, end) for kind, start, end in scheme.spans(ids(labels, document)[0])] == expected


@pytest.mark.parametrize(
    ("labels", "document"),
    [
        (["O", "B-X", "I-X"], "O B-X I-X I-X B-X"),
        (["O", "I-X"], "I-X I-X O I-X"),
        (["O", "X"], "X X X O X"),
        (BIOES, "S-PER B-LOC E-LOC B-PER I-PER I-PER E-PER"),
        (["O", "B-X", "I-X", "L-X", "U-X"], "U-X B-X I-X L-X"),
        (["O", "B-X", "M-X", "E-X", "S-X"], "S-X B-X M-X M-X E-X B-X E-X"),
    ],
)
def test_a_scheme_writes_a_span_as_it_reads_it(labels, document):
    scheme = Scheme.of(labels)
    (truth,) = ids(labels, document)
    written = [labels.index("O")] * len(truth)
    for kind, start, end in scheme.spans(truth):
        for place in range(end - start):
            written[start + place] = scheme.label(kind, place, end - start)
    assert written == truth


def test_a_scheme_says_what_it_cannot_write():
    scheme = Scheme.of(["O", "B-X"])
    assert scheme.label(0, 0, 2) == 1
    assert scheme.label(0, 1, 2) is None


def test_no_span_reaches_into_the_next_document():
    labels = ["O", "I-X"]
    found = Scheme.of(labels).all_spans(ids(labels, "O I-X", "", "I-X I-X"))
    assert (found.documents.tolist(), found.starts.tolist(), found.ends.tolist()) == ([0, 2], [1, 0], [2, 2])


def test_words_without_a_label_are_missed_and_not_left_out():
    labels = ["O", "B-X", "I-X"]
    truths = ids(labels, "B-X I-X O", "B-X")
    found = spans.spanned(labels, truths, [[1, -1, -1], [-1]], seed=0)
    assert (found.types[0].support, found.types[0].predicted) == (2, 1)
    assert found.metrics["f1"].value == 0
    assert found.metrics["token_accuracy"].value == 1 / 4
    assert found.right.tolist() == [False, False]


def test_which_documents_are_right_and_what_is_taken_for_what():
    labels = ["O", "B-X", "I-X", "B-Y"]
    truths = ids(labels, "B-X O", "O O", "B-Y B-X", "O", "")
    answers = ids(labels, "I-X O", "O B-Y", "B-X B-X", "O", "")
    found = spans.spanned(labels, truths, answers, seed=0)
    assert found.right.tolist() == [True, False, False, True, True]  # I-X after nothing is the same span
    assert found.confusion.tolist() == [[2, 0, 0], [1, 0, 0], [0, 1, 3]]  # X, Y, none
    assert found.confusion.sum() == sum(map(len, truths))


def test_of_nothing_everything_is_possible():
    labels = ["O", "B-X", "I-X", "B-Y"]
    none = spans.spanned(labels, [], [], seed=0)
    assert {(metric.value, metric.low, metric.high, metric.n) for metric in none.metrics.values()} == {(0.0, 0.0, 1.0, 0)}
    empty = spans.spanned(labels, [[], [0]], [[], [0]], seed=0)
    assert (empty.metrics["f1"].value, empty.metrics["f1"].low, empty.metrics["f1"].high) == (0, 0, 1)
    assert empty.metrics["token_accuracy"].value == 1
    missed = spans.spanned(labels, [[1, 2]], [[0, 0]], seed=0)
    assert (missed.metrics["precision"].low, missed.metrics["precision"].high) == (0, 1)
    assert (missed.metrics["recall"].low, missed.metrics["recall"].high) == (0, 0)
    assert missed.types[1].f1.high == 1
    only = spans.spanned(["O"], [[0, 0]], [[0, 0]], seed=0)
    assert only.types == ()
    assert only.metrics["f1_macro"].high == 1


def test_the_interval_is_of_resampled_documents():
    truths = documents(BIO, 80, 4)
    answers = noisy(truths, BIO, 5)
    metric = spans.spanned(BIO, truths, answers, seed=1).metrics["f1"]
    scheme, rng = Scheme.of(BIO), np.random.default_rng(9)
    sets = [({*scheme.spans(truth)}, {*scheme.spans(answer)}) for truth, answer in zip(truths, answers, strict=True)]
    counts = np.array([(len(true), len(found), len(true & found)) for true, found in sets])
    drawn = []
    for _ in range(2000):
        true, found, both = counts[rng.integers(0, 80, 80)].sum(0)
        drawn.append(2 * both / (true + found))
    assert metric.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.01)
    assert metric.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.01)
    assert metric.low < metric.value < metric.high
    assert (metric.n, metric.interval) == (80, "bootstrap")


def test_a_draw_without_a_rare_type_is_no_draw_in_which_it_was_missed():
    labels = ["O", *(f"B-{kind}" for kind in range(20))]
    each = [[place + 1] for place in range(20)]
    found = spans.spanned(labels, each, each, seed=0)
    assert {(metric.value, metric.low, metric.high) for metric in found.metrics.values()} == {(1, 1, 1)}


def test_a_document_counts_as_one_however_many_spans_it_has():
    """Errors that come together say less than as many that come alone."""
    labels = ["O", "B-X"]
    right, wrong = [1] * 20, [0] * 20
    together = spans.spanned(labels, [right] * 20, [right] * 15 + [wrong] * 5, seed=0).metrics["recall"]
    alone = spans.spanned(labels, [[1]] * 400, [[1]] * 300 + [[0]] * 100, seed=0).metrics["recall"]
    assert together.value == alone.value == 0.75
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(spans, "DRAWS", 400)
    rng, inside = np.random.default_rng(2), 0
    for trial in range(80):
        quality = rng.beta(8, 2, 60)  # documents are easy or hard: 0.8 of the spans on average
        answers = [(rng.random(5) < each).astype(int) for each in quality]
        metric = spans.spanned(["O", "B-X"], [[1] * 5] * 60, answers, seed=trial).metrics["recall"]
        inside += metric.low <= 0.8 <= metric.high
    assert inside / 80 >= 0.87


def test_the_seed_decides_and_nothing_else():
    truths = documents(BIO, 30, 1)
    answers = noisy(truths, BIO, 2)
    first, second, other = (spans.spanned(BIO, truths, answers, seed=seed).metrics for seed in (1, 1, 2))
    assert first == second
    assert first["f1"] != other["f1"]
    assert first["f1"].value == other["f1"].value


def test_differences_are_of_the_same_documents():
    truths = documents(BIO, 200, 1)
    first = noisy(truths, BIO, 2, share=0.2)
    second = noisy(first, BIO, 3, share=0.02)
    found = spans.differences(BIO, truths, first, second, seed=4)
    one, other = (spans.spanned(BIO, truths, answers, seed=4).metrics for answers in (first, second))
    assert list(found) == list(one)
    assert {name: metric.value for name, metric in found.items()} == pytest.approx({name: one[name].value - other[name].value for name in one})
    assert found["f1"].high - found["f1"].low < (one["f1"].high - one["f1"].low) / 2
    assert found["f1"].low < found["f1"].value < found["f1"].high
    back = spans.differences(BIO, truths, second, first, seed=4)["f1"]
    assert (back.value, back.low, back.high) == pytest.approx((-found["f1"].value, -found["f1"].high, -found["f1"].low))


def test_a_model_differs_from_itself_by_nothing():
    truths = documents(BIO, 20, 1)
    answers = noisy(truths, BIO, 2)
    assert {(metric.value, metric.low, metric.high) for metric in spans.differences(BIO, truths, answers, answers, seed=0).values()} == {(0, 0, 0)}


def test_a_thousand_documents_and_types_take_moments():
    labels = ["O", *(f"{prefix}-{kind}" for kind in range(100) for prefix in "BI")]
    truths = documents(labels, 1000, 1, longest=60)
    found = spans.spanned(labels, truths, noisy(truths, labels, 2), seed=0)
    assert len(found.types) == 100
    assert sum(scores.support for scores in found.types) > 20000
