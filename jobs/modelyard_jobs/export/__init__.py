"""export: a model as ONNX, with the proof that it answers as before.

step.py      the step: rows, the two engines, what was decided and measured
graph.py     torch -> ONNX, without a trace of the machine that it was made on
shapes.py    batches of other shapes, which prove that named axes are of any size
parity.py    whether two engines answer alike
int8.py      8-bit weights, and whether they may stay

The artifact: model.onnx (beyond 1.9 GiB with model.onnx.data), model_int8.onnx where it was asked for and kept, config.json, the tokenizer's
files or how images are prepared, the licence, and export.json, by which onnx_runner.py needs nothing else. Measurements are facts of one machine:
they go to the action, not into files, and equal inputs give equal bytes.
"""

from __future__ import annotations

from modelyard_jobs.export.step import run

__all__ = ["run"]
