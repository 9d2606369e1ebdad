"""finetune: train a model further on labelled rows, and keep its best epoch.

step.py            the step: rows, split, labels, model; what it decided and measured
loop.py            the training loop, for any task; <task>.py is what it trains on, and how it is measured
texts.py           texts, as token ids before anything trains
images.py          images, decoded when their batch comes
preview.py         what is about to be trained on: the first rows, and the counts of labels
adapters.py        LoRA: what trains in place of the weights, and is merged into them
order.py           which rows, when: a function of seed, epoch and data
precision.py       the type that it computes in; optimizer.py: AdamW and its rate
checkpoint.py      a run at the boundary of two steps, and back
export.py          the model as files
"""

from __future__ import annotations

from modelyard_jobs.finetune.step import run

__all__ = ["run"]
