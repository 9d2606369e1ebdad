"""The training loop: optimizer steps, validation at each epoch's end, the best epoch kept, and a checkpoint whenever one is due.

It knows no task: what rows are, how they become tensors and what their loss is, an Objective says. One optimizer step consumes
`batch_size * accumulate` rows; its gradient is that of their mean loss, however they are divided for the device.

A run can be left at any moment. Asked to stop within a step, it forgets the step; within a validation, the validation; then it checkpoints. The next
attempt repeats what was forgotten with the same random numbers: on the CPU, with as many threads, to the same bits.
Losses are read from the device only when somebody needs them, so that the host runs ahead; and always before anything is kept, so that a run that
diverged is never saved. Not covered: several devices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from modelyard.errors import BadData, DeviceOom, VolumeFailed, Yielded
from modelyard_jobs import dispatch
from modelyard_jobs.context import Context
from modelyard_jobs.finetune import checkpoint, optimizer
from modelyard_jobs.finetune.checkpoint import Machinery, Moment, Progress
from modelyard_jobs.finetune.order import Order, Rows, split
from modelyard_jobs.finetune.precision import Precision

Batch = dict[str, torch.Tensor]

KEPT = 2
"""Checkpoints that stay: the last one may be torn by what ends the machine."""
POINTS = 500
"""Of the loss curve at most."""
CPU_FLOPS = 8e10
"""Of one forward and backward pass on a CPU, unless a single row takes more: about a second of one core, after which a request to stop is seen."""
UNLIMITED = 2**62
_NAMED = 16


@dataclass(frozen=True)
class Score:
    """What a validation found. value: what the best epoch is chosen by, larger is better. loss: the mean; decides between equal values."""

    value: float
    loss: float
    metrics: Mapping[str, float]


class Objective(Protocol):
    """The task, as the loop sees it. Rows are places in `lengths`."""

    lengths: NDArray[np.int64]
    """Tokens of each training row."""
    rows: Rows
    """Number of each training row in the data, to name it by."""
    truncated: Mapping[str, Any]
    """Split (train, validation) -> rows of which something was cut off; `left_out`: why rows could not be taken -> how many."""
    chosen_by: str
    """What `validate` values, in words, such as `validation accuracy`."""

    def collate(self, rows: Rows) -> tuple[Batch, float]:
        """Training rows as tensors on the host, and the number of items that their loss sums over, which may be 0."""

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The sum, not the mean, of the items' losses."""

    def validate(self, model: nn.Module, tokens: int, pause: Callable[[], None]) -> Score | None:
        """Measure on the validation rows, None without any. tokens: padded ones of a batch. pause: to be called between batches."""


class _StopAsked(Exception):
    """Unwinds to where the run can be kept."""


class Loop:
    """One run. order: what each step trains on. run: what a checkpoint must agree with to be resumed from. clock: seconds, never backwards."""

    def __init__(
        self,
        context: Context,
        model: nn.Module,
        objective: Objective,
        *,
        order: Order,
        precision: Precision,
        run: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.context, self.model, self.objective = context, model, objective
        self.order, self.precision, self.run, self.clock = order, precision, run, clock
        self.settings, self.device = context.settings, context.device
        steps = self.settings.epochs * order.steps
        self.total = min(steps, self.settings.max_steps or steps)
        self.log_every = max(1, self.total // POINTS)
        self.optimizer = optimizer.build(model, self.settings.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device, enabled=precision.scaled)
        self.machinery = Machinery(model, self.optimizer, self.scaler, self.device)
        self.progress = Progress(micro=self.settings.batch_size)
        # Two operations per weight and token forward, twice as many backward; embeddings are looked up.
        embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
        weights = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in embedded)
        # Batch norms take their statistics from one pass: that has as many rows as set.
        divisible = not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        self.most_tokens = max(1, int(CPU_FLOPS / (6 * weights))) if self.device == "cpu" and divisible else UNLIMITED
        self._buffers = list(checkpoint.buffers(model).values())
        self._unread: list[tuple[int, Rows, torch.Tensor]] = []
        self._saved = (0, 0)  # steps, epochs
        self._saved_at = clock()

    def train(self) -> Progress:
        """Train to the end, from the furthest checkpoint if there is one; the model then has the weights of the best epoch."""
        with self.context.stop.polled():
            try:
                self._resume()
                if self.device != "cpu" and not self.progress.step:
                    self._probe()
                while not self._epoch():
                    pass
                self._take_best()
            except _StopAsked:
                self._save()
                step = self.progress.step
                raise Yielded(f"asked to stop: kept at step {step} of {self.total}", remedy="the same command goes on from here") from None
            except RuntimeError as error:
                if not dispatch.no_room(error):
                    raise
                raise self._out_of_memory(str(error)) from error
        return self.progress

    def _resume(self) -> None:
        found = self.context.checkpoints.furthest()
        for torn in self.context.checkpoints.skipped:
            self.context.log.warning("checkpoint skipped", reason=torn)
        if found is None:
            return
        number, folder = found
        progress = checkpoint.look(folder, self.run)
        if progress is None:
            self.context.log.warning("checkpoint ignored", step=number, reason="it is that of a run with other parameters")
            return
        best = f"best-{progress.best_epoch}"
        if progress.best_epoch and self.context.checkpoints.whole(best) is None:
            self.context.log.warning("checkpoint ignored", step=number, reason=f"{best}, the best weights so far, is gone or torn")
            return
        checkpoint.restore(folder, self.machinery)
        self.progress = progress
        self.progress.resumed.append(number)
        self._saved = (progress.step, progress.epoch)
        self._saved_at = self.clock()
        self.context.log.info("resumed", step=number, total=self.total, epoch=progress.epoch + 1)

    def _probe(self) -> None:
        """See before the first step how many of the longest rows fit in a pass; nothing else changes. A later pass may still be halved."""
        state, before = self.progress, Moment(self.device, self._buffers)
        counted = state.waited, state.padded
        longest = np.argsort(self.objective.lengths, kind="stable")[-self.settings.batch_size :]
        self.model.train()
        try:
            self._gradient_that_fits(longest, before)
            self.scaler.update()  # or it would take the first step's gradients for scaled down already
        finally:
            self.optimizer.zero_grad()
            before.restore()
            state.waited, state.padded = counted
        self.context.log.info("probed", rows_per_pass=state.micro, tokens=int(self.objective.lengths[longest].max()))

    def _epoch(self) -> bool:
        """Train what is left of the epoch, and validate; whether it was the last one."""
        state = self.progress
        batches = self.order.epoch(state.epoch)
        self.model.train()
        for rows in batches[state.step - state.epoch * self.order.steps :]:
            if state.step == self.total:
                break
            self._step(rows)
            if self.clock() - self._saved_at >= self.settings.checkpoint_every:
                self._save()
            self._pause()
        return self._close_epoch()

    def _step(self, rows: Rows) -> None:
        state, started = self.progress, self.clock()
        before = Moment(self.device, self._buffers)
        try:
            measured = self._gradient_that_fits(rows, before)
        except _StopAsked:
            self.optimizer.zero_grad()
            before.restore()
            raise
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(state.step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        state.step += 1
        state.trained += len(rows)
        state.tokens += int(self.objective.lengths[rows].sum())
        self._unread.append((state.step, rows, measured))
        if state.step % self.log_every == 0 or state.step == self.total:
            self._read_losses()
        state.seconds += self.clock() - started
        self.context.progress(state.step, self.total, "steps")

    def _rate(self, step: int) -> float:
        return optimizer.rate(step, self.total, self.settings.learning_rate, self.settings.warmup)

    def _gradient_that_fits(self, rows: Rows, before: Moment) -> torch.Tensor:
        while True:
            try:
                return self._gradient(rows)
            except RuntimeError as error:
                if not dispatch.no_room(error):
                    raise
                why = str(error)
            # Outside of the handler: the traceback would hold on to the very tensors that took the memory.
            self.optimizer.zero_grad()
            before.restore()
            if self.progress.micro == 1:
                raise self._out_of_memory(why)
            self.progress.micro //= 2
            if self.device == "cuda":
                torch.cuda.empty_cache()
            self.context.log.warning("out of device memory: smaller passes, same steps", rows_per_pass=self.progress.micro)

    def _gradient(self, rows: Rows) -> torch.Tensor:
        """Leave the clipped gradient of the rows' mean loss in the parameters; [loss, norm before clipping], on the device."""
        state, device = self.progress, self.device
        started = self.clock()
        parts = [(part, *self.objective.collate(part)) for part in split(rows, self.objective.lengths, state.micro, self.most_tokens)]
        waited = self.clock() - started
        items = max(1.0, sum(count for _, _, count in parts))  # of the whole step: a pass without any must not weigh on the others
        loss = torch.zeros((), device=device)
        for _, batch, _ in parts:
            self._pause()
            started = self.clock()
            moved = to_device(batch, device)
            waited += self.clock() - started
            with self.precision.autocast(device):
                value = self.objective.loss(self.model, moved) / items
            self.scaler.scale(value).backward()
            loss += value.detach()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        state.waited += waited
        state.padded += sum(len(part) * int(self.objective.lengths[part].max()) for part, _, _ in parts)
        return torch.stack([loss, norm.to(loss.dtype)])

    def _out_of_memory(self, why: str) -> DeviceOom:
        return DeviceOom(
            f"the device's memory is too small to train on {self.progress.micro} rows at once",
            where=self.device,
            why=why.splitlines()[0] if why else "",
            remedy="set a smaller max_length, take a smaller model, or ask for an accelerator with more memory",
        )

    def _read_losses(self) -> None:
        """Fetch what steps measured since the last time, log it, and refuse what is not finite."""
        if not self._unread:
            return
        state = self.progress
        measured = torch.stack([values for _, _, values in self._unread]).tolist()
        for (step, rows, _), (loss, norm) in zip(self._unread, measured, strict=True):
            # A scaler tries scales that are too large and skips the step; then only the norm is infinite.
            if not math.isfinite(loss) or not (self.precision.scaled or math.isfinite(norm)):
                raise self._diverged(step, rows, loss, norm)
            state.window.append(loss)
            if step % self.log_every and step != self.total:
                continue
            point = {"step": step, "epoch": state.epoch + 1, "loss": sum(state.window) / len(state.window), "lr": self._rate(step - 1)}
            state.window.clear()
            state.curve.append(point)
            self.context.log.info("step", **point)
        self._unread.clear()

    def _diverged(self, step: int, rows: Rows, loss: float, norm: float) -> BadData:
        numbers = sorted(int(number) for number in self.objective.rows[rows])
        named = ", ".join(map(str, numbers[:_NAMED])) + (f" … ({len(numbers)} rows)" if len(numbers) > _NAMED else "")
        return BadData(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}",
            where=f"rows {named} of train, counted from 0",
            why="neither may be infinite or NaN; nothing of this step was kept",
            remedy="lower learning_rate; if it happens at these rows whatever the rate, look at them",
        )

    def _close_epoch(self) -> bool:
        self._read_losses()
        state = self.progress
        started = self.clock()
        self.model.eval()
        # What fits with gradients fits without.
        tokens = min(state.micro * int(self.objective.lengths.max()), 3 * self.most_tokens)
        with torch.inference_mode(), self.precision.autocast(self.device):
            score = self.objective.validate(self.model, tokens, self._pause)
        state.validated += self.clock() - started
        state.epoch += 1
        if score is not None:
            if not math.isfinite(score.loss):
                what, why = f"training diverged: the validation loss is {score.loss} after epoch {state.epoch}", "no step's loss was infinite or NaN"
                raise BadData(what, why=why, remedy="lower learning_rate")
            state.epochs.append({"epoch": state.epoch, "step": state.step, "loss": score.loss, **score.metrics})
            self.context.log.info("validated", **state.epochs[-1])
            if not state.best_epoch or (score.value, -score.loss) > (state.best_value, -state.best_loss):
                state.best_epoch, state.best_value, state.best_loss = state.epoch, score.value, score.loss
        tired = score is not None and self.settings.patience is not None and state.epoch - state.best_epoch >= self.settings.patience
        if tired or state.step == self.total:
            return True  # what follows is the result itself
        if state.best_epoch == state.epoch:
            self.context.checkpoints.save(f"best-{state.epoch}", lambda folder: checkpoint.write_weights(folder, self.model))
        self._save()
        # After the save: what is kept of the steps names one of the last two.
        self.context.checkpoints.prune(keep=KEPT, prefix="best-")
        return False

    def _take_best(self) -> None:
        state = self.progress
        if state.best_epoch in {0, state.epoch}:
            return
        folder = self.context.checkpoints.whole(f"best-{state.best_epoch}")
        if folder is None:
            why = "; ".join(self.context.checkpoints.skipped)
            raise VolumeFailed(f"the weights of epoch {state.best_epoch}, the best, are gone or torn", why=why, remedy="run again")
        checkpoint.read_weights(folder, self.model)

    def _pause(self) -> None:
        if self.context.stop.requested:
            raise _StopAsked

    def _save(self) -> None:
        self._read_losses()
        state = self.progress
        if (state.step, state.epoch) > self._saved:
            self.context.checkpoints.save(f"step-{state.step}", lambda folder: checkpoint.write(folder, self.machinery, state, self.run))
            self.context.log.info("checkpoint", step=state.step)
            self.context.checkpoints.prune(keep=KEPT)
            self._saved = (state.step, state.epoch)
        self._saved_at = self.clock()


def tensors(arrays: Mapping[str, NDArray[Any]]) -> Batch:
    """What a task collates, for torch; the memory is shared."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def to_device(batch: Batch, device: str) -> Batch:
    """The batch where the model is; from pinned memory, so that an accelerator need not be waited for."""
    if device == "cpu":
        return batch
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}
