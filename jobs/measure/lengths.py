"""Lengths: does the longer side win, and is the revision longer than what it revises?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from jobs.measure.data import Data
from jobs.measure.measured import Lengths
from jobs.measure.shares import better_rule, share
from jobs.measure.texts import count_words

FEWEST = 6
"""Pairs that the signed-rank test needs."""
ALIKE = 0.1
"""Difference up to which two lengths count as alike."""


def lengths(data: Data) -> Lengths | None:
    """Measure both sides of all pairs; None without pairs."""
    if not data.pairs:
        return None
    chosen = [count_words(pair.chosen) for pair in data.pairs]
    rejected = [count_words(pair.rejected) for pair in data.pairs]
    sizes = [(len(pair.chosen), len(pair.rejected)) for pair in data.pairs]
    longer, shorter = sum(one > other for one, other in sizes), sum(one < other for one, other in sizes)
    length_only, longer_is_chosen = better_rule(longer, shorter, len(sizes))
    rounds = [(count_words(row.initial), count_words(row.completion)) for row in data.examples if row.initial.strip()]
    by_principle: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for pair, one, other in zip(data.pairs, chosen, rejected, strict=True):
        by_principle[pair.principle_id].append((one, other))
    return Lengths(
        chosen_words=_mean(chosen),
        rejected_words=_mean(rejected),
        ratio=_ratio(list(zip(chosen, rejected, strict=True))),
        typical_ratio=_typical_ratio(chosen, rejected),
        longer_words=share(sum(one > other for one, other in zip(chosen, rejected, strict=True)), len(chosen)),
        wilcoxon_p=_wilcoxon(chosen, rejected),
        length_only=length_only,
        longer_is_chosen=longer_is_chosen,
        within_tenth=sum(abs(one - other) <= ALIKE * max(one, other) for one, other in sizes),
        by_principle={principle: _ratio(both) for principle, both in sorted(by_principle.items())},
        initial_words=_mean([before for before, _ in rounds]) if rounds else None,
        completion_words=_mean([after for _, after in rounds]) if rounds else None,
        completion_longer=share(sum(after > before for before, after in rounds), len(rounds)) if rounds else None,
    )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _ratio(both: Sequence[tuple[int, int]]) -> float:
    """Mean of the first over mean of the second; a side of no words counts as one word."""
    return max(1, sum(one for one, _ in both)) / max(1, sum(other for _, other in both))


def _typical_ratio(chosen: Sequence[int], rejected: Sequence[int]) -> float:
    """Median ratio of the pairs, in logarithms, so that swapped sides give its inverse."""
    return math.exp(median(math.log(max(1, one) / max(1, other)) for one, other in zip(chosen, rejected, strict=True)))


def _wilcoxon(chosen: Sequence[int], rejected: Sequence[int]) -> float | None:
    from scipy.stats import wilcoxon

    differences = [one - other for one, other in zip(chosen, rejected, strict=True)]
    if len(differences) < FEWEST:
        return None
    return float(wilcoxon(differences).pvalue) if any(differences) else 1.0
