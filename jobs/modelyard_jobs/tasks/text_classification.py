"""Text classification: one text in, one label of a fixed list out.

What finetune, evaluate and infer share: columns, labels, the model with its tokenizer, texts to tensors.
Not covered: several labels per row, regression, pairs of texts, models that need code of their repository.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.errors import BadData, NoInput, Refused, suggest
from modelyard.yard import Artifact
from modelyard_jobs import data

TEXT_NAMES = ("text", "sentence", "review", "content", "comment", "tweet", "document", "body", "snippet", "utterance", "message")
LABEL_NAMES = ("label", "labels", "sentiment", "class", "category", "target", "intent", "topic")
_SHOWN = 8


@dataclass(frozen=True)
class Columns:
    """The columns of a data set that the task reads."""

    text: str
    label: str


def columns(dataset: Any, text: str | None, label: str | None) -> Columns:
    """The columns named, or found by name and type; NoInput where one is not there."""
    return Columns(text_column(dataset, text), _column(dataset, "label", label, LABEL_NAMES))


def text_column(dataset: Any, text: str | None) -> str:
    """The text column named, or found: by a usual name, else the only one that holds strings."""
    strings = [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in {"string", "large_string"}]
    return strings[0] if text is None and len(strings) == 1 else _column(dataset, "text", text, TEXT_NAMES)


def label_names(dataset: Any, column: str) -> list[str]:
    """The labels of the data in the order of their ids: as the data set declares them, else sorted (numbers by value, strings by code point)."""
    values, _ = _classes(dataset, column)
    feature = dataset.features[column]
    found = list(feature.names) if hasattr(feature, "names") else [str(value) for value in sorted(values)]
    if len(found) < 2:
        raise BadData(f"column {column} has one label only: {_shown(found)}", remedy="a classifier needs rows of two classes at least")
    return found


def label_ids(dataset: Any, column: str, names: Sequence[str]) -> NDArray[np.int64]:
    """One id per row: the place of its label in `names`.

    Labels match by name. A model with the names LABEL_0, LABEL_1 … says nothing about them: numbers from 0, and the declared order of a data set
    with as many labels, are taken as its ids. Anything else is BadData with both lists.
    """
    feature = dataset.features[column]
    values, codes = _classes(dataset, column)
    found = [feature.names[value] if hasattr(feature, "names") else str(value) for value in values]
    places = {name: place for place, name in enumerate(names)}
    generic = list(names) == [f"LABEL_{place}" for place in range(len(names))]
    declared = hasattr(feature, "names") and len(feature.names) == len(names)
    if all(name in places for name in found):
        mapped = [places[name] for name in found]
    elif generic and (declared or all(isinstance(value, int) and 0 <= value < len(names) for value in values)):
        mapped = values
    else:
        why = f"the data have {_shown(sorted(found))}; the model knows {_shown(names)}"
        remedy = "finetune the model on data with these labels, or name the labels of the data as the model does"
        raise BadData("the labels of the data are not the model's", where=f"column {column}", why=why, remedy=remedy)
    return np.array(mapped, dtype=np.int64)[codes]


def fault(text: object) -> str | None:
    """Why a row's text cannot be classified, None when it can."""
    if text is None:
        return "the text is missing"
    if not isinstance(text, str):
        return f"the text is of type {type(text).__name__}, not a string"
    return None if text.strip() else "the text is empty"


def usable_rows(dataset: Any, column: str) -> tuple[NDArray[np.int64], dict[str, int]]:
    """(numbers of the rows whose text can be classified, fault -> count of those whose cannot); BadData when none can."""
    whys = [fault(text) for text in data.values(dataset, column)]
    faults = Counter(why for why in whys if why)
    if len(whys) == faults.total():
        why = "; ".join(f"{why}: {count} rows" for why, count in faults.items())
        raise BadData(f"column {column} holds no text", why=why, remedy="text: name the column that the model reads")
    return np.flatnonzero([why is None for why in whys]), dict(faults)


def load(artifact: Artifact, labels: Sequence[str] | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer), from the artifact's folder alone.

    labels: give the model a head for them, new where it has none of that size. None: the head must be there, else BadData.
    Attention is what transformers chooses, which is SDPA wherever the model has it.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = artifact.digest
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    head = {} if labels is None else {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
    try:
        # Safetensors go before a pickle. Weights of another shape are listed, and judged below, rather than raised.
        model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            artifact.path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **head, **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(artifact.path, **options)
    except Exception as error:  # a hand-written config.json, or a torn file, makes the libraries raise nearly anything
        data.reason(error)
        why = str(error).strip().partition("\n")[0].replace(str(artifact.path), "the artifact")[:300]
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            remedy = "take a model that transformers has itself"
            raise Refused("the model runs code of its repository", where=where, why=why, remedy=remedy) from error
        remedy = "a model is a folder with config.json, safetensors and a tokenizer"
        raise BadData("the model cannot be loaded for text classification", where=where, why=why, remedy=remedy) from error
    _check_weights(model, info, new_head=labels is not None)
    kind, size, embeddings = model.config.problem_type, model.config.num_labels, model.get_input_embeddings().num_embeddings
    if kind not in {None, "single_label_classification"} or size < 2:
        raise BadData("the model is no classifier with one label per text", where=where, why=f"{kind}, {size} labels")
    if not len(tokenizer.all_special_tokens) < len(tokenizer) <= embeddings:
        # Without its files, transformers makes a tokenizer that knows no word.
        why, remedy = f"{len(tokenizer)} tokens, {embeddings} embeddings", "put the model's own tokenizer files beside its weights"
        raise BadData("the model has no tokenizer that fits it", where=where, why=why, remedy=remedy)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        # Decoders often have none. Their heads read the last token that is not padding, so one that ends a text will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.eval(), tokenizer


def model_labels(model: Any) -> list[str]:
    """The model's labels in the order of their ids."""
    return [str(model.config.id2label[place]) for place in range(model.config.num_labels)]


def length_limit(model: Any, tokenizer: Any, max_length: int) -> int:
    """Tokens of a row: `max_length`, or what the model has positions for."""
    limits = [max_length, tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count positions from the one after padding.
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    return int(min(limits))


def encode(tokenizer: Any, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
    """(token ids of each text with the model's special tokens, at most `max_length`, unpadded; of each whether tokens were cut off)."""
    if not texts:
        return [], []
    batch = tokenizer(
        list(texts), truncation=True, max_length=max_length, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    ids = batch["input_ids"]
    # Only a full row can have lost tokens; whether it did is in the Rust encoding, and unknown for the few tokenizers in plain Python.
    return ids, [len(row) >= max_length and (not batch.encodings or bool(batch.encodings[place].overflowing)) for place, row in enumerate(ids)]


def collate(tokenizer: Any, encodings: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """input_ids (rows, longest), int64, padded on the right, and attention_mask of the same shape.

    Rows of one length go without a mask: there is nothing to hide, and SDPA has its faster kernels then.
    """
    lengths = torch.tensor([len(encoding) for encoding in encodings])
    rows = [torch.tensor(encoding, dtype=torch.int64) for encoding in encodings]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id or 0)
    hidden = torch.arange(ids.shape[1]) >= lengths[:, None]
    return {"input_ids": ids, "attention_mask": (~hidden).long()} if hidden.any() else {"input_ids": ids}


def _column(dataset: Any, what: str, named: str | None, usual: Sequence[str]) -> str:
    columns: list[str] = dataset.column_names
    why = f"the data set has {', '.join(columns)}"
    if named and named not in columns:
        raise NoInput(f"the data set has no column {named!r}", why=why, remedy=suggest(named, columns))
    known = {column.lower(): column for column in columns}
    found = named or next((known[name] for name in usual if name in known), None)
    if found is None:
        raise NoInput(f"no column is clearly the {what}", why=why, remedy=f"{what}: COLUMN names it")
    return found


def _classes(dataset: Any, column: str) -> tuple[list[Any], NDArray[np.int64]]:
    """(distinct values, per row the place of its value in them); BadData for rows without a label and for values that are no labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = dataset.select_columns([column]).with_format("arrow")[:][column].combine_chunks()
    if hasattr(dataset.features[column], "names"):
        values = pc.if_else(pc.less(values, 0), None, values)  # how a declared label says that it is missing
    absent = np.flatnonzero(pc.is_null(values, nan_is_null=True).to_numpy(zero_copy_only=False))
    if len(absent):
        why = f"rows {_shown(list(map(str, absent)))}, counted from 0"
        remedy = "take a split with labels, or remove these rows"
        raise BadData(f"{len(absent)} of {len(values)} rows have no label", where=f"column {column}", why=why, remedy=remedy)
    if pa.types.is_floating(values.type):
        with suppress(pa.ArrowInvalid):  # 1.0 is the label 1; 0.5 is none
            values = values.cast(pa.int64())
    if not re.fullmatch(r"(large_)?string|bool|u?int\d+", str(values.type)):
        remedy = "labels are strings, whole numbers or booleans, one per row"
        raise BadData(f"column {column} holds no labels", why=f"its values are of type {values.type}", remedy=remedy)
    encoded = values.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _check_weights(model: Any, info: dict[str, Any], *, new_head: bool) -> None:
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    made_up = sorted([*info["missing_keys"], *mismatched])
    if made_up and not new_head:
        what, remedy = "the model has no trained head for text classification", "finetune it first, and give the result"
        raise BadData(what, why=f"weights would be made up: {_shown(made_up)}", remedy=remedy)
    inside = f"{model.base_model_prefix}."
    lost = [name for name in made_up if name.startswith(inside)]
    # A pooler that the pretraining had no use for may be new; a body that is mostly new means that the weights are another model's.
    if len(lost) * 2 > sum(name.startswith(inside) for name, _ in model.named_parameters()) or set(lost) & set(mismatched):
        what, remedy = "the weights are not those of the model in config.json", "fetch the model again, or take another"
        raise BadData(what, why=f"not found or of another shape: {_shown(lost)}", remedy=remedy)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" … ({len(names)})" if len(names) > _SHOWN else "")
