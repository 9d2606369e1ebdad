"""A model in torch, from an artifact's folder alone: its weights, and what turns rows into what it takes.

Not covered: models that need code of their repository.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelyard.errors import BadData, Refused
from modelyard.yard import Artifact
from modelyard_jobs import data, dispatch
from modelyard_jobs.dispatch import Place
from modelyard_jobs.tasks.columns import shown
from modelyard_jobs.tasks.task import Choosing, ImageEncoder, Task, TextEncoder

TYPES = "token_type_ids"
_UNLIMITED = 1 << 30
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
"""What models call their table of positions."""


@dataclass(frozen=True)
class Loaded:
    """model: in eval mode. tokenizer: None for a model of images. labels: in the order of their ids, empty where the model has none.

    parted: it lies on more than one device already. new: names of the weights that the artifact does not have.
    """

    model: Any
    tokenizer: Any
    encoder: TextEncoder | ImageEncoder
    labels: list[str]
    parted: bool = False
    new: tuple[str, ...] = ()

    def to(self, device: str) -> Any:
        """The model on the device; a parted one where it is, which takes rows from any."""
        return self.model if self.parted else self.model.to(device)


def load(task: Task, artifact: Artifact, labels: Sequence[str] | None, dtype: torch.dtype, place: Place | None = None) -> Loaded:
    """The artifact's model for the task.

    labels: give the model a head for them, new where it has none of that size. None: the head must be there, else BadData.
    place: how its blocks are to lie on accelerators (dispatch.py); None: in the host's memory, to be moved as a whole. Raises DeviceOom.
    Attention is what transformers chooses, which is SDPA wherever the model has it.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    where = artifact.digest
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    head = {} if not labels else {"id2label": dict(enumerate(labels)), "label2id": {name: place for place, name in enumerate(labels)}}
    tokenizer = None
    laid: dict[str, Any] = {}
    pixels = _pixels(artifact) if task.encoder == "image" else None  # first: weights may be long in coming, and this says no at once
    try:
        if place is not None:
            config = transformers.AutoConfig.from_pretrained(artifact.path, **head, **options)
            laid = dispatch.options(place(dispatch.skeleton(getattr(transformers, task.auto), config, dtype)))
        # Safetensors go before a pickle. Weights of another shape are listed, and judged below, rather than raised.
        model, info = getattr(transformers, task.auto).from_pretrained(
            artifact.path, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **laid, **head, **options
        )
        if task.encoder == "text":
            tokenizer = transformers.AutoTokenizer.from_pretrained(artifact.path, **options)
    except Exception as error:  # a hand-written config.json, or a torn file, makes the libraries raise nearly anything
        data.reason(error)
        why = str(error).strip().partition("\n")[0].replace(str(artifact.path), "the artifact")[:300]
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            remedy = "take a model that transformers has itself"
            raise Refused("the model runs code of its repository", where=where, why=why, remedy=remedy) from error
        remedy = "a model is a folder with config.json, safetensors and " + ("a tokenizer" if task.encoder == "text" else "preprocessor_config.json")
        raise BadData(f"the model cannot be loaded for {_spaced(task)}", where=where, why=why, remedy=remedy) from error
    new = sorted({*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])})
    _check_weights(task, model, info, new_head=bool(labels))
    if unfit := task.unfit(model.config):
        raise BadData(f"the model is not one for {_spaced(task)}", where=where, why=unfit)
    names = _label_names(model.config, where) if task.labelled else []
    return Loaded(model.eval(), tokenizer, pixels or _encoder(model, tokenizer, artifact), names, parted=bool(laid), new=tuple(new))


class TokenizerEncoder:
    """The model's own tokenizer, as transformers runs it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.limit = length_limit(model, tokenizer)
        self.pad = int(tokenizer.pad_token_id or 0)
        asked = inspect.signature(model.forward).parameters
        self._typed = TYPES in asked and TYPES in tokenizer.model_input_names

    def texts(self, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], list[bool]]:
        """(token ids of each text, whether tokens were cut off)."""
        if not texts:
            return [], []
        batch = self._encoded(list(texts), max_length, truncation=True)
        return batch["input_ids"], self._truncated(batch, max_length)

    def pairs(self, texts: Sequence[str], others: Sequence[str], max_length: int) -> tuple[list[list[int]], list[list[int]], list[bool]]:
        """(token ids of each pair, of each token the text that it is of, whether tokens were cut off)."""
        if not texts:
            return [], [], []
        batch = self._encoded(list(texts), max_length, text_pair=list(others), truncation="only_first", return_token_type_ids=self._typed)
        return batch["input_ids"], batch.get("token_type_ids", []), self._truncated(batch, max_length)

    def words(self, rows: Sequence[Sequence[str]], max_length: int) -> tuple[list[list[int]], list[list[int | None]], list[bool]]:
        """(token ids, of each token the place of its word, whether tokens were cut off)."""
        if not rows:
            return [], [], []
        batch = self._encoded([list(row) for row in rows], max_length, truncation=True, is_split_into_words=True)
        return batch["input_ids"], [batch.word_ids(place) for place in range(len(rows))], self._truncated(batch, max_length)

    def _encoded(self, texts: list[Any], max_length: int, **options: Any) -> Any:
        options = {"return_token_type_ids": False, **options}
        return self.tokenizer(texts, max_length=max_length, padding=False, return_attention_mask=False, verbose=False, **options)

    def _truncated(self, batch: Any, max_length: int) -> list[bool]:
        # Only a full row can have lost tokens; whether it did is in the Rust encoding, and unknown for the few tokenizers in plain Python.
        return [
            len(row) >= max_length and (not batch.encodings or bool(batch.encodings[place].overflowing))
            for place, row in enumerate(batch["input_ids"])
        ]


def length_limit(model: Any, tokenizer: Any) -> int:
    """Tokens that the model has positions for, and its tokenizer says."""
    limits = [_UNLIMITED, tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith(_POSITIONS) and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count positions from the one after padding; BART and OPT from an offset of their own.
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    if model.can_generate():  # rotary positions have no table, and models that were not trained for more do not read more
        limits.append(getattr(model.config.get_text_config(), "max_position_embeddings", None) or _UNLIMITED)
    return int(min(limits))


def _label_names(config: Any, where: str) -> list[str]:
    try:
        return [str(config.id2label[place]) for place in range(config.num_labels)]
    except KeyError as error:
        why = f"config.json has {config.num_labels} of them, and none with the number {error}"
        raise BadData("the model's labels are not numbered from 0", where=where, why=why, remedy="mend id2label in config.json") from error


def _pixels(artifact: Artifact) -> ImageEncoder:
    from modelyard_jobs.pixels import Pixels

    return Pixels.read(artifact.path)


def _encoder(model: Any, tokenizer: Any, artifact: Artifact) -> TextEncoder:
    embeddings = model.get_input_embeddings().num_embeddings
    if not len(tokenizer.all_special_tokens) < len(tokenizer) <= embeddings:
        # Without its files, transformers makes a tokenizer that knows no word.
        why, remedy = f"{len(tokenizer)} tokens, {embeddings} embeddings", "put the model's own tokenizer files beside its weights"
        raise BadData("the model has no tokenizer that fits it", where=artifact.digest, why=why, remedy=remedy)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        # Decoders often have none. Their heads read the last token that is not padding, so one that ends a text will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return TokenizerEncoder(model, tokenizer)


def _check_weights(task: Task, model: Any, info: dict[str, Any], *, new_head: bool) -> None:
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    # One row for each label, and nothing else of another shape: detectors have such heads inside of their bodies too.
    heads = {name for name, was, now in info["mismatched_keys"] if was[1:] == now[1:] and now[0] - model.config.num_labels in {0, 1}}
    made_up = sorted([*info["missing_keys"], *mismatched])
    if made_up and not new_head:
        # Heads over labels are those that finetune makes new; others it starts from, or does not train.
        learnt = task.labelled and not isinstance(task, Choosing)
        remedy = "finetune it first, and give the result" if learnt else "take a model that was made for it"
        raise BadData(f"the model has no trained head for {_spaced(task)}", why=f"weights would be made up: {shown(made_up)}", remedy=remedy)
    inside = f"{model.base_model_prefix}."
    lost = [name for name in made_up if name.startswith(inside)]
    # A pooler that the pretraining had no use for may be new; a body that is mostly new means that the weights are another model's.
    if len(lost) * 2 > sum(name.startswith(inside) for name, _ in model.named_parameters()) or set(lost) & set(mismatched) - heads:
        what, remedy = "the weights are not those of the model in config.json", "fetch the model again, or take another"
        raise BadData(what, why=f"not found or of another shape: {shown(lost)}", remedy=remedy)


def _spaced(task: Task) -> str:
    return task.name.replace("-", " ")
