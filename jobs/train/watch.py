"""What watches a training loop: SIGTERM, the clock between checkpoints, and progress.

SIGTERM only sets a flag. The loop reads it after every micro-batch and every evaluation batch; half an accumulated
step is thrown away and the random state put back to the end of the last whole step, so a resumed run is the same run.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from jobs.common.console import StageProgress
from jobs.common.errors import StoppedError
from jobs.train.checkpoints import seal_checkpoint
from jobs.train.history import log_lines


@dataclass
class StopFlag:
    """Set by SIGTERM."""

    asked: bool = False


@contextmanager
def sigterm_sets(flag: StopFlag) -> Iterator[None]:
    """Let SIGTERM set a flag instead of ending the process; the handler before is put back."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        flag.asked = True

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(eq=False)
class Watch(TrainerCallback):  # type: ignore[misc]
    """The one callback of both trainers."""

    flag: StopFlag
    progress: StageProgress
    log: Path
    save_s: float
    """Seconds between checkpoints."""
    stopped: bool = False
    """True once training ended because of the flag."""
    _saved_at: float = field(default_factory=time.monotonic)
    _random: dict[str, Any] = field(default_factory=dict)
    _evaluated: int = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._saved_at = time.monotonic()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A micro-batch inside an accumulated step ended."""
        if self.flag.asked:
            if self._random:
                _set_random(self._random)
            self._stop(control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An optimizer step ended."""
        self._random = _get_random()
        if self.flag.asked:
            self._stop(control)
        elif state.global_step >= state.max_steps or time.monotonic() - self._saved_at >= self.save_s:
            control.should_save = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step was logged: show it and write it down."""
        latest = state.log_history[-1] if state.log_history else {}
        if "loss" in latest:
            self.progress.update("training", state.global_step, state.max_steps, f"loss {latest['loss']:.4f}")
            with self.log.open("ab") as file:  # for watching; the loop writes it whole at the end
                file.write(log_lines([latest]))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint was written: seal it."""
        seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self._saved_at = time.monotonic()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """An evaluation batch ended.

        Raises:
            StoppedError: SIGTERM came; evaluation leaves nothing to save.
        """
        self._evaluated += 1
        self.progress.update("held-out batches", self._evaluated, max(self._evaluated, len(given["eval_dataloader"])))
        if self.flag.asked:
            raise StoppedError("Stopped by SIGTERM while evaluating. Run the same command to go on.")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An evaluation ended."""
        self._evaluated = 0

    def _stop(self, control: TrainerControl) -> None:
        self.stopped = True
        control.should_training_stop = True
        # Before a step ended in this process the checkpoint it began from, if any, is still the state to resume.
        control.should_save = bool(self._random)


def _get_random() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def _set_random(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
