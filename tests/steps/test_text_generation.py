"""Chats and texts: what of them counts, what a model answers, what it learns, and what that is worth."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from modelyard.errors import BadData, Yielded
from modelyard.steps import Evaluate, Finetune, Infer
from modelyard.yard import Yard
from modelyard_jobs import evaluate, finetune, generate, infer
from modelyard_jobs.engine import Engine
from modelyard_jobs.finetune import adapters
from modelyard_jobs.finetune.checkpoint import WEIGHTS
from modelyard_jobs.finetune.examples import Examples
from modelyard_jobs.finetune.text_generation import TextGeneration as Objective
from modelyard_jobs.tasks.text_generation import TextGeneration
from tests.steps.chatting import PHI, TEMPLATES, byte_tokenizer, chat, counted, language_model, loaded, one_by_one, runner, save
from tests.steps.fake import FakeContext, artifact

ENDS = {
    "marked": "<|im_end|>",
    "chatml": "<|im_end|>",
    "thinking": "<|im_end|>",
    "headers": "<|eot|>",
    "instruct": "</s>",
    "reasoning": "</s>",
}
SOUNDS = {
    "cat": "meow", "dog": "woof", "cow": "moo", "duck": "quack", "pig": "oink", "sheep": "baa", "horse": "neigh", "bee": "buzz", "owl": "hoot",
    "frog": "croak", "hen": "cluck", "lion": "roar", "mouse": "squeak", "snake": "hiss", "wolf": "howl", "crow": "caw", "goat": "bleat",
    "bear": "growl", "dove": "coo", "fly": "hum",
}  # fmt: skip


@pytest.fixture(scope="module")
def llama():
    return language_model("llama", spread=0.3)


def infers(**settings):
    return Infer(model="m", data="d", **{"max_new_tokens": 16, **settings})


def evaluates(**settings):
    return Evaluate(model="m", data="d", **settings)


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def measured_items(rows, template="chatml", max_length=512):
    encoder = loaded(language_model("llama"), TEMPLATES.get(template, template)).encoder
    return TextGeneration(evaluates()).prepare(rows, encoder, max_length), encoder.tokenizer


# What counts


@pytest.mark.parametrize("template", TEMPLATES)
def test_only_what_the_assistant_says_counts_with_the_end_of_its_turn(template):
    (item,), tokenizer = measured_items([{"messages": chat("first question", "first answer", "second question", "second answer")}], template)
    end = ENDS[template]
    said = counted(item, tokenizer)
    if template == "thinking":  # what the last answer shows of its thought is the model's to say
        assert said == f"first answer{end}<think>\n\n</think>\n\nsecond answer{end}"
    else:
        assert said.replace(" first", "first").replace(" second", "second") == f"first answer{end}second answer{end}"


@pytest.mark.parametrize("template", TEMPLATES)
def test_users_never_count_whatever_they_write(template):
    chance = random.Random(template)
    tokenizer = byte_tokenizer(TEMPLATES[template])
    marks = [*tokenizer.all_special_tokens, "[INST]", "[/INST]", "assistant", "\n", "<think>", "</think>"]
    rows, answers = [], []
    for _ in range(40):
        turns = []
        for turn in range(2 * chance.randint(1, 3)):
            alphabet, more = ("ABCDE ", marks) if turn % 2 == 0 else ("abcde ", [])
            words = [*"".join(chance.choices(alphabet, k=chance.randint(1, 12))), *chance.choices(more, k=3 if more else 0)]
            chance.shuffle(words)
            turns.append("".join(words).strip() or ("Q" if turn % 2 == 0 else "a"))
        if turns[0] != turns[0].strip():
            continue
        rows.append({"messages": chat(*turns)})
        answers.append("".join(turns[1::2]).replace(" ", ""))
    items, tokenizer = measured_items(rows, template)
    for item, answer in zip(items, answers, strict=True):
        said = counted(item, tokenizer).replace(ENDS[template], "").replace("<think>\n\n</think>\n\n", "").replace(" ", "")
        assert said == answer


@pytest.mark.parametrize("answer", ["im_end", "<|im_end|>", "|>", "assistant", "user", "same", "<think>", "a\n", "é日本😀"])
def test_answers_that_look_like_the_template_or_the_question_count_as_what_they_are(answer):
    for template in ("marked", "chatml", "thinking"):
        (item,), tokenizer = measured_items([{"messages": chat(f"same {answer}", answer)}], template)
        # The template with marks shows the answer as it is, the others are told by their content without what surrounds it.
        assert counted(item, tokenizer).removeprefix("<think>\n\n</think>\n\n").removesuffix("<|im_end|>").strip() == answer.strip()


def test_a_thought_that_the_template_leaves_out_does_not_count():
    """As DeepSeek R1's: what follows the thought is shown with the white space before it."""
    shown = (
        "{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{% else %}{{ '<|Assistant|>' + m['content'].split('</think>')[-1] + eos_token }}"
    )
    template = f"{{% for m in messages %}}{shown}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}<|Assistant|><think>\n{{% endif %}}"
    turns = ("q", "<think>\nhm\n</think>\n\nyes", "another", "<think>\nso\n</think>\n\nno")
    (item,), tokenizer = measured_items([{"messages": chat(*turns)}], template)
    assert counted(item, tokenizer) == "\n\nyes</s>\n\nno</s>"


@pytest.mark.parametrize("swallows", [False, True])
def test_each_turn_ends_where_the_template_ends_the_whole_chat_too(swallows):
    """Phi's marks are tokens that hold the line's end behind them: the answer's last token reaches beyond what the assistant said."""
    from tokenizers import AddedToken

    encoder = loaded(language_model("llama"), PHI).encoder
    marks = [AddedToken(mark, rstrip=swallows, normalized=False) for mark in ("<|user|>", "<|assistant|>", "<|end|>")]
    encoder.tokenizer.add_tokens(marks, special_tokens=True)
    (item,) = TextGeneration(evaluates()).prepare([{"messages": chat(*"abcd")}], encoder, 64)
    said = [encoder.tokenizer.decode([token]) for token in item.values.ids[item.values.said]]
    assert [token for token in said if token != "\n"] == ["b", "<|end|>", "d", "<|end|>", "</s>"]
    assert generate.stops(language_model("llama"), encoder.tokenizer) == encoder.tokenizer.convert_tokens_to_ids(["</s>", "<|end|>"])


@pytest.mark.parametrize("template", ["marked", "chatml"])
def test_a_template_that_asks_for_the_date_gives_the_same_text_on_every_day(template):
    """As those of Llama 3.2 and Mistral Small do."""
    asks = "\n{%- macro day() %}{{ strftime_now('%Y-%m-%d').split('-')[0] }}{% endmacro -%}{{ strftime_now('%d %b %Y') }}/{{ day() }}"
    (item,), tokenizer = measured_items([{"messages": chat("q", "a")}], asks + TEMPLATES[template])
    assert tokenizer.decode(item.values.ids).startswith("26 Jul 2024/2024<|im_start|>user")
    assert counted(item, tokenizer) == "a<|im_end|>"


def test_a_chat_of_which_the_template_shows_nothing_is_a_fault_of_its_row():
    (fault,), _ = measured_items([{"messages": chat("q", "a")}], "{% generation %}{% endgeneration %}")
    assert fault == "the model's tokenizer finds nothing in the text"


def closing(template="chatml"):
    """An encoder whose tokenizer puts the token that ends a text behind each."""
    from tokenizers.processors import TemplateProcessing

    encoder = loaded(language_model("llama"), TEMPLATES[template]).encoder
    tokenizer = encoder.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)])
    return encoder, tokenizer


def test_a_text_is_ended_once_and_a_prompt_not_at_all():
    encoder, tokenizer = closing()
    (item,) = TextGeneration(evaluates()).prepare([{"prompt": "abc", "completion": "de"}], encoder, 64)
    assert tokenizer.decode(item.values.ids) == "abcde</s>"
    assert counted(item, tokenizer) == "de</s>"
    (asked,) = TextGeneration(infers()).prepare([{"prompt": "abc"}], encoder, 64)
    assert tokenizer.decode(asked.values.ids) == "abc"


def test_a_tokenizer_that_does_not_know_places_is_named(monkeypatch):
    encoder = loaded(language_model("llama")).encoder
    monkeypatch.setattr(type(encoder.tokenizer), "is_fast", False)
    with pytest.raises(BadData, match="does not say which characters a token stands for"):
        TextGeneration(evaluates()).prepare([{"messages": chat("q", "a")}], encoder, 64)


def test_a_system_message_does_not_count():
    (item,), tokenizer = measured_items([{"messages": chat("question", "answer", system="be kind")}], "headers")
    assert counted(item, tokenizer) == "answer<|eot|>"


def test_what_is_said_before_anybody_asked_is_no_answer():
    messages = [{"role": "assistant", "content": "ab"}, *chat("q", "cd")]
    (item,), tokenizer = measured_items([{"messages": messages}])
    assert counted(item, tokenizer) == "cd<|im_end|>"


def test_the_first_token_never_counts_for_nothing_precedes_it():
    messages = [{"role": "assistant", "content": "ab"}, *chat("q", "cd")]
    bare = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% else %}{% generation %}{{ m['content'] }}{% endgeneration %}"
    (item,), tokenizer = measured_items([{"messages": messages}], bare + "{% endif %}{% endfor %}")
    assert counted(item, tokenizer) == "bcd"


@pytest.mark.parametrize(
    ("template", "messages", "why"),
    [
        ("instruct", chat("q", "a", system="s"), "the chat template fails: roles must alternate, the user first"),
        ("{{ messages[0].nothing.at_all }}", chat("q", "a"), "the chat template fails: 'dict object' has no attribute 'nothing'"),
        ("{% for m in messages %}{{ m['content'] ", chat("q", "a"), "the chat template fails: unexpected end of template"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", chat("q", "a"), "the chat template does not show what the assistant says"),
        ("{% for m in messages %}{{ m['content'] | upper }}.{% endfor %}", chat("q", "a"), "does not show message 2 as it was written"),
        (
            "x{{ 'x' if messages | length > 2 }}{% for m in messages %}{{ m['content'] }}.{% endfor %}",
            chat(*"qaqa"),
            "precedes message 2 differently",
        ),
    ],
)
def test_a_template_that_fails_is_a_fault_of_its_row(template, messages, why):
    (fault,), _ = measured_items([{"messages": messages}], template)
    assert isinstance(fault, str)
    assert why in fault


def test_a_million_characters_are_cut_and_what_is_lost_is_counted():
    long = "a" * 10**6
    (cut, gone), _ = measured_items([{"messages": chat("q", long)}, {"messages": chat(long, "a")}], max_length=100)
    assert (cut.size, cut.truncated) == (100, True)
    assert cut.values.said.sum() + cut.values.lost == 10**6 + 1
    assert gone == "the answers come after the first 100 tokens, which are kept"


# What a model answers


def answered(made, rows, budget=4096):
    """(answers, sizes of the batches)."""
    batches = []
    run = made.run
    made.run = lambda arrays: batches.append(len(arrays["input_ids"])) or run(arrays)
    engine = Engine(made, made.task, 512, budget)
    found = engine.answer(engine.prepare(rows), lambda done: None)
    assert not found.faults.any()
    return found.answers, batches


def prompts(count, seed=0):
    chance = random.Random(seed)
    return [{"text": "".join(chance.choices("abcdef ", k=chance.randint(1, 40))).strip() or "a"} for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_come_in_the_order_of_the_rows_whatever_the_batches(llama, temperature):
    rows = prompts(24)
    made = [runner(llama, infers(temperature=temperature)) for _ in range(3)]
    together, of_all = answered(made[0], rows)
    alone, ones = answered(made[1], rows, budget=1)
    backwards, _ = answered(made[2], rows[::-1], budget=200)
    assert together == alone == backwards[::-1]
    assert ones == [1] * 24
    assert max(of_all) > 8
    assert len({answer["answer"] for answer in alone}) > 12


def test_draws_follow_the_seed_and_the_temperature(llama):
    rows = prompts(8)

    def texts(**settings):
        return [answer["answer"] for answer in answered(runner(llama, infers(**settings)), rows)[0]]

    assert texts(temperature=1.0) == texts(temperature=1.0) != texts(temperature=1.0, seed=7)
    assert texts(temperature=1e-6) == texts()
    assert texts(temperature=1.0) != texts()


def test_draws_have_the_models_probabilities(llama):
    ids = torch.tensor([[20, 30, 40]])
    with torch.inference_mode():
        expected = (llama(ids).logits[0, -1].double() / 1.5).softmax(0)
        draws = torch.from_numpy(np.random.default_rng(0).random((4000, 1)))
        batch = generate.Batch(ids.expand(4000, 3), None, torch.ones(4000, dtype=torch.int64), draws)
        tokens, _ = generate.generate(llama, batch, [], temperature=1.5)
    counts = torch.bincount(tokens[:, 0], minlength=len(expected)).double()
    likely = expected > 0.01
    chi2 = (((counts - 4000 * expected) ** 2) / (4000 * expected))[likely].sum()
    assert chi2 < likely.sum() + 5 * math.sqrt(2 * likely.sum())
    assert counts[expected < 1e-6].sum() < 10


@pytest.mark.parametrize("family", ["llama", "qwen3_next"])
def test_rows_that_have_ended_leave_their_batch(family):
    """Also that of a model of which most layers keep a state instead of keys and values."""
    rows, model = prompts(6), language_model(family, spread=0.3)
    made = runner(model, infers())
    items = made.task.prepare(rows, made.encoder, 512)
    free = one_by_one(model, [item.values.ids.tolist() for item in items], 16, [])
    made.stops = [free[0][2], free[1][5]]
    widths = []
    hook = model.register_forward_pre_hook(lambda module, args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True)
    raws = made.raws(items)
    hook.remove()
    assert [raw["tokens"].tolist() for raw in raws] == one_by_one(model, [item.values.ids.tolist() for item in items], 16, made.stops)
    assert widths[0] == 6
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 6
    lengths = [len(raw["tokens"]) + (raw["ended"] == 0) for raw in raws]
    assert sum(widths) == sum(lengths)  # not a token was computed for a row that had ended
    assert made.generated == sum(len(raw["tokens"]) for raw in raws)


def test_the_speed_counts_the_tokens_that_there_were_and_not_those_that_there_might_have_been(llama):
    rows = prompts(12)
    made = runner(llama, infers(max_new_tokens=50))
    items = made.task.prepare(rows, made.encoder, 512)
    made.stops = one_by_one(llama, [items[0].values.ids.tolist()], 3, [])[0]
    engine = Engine(made, made.task, 512, 4096)
    found = engine.answer(items, lambda done: None)
    answers = sum(answer["tokens"] for answer in found.answers)
    prompted = [len(item.values.ids) for item in items]
    assert answers < 12 * 50
    speed = engine.speed()
    assert (speed["generated"], speed["tokens"]) == (answers, sum(prompted) + answers)
    # All went in one batch, padded to the longest prompt.
    assert speed["padding"] == pytest.approx(1 - speed["tokens"] / (12 * max(prompted) + answers), abs=1e-4)


def test_a_model_with_a_state_of_another_kind_answers_nothing_and_says_so():
    made = loaded(language_model("mamba"))
    with pytest.raises(BadData, match="cannot go on with a text here") as raised:
        generate.runner(TextGeneration(infers()), made, None)
    assert "MambaForCausalLM" in raised.value.why


def test_an_answer_ends_at_a_stop_token_or_at_its_length(llama):
    made = runner(llama, infers(max_new_tokens=4))
    found, _ = answered(made, [{"text": "abc"}])
    assert (found[0]["tokens"], found[0]["finish"]) == (4, "length")
    (item,) = made.task.prepare([{"text": "abc"}], made.encoder, 512)
    made.stops = one_by_one(llama, [item.values.ids.tolist()], 4, [])[0][1:2]
    found, _ = answered(made, [{"text": "abc"}])
    assert (found[0]["tokens"], found[0]["finish"]) == (1, "stop")


@pytest.mark.parametrize(("template", "names"), [("chatml", ["</s>", "<|im_end|>"]), ("headers", ["</s>", "<|eot|>"]), ("instruct", ["</s>"])])
def test_stop_tokens_are_those_of_the_model_the_tokenizer_and_the_template(llama, template, names):
    made = runner(llama, infers(), TEMPLATES[template])
    assert made.tokenizer.convert_ids_to_tokens(made.stops) == names
    model = language_model("llama")
    model.generation_config.eos_token_id = [7, 11]
    assert generate.stops(model, byte_tokenizer(None)) == [2, 7, 11]


def test_positions_bound_an_answer():
    model = language_model("gpt2", spread=0.3, positions=24)
    made = runner(model, infers(max_new_tokens=100))
    engine = Engine(made, made.task, 512, 4096)
    assert engine.max_length == 24
    found = engine.answer(engine.prepare([{"text": "a" * 20}, {"text": "b" * 100}, {"messages": chat("c" * 30)}]), lambda done: None)
    assert [answer and answer["tokens"] for answer in found.answers] == [4, 1, None]
    assert found.truncated.tolist() == [False, True, False]
    assert found.faults[2] == "the chat has more than 23 tokens (max_length, or what the model has positions for)"


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same(llama, monkeypatch):
    rows = prompts(12)
    expected, _ = answered(runner(llama, infers()), rows)
    made = runner(llama, infers())
    forward = llama.forward

    def small(**inputs):
        if len(inputs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("out of memory\n")
        return forward(**inputs)

    monkeypatch.setattr(llama, "forward", small)
    found, batches = answered(made, rows)
    assert found == expected
    assert max(batches) > 3
    assert min(batches) <= 3


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_model_that_gives_no_number_is_a_fault_of_the_row(llama, monkeypatch, number):
    made = runner(llama, infers())
    forward = llama.forward

    def broken(**inputs):
        found = forward(**inputs)
        found.logits[(inputs["input_ids"] == 99).any(1), :, 7] = number
        return found

    monkeypatch.setattr(llama, "forward", broken)
    row = {"text": made.tokenizer.decode([99])}
    engine = Engine(made, made.task, 512, 4096)
    found = engine.answer(engine.prepare([row, {"text": "abc"}]), lambda done: None)
    assert found.faults.tolist()[0] == "the model gave no number"
    assert found.faults.tolist()[1] == ""


# The steps


@pytest.fixture
def yard(tmp_path):
    return Yard.open(tmp_path / "yard")


@pytest.fixture
def step(yard, tmp_path):
    """step(settings, model folder or artifact, files) -> context."""
    made = []

    def make(settings, model, files, key=None, attempt=1, **inputs):
        model = model if not hasattr(model, "joinpath") else artifact(yard, "model", model)
        made.append(settings)
        return FakeContext(
            settings,
            {"model": model, "data": artifact(yard, "dataset", files), **inputs},
            yard,
            tmp_path / f"work-{len(made)}",
            key=f"{key or len(made):064x}",
            attempt=f"run-r1.s{key or len(made)}.{attempt}",
        )

    return make


@pytest.fixture
def base(llama, tmp_path):
    return save(llama, tmp_path / "llama")


def records(context):
    return [json.loads(line) for path in sorted((context.out / "data").iterdir()) for line in path.open()]


def test_a_chat_from_end_to_end(step, yard, tmp_path):
    """Twenty questions are taught by adapters, and answered as taught, ends included."""
    rows = jsonl({"messages": chat(animal, sound)} for animal, sound in SOUNDS.items())
    files = {"train.jsonl": rows, "validation.jsonl": rows, "test.jsonl": rows}
    folder = save(language_model("llama", spread=0.3, hidden_size=64, intermediate_size=128), tmp_path / "base")
    settings = Finetune(
        model="m", data="d", task="text-generation", method="lora", lora_rank=32, epochs=30, batch_size=10, learning_rate=5e-3, patience=30
    )
    training = step(settings, folder, files)
    finetune.run(training)
    assert training.details["history"]["validation"][-1]["token_accuracy"] > 0.99
    tuned = artifact(yard, "model", training.out, "safetensors")

    asking = step(infers(split="test"), tuned, files)
    infer.run(asking)
    found = records(asking)
    assert [record["row"] for record in found] == list(range(20))
    assert [record["answer"] for record in found] == list(SOUNDS.values())
    assert {record["finish"] for record in found} == {"stop"}
    assert asking.decisions["stop_tokens"] == ["</s>", "<|im_end|>"]
    assert asking.details["speed"]["generated"] == sum(map(len, SOUNDS.values()))
    assert asking.details["speed"]["generated_per_second"] > 0

    measuring = step(evaluates(), tuned, files)
    evaluate.run(measuring)
    document = json.loads((measuring.out / "metrics.json").read_text())
    assert document["metrics"]["token_accuracy"]["value"] > 0.99
    assert 1 < document["metrics"]["perplexity"]["value"] < 1.2
    assert document["tokens"] == sum(len(sound) + 1 for sound in SOUNDS.values())


def test_hostile_chats_are_faults_of_their_rows_with_words(step, base):
    rows = [
        {"messages": chat("hello")},
        {"messages": []},
        {"messages": None},
        {"messages": [{"role": "system", "content": "alone"}]},
        {"messages": [{"role": "robot", "content": "hello"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user"}]},
        {"messages": chat("x" * 10**6)},
        {"messages": chat("hello", "hi")},
    ]
    context = step(infers(max_error_rate=1.0), base, {"test.jsonl": jsonl(rows)})
    infer.run(context)
    found = records(context)
    errors = [record["error"] and record["error"]["what"] for record in found]
    assert [error is None for error in errors] == [True, *[False] * 8, True]
    assert found[0]["answer"] == found[9]["answer"]  # the question whose answer is given is asked again
    assert errors[1] == "no message is the user's"
    assert "robot" in errors[4]
    assert errors[8].startswith("the chat has more than 256 tokens")
    assert context.details["rows"]["failed"] == 8
    with pytest.raises(BadData, match="more than max_error_rate"):
        infer.run(step(infers(), base, {"test.jsonl": jsonl(rows)}))


@pytest.mark.parametrize(
    "rows", ['{"messages": "hello"}\n', '{"messages": 3}\n', '{"messages": {"role": "user", "content": "x"}}\n', '{"messages": [["user", "x"]]}\n']
)
def test_messages_of_another_shape_are_refused_with_words(step, base, rows):
    with pytest.raises(BadData) as caught:
        infer.run(step(infers(), base, {"test.jsonl": rows * 3}))
    assert "message" in caught.value.why


def test_infer_goes_on_from_its_parts_and_stops_within_an_answer(step, base, monkeypatch):
    monkeypatch.setattr(TextGeneration, "window", 4)
    files = {"test.jsonl": jsonl(prompts(12))}
    whole = step(infers(temperature=1.0), base, files)
    infer.run(whole)
    cut = step(infers(temperature=1.0), base, files, key=77)
    tokens = []
    check = cut.stop.check

    def stopping():
        tokens.append(1)
        if len(tokens) > 40:
            cut.stop.requested = True
        check()

    cut.stop.check = stopping
    with pytest.raises(Yielded):
        infer.run(cut)
    again = step(infers(temperature=1.0), base, files, key=77, attempt=2)
    infer.run(again)
    assert records(again) == records(whole)
    assert again.details["speed"]["rows"] < 12


def test_a_step_with_chats_and_a_model_without_a_template_says_so(step, llama, tmp_path):
    folder = save(llama, tmp_path / "plain", None)
    for settings, run in ((infers(), infer.run), (Finetune(model="m", data="d", task="text-generation"), finetune.run)):
        with pytest.raises(BadData, match="the model has no chat template"):
            run(step(settings, folder, {"train.jsonl": jsonl([{"messages": chat("q", "a")}] * 20)}))


# What it is worth


def test_perplexity_is_that_of_the_tokens_that_count(step, base, llama):
    rows = [{"messages": chat("what?", "this " * count)} for count in range(1, 9)]
    context = step(evaluates(), base, {"test.jsonl": jsonl(rows)})
    evaluate.run(context)
    items, _ = measured_items(rows)
    loss = tokens = hits = 0
    for item in items:
        ids, said = torch.from_numpy(item.values.ids), torch.from_numpy(item.values.said)
        with torch.inference_mode():
            scores = llama(ids[None]).logits[0, :-1].double().log_softmax(1)
        loss -= scores.gather(1, ids[1:, None])[:, 0][said[1:]].sum().item()
        hits += (scores.argmax(1) == ids[1:])[said[1:]].sum().item()
        tokens += int(said.sum())
    found = json.loads((context.out / "metrics.json").read_text())
    assert found["metrics"]["perplexity"]["value"] == pytest.approx(math.exp(loss / tokens), rel=1e-5)
    assert found["metrics"]["token_accuracy"]["value"] == pytest.approx(hits / tokens)
    assert (found["tokens"], found["main"], found["metrics"]["perplexity"]["n"]) == (tokens, "log_likelihood", 8)
    assert all(error["text"].startswith("user: what? assistant: this ") for error in found["errors"])
    assert found["errors"]
    lines = [json.loads(line) for line in (context.out / "predictions.jsonl").open()]
    assert sum(line["tokens"] * line["predicted"]["loss"] for line in lines) == pytest.approx(loss, rel=1e-4)


def test_logits_of_a_graph_and_what_torch_reduces_are_worth_the_same(llama):
    made = runner(llama, evaluates())
    items = made.task.prepare(
        [{"text": "a text"}, {"messages": chat("question", "answer")}, {"prompt": "one", "completion": "two"}], made.encoder, 512
    )
    reduced = made.task.answers(made.raws(items), items, [])
    arrays = made.task.collate(items, made.encoder)
    with torch.inference_mode():
        logits = llama(**{name: torch.from_numpy(array) for name, array in arrays.items()}).logits.numpy()
    for one, other in zip(reduced, made.task.answers(made.task.raws({"logits": logits}, items), items, []), strict=True):
        assert one == {**other, "loss": pytest.approx(other["loss"], rel=1e-5)}


def test_prompts_with_completions_are_measured_by_these(step, base):
    rows = [{"prompt": "one and ", "completion": "two"}, {"prompt": "three and ", "completion": "four"}]
    context = step(evaluates(), base, {"test.jsonl": jsonl(rows)})
    evaluate.run(context)
    found = json.loads((context.out / "metrics.json").read_text())
    assert found["tokens"] == len("two") + len("four") + 2
    assert {error["text"] for error in found["errors"]} <= {"one and  two", "three and  four"}, "with what was measured"
    assert found["errors"]


def test_two_models_with_other_templates_are_not_compared(step, base, llama, yard, tmp_path):
    other = artifact(yard, "model", save(llama, tmp_path / "other", TEMPLATES["headers"]))
    files = {"test.jsonl": jsonl([{"messages": chat("q", "answer")}] * 4)}
    with pytest.raises(BadData, match="cut the texts into different tokens"):
        evaluate.run(step(evaluates(against="other"), base, files, against=other))


# What it learns


def objective(model, rows, template="chatml", **settings):
    task = TextGeneration(Finetune(model="m", data="d", task="text-generation", **settings))
    kept = np.arange(len(rows))

    class Rows(Examples):
        def values(self, places=None):
            return rows

    part = Rows(None, {"messages": "messages"}, kept, [None] * len(rows))
    none = Rows(None, {"messages": "messages"}, kept[:0], [])
    none.values = None
    return Objective(task, loaded(model, TEMPLATES[template]), part, part, 128)


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_accumulated_gradients_are_those_of_one_large_batch(family):
    model = language_model(family, spread=0.3)
    rows = [{"messages": chat("q" * count, "a" * (2 * count))} for count in (1, 3, 8, 20)]
    made = objective(model, rows)

    def gradient(parts):
        model.zero_grad()
        batches = [made.collate(np.array(part)) for part in parts]
        items = sum(count for _, count in batches)
        for batch, _ in batches:
            (made.loss(model, batch) / items).backward()
        return items, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    (items, large), (same, small) = gradient([[0, 1, 2, 3]]), gradient([[3], [0, 2], [1]])
    assert items == same == sum(2 * count + 1 for count in (1, 3, 8, 20))
    assert torch.allclose(large, small, atol=1e-5 * float(large.abs().max()))


def test_the_loss_is_that_of_transformers_on_the_same_labels(llama):
    made = objective(llama, [{"messages": chat("question", "answer")}, {"messages": chat("why", "because of this")}])
    batch, items = made.collate(np.array([0, 1]))
    labels = torch.full_like(batch["input_ids"], -100)
    for row, item in enumerate(made.items):
        labels[row, : item.size][torch.from_numpy(item.values.said)] = torch.from_numpy(item.values.ids[item.values.said])
    with torch.inference_mode():
        expected = llama(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        assert made.loss(llama, batch) / items == pytest.approx(float(expected), rel=1e-5)
        score = made.validate(llama, 64, lambda: None)
    assert (score.value, score.loss) == (pytest.approx(-float(expected), rel=1e-5), pytest.approx(float(expected), rel=1e-5))
    assert score.metrics["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_the_routers_loss_is_added_as_the_configuration_says():
    rows = [{"messages": chat("question", "answer")}]
    plain = language_model("qwen3_moe", spread=0.3)
    balanced = language_model("qwen3_moe", spread=0.3, output_router_logits=True, router_aux_loss_coef=0.5)
    made = objective(plain, rows)
    batch, items = made.collate(np.array([0]))
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        extra = balanced(**inputs).aux_loss
        less, more = made.loss(plain, batch), made.loss(balanced, batch)
    assert extra > 0
    assert more - less == pytest.approx(float(0.5 * extra * items), rel=1e-4)


def test_what_is_cut_is_counted_and_rows_without_an_answer_are_left_out(step, base):
    rows = [{"messages": chat("q" * 5, "a" * 5)}] * 10 + [{"messages": chat("q", "a" * 200)}] + [{"messages": chat("q" * 200, "a")}] * 2
    rows += [{"messages": chat("q")}, {"messages": "no"}][:1]
    settings = Finetune(model="m", data="d", task="text-generation", max_length=64, max_steps=1, train_rows=14)
    context = step(settings, base, {"train.jsonl": jsonl(rows), "validation.jsonl": jsonl(rows[:2])})
    finetune.run(context)
    found = context.details["truncated"]
    assert (found["train"], found["validation"]) == (1, 0)
    assert found["left_out"] == {"the answers come after the first 64 tokens, which are kept": 2}
    assert found["lost_tokens"]["train"] > 100
    assert context.details["rows"]["faults"] == {"no message is an answer of the assistant": 1}
    with pytest.raises(BadData, match="no row can be trained on"):
        finetune.run(step(settings, base, {"train.jsonl": jsonl(rows[11:13] * 9)}))


# Adapters


def trained(model, rank=4):
    """Adapters as training leaves them: with weights that change answers."""
    put = adapters.attach(model, rank)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return put


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe", "deepseek_v3", "gpt2"])
def test_adapters_change_nothing_at_first_and_merged_say_the_same(family, tmp_path):
    model = language_model(family, spread=0.1)
    ids = torch.tensor([[20, 30, 40, 50]])
    with torch.inference_mode():
        before = model(ids).logits
    names = dict(model.named_parameters())
    put = adapters.attach(model, 4)
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, before)
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == {
        name for name, _ in model.named_parameters() if ".lora_" in name
    }
    assert not any("lm_head" in name for name, _ in model.named_parameters() if ".lora_" in name)
    assert "all" in put.reason
    assert "lm_head" not in put.targets
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    with torch.inference_mode():
        with_them = model(ids).logits
    adapters.merge(model, put, "f" * 64, tmp_path)
    assert set(dict(model.named_parameters())) == set(names)
    with torch.inference_mode():
        merged = model(ids).logits
    assert not torch.allclose(merged, before, atol=1e-2)
    assert torch.allclose(merged, with_them, atol=1e-4)


def test_adapters_alone_are_peft_s_own_with_the_digest_of_their_base(tmp_path):
    from peft import PeftModel

    model = language_model("llama", spread=0.3)
    put = trained(model)
    adapters.merge(model, put, "ab" * 32, tmp_path)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "ab" * 32
    again = PeftModel.from_pretrained(language_model("llama", spread=0.3), tmp_path / "adapter").eval()
    ids = torch.tensor([[20, 30, 40, 50]])
    with torch.inference_mode():
        assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-4)


def test_a_checkpoint_of_adapters_holds_what_trains_and_resumes_to_the_same_bits(step, base, monkeypatch):
    rows = {"train.jsonl": jsonl({"messages": chat(animal, sound)} for animal, sound in SOUNDS.items())}
    settings = Finetune(model="m", data="d", task="text-generation", method="lora", lora_rank=2, epochs=2, batch_size=4, learning_rate=1e-2)
    whole = step(settings, base, rows)
    finetune.run(whole)
    cut = step(settings, base, rows, key=55)
    progress = cut.progress

    def stop(done, total, unit):
        progress(done, total, unit)
        if done == 6:
            cut.stop.requested = True

    cut.progress = stop
    with pytest.raises(Yielded):
        finetune.run(cut)
    number, folder = cut.checkpoints.furthest()
    assert number == 6
    kept = load_file(folder / WEIGHTS)
    assert kept
    assert all(".lora_" in name for name in kept)
    again = step(settings, base, rows, key=55, attempt=2)
    finetune.run(again)
    assert again.details["history"]["resumed"] == [6]
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (again.out / name).read_bytes() == (whole.out / name).read_bytes()
    assert again.details["adapter"] == {"base": whole.inputs["model"].digest, "folder": "adapter"}
    assert again.decisions["adapters"]["rank"] == 2


def test_adapters_of_a_classifier_train_its_new_head_whole():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=3)
    )
    put = adapters.attach(model, 4)
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {"classifier.weight", "classifier.bias"} <= learning
    assert all(".lora_" in name for name in learning - {"classifier.weight", "classifier.bias"})
    assert "classifier" not in put.targets


def test_adapters_alone_bring_what_was_trained_whole(tmp_path):
    """A head, and a pooler that the base does not have."""
    from peft import PeftModel
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=3)
    torch.manual_seed(0)
    model = BertForSequenceClassification(config).eval()
    base = {name: weight.clone() for name, weight in model.state_dict().items() if "encoder" in name or "embeddings" in name}
    new = [name for name in model.state_dict() if name not in base]
    put = adapters.attach(model, 4, new)
    assert set(put.whole) == set(new) == {f"{layer}.{what}" for layer in ("bert.pooler.dense", "classifier") for what in ("weight", "bias")}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    adapters.merge(model, put, "ab" * 32, tmp_path)
    torch.manual_seed(1)
    other = BertForSequenceClassification(config)
    other.load_state_dict(base, strict=False)
    again = PeftModel.from_pretrained(other, tmp_path / "adapter").eval()
    ids = torch.tensor([[20, 30, 40]])
    with torch.inference_mode():
        assert torch.allclose(again(ids).logits, model(ids).logits, atol=1e-5)


# A real model


@pytest.mark.slow
def test_a_real_chat_model_answers_sensibly_and_alike_in_batches(step, yard, tmp_path):
    from tests.steps import real

    folder = artifact(yard, "model", real.smollm2())
    rows = jsonl({"messages": chat(question)} for question in ("What is the capital of France?", "Write one sentence about the sea.", "Say hello."))
    together, alone = (step(infers(max_new_tokens=24, token_budget=budget), folder, {"test.jsonl": rows}) for budget in (4096, 16))
    for context in (together, alone):
        infer.run(context)
    answers = [record["answer"] for record in records(together)]
    assert "Paris" in answers[0]
    assert "sea" in answers[1].lower()
    assert answers == [record["answer"] for record in records(alone)]
    assert together.decisions["stop_tokens"] == ["<|im_end|>"]
    texts = jsonl({"text": text} for text in ("The sky is blue and the grass is green.", "green blue the is the and grass sky is."))
    measuring = step(evaluates(), folder, {"test.jsonl": texts})
    evaluate.run(measuring)
    sensible, scrambled = (
        [json.loads(line) for line in (measuring.out / "predictions.jsonl").open()][place]["predicted"]["loss"] for place in (0, 1)
    )
    assert sensible < 4 < scrambled


def test_the_result_keeps_the_chat_template(step, base):
    context = step(
        Finetune(model="m", data="d", task="text-generation", max_steps=1), base, {"train.jsonl": jsonl([{"messages": chat("q", "a")}] * 4)}
    )
    finetune.run(context)
    assert AutoTokenizer.from_pretrained(context.out).apply_chat_template(chat("q"), tokenize=False) == "<|im_start|>user\nq<|im_end|>\n"
    assert AutoModelForCausalLM.from_pretrained(context.out).config.model_type == "llama"


@pytest.mark.parametrize("name", ["text", "prompt"])
def test_a_text_of_another_type_is_the_fault_of_its_row(step, llama, tmp_path, name):
    values = ["cat", "dog", 5, "cow", ["owl"]]
    context = step(
        infers(max_error_rate=0.5, max_new_tokens=2), save(llama, tmp_path / "m"), {"test.jsonl": jsonl({name: value} for value in values)}
    )
    infer.run(context)
    assert context.decisions["columns"] == {name: name}
    assert [(record["error"] or {"what": ""})["what"] for record in records(context)] == [
        "",
        "",
        f"the {name} is of type int, not a string",
        "",
        f"the {name} is of type list, not a string",
    ]
