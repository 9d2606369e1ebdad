"""The locked versions of the packages that can change what a step computes. Written by `make lock`; not to be edited.

They are part of an action's key. Packages that only carry bytes or print are left out, so that their updates do not repeat a training.
"""

from __future__ import annotations

PINNED: dict[str, str] = {
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "faster-coco-eval": "1.8.0",
    "numpy": "2.4.6",
    "onnx": "1.23.2",
    "onnxruntime": "1.32.0",
    "onnxscript": "0.7.2",
    "peft": "0.21.2",
    "pillow": "13.0.0",
    "pyarrow": "26.0.1",
    "safetensors": "0.8.0",
    "scipy": "1.17.1",
    "tokenizers": "0.23.3",
    "torch": "2.15.0",
    "transformers": "5.23.0",
}
"""Name of the distribution -> version, as requirements/jobs-default.txt has it."""
