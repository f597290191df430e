"""measures.json: everything the page shows, for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.audit.blocks import View
from jobs.common.jsonl import write_json

VERSION = "1"
"""Raised when the file's shape changes."""
MOST = 2_000
"""Most rows of one list in the file; `counts` says how many there are."""
LISTS = ("malformed", "near", "leaks")


def write_figures(path: Path, view: View) -> None:
    """Write the figures; texts that are not Unicode are written with question marks."""
    write_json(path, _clean(figures(view)))


def figures(view: View) -> dict[str, Any]:
    """The figures as JSON values: gates, measures and counts; long lists cut at `MOST`."""
    measured = asdict(view.measured)
    counts = {name: len(measured[name]) for name in LISTS}
    for name in LISTS:
        measured[name] = measured[name][:MOST]
    measured["clusters"] = len(set(view.measured.clusters))
    measured["leak_matrix"] = {f"{one} ∩ {other}": count for (one, other), count in view.measured.leak_matrix.items()}
    if measured["blind"]:
        del measured["blind"]["margins"]  # one number per pair
    data = view.data
    counts |= {"prompts": len(data.prompts), "examples": len(data.examples), "pairs": len(data.pairs)}
    return {
        "version": VERSION,
        "name": data.name,
        "gates": [asdict(gate) for gate in view.gates],
        "counts": counts,
        "dropped": dict(data.dropped),
        "measured": measured,
        "remarks": list(view.remarks),
        "transfers": [asdict(one) for one in view.transfers],
        "datasheet": dict(data.datasheet),
    }


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(str(name)): _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value
