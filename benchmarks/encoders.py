"""What the benchmarks of engines run: a BERT of a real size with random weights, and texts whose lengths differ as those of real ones do.

Speed does not depend on what the weights are, so nothing has to be downloaded. The head is shifted and scaled, so that each label is said of some of
the texts, with probabilities that lie apart: then equal labels mean something.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modelyard.yard import Artifact, Yard

LABELS = ("red", "green", "blue", "grey")
POSITIONS = 512
SIZES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
        "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
        "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    }
)
"""MiniLM-L6's and BERT base's shapes, and one for trying a script out."""

_VOCABULARY = 30522
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def texts(count: int, seed: int = 0, median: float = 32, sigma: float = 0.8) -> list[str]:
    """Texts of lognormal length: `median` tokens, two special ones included, at most 512; each word is one token."""
    chance = np.random.default_rng(seed)
    lengths = np.clip(np.round(median * np.exp(sigma * chance.standard_normal(count))), 3, POSITIONS).astype(int)
    return [" ".join(f"w{word}" for word in chance.integers(len(_SPECIAL), _VOCABULARY, length - 2)) for length in lengths]


def save(folder: Path, size: str, seed: int = 0) -> Path:
    """A classifier of four labels with its tokenizer, as `from_pretrained` reads them."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    names = dict(enumerate(LABELS))
    config = transformers.BertConfig(
        vocab_size=_VOCABULARY,
        max_position_embeddings=POSITIONS,
        id2label=names,
        label2id={name: place for place, name in names.items()},
        initializer_range=(1.5 / SIZES[size]["hidden_size"]) ** 0.5,  # at the usual 0.02 all texts look alike to a body that was not trained
        **SIZES[size],
    )
    model = transformers.BertForSequenceClassification(config).eval()
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts(64, seed=seed + 1, sigma=0.4)])
    with torch.no_grad():
        model.classifier.bias -= logits.mean(0)
        model.classifier.weight /= logits.std(0).mean()
        model.classifier.bias /= logits.std(0).mean()
    model.save_pretrained(folder)
    return folder


def save_language(folder: Path, size: str, seed: int = 0) -> Path:
    """A Llama with a body of that size, twice as deep but for tiny, that ends no answer early: random weights hardly ever say one token."""
    body = dict(SIZES[size])
    depth = body.pop("num_hidden_layers") * (1 if size == "tiny" else 2)
    tokenizer = _tokenizer()
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=_VOCABULARY, max_position_embeddings=4 * POSITIONS, num_hidden_layers=depth, eos_token_id=3, bos_token_id=2, pad_token_id=0, **body
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def commit(yard: Yard, kind: Any, folder: Path, format: str | None = None) -> Artifact:
    """The files of a folder as an artifact."""
    with yard.staging("bench-r1.make.1") as staging:
        shutil.copytree(folder, staging.files, dirs_exist_ok=True)
        return yard.artifacts.commit(staging, kind=kind, format=format)


def lengths(rows: Sequence[Sequence[int]]) -> str:
    """What the texts are like, for the head of a table."""
    sizes = np.array([len(row) for row in rows])
    return f"{len(sizes)} texts of {sizes.min()} to {sizes.max()} tokens, median {np.median(sizes):.0f}, mean {sizes.mean():.1f}"


def _tokenizer() -> Any:
    vocabulary = {token: place for place, token in enumerate([*_SPECIAL, *(f"w{word}" for word in range(len(_SPECIAL), _VOCABULARY))])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=_SPECIAL[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **names)
