"""One optimizer step as both trainers take it: its rows packed into forward passes as large as memory allows.

    class SftStepTrainer(Stepping, SFTTrainer):     # Stepping stands before TRL's trainer
        def pack_rows(self, indices): ...           # the four `Hooks` (jobs/train/hooks.py)
        def step_total(self, indices): ...
        def micro_batch_loss(self, model, packed, indices, total): ...
        def measure_held_out(self): ...

    trainer = SftStepTrainer(model=..., args=..., ...)      # TRL tokenises; gradient_accumulation_steps=1
    trainer.begin(Steps(sizes, ...), Keeper(stage, execution), watch)      # after prepare_model
    trainer.train(resume_from_checkpoint=...)

To the Trainer of transformers a batch is the row numbers of one whole step, and one call of `training_step` does every
forward and backward pass of it. The loss is normalised over the whole step and all processes, so how many passes a step
takes changes its result only by rounding. SIGTERM ends the pass or evaluation it meets (jobs/train/stopping.py): half a
step is thrown away and the last whole step saved. Where memory runs out the step is done again in smaller passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from jobs.common.errors import DataError, StoppedError
from jobs.common.jsonl import sha256_json
from jobs.train.divided import WholeCheckpoints, whole
from jobs.train.history import tokens_seen
from jobs.train.keeper import Keeper, ran_out
from jobs.train.meter import meter_of
from jobs.train.probe import probe
from jobs.train.randomness import Randomness, get_randomness, set_randomness
from jobs.train.shares import StepLoader, Steps, passes, step_loader, sums
from jobs.train.watch import Watch


class Stepping(WholeCheckpoints):
    """Mixin before a TRL trainer that has the `Hooks`; see the module docstring."""

    steps: Steps
    keeper: Keeper
    watch: Watch
    train_s: float = 0.0
    """Seconds of the optimizer steps that this process took; no evaluation, no save."""
    _shares: dict[str, Any]
    """Figures noted in this step, summed over its passes."""
    _rows: Sequence[int] = ()
    _before: Randomness
    """The random state at the end of the last whole step."""
    _began: float = 0.0
    _loss: Any = None

    def begin(self: Any, steps: Steps, keeper: Keeper, watch: Watch) -> None:
        """Tell the trainer its rows, how it keeps within memory and who watches; once, before it does anything."""
        self.steps, self.keeper, self.watch, self._shares = steps, keeper, watch, {}
        processes = self.accelerator.num_processes
        watch.accelerator, watch.meter = self.accelerator, meter_of(self.model, steps, keeper.execution, processes)
        watch.flag.alone = processes == 1

    def note(self, name: str, share: Any) -> None:
        """Add this pass's share to a figure that is logged with the step (a mean over `step_total`)."""
        self._shares[name] = self._shares.get(name, 0.0) + share

    def get_train_dataloader(self) -> StepLoader:
        """One item per optimizer step: its rows, the same in every process."""
        return step_loader(self.steps)

    def train(self: Any, *arguments: Any, **given: Any) -> Any:
        """Probe the heaviest pass where memory is a GPU's, then train.

        Raises:
            StoppedError: SIGTERM came inside a step or an evaluation; the last whole step of this process is saved.
        """
        if self.args.device.type == "cuda" and not self.is_fsdp_enabled:
            probe(self)
        with self.watch.flag.waits():
            try:
                return super().train(*arguments, **given)  # type: ignore[misc]
            except StoppedError:
                saved = (self._initial_global_step, self.watch.saved_step)
                if self.watch.flag.asked and self.state.global_step not in saved:
                    set_randomness(self._before)
                    self._save_checkpoint(self.model, trial=None)
                    self.control = self.callback_handler.on_save(self.args, self.state, self.control)
                raise

    def training_step(self: Any, model: Any, inputs: Sequence[int], num_items_in_batch: Any = None) -> Any:
        """Every forward and backward pass of one step; returns its loss, times the number of processes.

        Raises:
            StoppedError: SIGTERM came between two passes.
            ConfigError: memory ran out and not even a single row fits.
        """
        self._before, self._rows = get_randomness(), inputs
        if self.eval_dataset and self.watch.evaluation_due(self.state):
            self.evaluate()
        self._began = time.monotonic()
        model.train()
        with self.watch.flag.interruptible():
            while (loss := self.attempt(lambda: self._step(model, inputs))) is None:
                model.zero_grad()
                set_randomness(self._before)
                self.keeper.make_room(self.model, alone=self.accelerator.num_processes == 1)
                self.watch.save_next = True  # so that no resume takes earlier steps again with other passes
        self._loss = loss
        return loss

    def evaluate(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the held-out rows, with names as the hook gives them, and write it down beside the steps.

        Raises:
            StoppedError: SIGTERM came.
        """
        training, before = self.model.training, get_randomness()
        self.model.eval()
        try:
            with torch.no_grad(), self.watch.flag.interruptible():
                figures: dict[str, float] = self.measure_held_out()
            if figures:
                self.log({f"eval_{name}": value for name, value in figures.items()})
                self.watch.held_out(self.state.global_step, figures)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        finally:
            self.model.train(training)
            set_randomness(before)
        return figures

    def attempt(self, work: Callable[[], Any]) -> Any:
        """What the work returns; None where memory ran out, and then nothing holds its tensors any more."""
        self._shares = {}
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
        return None

    def _step(self: Any, model: Any, rows: Sequence[int]) -> Any:
        ranks, total = self.accelerator.num_processes, self.step_total(rows)
        mine = passes(rows, self.steps.sizes, self.keeper.capacity, self.accelerator.process_index, ranks)
        whole = torch.zeros((), device=self.args.device)
        for number, indices in enumerate(mine, start=1):
            last = number == len(mine)
            with nullcontext() if last else self.accelerator.no_sync(model=model):
                whole += self.one_pass(model, indices, total) if indices else self._empty_pass(model, rows, total)
            if not last and ranks == 1:
                self.control = self.callback_handler.on_substep_end(self.args, self.state, self.control)
        return whole

    def one_pass(self: Any, model: Any, indices: Sequence[int], total: float, weight: float = 1.0) -> Any:
        """One forward and backward pass; returns its share of the step's loss, times the number of processes."""
        self.keeper.runs([self.steps.sizes[row] for row in indices])
        # Gradients are averaged over processes; the step's loss is a sum over them.
        weight *= self.accelerator.num_processes
        loss = self.micro_batch_loss(model, self.pack_rows(indices), indices, total) * weight
        self.accelerator.backward(loss)
        return loss.detach()

    def _empty_pass(self: Any, model: Any, rows: Sequence[int], total: float) -> Any:
        """A pass of a process that has no more rows, while the others have: it counts nothing."""
        noted = dict(self._shares)
        loss = self.one_pass(model, [min(rows, key=lambda row: self.steps.sizes[row])], total, weight=0.0)
        # With a name for every figure: the processes add them up together (`sums`).
        self._shares = {name: noted.get(name, 0.0) for name in self._shares}
        return loss

    def _clip_grad_norm(self: Any, model: Any) -> Any:
        """Clip the gradients of a whole step, after refusing numbers that would poison the weights.

        Raises:
            DataError: loss or gradient is not a finite number; nothing of this step is kept.
        """
        norm, loss = whole(super()._clip_grad_norm(model)), float(self._loss)  # type: ignore[misc]
        if not (math.isfinite(loss) and math.isfinite(float(norm))):
            rows = [self.steps.ids[row] for row in self._rows]
            raise DataError(self.keeper.poisoned_line(self.state.global_step, loss, rows))
        return norm

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        if self.args.should_save:
            self.keeper.settle(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        self.accelerator.wait_for_everyone()

    def log(self: Any, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Log a step with its tokens and noted figures; `num_tokens` goes on where the checkpoint's left off."""
        if "loss" in logs:
            tokens, wall_s = sum(self.steps.tokens[row] for row in self._rows), time.monotonic() - self._began
            self.train_s += wall_s
            logs["rows"] = sha256_json([self.steps.ids[row] for row in self._rows])[:16]
            logs["num_tokens"] = tokens_seen(self.state.log_history) + tokens
            logs["tokens_per_s"] = round(tokens / max(wall_s, 1e-9), 1)
            logs.update(self.watch.meter.measured(logs) | sums(self.accelerator, self._shares))
        super().log(logs, start_time)  # type: ignore[misc]
