"""The training loop on a model of a few kilobytes: exactness, interruption, and every way in which a run can go wrong."""

from __future__ import annotations

import itertools
import json
import random
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from modelyard.errors import BadData, DeviceOom, Yielded
from modelyard.steps import Finetune
from modelyard.yard import Yard
from modelyard_jobs.finetune import checkpoint, optimizer
from modelyard_jobs.finetune import loop as loop_module
from modelyard_jobs.finetune.loop import Loop, Score
from modelyard_jobs.finetune.order import Order
from modelyard_jobs.finetune.precision import Precision
from tests.steps.fake import FakeContext

ROWS = 44  # batches of 8 and of 24 leave a short one
FIRST = 1000  # number of the first row in the data that the rows were taken from


MEASURED: list[Score] = []
SCORES = [
    Score(0.5, 0.9, {"accuracy": 0.5}),
    Score(0.75, 0.8, {"accuracy": 0.75}),
    Score(0.6, 0.7, {"accuracy": 0.6}),
    Score(0.7, 0.6, {"accuracy": 0.7}),
]


class Toy:
    """Rows of random tokens of unequal length; the label says whether a token occurs. poison: rows whose loss is not a number."""

    def __init__(self, poison=(), scores=None, parts=3):
        random = np.random.default_rng(7)
        self.lengths = random.integers(2, 12, ROWS)
        self.tokens = [random.integers(1, 20, length) for length in self.lengths]
        self.labels = np.array([int(5 in tokens) for tokens in self.tokens])
        self.rows = np.arange(ROWS) + FIRST
        self.poison, self.scores, self.parts = set(poison), scores, parts
        self.seen, self.at_validation = [], []

    def collate(self, rows):
        self.seen.append(rows.tolist())
        ids = torch.zeros((len(rows), int(self.lengths[rows].max())), dtype=torch.int64)
        for place, row in enumerate(rows):
            ids[place, : self.lengths[row]] = torch.from_numpy(self.tokens[row])
        poisoned = torch.tensor([float("nan") if row in self.poison else 1.0 for row in rows])
        return {"ids": ids, "labels": torch.from_numpy(self.labels[rows]), "poisoned": poisoned}, float(len(rows))

    def loss(self, model, batch):
        return (nn.functional.cross_entropy(model(batch["ids"]), batch["labels"], reduction="none") * batch["poisoned"]).sum()

    def validate(self, model, tokens, pause):
        if self.scores is None:
            return None
        for _ in range(self.parts):
            pause()
        self.at_validation.append({name: value.clone() for name, value in model.state_dict().items()})
        if self.scores is not MEASURED:
            return self.scores[len(self.at_validation) - 1]
        batch, count = self.collate(np.arange(0, ROWS, 4))
        loss = self.loss(model, batch).item() / count
        return Score(-round(loss, 1), loss, {"accuracy": loss})


class Bag(nn.Module):
    """Mean of embeddings, dropout, a linear layer; with a buffer that is state."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16, padding_idx=0)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, ids):
        if self.training:
            self.calls += 1
        return self.head(self.dropout(self.embedding(ids).sum(1) / (ids > 0).sum(1, keepdim=True)))


class StopAfter:
    """A request to stop that is there from the n-th look on."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0

    @contextmanager
    def polled(self):
        yield


@pytest.fixture
def make(tmp_path):
    """make(toy, stop=looks, attempt=n, **settings) -> Loop over one yard and key."""
    yard = Yard.open(tmp_path / "yard")

    def make(toy, *, stop=None, attempt=1, run=None, clock=lambda: 0.0, key="ab" * 32, dtype="float32", **settings):
        settings = {"batch_size": 8, "learning_rate": 0.05, **settings}
        context = FakeContext(Finetune(model="m", data="d", **settings), {}, yard, tmp_path / "work", key=key, attempt=f"run-r1.tuned.{attempt}")
        if stop is not None:
            context.stop = StopAfter(stop)
        torch.manual_seed(0)
        order = Order(toy.lengths, context.settings.batch_size * context.settings.accumulate, context.settings.seed, "digest")
        return Loop(context, Bag(), toy, order=order, precision=Precision(dtype, "for a test"), run=run or {"run": 1}, clock=clock)

    return make


def curve(loop):
    return [(point["step"], point["epoch"], point["loss"], point["lr"]) for point in loop.progress.curve]


def same_weights(one, other):
    return all(torch.equal(one.model.state_dict()[name], value) for name, value in other.model.state_dict().items())


@pytest.mark.parametrize("micro", [1, 2, 3, 5, 8, 24])
def test_accumulated_gradient_is_the_large_batch_gradient(make, micro):
    toy = Toy()
    loop = make(toy, batch_size=micro, max_grad_norm=1e9)
    loop.model.eval()  # no dropout: the same function for all
    rows = np.array([0, 3, 4, 9, 17, 21, 22, 30, 33, 40, 43])  # 11: unequal passes for most
    batch, count = toy.collate(rows)
    expected = torch.autograd.grad(toy.loss(loop.model, batch) / count, list(loop.model.parameters()))
    loss, norm = loop._gradient(rows).tolist()
    for parameter, gradient in zip(loop.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)
    assert loss == pytest.approx(toy.loss(loop.model, batch).item() / count, rel=1e-6)
    assert norm == pytest.approx(torch.cat([gradient.flatten() for gradient in expected]).norm().item(), rel=1e-5)


@pytest.mark.parametrize("bare", [{0, 3, 4}, {40, 43}, {0, 3, 4, 9, 17, 21, 22, 30, 33, 40, 43}])
def test_passes_without_an_item_do_not_weigh_on_the_others(make, bare):
    class Sparse(Toy):
        def collate(self, rows):
            batch, _ = super().collate(rows)
            return {**batch, "poisoned": torch.tensor([float(row not in bare) for row in rows])}, float(sum(row not in bare for row in rows))

    rows = np.array([0, 3, 4, 9, 17, 21, 22, 30, 33, 40, 43])
    measured = [make(Sparse(), batch_size=micro, max_grad_norm=1e9, key=f"{micro:064x}") for micro in (1, 11)]
    for loop in measured:
        loop.model.eval()
    (loss, norm), (large, its) = (loop._gradient(rows).tolist() for loop in measured)
    assert (loss, norm) == (pytest.approx(large, rel=1e-5), pytest.approx(its, rel=1e-5))
    assert (loss == 0) == (len(bare) == len(rows))


def test_accumulation_trains_as_the_large_batch_does(make):
    large = make(Toy(), batch_size=24, epochs=3, key="01" * 32)
    small = make(Toy(), batch_size=8, accumulate=3, epochs=3, key="02" * 32)
    for loop in (large, small):
        loop.model.dropout.p = 0.0
        loop.train()
    assert [step for step, *_ in curve(small)] == [1, 2, 3, 4, 5, 6]
    assert [loss for *_, loss, _ in curve(small)] == pytest.approx([loss for *_, loss, _ in curve(large)], rel=1e-5)


def test_a_small_pass_on_the_cpu_changes_nothing_but_rounding(make, monkeypatch):
    whole = make(Toy(), epochs=2, key="01" * 32)
    monkeypatch.setattr(loop_module, "CPU_FLOPS", 6 * 34 * 20)  # 34 weights beside the embeddings: 20 tokens
    toy = Toy()
    bounded = make(toy, epochs=2, key="02" * 32)
    assert bounded.most_tokens == 20
    for loop in (whole, bounded):
        loop.model.dropout.p = 0.0
        loop.train()
    assert max(len(rows) * max(toy.lengths[rows]) for rows in toy.seen) <= 20
    assert [loss for *_, loss, _ in curve(bounded)] == pytest.approx([loss for *_, loss, _ in curve(whole)], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_stopped_again_and_again_ends_as_the_one_that_was_not(make, accumulate, seed):
    settings = {"epochs": 4, "accumulate": accumulate, "batch_size": 3}
    straight = make(Toy(scores=MEASURED), key="01" * 32, **settings)
    straight.train()

    chance, toy, losses, stops = random.Random(seed), Toy(scores=MEASURED), {}, []
    for attempt in itertools.count(1):
        looks = chance.randint(1, 40)
        # Time passes with every look at the clock, so that some checkpoints come from it.
        resumed = make(toy, stop=looks, attempt=attempt, clock=itertools.count().__next__, checkpoint_every=25, **settings)
        np.random.seed(attempt)  # whatever the process did before
        try:
            resumed.train()
            break
        except Yielded:
            stops.append(resumed.progress.step)
        finally:
            losses |= {point[0]: point for point in curve(resumed)}
    assert attempt > 3
    assert stops == sorted(stops)
    assert [losses[step] for step in sorted(losses)] == curve(straight) == curve(resumed)  # to the last digit
    assert same_weights(resumed, straight)
    assert resumed.progress.epochs == straight.progress.epochs
    assert (resumed.progress.tokens, resumed.progress.padded, resumed.progress.trained) == (
        straight.progress.tokens,
        straight.progress.padded,
        straight.progress.trained,
    )


def test_stopped_within_a_step_the_step_is_forgotten(make):
    toy = Toy()
    loop = make(toy, stop=2 + 3 + 1, batch_size=4, accumulate=2, epochs=1)  # looks: each pass, and after the step
    assert [len(rows) for rows in loop.order.epoch(0)[:3]] == [4, 8, 8]
    with pytest.raises(Yielded):
        loop.train()
    assert len(toy.seen) == 5  # the third step was under way
    folder = loop.context.checkpoints.furthest()
    assert folder is not None
    assert folder[0] == loop.progress.step == 2
    before = load_file(folder[1] / "weights.safetensors")
    assert all(torch.equal(before[name], value) for name, value in loop.model.state_dict().items())
    assert all(parameter.grad is None for parameter in loop.model.parameters())


def test_stopped_before_the_first_step_nothing_is_kept(make):
    loop = make(Toy(), stop=0)
    with pytest.raises(Yielded):
        loop.train()
    assert loop.context.checkpoints.attempts() == {}


def test_stopped_within_a_validation_the_validation_is_repeated(make):
    toy = Toy(scores=SCORES)
    steps = 6
    loop = make(toy, stop=2 * steps + 1, epochs=1)  # after the second of three validation batches
    with pytest.raises(Yielded):
        loop.train()
    assert toy.at_validation == []
    assert (loop.progress.step, loop.progress.epoch) == (6, 0)
    trained = len(toy.seen)
    again = make(toy, attempt=2, epochs=1)
    again.train()
    assert len(toy.seen) == trained
    assert len(toy.at_validation) == 1
    assert again.progress.resumed == [6]


def test_a_torn_checkpoint_is_skipped_for_the_one_before(make):
    straight = make(Toy(scores=MEASURED), epochs=4, key="01" * 32)
    straight.train()
    loop = make(Toy(scores=MEASURED), stop=2 * 15, epochs=4)  # in the third epoch
    with pytest.raises(Yielded):
        loop.train()
    steps = sorted(int(name.removeprefix("step-")) for name in loop.context.checkpoints.mine() if name.startswith("step-"))
    assert len(steps) == 2
    newest = loop.context.checkpoints.whole(f"step-{steps[-1]}") / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.chmod(0o644)
    newest.write_bytes(content)
    again = make(Toy(scores=MEASURED), attempt=2, epochs=4)
    again.train()
    assert again.progress.resumed == [steps[0]]
    assert any(message.get("event") == "checkpoint skipped" for message in again.context.said)
    assert curve(again) == curve(straight)
    assert same_weights(again, straight)


def test_a_checkpoint_whose_best_weights_are_gone_is_not_resumed_from(make):
    straight = make(Toy(scores=MEASURED), epochs=4, key="01" * 32)
    straight.train()
    loop = make(Toy(scores=MEASURED), stop=2 * 15, epochs=4)
    with pytest.raises(Yielded):
        loop.train()
    loop.context.checkpoints.whole("best-2").joinpath("weights.safetensors").unlink()
    again = make(Toy(scores=MEASURED), attempt=2, epochs=4)
    again.train()
    assert again.progress.resumed == []
    assert same_weights(again, straight)


def test_the_checkpoint_of_another_run_is_ignored(make):
    with pytest.raises(Yielded):
        make(Toy(), stop=9, run={"learning_rate": 0.1}).train()
    fresh = make(Toy(), run={"learning_rate": 0.05}, key="01" * 32)
    fresh.train()
    loop = make(Toy(), attempt=2, run={"learning_rate": 0.05})
    loop.train()
    assert loop.progress.resumed == []
    assert any(message.get("event") == "checkpoint ignored" for message in loop.context.said)
    assert curve(loop) == curve(fresh)


def test_what_the_optimizer_knows_of_a_weight_lies_where_the_weight_does(make):
    """A model may lie on several devices, of which the run's is the first."""
    with pytest.raises(Yielded):
        make(Toy(), stop=9).train()
    again = make(Toy(), attempt=2)
    _, folder = again.context.checkpoints.furthest()
    checkpoint.restore(folder, replace(again.machinery, device="meta"))
    assert {value.device.type for state in again.optimizer.state.values() for value in state.values()} == {"cpu"}


def test_a_checkpoint_is_safetensors_and_json(make):
    loop = make(Toy(), stop=9)
    with pytest.raises(Yielded):
        loop.train()
    _, folder = loop.context.checkpoints.furthest()
    assert sorted(path.name for path in folder.iterdir()) == ["optimizer.safetensors", "state.json", "weights.safetensors"]
    assert set(load_file(folder / "weights.safetensors")) == {"embedding.weight", "head.weight", "head.bias", "calls"}
    assert all(tensor.dtype == torch.float32 for tensor in load_file(folder / "weights.safetensors").values())


def test_checkpoints_come_with_time_and_with_epochs_and_two_are_kept(make):
    seconds = iter(range(0, 10**6, 10))
    loop = make(Toy(scores=SCORES), epochs=4, clock=lambda: next(seconds), checkpoint_every=100)
    loop.train()
    saved = [message["step"] for message in loop.context.said if message.get("event") == "checkpoint"]
    assert {6, 12, 18} <= set(saved)  # epochs' ends
    assert len(set(saved)) > 3  # the clock's
    assert saved == sorted(saved)
    left = loop.context.checkpoints.mine()
    assert sorted(left) == sorted(["best-1", "best-2", *(f"step-{step}" for step in sorted(set(saved))[-2:])])


def test_the_checkpoint_of_an_epochs_end_holds_its_validation(make):
    # Every step is due by the clock, the last of an epoch too: its validation comes after.
    loop = make(Toy(scores=SCORES), epochs=2, stop=2 * 6 + 3, checkpoint_every=1, clock=itertools.count().__next__)
    with pytest.raises(Yielded):
        loop.train()
    number, folder = loop.context.checkpoints.furthest()
    state = json.loads((folder / "state.json").read_text())["progress"]
    assert (number, state["step"], state["epoch"], state["best_epoch"]) == (6, 6, 1, 1)
    assert loop.context.checkpoints.whole("best-1") is not None


@pytest.mark.parametrize("points", [500, 1])
def test_a_loss_that_is_not_a_number_names_its_rows_and_is_never_kept(make, monkeypatch, points):
    monkeypatch.setattr(loop_module, "POINTS", points)  # 1: losses are read at the end only
    toy = Toy(poison=[13])
    loop = make(toy, epochs=2, batch_size=4, checkpoint_every=1, clock=itertools.count().__next__ if points == 500 else lambda: 0.0)
    with pytest.raises(BadData) as failure:
        loop.train()
    batch = next(rows for rows in toy.seen if 13 in rows)
    assert failure.value.where == f"rows {', '.join(str(FIRST + row) for row in sorted(batch))} of train, counted from 0"
    step = 1 + toy.seen.index(batch)
    assert f"step {step}:" in failure.value.what
    assert all(int(name.removeprefix("step-")) < step for name in loop.context.checkpoints.mine())


def test_asked_to_stop_after_a_loss_that_is_not_a_number_it_says_so(make, monkeypatch):
    monkeypatch.setattr(loop_module, "POINTS", 1)
    toy = Toy(poison=range(ROWS))
    loop = make(toy, stop=2 * 2)
    with pytest.raises(BadData, match="step 1"):
        loop.train()
    assert loop.context.checkpoints.attempts() == {}


def test_an_infinite_gradient_names_its_rows(make, monkeypatch):
    loop = make(Toy())
    monkeypatch.setattr(loop_module.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(BadData, match="gradient norm inf"):
        loop.train()


def test_a_validation_loss_that_is_not_a_number_is_never_kept(make):
    loop = make(Toy(scores=[Score(0.5, float("nan"), {})]), epochs=3)
    with pytest.raises(BadData, match="validation loss is nan after epoch 1"):
        loop.train()
    assert loop.context.checkpoints.attempts() == {}


ALLOCATOR = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore words")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
PROCESSOR = RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def limit(toy, rows, refusal=ALLOCATOR):
    """Make the toy's device too small for more than so many rows; one pass in, so that something must be undone."""
    plain = toy.loss

    def loss(model, batch):
        value = plain(model, batch)  # draws dropout
        if len(batch["labels"]) > rows:
            raise refusal
        return value

    toy.loss = loss
    return toy


@pytest.mark.parametrize("refusal", [ALLOCATOR, CUBLAS, PROCESSOR], ids=["accelerator", "cublas", "processor"])
def test_out_of_memory_halves_the_pass_and_keeps_the_step(make, refusal):
    settings = {"batch_size": 8, "epochs": 2}
    straight = make(Toy(), key="01" * 32, **settings)
    loop = make(limit(Toy(), 2, refusal), **settings)
    for each in (straight, loop):
        each.model.dropout.p = 0.0
        each.train()
    assert loop.progress.micro == 2
    assert loop.model.calls == 2 * 22  # the passes that did not fit are undone
    assert loop.progress.step == straight.progress.step == 12
    assert [loss for *_, loss, _ in curve(loop)] == pytest.approx([loss for *_, loss, _ in curve(straight)], rel=1e-5)
    warned = [message["rows_per_pass"] for message in loop.context.said if "out of device memory" in message.get("event", "")]
    assert warned == [4, 2]


def test_a_probe_finds_what_fits_and_leaves_everything_else_as_it_was(make):
    straight = make(limit(Toy(), 3), batch_size=8, epochs=2, key="01" * 32)
    straight.progress.micro = 2
    straight.train()
    probed = make(toy := limit(Toy(), 3), batch_size=8, epochs=2)
    probed._probe()
    longest = sorted(toy.lengths)[-8]
    assert all(toy.lengths[row] >= longest for rows in toy.seen for row in rows)
    assert probed.progress.micro == 2
    assert probed.model.calls == 0
    assert (probed.progress.step, probed.progress.waited, probed.progress.padded) == (0, 0, 0)
    probed.train()
    assert curve(probed) == curve(straight)
    assert all(torch.equal(one, other) for one, other in zip(probed.model.parameters(), straight.model.parameters(), strict=True))


def test_a_probe_that_finds_no_room_for_a_row_is_device_oom(make):
    with pytest.raises(DeviceOom, match="on 1 rows at once"):
        make(limit(Toy(), 0))._probe()


def test_the_pass_that_fitted_is_resumed_with(make):
    with pytest.raises(Yielded):
        make(limit(Toy(), 2), stop=12).train()
    toy = limit(Toy(), 2)
    again = make(toy, attempt=2)
    again.train()
    assert again.progress.resumed
    assert max(map(len, toy.seen)) == 2  # it does not try 8 again


def test_another_error_is_no_shortage(make):
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        make(limit(Toy(), 2, RuntimeError("CUDA error: an illegal memory access was encountered"))).train()


def test_out_of_memory_at_one_row_is_device_oom(make):
    with pytest.raises(DeviceOom, match="on 1 rows at once") as failure:
        make(limit(Toy(), 0)).train()
    assert failure.value.why == "CUDA out of memory. Tried to allocate 2.00 GiB"


def test_the_best_epoch_is_kept(make):
    toy = Toy(scores=SCORES)
    loop = make(toy, epochs=4)
    progress = loop.train()
    assert (progress.best_epoch, progress.epoch) == (2, 4)
    assert all(torch.equal(value, toy.at_validation[1][name]) for name, value in loop.model.state_dict().items())
    assert [entry["accuracy"] for entry in progress.epochs] == [0.5, 0.75, 0.6, 0.7]


@pytest.mark.parametrize(
    ("scores", "best"),
    [([(0.5, 0.9), (0.5, 0.8), (0.5, 0.85)], 2), ([(0.5, 0.9), (0.5, 0.9), (0.5, 0.9)], 1), ([(0.5, 0.9), (0.6, 2.0), (0.7, 3.0)], 3)],
)
def test_equal_values_are_decided_by_loss_then_by_the_earlier(make, scores, best):
    assert make(Toy(scores=[Score(value, loss, {}) for value, loss in scores]), epochs=3).train().best_epoch == best


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (None, 4)])
def test_patience(make, patience, epochs):
    progress = make(Toy(scores=SCORES), epochs=4, patience=patience).train()
    assert (progress.epoch, progress.best_epoch) == (epochs, 2)


def test_without_validation_patience_means_nothing_and_the_last_epoch_stays(make):
    progress = make(Toy(), epochs=3, patience=1).train()
    assert (progress.epoch, progress.best_epoch, progress.epochs) == (3, 0, [])


@pytest.mark.parametrize(("max_steps", "steps", "epochs"), [(1, 1, 1), (6, 6, 1), (8, 8, 2), (1000, 24, 4)])
def test_max_steps(make, max_steps, steps, epochs):
    toy = Toy(scores=SCORES)
    loop = make(toy, epochs=4, max_steps=max_steps)
    progress = loop.train()
    assert (progress.step, progress.epoch, len(toy.at_validation)) == (steps, epochs, epochs)
    assert [point["lr"] for point in progress.curve] == [optimizer.rate(step, steps, 0.05, 0.1) for step in range(steps)]


def test_long_runs_log_means_of_some_steps(make, monkeypatch):
    every = make(Toy(), epochs=4, key="01" * 32)
    every.train()
    monkeypatch.setattr(loop_module, "POINTS", 7)
    some = make(Toy(), epochs=4)
    some.train()
    losses = [loss for *_, loss, _ in curve(every)]
    assert [step for step, *_ in curve(some)] == [3, 6, 9, 12, 15, 18, 21, 24]
    assert [loss for *_, loss, _ in curve(some)] == pytest.approx([sum(losses[at : at + 3]) / 3 for at in range(0, 24, 3)])


def test_losses_not_yet_logged_survive_a_stop(make, monkeypatch):
    monkeypatch.setattr(loop_module, "POINTS", 7)
    straight = make(Toy(), epochs=4, key="01" * 32)
    straight.train()
    with pytest.raises(Yielded):
        make(Toy(), epochs=4, stop=2 * 5).train()
    again = make(Toy(), epochs=4, attempt=2)
    again.train()
    assert again.progress.resumed == [5]
    assert curve(again) == curve(straight)


def test_float16_scaler_is_part_of_a_checkpoint(make):
    straight = make(Toy(), epochs=2, dtype="float16", key="01" * 32)
    straight.train()
    with pytest.raises(Yielded):
        make(Toy(), epochs=2, dtype="float16", stop=9).train()
    again = make(Toy(), epochs=2, dtype="float16", attempt=2)
    again.train()
    assert again.progress.resumed == [5]
    assert again.scaler.state_dict() == straight.scaler.state_dict()
    assert again.scaler.state_dict()["_growth_tracker"] > 0
    assert curve(again) == curve(straight)
