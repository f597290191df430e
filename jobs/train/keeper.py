"""How much one forward pass may hold: probed before the first step, and lowered where memory runs out.

Lowering it changes no result but by rounding, because a step keeps its rows.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.errors import ConfigError
from jobs.common.stage import OpenStage
from jobs.train.divided import dividing
from jobs.train.execution import Execution, asked_of, write_execution
from jobs.train.faults import NO_MEMORY, in_four_bits


def ran_out(error: BaseException) -> bool:
    """True where the error says that memory ran out."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY)


@dataclass
class Keeper:
    """What one forward pass may hold now, and which one is running."""

    stage: OpenStage
    execution: Execution
    running: Sequence[int] = ()
    """Positions of every row in the pass that runs now."""
    heaviest: int = 0
    """Positions of the largest pass that ran so far."""

    @property
    def capacity(self) -> int:
        """Most positions in one forward pass."""
        return self.execution.micro_batch_tokens

    def runs(self, sizes: Sequence[int]) -> None:
        """A pass of rows of these positions begins."""
        self.running, self.heaviest = sizes, max(self.heaviest, sum(sizes))

    def make_room(self, model: Any, alone: bool = True) -> None:
        """Halve the passes, or recompute activations where the one that failed holds a single row.

        Args:
            model: the model in training.
            alone: False where other processes wait in the same step, so that it cannot be done again.

        Raises:
            ConfigError: a single row does not fit, with activations recomputed; or this process is not alone.
        """
        free_memory()
        positions, self.heaviest = sum(self.running), 0
        if not alone:
            section, change = self.stage.plan.name, f"micro_batch_tokens={positions // 2}"
            if positions // 2 < self._settings.max_length:  # a recipe refuses passes below the longest row
                if self.execution.gradient_checkpointing:
                    raise ConfigError(self._no_room_line(positions))
                change = "gradient_checkpointing=true"
            again = self.stage.context.command(section, f"--set {section}.{change}")
            raise ConfigError(f"{section}: out of memory in a forward pass of {positions} tokens. Run: {again}")
        if len(self.running) > 1:
            self.execution = replace(self.execution, micro_batch_tokens=max(1, min(self.capacity, positions) // 2))
            how = f"going on with {self.capacity} tokens"
        elif not self.execution.gradient_checkpointing and self._settings.gradient_checkpointing == "auto":
            self.execution = replace(self.execution, gradient_checkpointing=True)
            recompute_activations(model)
            how = "going on with gradient checkpointing"
        else:
            raise ConfigError(self._no_room_line(positions))
        say(f"{self.stage.plan.name}: out of memory in a forward pass of {positions} tokens; {how}, same rows per step")

    def settle(self, checkpoint: Path) -> None:
        """Write into a checkpoint, before it is sealed, how a resume from it runs.

        A resume from an earlier one takes the steps up to there in the passes they were taken in.
        """
        write_execution(checkpoint, self.execution, asked_of(self._settings))

    def poisoned_line(self, step: int, loss: float, rows: Sequence[str]) -> str:
        """What to say when the step after `step` gives a loss or gradient that is no number."""
        section, context = self.stage.plan.name, self.stage.context
        rate = f"--set {section}.learning_rate={self._settings.learning_rate / 2:g}"
        value = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient of loss {loss:.4f} is not finite"
        return (
            f"{section}: step {step + 1}: {value} (rows {', '.join(rows)}). Nothing of this step is saved. "
            f"Look at those rows, or run with a lower learning rate: {context.command(section, '--redo', rate)}"
        )

    @property
    def _settings(self) -> Any:
        return getattr(self.stage.context.recipe, self.stage.plan.name)

    def _no_room_line(self, positions: int) -> str:
        section, context = self.stage.plan.name, self.stage.context
        shorter = f"--set {section}.max_length={max(1, self._settings.max_length // 2)}"
        advice = context.command(section, "--redo", shorter)
        if not self.execution.gradient_checkpointing:  # goes on from the newest checkpoint
            advice = context.command(section, f"--set {section}.gradient_checkpointing=auto")
        elif self._settings.quantization == "none" and not dividing():
            advice = in_four_bits(context, section)
        state = "with" if self.execution.gradient_checkpointing else "without"
        return (
            f"{section}: a single row of {positions} tokens does not fit the memory of {self.execution.device}, "
            f"{state} gradient checkpointing. Run: {advice}"
        )


def recompute_activations(model: Any) -> None:
    """Keep each layer's input alone for the backward pass and compute the rest again (gradient checkpointing)."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def free_memory() -> None:
    """Give back what failed passes left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
