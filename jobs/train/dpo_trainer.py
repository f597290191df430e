"""TRL's DPOTrainer with packed forward passes, steps of any number of them, and a reference that is data.

TRL tokenises and brings the losses; `Stepping` brings the loop over a step's passes; here a pass becomes a loss. No
reference model runs: its log-probabilities come from the store (jobs/train/reference.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import DPOTrainer

from jobs.common.console import say
from jobs.train.engine.forward import log_probs
from jobs.train.engine.pack import Packed, PairIds, positions_of
from jobs.train.losses import Part, Share, join, loss_of
from jobs.train.margins import GAINED, Judged, alarm, by_principle
from jobs.train.objective import Objective
from jobs.train.pairs import Pairs, Passes, by_side, scored
from jobs.train.shares import passes
from jobs.train.stepping import Stepping


@dataclass(frozen=True)
class Measured:
    """A policy on a set of pairs."""

    loss: float
    figures: dict[str, float]
    """See `loss_of`."""
    pairs: list[Judged]


class PairTrainer(Stepping, DPOTrainer):  # type: ignore[misc]
    """DPO over packed pairs; call `use` and `begin` before `train`."""

    goal: Objective
    pairs: Pairs
    held_out: Pairs
    share: bool
    _size_of_step: Share
    """Size of the step that is being taken."""
    _seen_whole: tuple[Any, dict[int, tuple[Any, Any]]] | None
    """Where the losses need a whole step at once: its loss, and the loss's gradient by every pair's log-probabilities,
    chosen side and rejected side."""

    _alarmed: bool = False
    """True once likelihood displacement was said."""

    def use(self, goal: Objective, pairs: Pairs, held_out: Pairs, share: bool) -> None:
        """Tell the trainer its pairs, with their reference, and what to minimize."""
        self.goal, self.pairs, self.held_out, self.share = goal, pairs, held_out, share

    @property
    def how(self) -> Passes:
        """How pairs go through the model now; the capacity falls where memory runs out."""
        return Passes(self.args.device, self.keeper.capacity, self.share)

    def size(self, pair: PairIds) -> int:
        """Positions a pair takes in a forward pass."""
        return positions_of(pair, self.share)

    def pack_rows(self, indices: Sequence[int]) -> Packed:
        """The pairs of one forward pass."""
        return self.how.pack([self.pairs.ids[i] for i in indices])

    def step_total(self, indices: Sequence[int]) -> float:
        """Pairs of the step; losses that compare them with each other see the whole step here, before its passes."""
        self._size_of_step = Share(len(indices), sum(len(self.pairs.ids[i].chosen) for i in indices))
        parted = len(passes(indices, self.steps.sizes, self.keeper.capacity)) > 1 or self.accelerator.num_processes > 1
        self._seen_whole = self._whole_step(indices) if self.goal.whole and parted else None
        return float(len(indices))

    def micro_batch_loss(self, model: Any, packed: Packed, indices: Sequence[int], total: float) -> Any:
        """A pass's share of the step's loss.

        The losses run on the CPU: one wait for the device per pass, where TRL's figures alone cost twelve. What goes
        back to the device is the loss and its gradient by the log-probabilities.
        """
        values = log_probs(model, packed)
        leaf = values.detach().cpu().requires_grad_()
        part = self.pairs.part(indices, *by_side(leaf, packed))
        if self._seen_whole is None:
            loss = self._loss_of(part)
            loss.backward()
        else:
            step_loss, slopes = self._seen_whole
            loss = step_loss * (len(indices) / total)
            rows, along = [*part.chosen, *part.rejected], [slopes[i][side] for side in (0, 1) for i in indices]
            torch.autograd.backward(rows, along)
        slope = leaf.grad.to(values.device)
        return loss.detach().to(values.device) + ((values - values.detach()) * slope).sum()

    def _loss_of(self, part: Part) -> Any:
        loss, figures = loss_of(self.goal, part, self._size_of_step)
        copies = self.accelerator.num_processes if self.goal.whole else 1  # every process sees the whole step
        for name, mean in figures.items():
            self.note(name, mean * part.share.pairs / self._size_of_step.pairs / copies)
        return loss

    def _whole_step(self, indices: Sequence[int]) -> tuple[Any, dict[int, tuple[Any, Any]]]:
        """One more forward pass of a step's pairs, without gradient: exact, for losses that no part of it can give."""
        numbers: list[int] = []
        leaves: list[tuple[Any, Any]] = []
        for at, chosen, rejected in scored(self.model, [self.pairs.ids[i] for i in indices], self.how):
            numbers += [indices[i] for i in at]
            leaves += [
                (one.requires_grad_(), other.requires_grad_()) for one, other in zip(chosen, rejected, strict=True)
            ]
        part = self.pairs.part(numbers, [one for one, _ in leaves], [other for _, other in leaves])
        loss = self._loss_of(part)
        loss.backward()
        return loss.detach(), {i: (one.grad, other.grad) for i, (one, other) in zip(numbers, leaves, strict=True)}

    def measure_held_out(self) -> dict[str, float]:
        """Loss, TRL's figures, and margin and accuracy of every principle; empty where nothing is held out."""
        if not self.held_out.ids:
            return {}
        found = self.measure(self.held_out)
        line = alarm(found.figures[GAINED], found.figures["rewards/margins"], "sft" in self.goal.names)
        if line and not self._alarmed:
            say(line)
        self._alarmed |= line is not None
        return {"loss": found.loss, **found.figures, **by_principle(found.pairs)}

    def measure(self, pairs: Pairs) -> Measured:
        """The policy on a set of pairs, as one batch; every process measures all of them.

        Raises:
            StoppedError: SIGTERM; evaluation leaves nothing to save.
        """
        parts: list[Part] = []
        numbers: list[int] = []
        for at, chosen, rejected in scored(self.model, pairs.ids, self.how):
            numbers += at
            parts.append(pairs.part(at, chosen, rejected))
            self.watch.held_out_batch(len(numbers), len(pairs.ids))
        whole = join(parts)
        loss, figures = loss_of(self.goal, whole, whole.share)
        rewards = (self.goal.beta * (whole.sums - whole.reference)).T.tolist()
        judged = [Judged(pairs.principles[i], *rewards[at]) for at, i in enumerate(numbers)]
        return Measured(float(loss), figures, judged)
