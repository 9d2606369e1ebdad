from __future__ import annotations

import random

import pytest

from modelyard_jobs import batching


@pytest.mark.parametrize("seed", range(5))
def test_every_row_once_within_the_budget(seed):
    lengths = random.Random(seed).choices(range(1, 300), k=500)
    batches = batching.plan(lengths, 1024)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 1024 for batch in batches)


def test_longest_first_ties_in_order():
    assert batching.plan([2, 5, 2, 5], 5) == [[1], [3], [0, 2]]


def test_a_row_over_the_budget_goes_alone():
    assert batching.plan([50, 3, 60], 10) == [[2], [0], [1]]


def test_padding_is_far_less_than_in_order():
    lengths = random.Random(0).choices(range(4, 257), k=2000)
    slots = sum(len(batch) * max(lengths[row] for row in batch) for batch in batching.plan(lengths, 4096))
    in_order = sum(max(lengths[start : start + 16]) * 16 for start in range(0, 2000, 16))
    assert slots < 1.05 * sum(lengths) < 0.7 * in_order


def test_nothing():
    assert batching.plan([], 100) == []


@pytest.mark.parametrize("seed", range(3))
def test_batch_after_batch_is_the_plan(seed):
    lengths = random.Random(seed).choices(range(1, 300), k=300)
    rows, found = batching.order(lengths), []
    while rows:
        count = batching.first(rows, lengths, 700)
        found.append(rows[:count])
        rows = rows[count:]
    assert found == batching.plan(lengths, 700)


def test_a_refused_budget_is_half_of_what_was_tried():
    budget = batching.Budget(1000)
    budget.refuse(600)
    assert (budget.tokens, budget.lowest, budget.refused) == (300, 300, 1)
    budget.refuse(1)
    assert budget.tokens == 1, "a batch of one row is what is left in the end"


def test_a_budget_is_raised_after_a_while_and_never_over_what_was_set():
    budget = batching.Budget(1000)
    budget.refuse(1000)
    for _ in range(31):
        budget.ran()
    assert budget.tokens == 500
    budget.ran()
    assert budget.tokens == 1000
    for _ in range(100):
        budget.ran()
    assert (budget.tokens, budget.lowest) == (1000, 500)


def test_what_is_refused_again_is_raised_later_each_time():
    budget, waited = batching.Budget(1000), []
    for _ in range(4):
        budget.refuse(budget.tokens)
        count = 0
        while budget.tokens < 1000:
            budget.ran()
            count += 1
        waited.append(count)
    assert waited == [32, 64, 128, 256]
