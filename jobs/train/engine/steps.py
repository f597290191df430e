"""Which rows share an optimizer step, and which of them share a forward pass.

A step is always the same rows; how many forward passes they take depends on memory alone and changes no result but by
rounding.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """A permutation of `range(rows)` that depends on seed and epoch alone."""
    order = list(range(rows))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    return order


def steps_of(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """The rows of every optimizer step of an epoch; the last step may be smaller."""
    return [list(order[first : first + batch_size]) for first in range(0, len(order), batch_size)]


def micro_batches(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of positions in `sizes` whose sizes sum to at most `capacity`: best fit, decreasing (arXiv 2404.10830).

    A row larger than the capacity gets a bin of its own. Same sizes, same bins.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for at in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        fitting = [(left, number) for number, left in enumerate(room) if left >= sizes[at]]
        if fitting:
            number = min(fitting)[1]
            bins[number].append(at)
            room[number] -= sizes[at]
        else:
            bins.append([at])
            room.append(capacity - sizes[at])
    return bins
