"""What DPO minimizes: the recipe's losses with their weights, and how sure it is of each pair."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.common.settings import DpoSettings

SORTS_PAIRS = frozenset({"aot", "aot_unpaired"})
"""Losses that compare the pairs of a step with each other."""

MOST = 0.5 - 1e-3
"""Largest smoothing of one pair: at one half a pair says nothing, above it says the opposite."""


@dataclass(frozen=True)
class Objective:
    """What DPO minimizes."""

    names: tuple[str, ...]
    """TRL's names of the losses."""
    weights: tuple[float, ...]
    """One weight per loss."""
    beta: float
    smoothing: float | None
    """Share of flipped labels; None where every pair has its own."""

    @property
    def whole(self) -> bool:
        """True where a step's pairs must be compared with each other."""
        return bool(SORTS_PAIRS & set(self.names))


def objective(settings: DpoSettings) -> Objective:
    """What the recipe asks for; which settings go together was checked when it was read."""
    kinds = settings.loss_type if isinstance(settings.loss_type, list) else [settings.loss_type]
    smoothing = settings.label_smoothing
    return Objective(
        tuple(kinds),
        tuple(settings.loss_weights or [1.0] * len(kinds)),
        settings.beta,
        None if smoothing == "judge" else smoothing,
    )


def pair_smoothing(goal: Objective, probability: float | None) -> float:
    """How likely one pair is the wrong way round: the recipe's share, or what the judge's probability leaves.

    A pair no judge looked at counts as certain.
    """
    if goal.smoothing is not None:
        return goal.smoothing
    return 0.0 if probability is None else min(1.0 - probability, MOST)
