"""Which held-out rows are measured during training, where there are more than its figures need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jobs.train.examples import Row

MAX_HELD_OUT = 256
"""Held-out rows behind the losses and margins of a manifest: more would cost time and hardly change the figure."""


def spread(rows: Sequence[Row], most: int = MAX_HELD_OUT) -> list[Row]:
    """At most so many rows, as even over their principles as these allow; in their first order.

    Rows lie principle by principle, so the first ones alone would leave the last principles without a figure.
    """
    turns: defaultdict[str, int] = defaultdict(int)
    ranked = []
    for place, row in enumerate(rows):
        ranked.append((turns[row.principle_id], place))
        turns[row.principle_id] += 1
    return [rows[place] for place in sorted(place for _, place in sorted(ranked)[:most])]
