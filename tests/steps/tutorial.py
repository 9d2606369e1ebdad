"""Models of a few kilobytes, and a few rows, under the names that the tutorial's examples have: folders of a hub."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.steps import chatting, scenes
from tests.steps.picturing import png
from tests.steps.tiny import WORDS, tiny_tokenizer

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
NEWS = ("World", "Sports", "Business", "Sci/Tech")
LEAVES = {"angular_leaf_spot": (150, 60, 40), "bean_rust": (90, 90, 20), "healthy": (40, 160, 60)}
CLOTHING = ("Coverall", "Face_Shield", "Gloves", "Goggles", "Mask")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ANSWER = "well, it is so."


def said(count: int, chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=count))


def encoder(folder: Path, kind: str, words: Sequence[str] = WORDS, **config: Any) -> None:
    """A BERT of two layers with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    tiny_tokenizer(folder, words)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    made = getattr(transformers, kind)(
        transformers.BertConfig(vocab_size=size, max_position_embeddings=512, initializer_range=0.5, **SIZES, **config)
    )
    made.save_pretrained(folder)


def parquet(folder: Path, splits: Mapping[str, dict[str, Sequence[Any]]], features: Mapping[str, Any] | None = None) -> None:
    import datasets

    folder.mkdir(parents=True)
    for split, columns in splits.items():
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def ner(hub: Path) -> None:
    import datasets

    labels = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: place for place, tag in enumerate(TAGS)}}
    encoder(hub / "dslim/bert-base-NER", "BertForTokenClassification", **labels)
    chance = random.Random(1)

    def rows(count: int) -> dict[str, Sequence[Any]]:
        lengths = [chance.randint(2, 20) for _ in range(count)]
        tags = [([0, 1, 2, 0, 3, 0, 5, 6, 0, 7] * 2)[:length] for length in lengths]
        words = [said(length, chance).split() for length in lengths]
        return {"id": [str(number) for number in range(count)], "tokens": words, "pos_tags": [[0] * length for length in lengths], "ner_tags": tags}

    features = {
        "id": datasets.Value("string"),
        "tokens": datasets.List(datasets.Value("string")),
        "pos_tags": datasets.List(datasets.ClassLabel(names=["NN", "VB"])),
        "ner_tags": datasets.List(datasets.ClassLabel(names=list(TAGS))),
    }
    parquet(hub / "datasets/tomaarsen/conll2003/data", {"train": rows(20), "test": rows(60)}, features)


def zero_shot(hub: Path) -> None:
    import datasets
    import torch
    import transformers

    folder = hub / "facebook/bart-large-mnli"
    tiny_tokenizer(folder, (*WORDS, "this news is about world sports business"))
    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=len(transformers.AutoTokenizer.from_pretrained(folder)),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        init_std=0.5,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,  # of the tokenizer's marks the one that ends each text, by which it finds its answer
        decoder_start_token_id=3,
        forced_eos_token_id=3,
        id2label={0: "contradiction", 1: "neutral", 2: "entailment"},
    )
    transformers.BartForSequenceClassification(config).save_pretrained(folder)
    chance = random.Random(2)
    rows = {"text": [said(chance.randint(3, 30), chance) for _ in range(80)], "label": [number % 4 for number in range(80)]}
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(NEWS))}
    parquet(hub / "datasets/fancyzhx/ag_news/data", {"train": rows, "test": rows}, features)


def chats(hub: Path) -> None:
    """A language model that has learnt the one answer, and chats with it."""
    import torch

    model = chatting.language_model("qwen3")
    tokenizer = chatting.byte_tokenizer()
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-2)
    chance = random.Random(3)
    asked = [said(chance.randint(1, 6), chance) for _ in range(90)]
    for step in range(120):
        texts = [tokenizer.apply_chat_template(chatting.chat(asked[(step * 8 + place) % 90], ANSWER), tokenize=False) for place in range(8)]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    chatting.save(model.eval(), hub / "Qwen/Qwen2.5-0.5B-Instruct")

    def rows(texts: Sequence[str]) -> dict[str, Sequence[Any]]:
        messages = [chatting.chat(text, ANSWER) for text in texts]
        return {
            "prompt": texts,
            "prompt_id": [f"{number:04}" for number in range(len(texts))],
            "messages": messages,
            "category": ["Chat"] * len(texts),
        }

    parquet(hub / "datasets/HuggingFaceH4/no_robots/data", {"train": rows(asked[:64]), "test": rows(asked[64:])})


def fill_mask(hub: Path) -> None:
    encoder(hub / "AI-ModelScope/bert-base-uncased", "BertForMaskedLM")
    chance = random.Random(4)
    reviews = {"text": [said(chance.randint(5, 60), chance) for _ in range(80)], "label": [number % 2 for number in range(80)]}
    parquet(hub / "datasets/stanfordnlp/imdb/plain_text", {"train": reviews, "test": reviews})
    gaps = hub / "datasets/me/gaps"
    gaps.mkdir(parents=True)
    lines = [json.dumps({"text": f"{said(3, chance)} [MASK] {said(2, chance)} [MASK]"}) for _ in range(12)]
    (gaps / "gaps.jsonl").write_text("\n".join(lines) + "\n")


def leaves(hub: Path) -> None:
    """A vision transformer that knows the three by their colour, and leaves of these colours."""
    import datasets
    import torch
    import transformers

    rng = np.random.default_rng(5)

    def pictures(count: int) -> tuple[list[np.ndarray[Any, Any]], list[int]]:
        labels = [number % 3 for number in range(count)]
        colours = np.array(list(LEAVES.values()))
        return [np.clip(colours[label] + rng.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8) for label in labels], labels

    torch.manual_seed(0)
    folder = hub / "google/vit-base-patch16-224"
    names = dict(enumerate(LEAVES))
    config = transformers.ViTConfig(**SIZES, image_size=32, patch_size=16, id2label=names, label2id={name: place for place, name in names.items()})
    model = transformers.ViTForImageClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    images, labels = pictures(48)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    for _ in range(40):
        model(pixel_values=pixels, labels=torch.tensor(labels)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    splits = {}
    for split, count in (("train", 48), ("validation", 12), ("test", 30)):
        images, labels = pictures(count)
        paths = [f"{split}_{number}.png" for number in range(count)]
        files = [{"bytes": png(image), "path": path} for image, path in zip(images, paths, strict=True)]
        splits[split] = {"image_file_path": paths, "image": files, "labels": labels}
    features = {"image_file_path": datasets.Value("string"), "image": datasets.Image(), "labels": datasets.ClassLabel(names=list(LEAVES))}
    parquet(hub / "datasets/AI-Lab-Makerere/beans/data", splits, features)


def clothing(hub: Path) -> None:
    import datasets

    scenes.detector(hub / "PekingU/rtdetr_r18vd", CLOTHING)
    things = [(thing, label + 2) for thing, label in scenes.shapes()]
    splits = {}
    for split, count, seed in (("train", 12, 1), ("test", 8, 2)):
        rows: dict[str, list[Any]] = {"image_id": [], "image": [], "width": [], "height": [], "objects": []}
        for number, (picture, objects) in enumerate(scenes.compose(things, count, seed)):
            rows["image_id"].append(number)
            rows["image"].append({"bytes": png(np.stack([picture] * 3, -1)), "path": f"{number}.png"})
            rows["width"].append(picture.shape[1])
            rows["height"].append(picture.shape[0])
            boxes = [box for box, _ in objects]
            rows["objects"].append(
                {"id": list(range(len(boxes))), "area": [w * h for _, _, w, h in boxes], "bbox": boxes, "category": [label for _, label in objects]}
            )
        splits[split] = rows
    objects = {
        "id": datasets.List(datasets.Value("int64")),
        "area": datasets.List(datasets.Value("int64")),
        "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        "category": datasets.List(datasets.ClassLabel(names=list(CLOTHING))),
    }
    number = datasets.Value("int64")
    features = {"image_id": number, "image": datasets.Image(), "width": number, "height": number, "objects": objects}
    parquet(hub / "datasets/rishitdagli/cppe-5/data", splits, features)


MAKERS = (ner, zero_shot, chats, fill_mask, leaves, clothing)
"""Each fills a hub's folder with what one or two examples name."""
