"""The plan's table: one line per step and the total, 110 columns, the same in a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobs.common.settings import Recipe
from jobs.generate.plan_cost import dollars, minutes
from jobs.generate.plan_span import Span, Step

NAME_WIDTH = 17
WIDTHS, LAST_WIDTHS = (6, 7, 6), (5, 7, 5)
"""Columns of a figure at least, likely and at most; minutes, in the last columns, are short."""
WIDTH = NAME_WIDTH + 4 * sum(WIDTHS) + sum(LAST_WIDTHS)
UNKNOWN = "unknown"
SCALES = ((1e3, "k"), (1e6, "M"), (1e9, "G"))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    requests: Span
    tokens_in: Span
    tokens_out: Span
    usd: Span | None
    """None where a price is missing."""
    minutes: Span


def rows_of(steps: list[Step], recipe: Recipe) -> list[Row]:
    """A row per step, and the total last."""
    rows = [
        Row(step.name, step.requests, step.tokens_in, step.tokens_out, dollars(step, recipe), minutes(step, recipe))
        for step in steps
    ]
    known = [row.usd for row in rows if row.usd is not None]
    total = Row(
        "total",
        sum((row.requests for row in rows), Span()),
        sum((row.tokens_in for row in rows), Span()),
        sum((row.tokens_out for row in rows), Span()),
        sum(known, Span()) if len(known) == len(rows) else None,
        sum((row.minutes for row in rows), Span()),
    )
    return [*rows, total]


def table(rows: list[Row]) -> list[str]:
    """The lines of the table."""
    titles, heads = " " * NAME_WIDTH, f"{'step':<{NAME_WIDTH}}"
    for title in ("requests", "tokens in", "tokens out", "dollars", "minutes"):
        widths = LAST_WIDTHS if title == "minutes" else WIDTHS
        titles += f"{title:>{sum(widths)}}"
        heads += _aligned(["min", "likely", "max"], widths)
    lines = [_line(row) for row in rows]
    rule = "-" * WIDTH
    return [titles, heads, rule, *lines[:-1], rule, lines[-1]]


def _line(row: Row) -> str:
    counts = "".join(_cells(span, count) for span in (row.requests, row.tokens_in, row.tokens_out))
    return f"{row.name:<{NAME_WIDTH}}{counts}{_cells(row.usd, money)}{_cells(row.minutes, _minutes, LAST_WIDTHS)}"


def _cells(span: Span | None, show: Callable[[float], str], widths: tuple[int, ...] = WIDTHS) -> str:
    return _aligned(["", UNKNOWN, ""] if span is None else [show(part) for part in span.parts], widths)


def _aligned(texts: list[str], widths: tuple[int, ...]) -> str:
    return "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True))


def count(value: float) -> str:
    """A count in at most five characters."""
    if value < 9_999.5:
        return f"{value:.0f}"
    size, unit = next(scale for scale in SCALES if value / scale[0] < 999.5 or scale is SCALES[-1])
    return f"{value / size:.1f}{unit}" if value / size < 99.95 else f"{value / size:.0f}{unit}"


def money(usd: float) -> str:
    """Dollars in at most five characters; a cost that is not zero never looks like it."""
    if usd == 0 or usd >= 99.5:
        return f"{usd:.0f}"
    if usd < 0.001:
        return "<.001"
    return f"{usd:.3f}" if usd < 0.1 else f"{usd:.2f}"


def _minutes(value: float) -> str:
    if value == 0 or value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.05 else "<0.1"
