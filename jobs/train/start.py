"""What must hold before DPO's first step: a reference for every pair, and the proof that the policy starts as it.

The reference is the saved SFT adapter on the same frozen weights, and so is the policy at its start. Its
log-probabilities come from the store; only pairs nobody asked for before are run through the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.common.errors import DataError
from jobs.train import adapters, guards
from jobs.train.divided import whole
from jobs.train.engine.pack import PairIds
from jobs.train.engine.steps import epoch_order
from jobs.train.losses import Part, loss_of
from jobs.train.pairs import Passes, pass_count, scored
from jobs.train.reference import Key, Logps, Store, pair_sha256
from jobs.train.shares import passes
from jobs.train.together import of_first
from jobs.train.watch import heed

STOPPED = "dpo: stopped by SIGTERM; what the reference said is kept. Run the same command to go on."
NOTHING = PairIds((0,), (0,), (0,))
"""A pair for a pass that only keeps others company."""


@dataclass
class Reference:
    """Fills the store for one run."""

    folder: Path
    """RUNS/reference."""
    key: Key
    model: Any
    how: Passes
    watch: Any
    accelerator: Any
    again: str
    """The command that trains sft anew; for messages."""
    computed: int = 0
    """Pairs that had to be run through the model."""

    def find(self, pairs: Sequence[PairIds]) -> Mapping[str, Logps]:
        """Log-probabilities of every pair; processes share the missing ones between them."""
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        store = Store(self.folder, self.key)
        missing = of_first(store.missing(pairs))  # another process may have stored its share already
        self.computed = len(missing)
        if missing:
            store.fill(missing[rank::ranks], self._compute)
        if ranks > 1:
            self.accelerator.wait_for_everyone()
            store = Store(self.folder, self.key)
        return store.pick(pairs)

    def _compute(self, pairs: list[PairIds]) -> Iterator[list[Logps]]:
        self.model.eval()
        done, own = 0, pass_count(pairs, self.how)
        most = int(self.accelerator.gather(torch.tensor([own], device=self.accelerator.device)).max())
        for at, chosen, rejected in scored(self.model, pairs, self.how):
            done += len(at)
            self.watch.progress.update("reference", done, len(pairs))
            yield [self._logps(pairs[i], one, other) for i, one, other in zip(at, chosen, rejected, strict=True)]
            self._heed()
        for _ in range(most - own):  # weights may be divided: then a pass of one process needs all of them
            list(scored(self.model, [NOTHING], self.how))
            self._heed()

    def _heed(self) -> None:
        heed(self.accelerator, self.watch.flag, STOPPED)

    def _logps(self, pair: PairIds, chosen: Any, rejected: Any) -> Logps:
        sums = float(chosen.sum()), float(rejected.sum())
        if not all(map(math.isfinite, sums)):
            raise DataError(f"dpo: the SFT model gives a pair the log-probabilities {sums}. Run: {self.again}")
        return Logps(
            pair=pair_sha256(pair),
            chosen=sums[0],
            rejected=sums[1],
            chosen_tokens=len(chosen),
            rejected_tokens=len(rejected),
        )


def prove_start(trainer: Any, adapter: Path, store: Path) -> dict[str, float]:
    """Prove that the policy starts as the reference; the first forward pass of the first step stands for all.

    Args:
        trainer: a PairTrainer that is ready to train.
        adapter: folder of the saved SFT adapter.
        store: where the reference's log-probabilities are kept, for people.

    Returns:
        Loss and margin of that pass, and how far the stored reference is from the fresh one, per token.

    Raises:
        DataError: adapter bits differ, a margin is not exactly 0, or the stored reference is not this model's.
    """
    saved, context = adapters.saved_weights(adapter), trainer.keeper.stage.context
    policy_now = {name: whole(value) for name, value in adapters.weights(trainer.model).items()}
    guards.check_same_adapters(policy_now, saved, context.command("sft", "--redo"))
    steps = trainer.steps
    first = epoch_order(len(steps.sizes), steps.seed, 0)[: steps.batch_size]
    indices = passes(first, steps.sizes, trainer.keeper.capacity)[0]
    policy = _pass(trainer, indices)
    adapters.restore(trainer.model, saved)
    fresh = _pass(trainer, indices).sums
    part = Part(policy.chosen, policy.rejected, fresh, policy.smoothing)
    loss, figures = loss_of(trainer.goal, part, part.share)
    guards.check_start(figures)
    error = float((fresh - policy.reference).abs().sum() / policy.lengths.sum())
    guards.check_stored_reference(error, trainer.keeper.execution.precision, store, context.command("dpo", "--redo"))
    return {"loss": float(loss), "margin": figures["rewards/margins"], "reference_error": error}


@torch.no_grad()
def _pass(trainer: Any, indices: Sequence[int]) -> Part:
    """One forward pass, in one shape whenever it is called."""
    pairs = [trainer.pairs.ids[i] for i in indices]
    how = Passes(trainer.how.device, sum(map(trainer.how.size, pairs)), trainer.share)
    ((at, chosen, rejected),) = scored(trainer.model, pairs, how)
    part: Part = trainer.pairs.part([indices[i] for i in at], chosen, rejected)
    return part
