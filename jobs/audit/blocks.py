"""What a section of the page is made of: charts, tables and texts side by side. Templates show them, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from markupsafe import Markup

from jobs.measure.data import Data
from jobs.measure.measured import Gate, Measured, Share

Light = Literal["green", "amber", "red", "grey"]

SHAPES: dict[str, tuple[str, str]] = {
    "green": ("●", "green"),
    "amber": ("▲", "amber"),
    "red": ("■", "red"),
    "grey": ("○", "not measured"),
}
"""Light → its shape and its word, so that nothing is said by colour alone."""


@dataclass(frozen=True)
class Cell:
    """One table cell."""

    text: str
    tone: str = ""
    """CSS class: `number`, `bad`, `quiet`, `heat-0` … `heat-9`, `empty`."""
    row: str = ""
    """Key of the row in the row browser that the cell links to."""


@dataclass(frozen=True)
class Table:
    """A table; a text in a row is a plain cell."""

    kind: ClassVar[str] = "table"
    caption: str
    head: list[str]
    rows: list[list[Cell]]
    more: str = ""
    """What was left out, in one line."""


@dataclass(frozen=True)
class Chart:
    """A chart made of SVG, with its own title and description inside."""

    kind: ClassVar[str] = "chart"
    svg: Markup
    caption: str


@dataclass(frozen=True)
class Beside:
    """Texts that are shown in two columns: (label, text) on either side."""

    kind: ClassVar[str] = "beside"
    caption: str
    couples: list[tuple[str, tuple[str, str], tuple[str, str]]]
    """(heading, left, right)."""
    more: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    facts: list[tuple[str, str]]
    caption: str = ""


@dataclass(frozen=True)
class Note:
    """A paragraph in small type."""

    kind: ClassVar[str] = "note"
    text: str


Block = Table | Chart | Beside | Facts | Note


@dataclass(frozen=True)
class Section:
    """One numbered section."""

    id: str
    title: str
    verdict: str
    """One sentence that says what is wrong, or that nothing is."""
    light: Light = "grey"
    """The worst light of the section's gates; grey where it has none."""
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Transfer:
    """What a classifier learned from one source gets right in another, without any prompt."""

    learned_from: str
    tried_on: str
    accuracy: float
    pairs: int
    """Pairs it was tried on."""


@dataclass(frozen=True)
class View:
    """Everything the sections look at."""

    data: Data
    measured: Measured
    gates: list[Gate]
    seed: int = 0
    transfers: tuple[Transfer, ...] = ()
    """Between the sources of the report, where there are several with pairs."""
    remarks: tuple[str, ...] = ()
    """What a reader must know of how the sources were read, one line each."""

    def gate(self, name: str) -> Gate | None:
        """The gate of that name, None where there is none."""
        return next((gate for gate in self.gates if gate.name == name), None)

    def light(self, *names: str) -> Light:
        """The worst light of these gates."""
        lights = [gate.light for gate in self.gates if gate.name in names]
        order: tuple[Light, ...] = ("red", "amber", "green")
        return next((light for light in order if light in lights), "grey")

    def title(self, principle_id: str) -> str:
        """A principle's title, or its id where the source names no constitution."""
        titles = {principle.id: principle.title for principle in self.data.principles}
        return titles.get(principle_id) or principle_id or "no principle"


def percent(share: Share | float | None, digits: int = 1) -> str:
    """`98.6 %`; a dash where there is nothing to show."""
    if share is None:
        return "-"
    value = share.value if isinstance(share, Share) else share
    return f"{100 * value:.{digits}f} %"


def interval(share: Share) -> str:
    """`217 of 220; 95 % CI 96.1 to 99.5`."""
    return f"{share.count:,} of {share.total:,}; 95 % CI {100 * share.low:.1f} to {100 * share.high:.1f}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with thousands marked; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def figure(value: float | None, digits: int = 1) -> Cell:
    """A number as a right-aligned cell."""
    return Cell(number(value, digits), "number")


def clip(text: str, length: int) -> str:
    """At most `length` characters, with a word about the rest."""
    return text if len(text) <= length else f"{text[:length]} … ({len(text) - length:,} more characters)"


def count_of(count: int, noun: str) -> str:
    """`1 pair`, `2 pairs`, `no pairs`."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}" if count < 1000 else f"{count:,} {noun}s"


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def reason_shown(reason: str) -> str:
    """A reason as people read it."""
    return reason.replace("_", " ").replace("json", "JSON")
