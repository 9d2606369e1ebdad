"""How a published model is run, as Python for its card: by transformers, and the export by ONNX Runtime. Pure: names in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.refs import HubRef
from modelyard_jobs.package import ONNX

_TEXT = """
from {client} import snapshot_download
from transformers import {loaded}, AutoTokenizer

folder = snapshot_download("{repository}")
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loaded}.from_pretrained(folder)
"""
_IMAGE = """
from {client} import snapshot_download
from PIL import Image
from transformers import {loaded}, AutoImageProcessor

folder = snapshot_download("{repository}")
processor = AutoImageProcessor.from_pretrained(folder)
model = {loaded}.from_pretrained(folder)
"""
_ONNX_TEXT = """
import json
from pathlib import Path

import onnxruntime
from {client} import snapshot_download
from transformers import AutoTokenizer

folder = snapshot_download("{repository}")
tokenizer = AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/{onnx}/model.onnx", providers=["CPUExecutionProvider"])
"""
_ONNX_IMAGE = """
import json
from pathlib import Path

import onnxruntime
from {client} import snapshot_download
from PIL import Image
from transformers import AutoImageProcessor

folder = snapshot_download("{repository}")
processor = AutoImageProcessor.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/{onnx}/model.onnx", providers=["CPUExecutionProvider"])
"""
_FEED = "session.run(None, {wanted.name: batch[wanted.name] for wanted in session.get_inputs()})"
_NAMED = 'labels = json.loads(Path(folder, "config.json").read_text())["id2label"]\n'
_TEXTS = 'batch = tokenizer(["a text", "another one"], padding=True, truncation=True{length}, return_tensors="{kind}")\n'
_WORDS = (
    'words = ["Ada", "Lovelace", "lives", "in", "London"]\n'
    'batch = tokenizer(words, is_split_into_words=True, truncation=True{length}, return_tensors="{kind}")\n'
)
_FIRST = (
    "# A word's label is the one on its first token; those on its others mean nothing.\n"
    "first = {word: place for place, word in reversed(list(enumerate(batch.word_ids()))) if word is not None}\n"
)
_GAP = (
    'batch = tokenizer(f"Paris is the capital of {{tokenizer.mask_token}}.", return_tensors="{kind}")\n'
    'place = batch["input_ids"][0].tolist().index(tokenizer.mask_token_id)\n'
)
_PICTURE = 'image = Image.open("picture.png").convert("RGB")\nbatch = processor(image, return_tensors="{kind}")\n'
_CHAT = (
    'chat = [{{"role": "user", "content": "a question"}}]\n'
    'batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, return_tensors="pt")\n'
)
_PROMPT = 'batch = tokenizer("a text that goes on", return_tensors="pt")\n'


@dataclass(frozen=True)
class _Way:
    """How a task's model is run. loaded: class of transformers; batch: makes what it takes; torch, onnx: print what it says; onnx: empty for none."""

    loaded: str
    batch: str
    torch: str
    onnx: str = ""


_WAYS = {
    "text-classification": _Way(
        "AutoModelForSequenceClassification",
        _TEXTS,
        "print([model.config.id2label[i] for i in model(**batch).logits.argmax(-1).tolist()])",
        f"logits = {_FEED}[0]\n{_NAMED}print([labels[str(i)] for i in logits.argmax(-1)])",
    ),
    "token-classification": _Way(
        "AutoModelForTokenClassification",
        _WORDS,
        f"best = model(**batch).logits[0].argmax(-1).tolist()\n{_FIRST}"
        "print([(words[word], model.config.id2label[best[place]]) for word, place in sorted(first.items())])",
        f"best = {_FEED}[0][0].argmax(-1)\n{_NAMED}{_FIRST}print([(words[word], labels[str(best[place])]) for word, place in sorted(first.items())])",
    ),
    "fill-mask": _Way(
        "AutoModelForMaskedLM",
        _GAP,
        "print(tokenizer.decode([int(model(**batch).logits[0, place].argmax())]))",
        f"print(tokenizer.decode([int({_FEED}[0][0, place].argmax())]))",
    ),
    "text-generation": _Way(
        "AutoModelForCausalLM",
        _PROMPT,
        'answer = model.generate(**batch, max_new_tokens=128)[0, batch["input_ids"].shape[1] :]\n'
        "print(tokenizer.decode(answer, skip_special_tokens=True))",
    ),
    "image-classification": _Way(
        "AutoModelForImageClassification",
        _PICTURE,
        "print(model.config.id2label[int(model(**batch).logits[0].argmax())])",
        f"logits = {_FEED}[0]\n{_NAMED}print(labels[str(int(logits[0].argmax()))])",
    ),
    "object-detection": _Way(
        "AutoModelForObjectDetection",
        _PICTURE,
        "found = processor.post_process_object_detection(model(**batch), threshold=0.5, target_sizes=[image.size[::-1]])[0]\n"
        'for label, score, box in zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist()):\n'
        "    print(model.config.id2label[label], round(score, 3), [round(edge) for edge in box])",
        f"logits, boxes = {_FEED}[:2]\n{_NAMED}"
        "for scores, box in zip(logits[0], boxes[0]):  # box: centre, width and height, as shares of the image; there may be a score for `nothing`\n"
        "    print(labels.get(str(int(scores.argmax())), 'nothing'), box)",
    ),
}
_ANY = _Way("AutoModel", _TEXTS, "print(model(**batch))")


def how_to(to: HubRef, task: str | None, paths: Sequence[str], max_length: int | None, *, chats: bool = False) -> list[str]:
    """Paragraphs: a block by transformers, and, where there is a graph that can be used alone, one by ONNX Runtime.

    paths: of what is published. chats: its tokenizer has a chat template.
    """
    way = _WAYS.get(task or "", _ANY)
    batch = _CHAT if task == "text-generation" and chats else way.batch
    names = {
        "client": "modelscope" if to.scheme == "modelscope" else "huggingface_hub",
        "repository": f"{to.owner}/{to.name}",
        "loaded": way.loaded,
        "onnx": ONNX,
        "length": "" if max_length is None else f", max_length={max_length}",
    }
    images = batch is _PICTURE
    parts = [_block((_IMAGE if images else _TEXT) + batch, way.torch, {**names, "kind": "pt"})]
    if way.onnx and f"{ONNX}/model.onnx" in paths:
        parts += [
            "The same by ONNX Runtime, without torch:",
            _block((_ONNX_IMAGE if images else _ONNX_TEXT) + batch, way.onnx, {**names, "kind": "np"}),
        ]
    return parts


def _block(head: str, last: str, names: dict[str, str]) -> str:
    return f"```python{head.format(**names)}{last}\n```"
