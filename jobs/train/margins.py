"""What held-out pairs say of a policy: reward margin and accuracy per principle, beside what length alone would get.

The reward of an answer is beta times the log-probability the policy adds to the reference's (arXiv 2305.18290). A pair
is right where the chosen side's reward is higher; the margin is the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

DISPLACED = 0.02
"""Log-probability per token that the chosen answers may lose before it is called displacement."""

GAINED = "logps/chosen_gained_per_token"
"""Figure of a step or an evaluation: log-probability of a chosen answer per token, policy minus reference."""

REMEDY = "--set 'dpo.loss_type=[sigmoid,sft]' --set 'dpo.loss_weights=[1,0.1]'"
"""Settings that hold the chosen answers up: the loss of SFT on them, added with a small weight."""


@dataclass(frozen=True)
class Judged:
    """One pair under policy and reference."""

    principle_id: str
    chosen: float
    """Reward of the chosen side."""
    rejected: float

    @property
    def margin(self) -> float:
        """By how much the chosen side's reward is higher."""
        return self.chosen - self.rejected

    @property
    def right(self) -> float:
        """1 where the chosen side's reward is higher."""
        return float(self.margin > 0)


@dataclass(frozen=True)
class LengthBaseline:
    """What a rule gets right that sees lengths alone."""

    rule: str
    """`longer` or `shorter`: which side is chosen more often in the training pairs."""
    train: float
    """Share of the training pairs it gets right; equal lengths count half."""
    held_out: float | None
    """Share of the held-out pairs it gets right; None where there are none."""


Lengths = Sequence[tuple[int, int]]
"""Tokens of the chosen and the rejected side, per pair."""


def by_principle(pairs: Sequence[Judged]) -> dict[str, float]:
    """Mean margin and accuracy of every principle: `margin/<principle>` and `accuracy/<principle>`."""
    figures = {}
    for principle in sorted({pair.principle_id for pair in pairs}):
        own = [pair for pair in pairs if pair.principle_id == principle]
        figures[f"margin/{principle}"] = fmean(pair.margin for pair in own)
        figures[f"accuracy/{principle}"] = fmean(pair.right for pair in own)
    return figures


def length_baseline(train: Lengths, held_out: Lengths) -> LengthBaseline:
    """Learn on the training pairs whether the longer or the shorter side is chosen, and apply it.

    Args:
        train: at least one pair.
        held_out: any number.
    """
    longer = _longer_chosen(train)
    rule = "longer" if longer >= 0.5 else "shorter"
    found = _longer_chosen(held_out) if held_out else None
    if rule == "shorter":
        longer, found = 1 - longer, None if found is None else 1 - found
    return LengthBaseline(rule, longer, found)


def displaced(held_out: Mapping[str, float], history: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """What the chosen answers gained per token, and the mean margin: on held-out pairs, else on the last trained ones.

    Args:
        held_out: figures of the last evaluation; empty where nothing is held out.
        history: entries of the trainer's log; the last tenth of the steps stands for the end.
    """
    steps = [entry for entry in history if GAINED in entry]
    last: Sequence[Mapping[str, Any]] = [held_out] if held_out else steps[-max(1, len(steps) // 10) :]
    return fmean(one[GAINED] for one in last), fmean(one["rewards/margins"] for one in last)


def alarm(gained: float, margin: float, accepted: bool) -> str | None:
    """One line where margins rise while the chosen answers become less likely (arXiv 2410.08847), with the remedy.

    Args:
        gained: what `displaced` found.
        margin: mean reward margin; the reference's own is 0.
        accepted: the recipe already holds the chosen answers up with the `sft` loss.
    """
    if gained >= -DISPLACED or margin <= 0:
        return None
    line = (
        f"dpo: likelihood displacement: margins rise to {margin:.4f} while the chosen answers lose {-gained:.3f} "
        f"log-probability per token (limit {DISPLACED})"
    )
    return f"{line}. {'Raise the weight of sft in dpo.loss_weights' if accepted else f'Run with {REMEDY}'}"


def _longer_chosen(pairs: Lengths) -> float:
    return fmean((chosen > rejected) + 0.5 * (chosen == rejected) for chosen, rejected in pairs)
