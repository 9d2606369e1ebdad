"""What a language model is worth, in numbers; which chats can be used, and what in them the assistant said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from modelyard.errors import BadData, NoInput, Usage
from modelyard.steps import Evaluate, Finetune, Infer
from modelyard_jobs.metrics import language
from modelyard_jobs.metrics.language import Documents
from modelyard_jobs.tasks import chat
from modelyard_jobs.tasks.task import Item
from modelyard_jobs.tasks.text_generation import Question, Spoken, TextGeneration


def documents(n: int = 200, seed: int = 0, worse: float = 0.0) -> Documents:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 50, n)
    loss = np.array([rng.gamma(2.0, 1.0, count).sum() for count in tokens]) + worse * tokens
    return Documents(tokens, loss, rng.binomial(tokens, 0.4), [f"{number:x}" for number in range(n)])


def test_values_are_those_of_all_tokens_together():
    found = language.measure(Documents(np.array([1, 3]), np.array([2.0, 4.0]), np.array([1, 1]), ["a", "b"]), seed=1)
    assert found["log_likelihood"].value == pytest.approx(-6 / 4)
    assert found["perplexity"].value == pytest.approx(np.exp(6 / 4))
    assert found["token_accuracy"].value == pytest.approx(2 / 4)
    assert {metric.n for metric in found.values()} == {2}


def test_intervals_are_those_of_resampled_documents():
    measured = documents()
    found = language.measure(measured, seed=1)
    rng = np.random.default_rng(7)
    draws = [rng.integers(0, 200, 200) for _ in range(2000)]
    losses = [measured.loss[rows].sum() / measured.tokens[rows].sum() for rows in draws]
    hits = [measured.hits[rows].sum() / measured.tokens[rows].sum() for rows in draws]
    for name, values in {"log_likelihood": np.negative(losses), "perplexity": np.exp(losses), "token_accuracy": hits}.items():
        low, high = np.quantile(values, [0.025, 0.975])
        width = high - low
        assert found[name].low == pytest.approx(low, abs=0.1 * width)
        assert found[name].high == pytest.approx(high, abs=0.1 * width)
        assert found[name].low < found[name].value < found[name].high


def test_tokens_of_a_document_stay_together():
    # One document of a hundred holds most tokens: whether it is drawn decides, and the interval says so.
    even = Documents(np.full(100, 10), np.full(100, 10.0), np.zeros(100, dtype=np.int64), ["x"] * 100)
    heavy = Documents(np.array([991, *[1] * 9]), np.array([3 * 991.0, *[1.0] * 9]), np.zeros(10, dtype=np.int64), ["x"] * 10)
    assert language.measure(even, 0)["log_likelihood"].low == pytest.approx(-1.0)
    found = language.measure(heavy, 0)["log_likelihood"]
    assert (found.low, found.high) == (pytest.approx(-2.99, abs=0.02), pytest.approx(-1.0, abs=0.01))


def test_a_paired_difference_is_in_nats_per_token_and_narrower_than_two_models_apart():
    one, two = documents(), documents(worse=0.1)
    found = language.differences(one, two, seed=1)
    assert found["log_likelihood"].value == pytest.approx(0.1)
    assert (found["log_likelihood"].low, found["log_likelihood"].high) == pytest.approx((0.1, 0.1))
    apart = language.measure(one, 1)["log_likelihood"]
    assert found["log_likelihood"].high - found["log_likelihood"].low < 0.01 * (apart.high - apart.low)
    assert found["perplexity"].value < 0
    assert set(found) == set(language.measure(one, 1))


def test_models_with_other_tokens_are_not_compared():
    one = documents()
    two = Documents(one.tokens, one.loss, one.hits, [*one.cuts[:-1], "else"])
    with pytest.raises(BadData, match="different tokens") as caught:
        language.differences(one, two, seed=1)
    assert "1 of 200 documents, the first of them number 199" in caught.value.why


USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}
SYSTEM = {"role": "system", "content": "be kind"}


@pytest.mark.parametrize("messages", [[USER, ASSISTANT], [SYSTEM, USER, ASSISTANT], [USER, ASSISTANT, USER], [USER, ASSISTANT, USER, ASSISTANT]])
def test_chats_that_can_be_used(messages):
    assert chat.fault(messages, answered=True) is None


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        (None, "the messages are missing"),
        ("hello", "the messages are of type str, not a list"),
        ({"role": "user"}, "the messages are of type dict, not a list"),
        ([], "no message is the user's"),
        ([SYSTEM], "no message is the user's"),
        ([ASSISTANT], "no message is the user's"),
        ([USER], "no message is an answer of the assistant"),
        ([ASSISTANT, USER], "no message is an answer of the assistant"),
        (["hello"], "message 1 is of type str, not an object with role and content"),
        ([USER, None], "message 2 is of type NoneType, not an object with role and content"),
        ([{"content": "hello"}], "message 1 has the role 'None', which is none of system, user, assistant, tool"),
        ([USER, {"role": "bot", "content": "hi"}], "message 2 has the role 'bot', which is none of system, user, assistant, tool"),
        ([{"role": ["user"], "content": "hello"}], "message 1 has the role \"['user']\", which is none of system, user, assistant, tool"),
        ([{"role": "user"}], "message 1 (user) has a content of type NoneType, not a string"),
        ([{"role": "user", "content": [{"type": "text"}]}], "message 1 (user) has a content of type list, not a string"),
        ([USER, {"role": "assistant", "content": " \n"}], "message 2 (assistant) is empty"),
        ([USER, SYSTEM, ASSISTANT], "message 2 is the system's, which only the first may be"),
    ],
)
def test_chats_that_cannot_be_used_say_why(messages, why):
    assert chat.fault(messages, answered=True) == why


def test_a_question_needs_no_answer_and_ends_before_the_last_one():
    assert chat.fault([USER], answered=False) is None
    assert chat.question([SYSTEM, USER]) == [SYSTEM, USER]
    assert chat.question([USER, ASSISTANT, USER, ASSISTANT]) == [USER, ASSISTANT, USER]
    assert chat.question([{**USER, "name": None}, ASSISTANT]) == [USER]


class Letters:
    """Stands in for a tokenizer of transformers: a character is a token, <role> and <end> are characters of their own."""

    bos_token_id, eos_token_id, eos_token, chat_template = 1, 2, "\x02", "letters"
    is_fast = True

    def apply_chat_template(self, messages, *, tokenize, chat_template, add_generation_prompt):
        if any("refuse" in message["content"] for message in messages):
            raise ValueError("not this\nword")
        return "".join(f"<{message['role'][0]}>{message['content']}<e>\n" for message in messages) + ("<a>" if add_generation_prompt else "")

    def __call__(self, text, *, add_special_tokens=True, return_offsets_mapping=False, verbose=False):
        first = [1] if add_special_tokens else []
        places = [(0, 0)] * len(first) + [(place, place + 1) for place in range(len(text))]
        return {"input_ids": first + [ord(letter) for letter in text], "offset_mapping": places}

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids))


class Encoder:
    limit, pad = 64, 0
    tokenizer = Letters()

    def texts(self, texts, max_length, pairs=None):
        ids = [[1, *map(ord, text)] for text in texts]
        return [row[:max_length] for row in ids], [len(row) > max_length for row in ids]


def table(**columns):
    """A data set's columns and their types."""
    features = {name: SimpleNamespace(dtype=kind) if kind else SimpleNamespace() for name, kind in columns.items()}
    return SimpleNamespace(column_names=list(columns), features=features)


INFER, EVALUATE = (TextGeneration(step(model="m", data="d", max_length=40)) for step in (Infer, Evaluate))


@pytest.mark.parametrize(
    ("columns", "settings", "infer", "train"),
    [
        ({"messages": None}, {}, {"messages": "messages"}, {"messages": "messages"}),
        ({"id": "string", "Conversation": None}, {}, {"messages": "Conversation"}, {"messages": "Conversation"}),
        ({"turns": None, "note": "string"}, {"text": "turns"}, {"messages": "turns"}, {"messages": "turns"}),
        ({"prompt": "string", "completion": "string"}, {}, {"prompt": "prompt"}, {"prompt": "prompt", "completion": "completion"}),
        ({"instruction": "string", "output": "large_string"}, {}, {"prompt": "instruction"}, {"prompt": "instruction", "completion": "output"}),
        ({"line": "string"}, {}, {"text": "line"}, {"text": "line"}),
        ({"a": "string", "text": "string"}, {}, {"text": "text"}, {"text": "text"}),
    ],
)
def test_columns_are_named_or_found(columns, settings, infer, train):
    for step, expected in ((Infer, infer), (Finetune, train), (Evaluate, train)):
        assert TextGeneration(step(model="m", data="d", **settings)).columns(table(**columns), truth=step is not Infer) == expected


def test_a_label_names_the_completion_and_one_that_is_missing_is_said():
    task = TextGeneration(Finetune(model="m", data="d", text="a", label="b"))
    assert task.columns(table(a="string", b="string"), truth=True) == {"prompt": "a", "completion": "b"}
    with pytest.raises(NoInput, match="no column is clearly the label"):
        EVALUATE.columns(table(prompt="string", more="string"), truth=True)
    with pytest.raises(NoInput, match="has no column 'b'"):
        task.columns(table(a="string"), truth=True)


def said(item: Item) -> str:
    return "".join(map(chr, item.values.ids[item.values.said]))


def test_what_counts_of_a_chat_is_the_assistants_with_the_end_of_its_turn():
    (item,) = EVALUATE.prepare([{"messages": [USER, ASSISTANT, {**USER, "content": "<a>no<e>"}, {**ASSISTANT, "content": "e"}]}], Encoder(), 64)
    assert said(item) == "hi<e>e<e>"
    assert not item.truncated


def test_what_counts_of_a_completion_ends_with_the_token_that_ends_a_text():
    (item,) = EVALUATE.prepare([{"prompt": "one ", "completion": "two"}], Encoder(), 64)
    assert said(item) == "two\x02"
    (item,) = EVALUATE.prepare([{"text": "one"}], Encoder(), 64)
    assert said(item) == "one"


def test_what_is_too_long_is_cut_and_what_is_left_without_anything_that_counts_is_a_fault():
    long = [{**USER, "content": "u" * 20}, {**ASSISTANT, "content": "a" * 20}]
    (item,) = EVALUATE.prepare([{"messages": long}], Encoder(), 40)
    assert (item.size, item.truncated, item.values.lost) == (40, True, 13)
    assert said(item) == "a" * 10
    rows = [{"messages": [{**USER, "content": "u" * 60}, ASSISTANT]}, {"text": "x"}, {"prompt": "u" * 60, "completion": "v"}]
    (text,) = EVALUATE.prepare([{"text": "t" * 60}], Encoder(), 40)
    assert (text.size, text.truncated, text.values.lost) == (40, True, 21)
    cut, fine, other = EVALUATE.prepare(rows, Encoder(), 40)
    assert cut == other == "the answers come after the first 40 tokens, which are kept"
    assert said(fine) == "x"


def test_questions_of_texts_are_cut_at_the_beginning_and_those_of_chats_not_at_all():
    fine, cut, fault, refused = INFER.prepare(
        [{"text": "short"}, {"text": "x" * 80 + "end"}, {"messages": [{**USER, "content": "u" * 60}]}, {"messages": [{**USER, "content": "refuse"}]}],
        Encoder(),
        40,
    )
    assert (fine.values.ids.tolist(), fine.values.most) == ([1, *map(ord, "short")], 64 - 6)  # what the model has positions for
    assert (cut.truncated, len(cut.values.ids), cut.values.ids[0]) == (True, 40, 1)
    assert "".join(map(chr, cut.values.ids[-4:])) == "xend"
    assert fault == "the chat has more than 40 tokens (max_length, or what the model has positions for)"
    assert refused == "the chat template fails: not this word"


def test_faults_name_what_is_missing():
    assert EVALUATE.fault({"text": None}) == "the text is missing"
    assert EVALUATE.fault({"prompt": "a", "completion": " "}) == "the completion is empty"
    assert EVALUATE.fault({"prompt": 3, "completion": "a"}) == "the prompt is of type int, not a string"
    assert INFER.fault({"messages": [USER]}) is None
    assert EVALUATE.fault({"messages": [USER]}) == "no message is an answer of the assistant"


def test_draws_are_a_function_of_seed_and_prompt():
    def draws(seed, *prompts):
        task = TextGeneration(Infer(model="m", data="d", temperature=0.7, seed=seed, max_new_tokens=5))
        return [item.values.draws.tolist() for item in task.prepare([{"text": prompt} for prompt in prompts], Encoder(), 40)]

    (one, two, again), (alone,) = draws(1, "a", "b", "a"), draws(1, "b")
    assert one == again != two == alone
    assert draws(2, "a") != [one]
    assert all(0 <= number < 1 for number in one)
    assert INFER.prepare([{"text": "a"}], Encoder(), 40)[0].values.draws is None


def test_questions_are_padded_on_the_left_with_their_draws():
    ids = np.array([5, 6], dtype=np.int64)
    items = [Item(4, Question(ids, 2, np.array([0.1, 0.2]))), Item(5, Question(np.array([7, 8, 9]), 3, np.array([0.3, 0.4, 0.5])))]
    found = INFER.collate(items, Encoder())
    assert found["input_ids"].tolist() == [[0, 5, 6], [7, 8, 9]]
    assert found["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert found["most"].tolist() == [2, 3]
    assert found["draws"].tolist() == [[0.1, 0.2, 0.0], [0.3, 0.4, 0.5]]
    assert ids.tolist() == [5, 6]


def followed(logits: np.ndarray, ids: list[int], counts: list[int]):
    said = np.zeros(len(ids), dtype=np.bool_)
    said[counts] = True
    items = [Item(len(ids), Spoken(np.array(ids), said))]
    return EVALUATE.answers(EVALUATE.raws({"logits": logits[None]}, items), items, [])[0]


def test_answers_from_logits_are_the_losses_of_the_tokens_that_count():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [1, 1, 1]]))
    found = followed(logits, [0, 1, 1, 0], [1, 2])
    assert found["loss"] == pytest.approx(-np.log(0.25) - np.log(0.8))
    assert (found["tokens"], found["hits"]) == (2, 1)
    assert followed(np.full((4, 3), np.nan), [0, 1, 1, 0], [1]) is None


def test_measured_right_and_worst():
    answers = [{"tokens": 2, "loss": loss, "hits": hits, "cut": "x"} for loss, hits in ((1.0, 1), (0.1, 2), (9.0, 0))]
    found = EVALUATE.measure([None] * 3, answers, [])
    assert (found.main, found.document) == ("log_likelihood", {"tokens": 6})
    assert found.metrics["log_likelihood"].value == pytest.approx(-10.1 / 6)
    assert (found.right.tolist(), found.worst.tolist()) == ([False, True, False], [2, 0])
    assert EVALUATE.compared(None, answers[0], []) == {"tokens": 2, "predicted": {"loss": 0.5, "token_accuracy": 0.5}}


def test_an_export_measures_texts_and_neither_generates_nor_chats():
    class Plain(Encoder):
        tokenizer = object()

    assert said(EVALUATE.prepare([{"text": "one"}], Plain(), 40)[0]) == "one"
    for task, row in ((INFER, {"text": "one"}), (EVALUATE, {"messages": [USER, ASSISTANT]})):
        with pytest.raises(Usage, match="can only be measured"):
            task.prepare([row], Plain(), 40)


def test_a_model_without_a_chat_template_is_told_at_once():
    encoder = Encoder()
    encoder.tokenizer = Letters()
    encoder.tokenizer.chat_template = None
    with pytest.raises(BadData, match="no chat template"):
        INFER.prepare([{"messages": [USER]}], encoder, 40)


def test_a_model_that_has_gone_astray_has_numbers_too():
    """The exponential of 5000 has no float; metrics.json holds numbers alone."""
    lost, good = (
        Documents(np.array([2, 3]), np.array([10000.0, 15000.0]), np.array([1, 1]), ["a", "b"]),
        Documents(np.array([2, 3]), np.array([2.0, 3.0]), np.array([1, 1]), ["a", "b"]),
    )
    for found in (language.measure(lost, seed=1), language.differences(lost, good, seed=1), language.differences(good, lost, seed=1)):
        assert all(np.isfinite([metric.value, metric.low, metric.high]).all() for metric in found.values())
    assert language.measure(lost, seed=1)["log_likelihood"].value == -5000
