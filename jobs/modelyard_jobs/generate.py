"""Causal language models in torch: what they answer, and how likely they find what is there.

Answers come from left-padded batches with one cache. A row that has ended leaves its batch at once, so that a long answer is not waited for in full
width. The likeliest token is taken; or one is drawn by the row's own numbers, so that an answer depends on its prompt and the seed alone: but for
the rounding of sums, which batches of other shapes do in another order, and which decides only where two tokens are as good as equal.
transformers' continuous batching is not used: on a CPU it gave the same answers 14 to 60 times slower, and none for DeepSeek V3.
Not covered: beams, penalties and filters, also where a model's configuration sets them; models that keep their state elsewhere than in
transformers' cache, such as Mamba.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelyard.errors import BadData
from modelyard_jobs.context import Context
from modelyard_jobs.models import Loaded
from modelyard_jobs.tasks import chat
from modelyard_jobs.tasks.task import Task
from modelyard_jobs.tasks.text_generation import BROKEN, FULL, STOPPED
from modelyard_jobs.torch_runner import TorchRunner


@dataclass(frozen=True)
class Batch:
    """Prompts to go on with. ids, mask: (rows, longest), padded on the left; mask None: nothing is padding.

    most: (rows,) tokens of each answer at most. draws: (rows, most) in [0, 1), None to take the likeliest token.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    most: torch.Tensor
    draws: torch.Tensor | None = None


class GenerationRunner(TorchRunner):
    """Goes on with each item of a batch."""

    def __init__(self, task: Task, loaded: Loaded, device: str, *, temperature: float, pause: Callable[[], None]) -> None:
        """pause: called before each token, may raise."""
        super().__init__(task, loaded, device)
        self.temperature, self.pause = temperature, pause
        self.stops = stops(self.model, self.tokenizer)
        self.generated, self.spared, self.generating = 0, 0, 0.0

    def outputs(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`tokens` (rows, most), -1 after the end; `ended` (rows,)."""
        begun = time.perf_counter()
        batch = Batch(tensors["input_ids"], tensors.get("attention_mask"), tensors["most"], tensors.get("draws"))
        tokens, ended = generate(self.model, batch, self.stops, temperature=self.temperature, pause=self.pause)
        made = int((tokens >= 0).sum())
        self.generated, self.spared = self.generated + made, self.spared + int(batch.most.sum()) - made
        self.generating += time.perf_counter() - begun
        return {"tokens": tokens, "ended": ended}


class FollowingRunner(TorchRunner):
    """Leads the model through each item of a batch."""

    def outputs(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of each token but the first: `log_probs`, its log probability after those before it, and `likeliest`, whether no other had a higher one."""
        logits = self.model(**tensors, use_cache=False).logits
        log_probs, likeliest = [], []
        for row, ids in zip(logits, tensors["input_ids"], strict=True):  # one by one: a copy of all in float32 might not fit
            following, scores = ids[1:], row[:-1].float()
            log_probs.append(scores.gather(1, following[:, None])[:, 0] - scores.logsumexp(1))
            likeliest.append(scores.argmax(1) == following)
        return {"log_probs": torch.stack(log_probs), "likeliest": torch.stack(likeliest)}


def runner(task: Any, loaded: Loaded, context: Context) -> TorchRunner:
    """What the step does with a language model: infer lets it answer, others lead it through what is there. Raises BadData: it cannot answer."""
    if not task.generates:
        return FollowingRunner(task, loaded, context.device)
    if "past_key_values" not in inspect.signature(loaded.model.forward).parameters:
        why = f"{type(loaded.model).__name__} keeps its state elsewhere than in a cache of transformers"
        raise BadData("the model cannot go on with a text here", why=why, remedy="take a model with attention; this one can be measured by evaluate")
    made = GenerationRunner(task, loaded, context.device, temperature=context.settings.temperature, pause=context.stop.check)
    named = [str(token) for token in loaded.tokenizer.convert_ids_to_tokens(made.stops)]
    context.decide("stop_tokens", named, "those that the model's configuration, its tokenizer and its chat template end an answer with")
    return made


def stops(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, ascending."""
    configured = model.generation_config.eos_token_id
    found = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    end = chat.end_of_turn(tokenizer)
    if end in tokenizer.get_added_vocab() or end in tokenizer.all_special_tokens:
        found.add(tokenizer.convert_tokens_to_ids(end))
    return sorted(token for token in found if token is not None)


def generate(
    model: Any, batch: Batch, stops: Sequence[int], *, temperature: float = 0.0, pause: Callable[[], None] = lambda: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens (rows, most), -1 after the end, the token that ends an answer left out; how each row ended, (rows,))."""
    from transformers import DynamicCache

    device, width = batch.ids.device, int(batch.most.max())
    tokens = torch.full((len(batch.ids), width), -1, dtype=torch.int64, device=device)
    ended = torch.full((len(batch.ids),), FULL, dtype=torch.int64, device=device)
    ending = torch.tensor(list(stops), dtype=torch.int64, device=device)
    rows, fed, mask = torch.arange(len(batch.ids), device=device), batch.ids, batch.mask
    places = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
    cache: Any = DynamicCache(config=model.config)
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    for step in range(width):
        pause()
        shown = {} if mask is None else {"attention_mask": mask, "position_ids": places}
        found = model(input_ids=fed, past_key_values=cache, use_cache=True, **shown, **last)
        cache, logits = found.past_key_values, found.logits[:, -1].float()
        chosen = logits.argmax(1) if batch.draws is None else _drawn(logits / temperature, batch.draws[rows, step])
        broken, stopped = ~logits.amax(1).isfinite(), torch.isin(chosen, ending)
        tokens[rows, step] = chosen.masked_fill(broken | stopped, -1)
        ended[rows[stopped]] = STOPPED
        ended[rows[broken]] = BROKEN
        live = ~(broken | stopped) & (batch.most[rows] > step + 1)
        if not bool(live.all()):
            staying = live.nonzero()[:, 0]
            if not len(staying):
                break
            rows, chosen = rows[staying], chosen[staying]
            cache.reorder_cache(staying)  # which goes to every layer's device, and also to states that are no keys and values
            if mask is not None and places is not None:
                mask, places = mask[staying], places[staying]
        fed = chosen[:, None]
        if mask is not None and places is not None:
            mask, places = torch.cat([mask, mask.new_ones(len(mask), 1)], 1), places[:, -1:] + 1
    return tokens, ended


def _drawn(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Of each row the token at which the probabilities, added up in the order of the vocabulary, pass the number drawn for it."""
    sums = logits.double().softmax(1).cumsum(1)
    return torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True)[:, 0].clamp(max=logits.shape[1] - 1)
