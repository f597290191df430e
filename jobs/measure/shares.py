"""Shares with their intervals."""

from __future__ import annotations

import math

from jobs.measure.measured import Share

_Z = 1.959963984540054


def share(count: float, total: int) -> Share:
    """A share with its Wilson 95 % interval (Wilson 1927); the interval of nothing is 0 to 1."""
    if total == 0:
        return Share(0, 0, 0.0, 1.0)
    value, square = count / total, _Z * _Z / total
    middle = (value + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(value * (1 - value) / total + square / (4 * total))
    return Share(count, total, max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half)))


def with_ties(right: int, ties: int, total: int) -> Share:
    """A share in which a tie counts half."""
    return share(right + (ties / 2 if ties % 2 else ties // 2), total)


def better_rule(right: int, wrong: int, total: int) -> tuple[Share, bool]:
    """Of a rule and its opposite, the one that is right more often; a tie counts half.

    Returns:
        Its share, never under a half, and whether it is the rule itself.
    """
    ties = total - right - wrong
    return with_ties(max(right, wrong), ties, total), right >= wrong


def percent(value: float) -> str:
    """A share in per cent with one digit, none where it is whole."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"
