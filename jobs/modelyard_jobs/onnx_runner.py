"""An exported classifier under ONNX Runtime; loads neither torch nor transformers.

The tokenizer is the `tokenizers` library's own, from the export's tokenizer.json, cut and padded as export.json says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.errors import BadData, NoAccelerator
from modelyard.yard import Artifact
from modelyard_jobs import data, exported
from modelyard_jobs.engine import OutOfMemory
from modelyard_jobs.exported import Description

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Device in torch's words -> in ONNX Runtime's."""


class OnnxRunner:
    """One graph of an export, in a session."""

    def __init__(self, folder: Path, description: Description, graph: str, *, device: str, threads: int) -> None:
        """Raises BadData: the graph or the tokenizer cannot be loaded; NoAccelerator: the session runs elsewhere than on `device`."""
        from tokenizers import Tokenizer

        self.name = "onnx-int8" if graph == exported.INT8 else "onnx"
        self.description = description
        self.labels, self.limit, self.device = list(description.labels), description.max_length, device
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / exported.TOKENIZER))
        except Exception as error:  # the library raises bare Exception
            raise BadData("the tokenizer cannot be loaded", where=exported.TOKENIZER, why=data.reason(error), remedy="export again") from error
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = description.split_special_tokens
        self.session = session(folder / graph, device, threads)
        self.provider: str = self.session.get_providers()[0]
        if self.provider != _PROVIDERS[device]:
            why = f"the session runs on {self.provider}"
            remedy = "install onnxruntime-gpu where the step runs, give the step `resources: {gpus: 0}`, or take the engine torch"
            raise NoAccelerator("ONNX Runtime cannot use the accelerator that is here", why=why, remedy=remedy)

    @classmethod
    def load(cls, artifact: Artifact, graph: str, *, device: str, threads: int) -> OnnxRunner:
        """The artifact's graph of that name."""
        return cls(artifact.path, exported.read(artifact), graph, device=device, threads=threads)

    def encode(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        """(token ids of each text, whether tokens were cut off)."""
        self.tokenizer.enable_truncation(max_length, strategy="longest_first", direction=self.description.truncation_side)
        encodings = self.tokenizer.encode_batch(list(texts)) if texts else []
        return [encoding.ids for encoding in encodings], [bool(encoding.overflowing) for encoding in encodings]

    def logits(self, encodings: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """(rows, labels). Raises BadData: the graph does not take batches of this shape."""
        lengths = np.array([len(encoding) for encoding in encodings])
        shown = np.arange(lengths.max()) < lengths[:, None]
        ids = np.full(shown.shape, self.description.pad, dtype=np.int64)
        ids[shown] = np.concatenate([np.asarray(encoding, dtype=np.int64) for encoding in encodings])
        try:
            found: NDArray[np.float32] = self.session.run(["logits"], {"input_ids": ids, "attention_mask": shown.astype(np.int64)})[0]
            return found
        except Exception as error:  # ONNX Runtime has a dozen classes without a common one
            why = data.reason(error)
            if "allocate memory" in str(error):
                raise OutOfMemory(why) from error
            raise BadData(f"ONNX Runtime cannot run the model on a batch of {len(ids)} x {lengths.max()} tokens", why=why) from error


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
    wanted = [name for name in dict.fromkeys([_PROVIDERS[device], _PROVIDERS["cpu"]]) if name in available]
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=wanted)
    except Exception as error:  # as above
        why = data.reason(error).replace(str(graph.parent), "the artifact")
        raise BadData("ONNX Runtime cannot load the model", where=graph.name, why=why, remedy="export again") from error
