"""An exported model under ONNX Runtime; loads neither torch nor transformers.

The tokenizer is the `tokenizers` library's own, from the export's tokenizer.json, cut and padded as export.json says; images are prepared by
pixels.py, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, NoAccelerator, Usage
from modelyard.yard import Artifact
from modelyard_jobs import data, exported
from modelyard_jobs.engine import OutOfMemory
from modelyard_jobs.exported import Description
from modelyard_jobs.tasks.task import ImageEncoder, Item, Task, TextEncoder

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Device in torch's words -> in ONNX Runtime's; others are not used."""


class OnnxRunner:
    """One graph of an export, in a session."""

    def __init__(self, task: Task, folder: Path, description: Description, graph: str, *, device: str, threads: int) -> None:
        """Raises BadData: the graph or the tokenizer cannot be loaded; NoAccelerator: the session runs elsewhere than on `device`."""
        self.task, self.description = task, description
        self.name = "onnx-int8" if graph == exported.INT8 else "onnx"
        self.labels, self.device = list(description.labels), device
        self.encoder: TextEncoder | ImageEncoder = PlainEncoder(folder, description) if task.encoder == "text" else _pixels(folder)
        self.session = session(folder / graph, device, threads)
        self.provider: str = self.session.get_providers()[0]
        if self.provider != _PROVIDERS.get(device):
            why = f"the session runs on {self.provider}"
            remedy = "install onnxruntime-gpu where the step runs, give the step `resources: {gpus: 0}`, or take the engine torch"
            raise NoAccelerator("ONNX Runtime cannot use the accelerator that is here", why=why, remedy=remedy)

    @classmethod
    def load(cls, task: Task, artifact: Artifact, graph: str, *, device: str, threads: int) -> OnnxRunner:
        """The artifact's graph of that name. Raises Usage: it was exported for another task, whose inputs and outputs are others."""
        description = exported.read(artifact)
        if description.task != task.name:
            remedy = f"task: {description.task}, or export the model for {task.name}"
            raise Usage(f"the model is an export for {description.task}, not for {task.name}", where=artifact.digest, remedy=remedy)
        return cls(task, artifact.path, description, graph, device=device, threads=threads)

    def raws(self, items: Sequence[Item]) -> list[Any]:
        """The task's raws of one batch."""
        return self.task.raws(self.run(self.task.collate(items, self.encoder)), items)

    def run(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """The graph's outputs for one batch. Raises BadData: the graph does not take batches of this shape."""
        feeds = {name: array for name, array in arrays.items() if name in self.description.inputs}
        try:
            return dict(zip(self.description.outputs, self.session.run(list(self.description.outputs), feeds), strict=True))
        except Exception as error:  # ONNX Runtime has a dozen classes without a common one
            why = data.reason(error)
            if "allocate memory" in str(error):
                raise OutOfMemory(why) from error
            shapes = ", ".join(f"{name} {' x '.join(map(str, array.shape))}" for name, array in feeds.items())
            raise BadData(f"ONNX Runtime cannot run the model on a batch of {shapes}", why=why) from error


class PlainEncoder:
    """The export's tokenizer."""

    def __init__(self, folder: Path, description: Description) -> None:
        from tokenizers import Tokenizer

        text = description.text
        if text is None:
            raise BadData("the export does not say how texts become tokens", where=exported.NAME, remedy="export again")
        self.limit, self.pad = text.max_length, text.pad
        self._side, self._typed = text.truncation_side, "token_type_ids" in description.inputs
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / exported.TOKENIZER))
        except Exception as error:  # the library raises bare Exception
            raise BadData("the tokenizer cannot be loaded", where=exported.TOKENIZER, why=data.reason(error), remedy="export again") from error
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = text.split_special_tokens

    def texts(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        """(token ids of each text, whether tokens were cut off)."""
        encodings = self._encoded(list(texts), max_length, strategy="longest_first")
        return [encoding.ids for encoding in encodings], [bool(encoding.overflowing) for encoding in encodings]

    def pairs(self, texts: Sequence[str], others: Sequence[str], max_length: int) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        """(token ids of each pair, of each token the text that it is of, whether tokens were cut off)."""
        encodings = self._encoded(list(zip(texts, others, strict=True)), max_length, strategy="only_first")
        types = [encoding.type_ids for encoding in encodings] if self._typed else []
        return [encoding.ids for encoding in encodings], types, [bool(encoding.overflowing) for encoding in encodings]

    def words(self, rows: Sequence[Sequence[str]], max_length: int) -> tuple[list[list[int]], list[list[int | None]], list[bool]]:
        """(token ids, of each token the place of its word, whether tokens were cut off)."""
        encodings = self._encoded([list(row) for row in rows], max_length, strategy="longest_first", is_pretokenized=True)
        return (
            [encoding.ids for encoding in encodings],
            [encoding.word_ids for encoding in encodings],
            [bool(encoding.overflowing) for encoding in encodings],
        )

    def _encoded(self, inputs: list[Any], max_length: int, *, strategy: str, is_pretokenized: bool = False) -> list[Any]:
        self.tokenizer.enable_truncation(max_length, strategy=strategy, direction=self._side)
        return list(self.tokenizer.encode_batch(inputs, is_pretokenized=is_pretokenized)) if inputs else []


def _pixels(folder: Path) -> ImageEncoder:
    from modelyard_jobs.pixels import Pixels

    return Pixels.read(folder)


def session(graph: Path, device: str, threads: int) -> Any:
    """A session on the device where it can be had, else on the CPU; `get_providers` of it says which. BadData where it cannot be made.

    threads: the library itself would count the machine's, whatever share of them the process may use.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # on shared cores threads that spin wait for each other
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    wanted = [name for name in dict.fromkeys([_PROVIDERS.get(device), _PROVIDERS["cpu"]]) if name in available]
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=wanted)
    except Exception as error:  # as above
        why = data.reason(error).replace(str(graph.parent), "the artifact")
        raise BadData("ONNX Runtime cannot load the model", where=graph.name, why=why, remedy="export again") from error
