"""The training loop: batch, loss, backward, clip, step; with validation, checkpoints and a bar around it.

    trainer = Trainer(model, train_ids, validation_ids, TrainingConfig(steps=1000), folder="out/run")
    trainer.run()

The state after step k is a function of the state after step k - 1 alone, and a checkpoint holds all of it: so a run
that was stopped and resumed, in another process, ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np

from .. import optim
from ..data import BatchSampler, evaluation_batches
from ..kernels import native
from ..kernels.devices import numbers
from ..random import Generator
from ..tensor import tensor
from . import checkpoints, state
from .config import TrainingConfig
from .history import History, Log
from .interrupt import asked_to_stop
from .progress import Progress

__all__ = ["Trainer", "TrainingConfig"]


class Trainer:
    """Trains a model that has `loss(ids, targets)` and `config.context`, on arrays of token ids, where the model lives.

    folder                where checkpoints/, log.jsonl and loss.png go; None: nowhere
    tokenizer, about      kept in the checkpoints; `about` is anything in JSON's types
    console               a rich console for the progress bar; None: silent
    characters_per_token  of the validation text, for `bits_per_character`
    keep_freed_memory     see `kernels.native.keep_freed_memory`: for the whole process, so it has to be asked for

    Raises ValueError when the training or the validation part is shorter than context + 1 tokens.
    """

    def __init__(
        self,
        model,
        train_ids,
        validation_ids,
        config,
        *,
        tokenizer=None,
        folder=None,
        console=None,
        characters_per_token=None,
        keep_freed_memory=False,
        about=None,
    ):
        self.model, self.config, self.tokenizer, self.console = model, config, tokenizer, console
        self.about = about or {}
        self.folder = None if folder is None else Path(folder)
        self.validation_ids, self.characters_per_token = validation_ids, characters_per_token
        # Another key than that of the weights: `spawn` draws one.
        self.sampler = BatchSampler(train_ids, config.batch_size, model.config.context, Generator(config.seed).spawn())
        self.evaluation()  # complains now, not after the first hundred steps
        groups = optim.decay_groups(model, config.weight_decay)
        self.optimizer = optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))
        if keep_freed_memory:
            native.keep_freed_memory()
        self.step, self.history = 0, History()
        self.log = Log(None if self.folder is None else self.folder / "log.jsonl")

    # ------------------------------------------------------------ one step

    def train_step(self) -> float:
        """One update; returns the loss of its batch in nats per token."""
        x, y = next(self.sampler)
        self.model.train()
        self.optimizer.zero_grad()
        shares, parts = [], []
        for rows in np.array_split(np.arange(len(x)), self.config.accumulation):
            shares.append(len(rows) / len(x))  # the batch's mean is the mean of its parts' means, by their sizes
            parts.append(self._loss(x[rows], y[rows]))
            parts[-1].backward(shares[-1])
            parts[-1] = parts[-1].data  # the graph is used up, let it go
        norm = optim.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf)
        *parts, norm = numbers(*parts, norm)  # here a GPU is waited for, once
        loss = sum(share * part for share, part in zip(shares, parts, strict=True))
        if not math.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss} at step {self.step + 1}: lower the learning rate ({self.config.lr:g})"
            )
        if not math.isfinite(norm):
            raise RuntimeError(
                f"the gradient's norm is {norm} at step {self.step + 1}: lower the learning rate ({self.config.lr:g})"
            )
        lr = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.step += 1
        self.history.append(step=self.step, loss=loss, lr=lr, gradient_norm=norm)
        return loss

    def _loss(self, x, y):
        """The model's loss on a batch of ids, which are moved to where the model lives."""
        return self.model.loss(*(tensor(ids).to(self.model.device) for ids in (x, y)))

    def learning_rate(self, step: int) -> float:
        """Of the step after `step` steps: linear warm-up, then a cosine down to min_lr."""
        c = self.config
        return optim.warmup_cosine(
            step, peak=c.lr, warmup=min(c.warmup, c.steps // 2), total=c.steps, floor=min(c.min_lr, c.lr)
        )

    # ------------------------------------------------------------ validation

    def evaluation(self):
        """The validation batches, the same at each call."""
        rows = max(1, self.config.batch_size // self.config.accumulation)
        return evaluation_batches(self.validation_ids, rows, self.model.config.context, self.config.evaluation_batches)

    def validation_loss(self) -> float:
        """Mean loss over the validation batches, in nats per token."""
        total = count = 0
        with self.model.evaluating():
            for x, y in self.evaluation():
                total += self._loss(x, y).item() * y.size
                count += y.size
        return total / count

    def bits_per_character(self, loss: float) -> float:
        """loss / ln 2 / (characters per token): comparable between tokenizers, as the loss itself is not."""
        return loss / math.log(2) / (self.characters_per_token or 1.0)

    def evaluate(self) -> float:
        loss = self.validation_loss()
        self.history.append(validation_step=self.step, validation_loss=loss)
        self.log.write(step=self.step, validation_loss=loss, bits_per_character=self.bits_per_character(loss))
        return loss

    # ------------------------------------------------------------ the run

    def run(
        self, *, until: int | None = None, seconds: float = math.inf, save: bool = True, on_evaluation=None
    ) -> History:
        """Train to the last step of the configuration, from wherever the trainer stands.

        until: stop after this step, to be resumed. seconds: of training steps; once spent, the step is the last.
        save: write a checkpoint at each validation and when the run stops (only where there is a folder).
        on_evaluation(trainer, progress): called after each validation.
        With checkpoints, Ctrl-C finishes the step, saves, and raises KeyboardInterrupt with a line on how to go on.
        Raises RuntimeError when the loss is no number, OSError when a checkpoint cannot be written.
        """
        config, end = self.config, self.config.steps if until is None else min(until, self.config.steps)
        tokens, spent, save = config.batch_size * self.model.config.context, 0.0, save and self.folder is not None
        with Progress(self.console, config.steps, self.step) as progress, asked_to_stop(save) as asked, self.log:
            if not len(self.history.validation_step):
                self._evaluated(progress, on_evaluation)
            while self.step < end:
                since = time.monotonic()
                loss = self.train_step()
                took = time.monotonic() - since
                spent += took
                progress.advance(loss, tokens, took)
                self.log.write(
                    step=self.step, loss=loss, lr=self.history.last("lr"), tokens_per_second=round(progress.rate())
                )
                last = self.step == config.steps or spent > seconds
                evaluates = last or self.step % config.evaluate_every == 0
                if evaluates:
                    self._evaluated(progress, on_evaluation)
                if save and (evaluates or asked or self.step == end):
                    self.save()
                if asked:
                    raise KeyboardInterrupt(
                        f"stopped after step {self.step:,} of {config.steps:,} and saved; --resume goes on from there"
                    )
                if last:
                    break
        if self.folder is not None:
            self.draw(self.folder / "loss.png")
        return self.history

    def _evaluated(self, progress, on_evaluation):
        loss = self.evaluate()
        progress.evaluated(self.step, loss, self.bits_per_character(loss) if self.characters_per_token else None)
        if on_evaluation is not None:
            on_evaluation(self, progress)

    def draw(self, path):
        """The loss curve as a figure file (.png, .svg, .pdf)."""
        from ..visualization import loss_curve

        h = self.history
        return loss_curve(
            h.step,
            h.loss,
            h.validation_loss,
            validation_steps=h.validation_step,
            vocabulary=self.model.config.vocab_size,
            path=path,
        )

    # ------------------------------------------------------------ all of the state

    def save(self) -> Path | None:
        """Write a checkpoint and drop those that are not to be kept; returns its path. Raises OSError."""
        if self.folder is None:
            return None
        folder = self.folder / "checkpoints"
        path = checkpoints.write(folder, self.step, *state.collect(self))
        checkpoints.prune(folder, self.config.keep, written=path)
        return path

    def restore(self, checkpoint) -> None:
        """Go on where a checkpoint was written, bit for bit. Raises CheckpointError: another model, another text."""
        state.restore(self, checkpoint)
