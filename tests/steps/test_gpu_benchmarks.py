"""The scripts for machines with an accelerator, on a processor and with a toy model: they come to their end, and their claims about answers hold."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gpu import generate, infer, memory, onnx, train


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (infer, "labels are the same where they have to be"),
        (generate, "answers begin with the same four words"),
        (memory, "with room again the budget is 4096"),
        pytest.param(onnx, "the session runs on CPUExecutionProvider", marks=pytest.mark.slow),
        pytest.param(train, "from float32's", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
def test_a_script_runs_on_a_processor(script, says, capsys):
    assert script.main(["--device", "cpu", "--tiny"]) == 0
    assert says in capsys.readouterr().out


def test_without_the_device_it_says_so(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as ended:
        infer.main([])
    assert ended.value.code == 78
    assert "no CUDA device" in capsys.readouterr().err


def test_losses_that_are_not_alike_are_found():
    steps = np.linspace(1.4, 0.2, 100)
    noise = np.random.default_rng(0).normal(0, 0.02, 100)
    found = train.alike(
        {"float32": steps, "bfloat16": steps + noise, "float16": steps + 0.05 + noise, "other": steps + np.where(steps < 1, np.nan, 0)}
    )
    assert list(found.values()) == [True, True, False, False]
