"""Preference pairs as training sees them: token ids cut as TRL cuts them, and their log-probabilities pass by pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.train.engine.forward import log_probs
from jobs.train.engine.pack import Packed, PairIds, pack_pairs, positions_of
from jobs.train.engine.steps import micro_batches
from jobs.train.losses import Part

AT_ONCE = 1024
"""Pairs that are sorted into forward passes together where no optimizer step bounds them."""


@dataclass(frozen=True)
class Passes:
    """How pairs go through the model."""

    device: Any
    capacity: int
    """Most positions in one forward pass."""
    share: bool
    """Lay a pair's prompt down once instead of twice."""

    def pack(self, pairs: Sequence[PairIds]) -> Packed:
        """One forward pass."""
        return pack_pairs(pairs, self.device, self.share)

    def size(self, pair: PairIds) -> int:
        """Positions one pair takes."""
        return positions_of(pair, self.share)


@dataclass(frozen=True)
class Pairs:
    """The pairs of one dataset."""

    ids: Sequence[PairIds]
    reference: Any
    """(2, pairs) fp32: summed log-probabilities of the chosen and rejected sides under the reference."""
    smoothing: Any
    """(pairs,) fp32: how likely each pair is the wrong way round."""
    principles: Sequence[str]

    @classmethod
    def of(cls, ids: Sequence[PairIds], reference: Any, smoothing: Sequence[float], principles: Sequence[str]) -> Pairs:
        """Pairs with their smoothing as plain numbers."""
        return cls(ids, reference, torch.tensor(smoothing, dtype=torch.float32), principles)

    def part(self, indices: Sequence[int], chosen: Sequence[Any], rejected: Sequence[Any]) -> Part:
        """Some of the pairs with their log-probabilities."""
        at = torch.tensor(indices)
        return Part(chosen, rejected, self.reference[:, at], self.smoothing[at])


def pair_ids(prepared: Mapping[str, Any], max_length: int) -> PairIds:
    """One row of TRL's dataset, cut at its end as TRL's collator does."""
    room = max_length - len(prepared["prompt_ids"])
    return PairIds(prepared["prompt_ids"], prepared["chosen_ids"][:room], prepared["rejected_ids"][:room])


def by_side(values: Any, packed: Packed) -> tuple[list[Any], list[Any]]:
    """Log-probabilities of a forward pass as one tensor per side and pair: chosen sides, rejected sides.

    Args:
        values: (N,) on the CPU.
        packed: the forward pass.
    """
    owner = packed.owner.cpu()
    order, counts = owner.argsort(stable=True), owner.bincount(minlength=packed.rows)
    rows = list(values[order].split(counts.tolist()))
    return rows[: packed.rows // 2], rows[packed.rows // 2 :]


def _numbers(pairs: Sequence[PairIds], how: Passes) -> Iterator[list[int]]:
    """Numbers of the pairs of every forward pass."""
    for first in range(0, len(pairs), AT_ONCE):
        sizes = [how.size(pair) for pair in pairs[first : first + AT_ONCE]]
        for one in micro_batches(sizes, how.capacity):
            yield [first + at for at in one]


def pass_count(pairs: Sequence[PairIds], how: Passes) -> int:
    """Forward passes that these pairs take."""
    return sum(1 for _ in _numbers(pairs, how))


@torch.no_grad()
def scored(model: Any, pairs: Sequence[PairIds], how: Passes) -> Iterator[tuple[list[int], list[Any], list[Any]]]:
    """Run pairs through the model without gradient.

    Yields:
        Per forward pass: numbers of its pairs, log-probabilities of their chosen and of their rejected sides.
    """
    for indices in _numbers(pairs, how):
        packed = how.pack([pairs[i] for i in indices])
        yield (indices, *by_side(log_probs(model, packed).cpu(), packed))
