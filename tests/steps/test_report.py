"""What an export writes about itself is what the report reads; evaluate's and the other steps' are tests/unit/report/test_shapes.py's."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from modelyard.report import shapes
from modelyard_jobs.export import int8, parity


def test_parity() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    missing: list[str] = []
    found = shapes.read(shapes.Parity, asdict(parity.compare(logits, logits + np.float32(1e-5))), "parity", missing)
    assert missing == []
    assert found
    assert (found.rows, found.agreement, found.tolerance) == (2, 1.0, 2e-4)
    assert found.max_abs == pytest.approx(1e-5, rel=0.1)


def test_int8() -> None:
    true = np.array([0, 1] * 50)
    missing: list[str] = []
    found = shapes.read(shapes.Quantised, int8.judge(true, true, true, 1 - true), "int8", missing)
    assert missing == []
    assert found
    assert (found.kept, found.agreement, set(found.accuracy)) == (False, 0.0, {"torch", "onnx", "int8"})
    assert found.difference
    assert found.difference.value == -1.0
    assert found.accuracy["int8"].n == 100
    assert found.why
