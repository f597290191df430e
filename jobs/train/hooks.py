"""What a trainer brings for `Stepping`: its rows as forward passes, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jobs.train.engine.pack import Packed


class Hooks(Protocol):
    """What a trainer brings for `Stepping`."""

    def pack_rows(self, indices: Sequence[int]) -> Packed:
        """The rows of one forward pass, on the trainer's device."""

    def step_total(self, indices: Sequence[int]) -> float:
        """What the loss of a whole step is divided by; `indices` are its rows in all processes."""

    def micro_batch_loss(self, model: Any, packed: Packed, indices: Sequence[int], total: float) -> Any:
        """A scalar with gradient: this pass's share of the step's loss, that is its sum divided by `total`.

        Figures for the log go through `self.note(name, share)`: a detached scalar, a share in the same sense.
        """

    def measure_held_out(self) -> dict[str, float]:
        """Figures of the held-out rows, `loss` among them; empty where there are none.

        Calls `self.watch.held_out_batch(done, total)` after every pass, which raises StoppedError on SIGTERM.
        """
