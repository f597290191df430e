"""The longest row a student reads: as many tokens as it has positions, or its sliding window where that is smaller.

Positions beyond the first were never trained; and in a packed pass a token attends to all of its row, window or not.

longest_row({"max_position_embeddings": 8192})  # (8192, "the 8192 positions that the student has")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.common.errors import ConfigError


def longest_row(config: Mapping[str, Any]) -> tuple[int, str] | None:
    """The most tokens of one row, and what says so in words; None where nothing does.

    Args:
        config: the student's config.json.
    """
    positions = config.get("max_position_embeddings")
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    limits = [
        (positions, f"the {positions} positions that the student has"),
        (window, f"the sliding window of {window} tokens that the student attends to"),
    ]
    return min(((most, why) for most, why in limits if isinstance(most, int) and most > 0), default=None)


def require_rows_fit(config: Mapping[str, Any], section: str, max_length: int, again: str) -> None:
    """Refuse rows that the student cannot read whole.

    Args:
        config: the student's config.json.
        section: `sft` or `dpo`.
        max_length: that section's.
        again: the command to run with another `max_length`; for the message.

    Raises:
        ConfigError: rows may be longer than the student reads.
    """
    limit = longest_row(config)
    if limit and max_length > limit[0]:
        raise ConfigError(
            f"{section}: max_length {max_length} is beyond {limit[1]}. "
            f"Run: {again} --set {section}.max_length={limit[0]}"
        )
