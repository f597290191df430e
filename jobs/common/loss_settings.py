"""Which preference losses there are, and which settings go together with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

LossType = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
"""TRL's preference losses (trl.DPOConfig.loss_type)."""

PER_PAIR = ("sigmoid", "sigmoid_norm", "ipo")
"""Losses in which every pair can have its own label smoothing."""
OWN_SMOOTHING = ("robust", "exo_pair", "aot", "aot_unpaired")
"""Losses that take one label smoothing for all pairs."""
UNSMOOTHED = ("sft",)
"""Losses that do not ask which side is better, so that any smoothing goes with them."""


def loss_fault(
    losses: Sequence[str], weights: Sequence[float] | None, smoothing: float | Literal["judge"]
) -> str | None:
    """What is wrong with this combination, or None."""
    named = ", ".join(losses)
    if len(set(losses)) < len(losses):
        return f"loss_type names a loss twice ({named}); give it once, with its weight in loss_weights"
    if weights is not None and len(weights) != len(losses):
        return f"loss_weights needs one weight per loss: {len(losses)} for {named}, found {len(weights)}"
    smoothed = PER_PAIR if smoothing == "judge" else PER_PAIR + OWN_SMOOTHING
    odd = [loss for loss in losses if loss not in smoothed + UNSMOOTHED]
    if smoothing and odd:
        return f"label_smoothing: {smoothing} is not defined for {odd[0]}; it works with {', '.join(smoothed)}"
    if not smoothing and "exo_pair" in losses:
        return "exo_pair needs label_smoothing above 0, such as 0.001 (arXiv 2402.00856)"
    return None
