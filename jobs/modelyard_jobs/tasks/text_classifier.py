"""A text classifier in torch: the model with its tokenizer from an artifact, texts to tensors.

Not covered: models that need code of their repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from modelyard.errors import BadData, Refused
from modelyard.yard import Artifact
from modelyard_jobs import data
from modelyard_jobs.tasks.text_classification import shown


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


def _check_weights(model: Any, info: dict[str, Any], *, new_head: bool) -> None:
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    made_up = sorted([*info["missing_keys"], *mismatched])
    if made_up and not new_head:
        what, remedy = "the model has no trained head for text classification", "finetune it first, and give the result"
        raise BadData(what, why=f"weights would be made up: {shown(made_up)}", remedy=remedy)
    inside = f"{model.base_model_prefix}."
    lost = [name for name in made_up if name.startswith(inside)]
    # A pooler that the pretraining had no use for may be new; a body that is mostly new means that the weights are another model's.
    if len(lost) * 2 > sum(name.startswith(inside) for name, _ in model.named_parameters()) or set(lost) & set(mismatched):
        what, remedy = "the weights are not those of the model in config.json", "fetch the model again, or take another"
        raise BadData(what, why=f"not found or of another shape: {shown(lost)}", remedy=remedy)
