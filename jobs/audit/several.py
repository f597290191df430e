"""Several sources as one dataset, what could not be read of them, and what one of them tells about another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TypeVar

from jobs.audit.blocks import Transfer, count_of, reason_shown
from jobs.audit.sources import Source, read_source
from jobs.common.constitution import Constitution
from jobs.measure.blind import FEWEST, transfer
from jobs.measure.data import Data, Example, Pair, Prompt

MOST_UNREAD = 0.05
"""Share of unreadable rows from which a report is on other data than was meant."""

Row = TypeVar("Row", Prompt, Example, Pair)


@dataclass(frozen=True)
class Together:
    """All sources of one report."""

    data: Data
    each: tuple[Data, ...]
    """The sources apart."""
    rows: int
    """Rows of their files, unreadable ones too."""
    unread: Mapping[str, int]
    """Unreadable rows by reason, most frequent first."""
    system_turns: int

    @property
    def too_many_unread(self) -> bool:
        """Whether so many rows could not be read that figures on the rest say nothing about the whole."""
        return sum(self.unread.values()) > MOST_UNREAD * self.rows

    @property
    def unread_line(self) -> str:
        """`900 of 960 rows could not be read: not JSON 500, no prompt 400`; empty where every row was."""
        if not (count := sum(self.unread.values())):
            return ""
        reasons = ", ".join(f"{reason_shown(reason)} {rows:,}" for reason, rows in self.unread.items())
        return f"{count:,} of {count_of(self.rows, 'row')} could not be read: {reasons}"

    @property
    def notes(self) -> list[str]:
        """What a reader of the report must know of the sources, one line each."""
        notes = [f"{self.unread_line}."] if self.unread else []
        if self.system_turns:
            have = "has" if self.system_turns == 1 else "have"
            notes.append(f"{count_of(self.system_turns, 'row')} {have} a system turn, which cai import drops.")
        return notes


def read_sources(sources: Sequence[str], constitution: Constitution | None) -> Together:
    """Read every source and put them together; errors as in `read_source`."""
    found = [read_source(source, constitution) for source in sources]
    unread: Counter[str] = Counter()
    for one in found:
        unread.update(one.unread)
    return Together(
        found[0].data if len(found) == 1 else _joined(sources, found),
        tuple(one.data for one in found),
        sum(one.rows for one in found),
        dict(unread.most_common()),
        sum(one.system_turns for one in found),
    )


def transfers(each: Sequence[Data], seed: int) -> list[Transfer]:
    """What a classifier of one source's chosen sides gets right in every other; sources under 10 pairs are left out."""
    large = [data for data in each if len(data.pairs) >= FEWEST]
    found = [(one, other, transfer(one, other, seed)) for one, other in permutations(large, 2)]
    return [
        Transfer(one.name, other.name, accuracy, len(other.pairs))
        for one, other, accuracy in found
        if accuracy is not None
    ]


def _joined(sources: Sequence[str], found: Sequence[Source]) -> Data:
    dropped: Counter[str] = Counter()
    for one in found:
        dropped.update(one.data.dropped)
    names = [one.data.name for one in found]
    # Two sources may number their rows alike, and two may have one name.
    prefixes = [f"{name}:" for name in (names if len(set(names)) == len(names) else sources)]
    parts = [(one.data, prefix) for one, prefix in zip(found, prefixes, strict=True)]
    return replace(
        found[0].data,
        name=" + ".join(names),
        prompts=[
            replace(row, twin_of=f"{prefix}{row.twin_of}" if row.twin_of else "")
            for data, prefix in parts
            for row in _prefixed(data.prompts, prefix)
        ],
        examples=[row for data, prefix in parts for row in _prefixed(data.examples, prefix)],
        pairs=[row for data, prefix in parts for row in _prefixed(data.pairs, prefix)],
        principles=next((data.principles for data, _ in parts if data.principles), []),
        demonstrations=list(dict.fromkeys(text for data, _ in parts for text in data.demonstrations)),
        dropped=dict(dropped),
        datasheet={source: dict(one.data.datasheet) for source, one in zip(sources, found, strict=True)},
        constitution=next((data.constitution for data, _ in parts if data.constitution), ""),
    )


def _prefixed(rows: Sequence[Row], prefix: str) -> list[Row]:
    return [replace(row, id=f"{prefix}{row.id}") for row in rows]
