"""What a case gives: one Measure per repeat, one Row of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Literal

from tests.fakes.load_behaviour import Behaviour


@dataclass(frozen=True)
class Measure:
    """One repeat of one case."""

    value: float
    """What the bar is about, in the case's unit."""
    holds: bool = True
    """Do all other conditions of the case hold?"""
    wasted: int | None = None
    """Requests answered with 429."""
    rows: int | None = None
    rss_mib: float | None = None
    """Most memory of the process that drives, in MiB."""
    request_s: float | None = None
    """First request sent to last reply journalled."""
    start_s: float | None = None
    """Process start to first request sent."""
    write_s: float | None = None
    """Last reply journalled to process end."""
    note: str = ""
    """What else was seen, in a few words."""

    @property
    def whole_s(self) -> float:
        """Process start to process end."""
        return (self.start_s or 0.0) + (self.request_s or 0.0) + (self.write_s or 0.0)


@dataclass(frozen=True)
class Bench:
    """Where and how hard a case is run."""

    folder: Path
    """Empty, for this repeat of this case."""
    repeat: int
    quick: bool


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    key: str
    """Name for `--only`."""
    title: str
    unit: str
    """`s`, `x` or a noun."""
    bar: float
    direction: Literal["at most", "at least"]
    run: Callable[[Bench], Measure]
    ideal: float | None = None
    """What a perfect client needs, in the same unit."""
    behaviour: Behaviour | None = None
    """The server's, where peers can run the case too."""
    requests: int = 0
    """How many, where peers can run the case too."""
    once: bool = False
    """It repeats in itself."""
    condition: str = ""
    """The other conditions, for the table."""


@dataclass
class Row:
    """A case with its measures, and its peers' by name."""

    case: Case
    ours: list[Measure] = field(default_factory=list)
    peers: dict[str, list[Measure | str]] = field(default_factory=dict)
    """A text says why a peer gave no figure."""

    @property
    def value(self) -> float:
        """Median of the repeats that gave a figure."""
        return median([one.value for one in self.ours if not isnan(one.value)] or [nan])

    @property
    def passes(self) -> bool:
        """Does the median meet the bar, and does everything else hold in every repeat?"""
        met = self.value <= self.case.bar if self.case.direction == "at most" else self.value >= self.case.bar
        return met and all(measure.holds for measure in self.ours)
