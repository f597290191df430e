"""Which held-out rows are measured."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobs.train.examples import Row
from jobs.train.held_out import spread


def rows_of(principles: list[int]) -> list[Row]:
    return [Row(f"{place}", f"p{number}", [], {}, {}) for place, number in enumerate(principles)]


@given(st.lists(st.integers(0, 6), max_size=60), st.integers(1, 40))
def test_rows_are_spread_as_evenly_over_the_principles_as_they_allow(principles: list[int], most: int) -> None:
    rows = rows_of(principles)
    kept = spread(rows, most)

    assert len(kept) == min(most, len(rows))
    assert [int(row.id) for row in kept] == sorted(int(row.id) for row in kept)
    counts, had = Counter(row.principle_id for row in kept), Counter(row.principle_id for row in rows)
    fullest = max(counts.values(), default=0)
    for principle, available in had.items():
        assert counts[principle] >= min(available, fullest - 1), "none is short while another has two more"


def test_the_last_principle_is_measured_where_rows_lie_principle_by_principle() -> None:
    kept = spread(rows_of([number for number in range(30) for _ in range(10)]), 256)

    assert set(Counter(row.principle_id for row in kept).values()) == {8, 9}
