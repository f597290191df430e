"""What differs between the ingredients a stage was begun with and the ones it has now, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SHOWN = 3
"""Differences named in one line; more are counted."""


def describe_changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Name the keys that differ with both values, such as `sft.learning_rate was 0.0002, now 0.0001`."""
    differences = list(_differences(before, now, ""))
    rest = len(differences) - SHOWN
    return "; ".join(differences[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _differences(before: Any, now: Any, at: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{at}.{key}" if at else str(key))
    elif before != now:
        yield f"{at} was {_short(before)}, now {_short(now)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:12] + "…" + text[-6:]
