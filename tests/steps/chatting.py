"""Causal language models of a few kilobytes from the configurations of open families, and a tokenizer of bytes with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Says itself where the assistant speaks."""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen's."""
THINKING = (
    "{% set last = namespace(user=0) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.index0 > last.user %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen3's: the last answer alone shows its thought."""
HEADERS = (
    "{{ bos_token }}{% for m in messages %}{{ '<|header|>' + m['role'] + '<|/header|>\n\n' + m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\n\n' }}{% endif %}"
)
"""As Llama 3's."""
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, the user first') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's: there is nothing that begins an answer, and no system."""
REASONING = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{% elif m['role'] == 'assistant' %}"
    "{{ '<|Assistant|>' + m['content'] + eos_token }}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
"""As DeepSeek R1's: a turn begins with more than answers have."""
PHI = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
"""As Phi-3's, whose marks take in the white space behind them: the token that ends a text stands behind the last turn alone."""
TEMPLATES = {
    "marked": MARKED,
    "chatml": CHATML,
    "thinking": THINKING,
    "headers": HEADERS,
    "instruct": INSTRUCT,
    "reasoning": REASONING,
}
FAMILIES = ("qwen3", "qwen3_moe", "deepseek_v2", "deepseek_v3", "llama", "mistral", "gemma2", "gemma3_text", "gpt2")


def byte_tokenizer(template: str | None = CHATML) -> Any:
    """A tokenizer of transformers that cuts texts into bytes, and knows the marks of the templates here."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    marks = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|/header|>", "<|eot|>", "<|User|>", "<|Assistant|>"]
    vocabulary = {token: number for number, token in enumerate([*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=marks[3:],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def language_model(family: str, *, spread: float = 0.02, seed: int = 0, positions: int = 512, **changes: Any) -> Any:
    """A model of two layers with random weights. changes: of its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    size = {"vocab_size": 272, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_key_value_heads": 2, "head_dim": 8}
    latent = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 16, "num_key_value_heads": 4}
    experts = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    routed = {**experts, **latent, "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}
    own = {
        "qwen3": heads,
        "qwen3_moe": {**heads, **experts, "num_experts": 4},
        "deepseek_v2": {**routed, "q_lora_rank": None, "topk_method": "greedy"},
        "deepseek_v3": {**routed, "q_lora_rank": 16},
        "llama": {"num_key_value_heads": 2},
        "mistral": {**heads, "sliding_window": 16},
        "gemma2": {**heads, "sliding_window": 16},
        "gemma3_text": {**heads, "sliding_window": 16},
        "gpt2": {},
        "qwen3_next": {**heads, **experts, **linear, "num_experts": 4, "shared_expert_intermediate_size": 32, "num_hidden_layers": 4},
        "mamba": {},
    }[family]
    torch.manual_seed(seed)
    settings = {**size, "max_position_embeddings": positions, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": spread}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**settings, **own, **changes})).eval()


def loaded(model: Any, template: str | None = CHATML) -> Any:
    """The model as models.load gives it."""
    from modelyard_jobs.models import Loaded, TokenizerEncoder

    tokenizer = byte_tokenizer(template)
    return Loaded(model, tokenizer, TokenizerEncoder(model, tokenizer), [])


def runner(model: Any, settings: Any, template: str | None = CHATML, pause: Any = lambda: None) -> Any:
    """What runs the model for an infer or evaluate step with these settings."""
    from modelyard.steps import Infer
    from modelyard_jobs.generate import FollowingRunner, GenerationRunner
    from modelyard_jobs.tasks.text_generation import TextGeneration

    task = TextGeneration(settings)
    if isinstance(settings, Infer):
        return GenerationRunner(task, loaded(model, template), "cpu", temperature=settings.temperature, pause=pause)
    return FollowingRunner(task, loaded(model, template), "cpu")


def save(model: Any, folder: Path, template: str | None = CHATML) -> Path:
    """The model with its tokenizer, as a hub has them."""
    model.save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return folder


def chat(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages of user and assistant in turn."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[place % 2], "content": content} for place, content in enumerate(contents)]


def counted(item: Any, tokenizer: Any) -> str:
    """What counts of an item, as text."""
    return str(tokenizer.decode(item.values.ids[item.values.said]))


def one_by_one(model: Any, prompts: Sequence[Sequence[int]], most: int, stops: Sequence[int]) -> list[list[int]]:
    """What transformers generates for each prompt alone, without the token that ends it."""
    import torch

    found = []
    for prompt in prompts:
        ids = model.generate(torch.tensor([list(prompt)]), max_new_tokens=most, do_sample=False, eos_token_id=list(stops), pad_token_id=0)
        tokens = ids[0, len(prompt) :].tolist()
        found.append(tokens[:-1] if tokens and tokens[-1] in stops else tokens)
    return found
