"""What the judge's probabilities say: pure arithmetic, no requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

Verdict = Literal["first", "second", "tie", "flipped", "unreadable"]

TIE_BAND = 0.05
"""Both orders this close to one half: the judge sees no difference."""
CLAMP = (0.4, 0.6)
"""Probabilities after reasoning, which makes a judge too sure of itself (arXiv 2212.08073, section 4.1)."""


def clamped(probability: float) -> float:
    """A probability kept between the bounds of `CLAMP`."""
    return min(CLAMP[1], max(CLAMP[0], probability))


def mean_in_log_odds(one: float, other: float) -> float:
    """The probability whose log-odds are the mean of two; both lie strictly between 0 and 1."""
    return 1 / (1 + math.exp(-(_log_odds(one) + _log_odds(other)) / 2))


def verdict(shown_first: float | None, shown_second: float | None, rule: Literal["both_orders", "mean"]) -> Verdict:
    """Who won.

    Args:
        shown_first: probability that the first answer is better, from the request that showed it first; None where no
            verdict could be read.
        shown_second: the same, from the request that showed it second.
        rule: `both_orders`: both must say so, by more than `TIE_BAND` in one of them. `mean`: their mean decides, and
            only a mean of exactly one half is a tie.
    """
    if shown_first is None or shown_second is None:
        return "unreadable"
    if rule == "mean":
        return side(mean_in_log_odds(shown_first, shown_second), band=0.0)
    both = (shown_first - 0.5, shown_second - 0.5)
    if max(map(abs, both)) <= TIE_BAND + 1e-9:  # 0.45 and 0.55 are as far from one half but for the last bit
        return "tie"
    if min(both) > 0:
        return "first"
    return "second" if max(both) < 0 else "flipped"


def side(probability: float, band: float) -> Verdict:
    """Who won by one probability; no further than `band` from one half is a tie."""
    # 1e-9: opposite probabilities such as 0.9 and 0.1 meet at one half only but for the last bit.
    if abs(probability - 0.5) <= band + 1e-9:
        return "tie"
    return "first" if probability > 0.5 else "second"


def expected_grade(chances: Mapping[str, float]) -> float:
    """Mean of the grades 1 to 5, each weighed by its probability."""
    return sum(int(grade) * chance for grade, chance in chances.items())


def by_grades(first: float, second: float) -> float:
    """Probability that the first answer is better, from both expected grades: one grade apart is 73 % (logistic)."""
    return min(0.99, max(0.01, 1 / (1 + math.exp(second - first))))


def _log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))
