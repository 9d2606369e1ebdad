"""Toy models of many architectures with rows of their task: what docs/export.md has a table of."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.steps.tiny import WORDS, tiny_tokenizer

LABELS = ("neg", "neutral", "pos")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NLI = ("contradiction", "neutral", "entailment")
SIDE = 64

_SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "initializer_range": 0.3}
_ENCODERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("bert", {**_SIZE, "max_position_embeddings": 128}),
    "DistilBERT": (
        "distilbert",
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3},
    ),
    "RoBERTa": ("roberta", {**_SIZE, "max_position_embeddings": 130, "pad_token_id": 0}),
    "DeBERTa v2": (
        "deberta-v2",
        {**_SIZE, "max_position_embeddings": 128, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 32},
    ),
    "ModernBERT": ("modernbert", {**_SIZE, "max_position_embeddings": 128, "pad_token_id": 0, "initializer_cutoff_factor": 2.0}),
}


@dataclass(frozen=True)
class Case:
    """A model in a folder, and the files of a data set with a split `test`. settings: of the step."""

    task: str
    architecture: str
    model: Callable[[Path], Any]
    rows: Callable[[], dict[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.task} {self.architecture}"


def cases() -> list[Case]:
    """Every architecture of the table, task by task."""
    found = [Case("text-classification", name, _encoder(name, "SequenceClassification", LABELS), _texts) for name in _ENCODERS]
    found += [Case("text-classification", name, _decoder(name, "SequenceClassification", LABELS), _texts) for name in ("Llama", "Qwen3")]
    found += [Case("token-classification", name, _encoder(name, "TokenClassification", TAGS), _tagged) for name in _ENCODERS]
    nli = {"candidates": LABELS}
    found += [Case("zero-shot-classification", name, _encoder(name, "SequenceClassification", NLI), _texts, nli) for name in ("BERT", "RoBERTa")]
    found += [Case("fill-mask", name, _encoder(name, "MaskedLM", ()), _texts) for name in _ENCODERS]
    found += [Case("text-generation", name, _decoder(name, "CausalLM", ()), _texts) for name in _DECODERS]
    found += [Case("image-classification", name, make, _images) for name, make in _IMAGES.items()]
    found += [Case("object-detection", name, make, _scenes, {"threshold": 0.3 if name == "RT-DETR" else 0.01}) for name, make in _DETECTORS.items()]
    return found


# --- models ----------------------------------------------------------------------------------------------------------------------------------


def _save(kind: str, head: str, labels: tuple[str, ...], folder: Path, settings: Mapping[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(labels)), "label2id": {label: place for place, label in enumerate(labels)}} if labels else {}
    config = transformers.AutoConfig.for_model(kind, **settings, **named)
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    model.save_pretrained(folder)
    return model


def _encoder(name: str, head: str, labels: tuple[str, ...]) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        from tokenizers import Tokenizer, processors
        from transformers import AutoTokenizer

        tiny_tokenizer(folder)
        if labels == NLI:  # pairs, which the tiny tokenizer knows nothing of
            own = Tokenizer.from_file(str(folder / "tokenizer.json"))
            marks = [("[CLS]", 2), ("[SEP]", 3)]
            own.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks)
            own.save(str(folder / "tokenizer.json"))
        kind, settings = _ENCODERS[name]
        return _save(kind, head, labels, folder, {"vocab_size": len(AutoTokenizer.from_pretrained(folder)), **settings})

    return make


_DECODERS: Mapping[str, str] = {
    "GPT-2": "gpt2",
    "Llama": "llama",
    "Qwen3": "qwen3",
    "Mistral": "mistral",
    "Gemma 2": "gemma2",
    "Gemma 3": "gemma3_text",
    "Qwen3 MoE": "qwen3_moe",
    "DeepSeek V2": "deepseek_v2",
    "DeepSeek V3": "deepseek_v3",
}


def _decoder(name: str, head: str, labels: tuple[str, ...]) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        from tests.steps.chatting import byte_tokenizer, language_model

        tokenizer = byte_tokenizer()
        tokenizer.model_max_length = 256
        tokenizer.save_pretrained(folder)
        config = language_model(_DECODERS[name], spread=0.3).config
        return _save(config.model_type, head, labels, folder, {key: value for key, value in config.to_diff_dict().items() if key not in _OWN})

    return make


_OWN = ("model_type", "transformers_version", "architectures", "dtype", "id2label", "label2id")


def _image_model(name: str, settings: Mapping[str, Any], processor: str = "ViTImageProcessorPil", **prepared: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        import transformers

        size = {"height": SIDE, "width": SIDE}
        getattr(transformers, processor)(**{"size": size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, **prepared}).save_pretrained(folder)
        return _save(name, "ImageClassification", LABELS, folder, settings)

    return make


def _detector(name: str, settings: Callable[[], Mapping[str, Any]], **prepared: Any) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        import transformers

        size = {"height": SIDE, "width": SIDE}
        processor = transformers.DetrImageProcessorPil if name == "detr" else transformers.RTDetrImageProcessorPil
        processor(**{"size": size, **prepared}).save_pretrained(folder)
        model = _save(name, "ObjectDetection", LABELS, folder, settings())
        if name == "rt_detr":  # as it is made, all queries score alike
            _spread(model)
            model.save_pretrained(folder)
        return model

    return make


def _spread(model: Any) -> None:
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, weight[0].numel() ** -0.5)


def _rt_detr() -> dict[str, Any]:
    """As many queries as there are places in an image of SIDE: where equal ones stand at the border of those taken, either choice is right."""
    from transformers import RTDetrResNetConfig

    outs = ["stage2", "stage3", "stage4"]
    backbone = RTDetrResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=outs)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_layers": 2}
    sizes = {"encoder_in_channels": [16, 16, 32], "d_model": 32, "encoder_hidden_dim": 32, "decoder_in_channels": [32, 32, 32], "num_queries": 84}
    return {"backbone_config": backbone, **sizes, **heads, "feat_strides": [8, 16, 32], "num_denoising": 0}


def _detr() -> dict[str, Any]:
    from transformers import ResNetConfig

    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"])
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 10}
    return {"backbone_config": backbone, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, **sizes, **heads}


def _yolos() -> dict[str, Any]:
    return {**_SIZE, "image_size": [SIDE, SIDE], "patch_size": 16, "num_detection_tokens": 10}


_IMAGES: Mapping[str, Callable[[Path], Any]] = {
    "ViT": _image_model("vit", {**_SIZE, "image_size": SIDE, "patch_size": 16}),
    "ResNet": _image_model("resnet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
    "ConvNeXT": _image_model("convnext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "initializer_range": 0.3}),
    "Swin": _image_model(
        "swin", {"image_size": SIDE, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "initializer_range": 0.3}
    ),
}
_DETECTORS: Mapping[str, Callable[[Path], Any]] = {
    "DETR": _detector("detr", _detr, size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}),
    "YOLOS": _detector("yolos", _yolos),
    "RT-DETR": _detector("rt_detr", _rt_detr),
}


# --- rows ------------------------------------------------------------------------------------------------------------------------------------


def _said(rng: random.Random) -> list[str]:
    return rng.choices(WORDS, k=rng.randint(2, 24))


def _texts() -> dict[str, Any]:
    rng = random.Random(1)
    return {"test.jsonl": "".join(json.dumps({"text": " ".join(_said(rng)), "label": rng.choice(LABELS)}) + "\n" for _ in range(24))}


def _tagged() -> dict[str, Any]:
    rng = random.Random(2)
    rows = [{"tokens": words, "tags": rng.choices(TAGS, k=len(words))} for words in (_said(rng) for _ in range(24))]
    return {"test.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}


def _png(rng: np.random.Generator, height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _images() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {f"test/{LABELS[place % 3]}/{place:03d}.png": _png(rng, SIDE, SIDE) for place in range(12)}


def _scenes() -> dict[str, Any]:
    rng, files, images, objects = np.random.default_rng(4), dict[str, Any](), [], []
    for place in range(8):
        high, wide = (SIDE, SIDE + 32) if place % 2 else (SIDE + 16, SIDE)
        files[f"test/{place:03d}.png"] = _png(rng, high, wide)
        images.append({"id": place, "file_name": f"{place:03d}.png", "width": wide, "height": high})
        objects.append({"id": place, "image_id": place, "category_id": place % 3, "bbox": [4, 4, 30, 40]})
    categories = [{"id": place, "name": name} for place, name in enumerate(LABELS)]
    files["annotations/instances_test.json"] = json.dumps({"images": images, "categories": categories, "annotations": objects})
    return files
