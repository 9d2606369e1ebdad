"""Models and tokenizers of a few kilobytes, made in a fraction of a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

WORDS = ("good", "bad", "fine", "film", "plot", "dull", "great", "awful", "the", "a", "was", "and", "very", "not", "story", "acting")


def tiny_tokenizer(path: Path, texts: Sequence[str] = WORDS) -> None:
    """Save a WordPiece tokenizer that knows the words of `texts`, lower-cased, and single letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.lower().split()})
    letters = [prefix + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-" for prefix in ("", "##")]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*special, *words, *letters]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    ).save_pretrained(path)


def tiny_model(path: Path, labels: Sequence[str] | None = None, texts: Sequence[str] = WORDS, seed: int = 0, spread: float = 0.5) -> Path:
    """Save a BERT of two layers with its tokenizer: with a head for `labels`, or, for None, without one."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

    tiny_tokenizer(path, texts)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(path)),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=spread,
    )
    if labels is None:
        BertModel(config).save_pretrained(path)
    else:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}
        BertForSequenceClassification(config).save_pretrained(path)
    return path


def level(path: Path, texts: Sequence[str]) -> Path:
    """Shift the head of a saved tiny model so that each of its labels is said of some of the texts: random heads say one of nearly all."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        model.classifier.bias -= logits.mean(0)
    model.save_pretrained(path)
    return path
