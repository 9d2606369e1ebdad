"""export: a model as ONNX, with the proof that it answers as before.

step.py        the step: what is done in which order, what was decided and measured
sample.py      the rows, prepared once
graph.py       torch -> ONNX, without a trace of the machine that it was made on
image_size.py  whether a graph is for images of any size
shapes.py      batches of other shapes, which prove that named axes are of any size
companions.py  the files beside the graph
pair.py        the model and its export on the same rows
answers.py     what one engine says of them
parity.py      whether two engines answer alike
int8.py        8-bit weights, and whether they may stay
speed.py       rows per second

The artifact: model.onnx (beyond 1.5 GiB with model.onnx.data), model_int8.onnx where it was asked for and kept, config.json, the tokenizer's
files or how images are prepared, the licence, and export.json, by which onnx_runner.py needs nothing else. Measurements are facts of one machine:
they go to the action, not into files, and equal inputs give equal bytes.
"""

from __future__ import annotations

from modelyard_jobs.export.step import run

__all__ = ["run"]
