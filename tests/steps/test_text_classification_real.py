"""Text classification on real sentences: what is said of films, rated by people."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modelyard.steps import Evaluate, Finetune
from modelyard.yard import Yard
from modelyard_jobs import evaluate, finetune
from tests.steps import real
from tests.steps.fake import FakeContext, artifact


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    return Yard.open(tmp_path_factory.mktemp("real") / "yard")


@pytest.fixture(scope="module")
def snippets(yard):
    rows = [{"text": text, "label": "pos" if rating > 0 else "neg"} for text, rating in real.movie_snippets()]
    order = np.random.default_rng(0).permutation(len(rows))
    files = {
        f"{split}.jsonl": "".join(json.dumps(rows[place]) + "\n" for place in order[start:end])
        for split, start, end in (("test", 0, 1000), ("train", 1000, len(rows)))
    }
    return artifact(yard, "dataset", files)


@pytest.mark.slow  # minutes for each seed
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_opinions_are_learnt(yard, snippets, tmp_path, seed):
    base = artifact(yard, "model", real.minilm())
    settings = Finetune(
        model="m", data="d", epochs=2, batch_size=32, train_rows=2000, learning_rate=1e-4, max_length=64, seed=seed, checkpoint_every=3600
    )
    training = FakeContext(settings, {"model": base, "data": snippets}, yard, tmp_path / "training", key=f"{seed:064x}")
    finetune.run(training)
    tuned = artifact(yard, "model", training.out, "safetensors")
    measuring = FakeContext(
        Evaluate(model="m", data="d", max_length=64), {"model": tuned, "data": snippets}, yard, tmp_path / "measuring", key=f"{seed + 100:064x}"
    )
    evaluate.run(measuring)
    document = json.loads((measuring.out / "metrics.json").read_text())
    assert document["rows"]["evaluated"] == 1000
    assert document["metrics"]["accuracy"]["value"] >= 0.78
