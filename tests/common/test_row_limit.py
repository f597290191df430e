"""How long a row may be for a student."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.common.errors import ConfigError
from jobs.common.row_limit import longest_row, require_rows_fit


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 32768, "sliding_window": 4096}, 4096),
        ({"max_position_embeddings": 2048, "sliding_window": 4096}, 2048),
        ({"max_position_embeddings": 32768, "sliding_window": 4096, "use_sliding_window": True}, 4096),
        ({"max_position_embeddings": 32768, "sliding_window": 4096, "use_sliding_window": False}, 32768),
        ({"max_position_embeddings": 32768, "sliding_window": None}, 32768),
        ({"sliding_window": 4096}, 4096),
        ({"max_position_embeddings": "many"}, None),
        ({}, None),
    ],
)
def test_a_row_ends_where_positions_or_the_window_do(config: dict[str, Any], most: int | None) -> None:
    found = longest_row(config)

    assert (found and found[0]) == most
    require_rows_fit(config, "sft", most or 10**9, "cai sft")
    if most is not None:
        with pytest.raises(
            ConfigError, match=rf"sft: max_length {most + 1} .*Run: cai sft --set sft.max_length={most}$"
        ):
            require_rows_fit(config, "sft", most + 1, "cai sft")


def test_what_ends_a_row_is_named() -> None:
    with pytest.raises(ConfigError, match="is beyond the 512 positions that the student has"):
        require_rows_fit({"max_position_embeddings": 512}, "dpo", 1024, "cai dpo")
    with pytest.raises(ConfigError, match="is beyond the sliding window of 256 tokens that the student attends to"):
        require_rows_fit({"max_position_embeddings": 512, "sliding_window": 256}, "dpo", 1024, "cai dpo")
