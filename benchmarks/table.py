"""The tables: every case beside its ideal and its bar, and peers beside us."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import asdict
from datetime import date
from statistics import median
from typing import Any

from benchmarks.measures import Measure, Row


def main_table(rows: list[Row]) -> str:
    """Markdown table of all cases."""
    lines = [
        "| case | ours, median (min-max) | ideal | bar | | also holds | 429s | rows | RSS MiB | start + end s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_line(row) for row in rows])


def peer_table(rows: list[Row]) -> str:
    """Markdown table of peers: seconds from first request to last reply, seconds in all, and how many times ours."""
    rows = [row for row in rows if row.peers]
    if not rows:
        return ""
    names = list(rows[0].peers)
    lines = [f"| case | ours | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for row in rows:
        cells = [_peer_cell(row, name) for name in names]
        lines.append(f"| {row.case.title} | {_seconds(row.ours)} | {' | '.join(cells)} |")
    note = "Seconds from first request to last reply / from process start to end; x = theirs over ours, in both."
    return "\n".join([*lines, "", note])


def notes(rows: list[Row]) -> str:
    """What was seen beside the figures, a line for each case."""
    lines = []
    for row in rows:
        seen = list(dict.fromkeys(measure.note for measure in row.ours if measure.note))
        lines += [f"- {row.case.key}: {note}" for note in seen]
        for name, measures in row.peers.items():
            lines += [
                f"- {row.case.key}, {name}: {text}" for text in dict.fromkeys(m for m in measures if isinstance(m, str))
            ]
    return "\n".join(lines)


def machine() -> str:
    """Where and when it was measured."""
    return f"{date.today()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def as_json(rows: list[Row]) -> dict[str, Any]:
    """Everything, for results/generation.json."""
    return {
        "machine": machine(),
        "cases": {
            row.case.key: {
                "median": row.value,
                "bar": row.case.bar,
                "passes": row.passes,
                "ours": [asdict(measure) for measure in row.ours],
                "peers": {
                    name: [one if isinstance(one, str) else asdict(one) for one in measures]
                    for name, measures in row.peers.items()
                },
            }
            for row in rows
        },
    }


def _line(row: Row) -> str:
    case, values = row.case, [one.value for one in row.ours if not math.isnan(one.value)]
    spread = f" ({_number(min(values))}-{_number(max(values))})" if len(values) > 1 else ""
    held = sum(measure.holds for measure in row.ours)
    cells = [
        case.title,
        f"{_number(row.value)} {case.unit}{spread}",
        "-" if case.ideal is None else _number(case.ideal),
        f"{'≤' if case.direction == 'at most' else '≥'} {_number(case.bar)}",
        "pass" if row.passes else "**FAIL**",
        f"{case.condition or '-'}" + ("" if held == len(row.ours) else f" (**{held} of {len(row.ours)}**)"),
        _median(row.ours, "wasted"),
        _median(row.ours, "rows"),
        _median(row.ours, "rss_mib"),
        _around(row.ours),
    ]
    return f"| {' | '.join(cells)} |"


def _peer_cell(row: Row, name: str) -> str:
    found = [measure for measure in row.peers[name] if isinstance(measure, Measure)]
    if not found:
        return f"no figure: {row.peers[name][0]}"
    theirs, ours = _times(found), _times(row.ours)
    cell = f"{_seconds(found)}: **{theirs[0] / ours[0]:.1f}x** / **{theirs[1] / ours[1]:.1f}x**"
    if found[0].wasted:
        cell += f", {_median(found, 'wasted')} 429s"
    if not all(measure.holds for measure in found):
        cell += f", {_median(found, 'rows')} rows"
    return cell


def _times(measures: list[Measure]) -> tuple[float, float]:
    timed = [(one.request_s, one.whole_s) for one in measures if one.request_s is not None]
    if not timed:
        return math.nan, math.nan
    return median(request_s for request_s, _ in timed), median(whole_s for _, whole_s in timed)


def _seconds(measures: list[Measure]) -> str:
    request_s, whole_s = _times(measures)
    return f"{request_s:.2f} / {whole_s:.1f}"


def _median(measures: list[Measure], name: str) -> str:
    found = [getattr(measure, name) for measure in measures if getattr(measure, name) is not None]
    return f"{median(found):.0f}" if found else "-"


def _around(measures: list[Measure]) -> str:
    timed = [(one.start_s, one.write_s) for one in measures if one.start_s is not None and one.write_s is not None]
    if not timed:
        return "-"
    return " + ".join(f"{median(seconds):.1f}" for seconds in zip(*timed, strict=True))


def _number(value: float) -> str:
    if math.isnan(value):
        return "no figure"
    return f"{value:.0f}" if value == int(value) else f"{value:.2f}"
