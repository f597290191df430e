"""What watches a training loop: SIGTERM, the clock between checkpoints and evaluations, progress, and the tracker.

How SIGTERM is heard is told in jobs/train/stopping.py. It ends training by a StoppedError, which the trainer answers by
saving the last whole step (jobs/train/stepping.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from jobs.common.console import StageProgress
from jobs.common.errors import StoppedError
from jobs.train.checkpoints import save_due, seal_checkpoint
from jobs.train.history import log_line, step_figures
from jobs.train.meter import Meter
from jobs.train.shares import agree
from jobs.train.stopping import LINE, StopFlag
from jobs.train.tracking import Tracker


def heed(accelerator: Any, flag: StopFlag, line: str) -> None:
    """Stop with this line where SIGTERM has come to any process; every process must ask at the same time.

    Raises:
        StoppedError: it has; the flag is set in every process.
    """
    flag.asked = agree(accelerator, flag.asked)[0]
    if flag.asked:
        raise StoppedError(line)


@dataclass(eq=False)
class Watch(TrainerCallback):  # type: ignore[misc]
    """The one callback of both trainers."""

    flag: StopFlag
    progress: StageProgress
    log: Path
    tracker: Tracker
    save_s: float
    """Seconds between checkpoints."""
    evaluations: int
    """Held-out evaluations during training."""
    meter: Meter = field(default_factory=Meter)
    """Of the trainer, which gives it."""
    accelerator: Any = None
    """Of the trainer too; the processes decide together."""
    save_next: bool = False
    """Whether the next whole step is saved, whatever the clock says."""
    saved_step: int | None = None
    """Step of the checkpoint that this process wrote last."""
    _saved_at: float = field(default_factory=time.monotonic)

    def heed(self) -> None:
        """Stop where SIGTERM has come to any process; every process must ask at the same time.

        Raises:
            StoppedError: it has.
        """
        heed(self.accelerator, self.flag, LINE)

    def held_out_batch(self, done: int, total: int) -> None:
        """An evaluation batch ended.

        Raises:
            StoppedError: SIGTERM came; evaluation leaves nothing to save.
        """
        self.progress.update("held-out batches", done, total)
        self.heed()

    def held_out(self, step: int, figures: Mapping[str, float]) -> None:
        """Write down what was measured on held-out rows after so many steps; names without `held_out/`."""
        named = {f"held_out/{name}": float(value) for name, value in figures.items()}
        self._write({"step": step} | named)
        self.tracker.log(step, named)

    def evaluation_due(self, state: TrainerState) -> bool:
        """Whether the weights as they are should be measured before the next step; evenly spread over the run."""
        past = sum(1 for entry in state.log_history if "eval_loss" in entry)
        due = (self.evaluations + 1) * state.global_step // state.max_steps
        return bool(past < min(due, self.evaluations))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A forward and backward pass inside a step ended."""
        self.heed()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An optimizer step ended."""
        late = time.monotonic() - self._saved_at >= self.save_s or self.save_next
        stop, due = agree(self.accelerator, self.flag.asked, late or save_due(state.global_step, state.max_steps))
        control.should_save = due or stop
        control.should_training_stop |= stop
        self.flag.asked |= stop

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step was logged: show it and write it down."""
        latest = state.log_history[-1] if state.log_history else {}
        if "loss" in latest:
            self.progress.update("training", state.global_step, state.max_steps, self.meter.training(latest))
            self._write(latest)
            self.tracker.log(state.global_step, step_figures(latest))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint was written: seal it."""
        if state.is_world_process_zero:
            seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._saved_at, self.save_next, self.saved_step = time.monotonic(), False, state.global_step

    def _write(self, entry: dict[str, Any]) -> None:
        with self.log.open("ab") as file:
            file.write(log_line(entry))
