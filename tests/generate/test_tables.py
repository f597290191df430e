"""The parquet files: the Hub dataset's columns and types, then ours."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet
import pytest

from tests.generate.world import World

HUB_COLUMNS = [
    "init_prompt",
    "init_response",
    "critic_prompt",
    "critic_response",
    "revision_prompt",
    "revision_response",
    "prompt",
    "messages",
    "chosen",
    "rejected",
]
OURS = ["id", "principle_id", "split", "initial_model", "model", "prompt_version", "kind", "language"]
PAIR = ["preference_probability", "chosen_by", "rejected_by"]


@pytest.mark.parametrize("name", ["train_sft", "test_sft", "train_prefs", "test_prefs"])
def test_parquet_has_the_hub_columns_and_types_then_ours(world: World, name: str) -> None:
    assert world.generate() == 0
    table = pyarrow.parquet.read_table(world.stage / "data" / f"{name}.parquet")
    assert table.column_names == HUB_COLUMNS + OURS + PAIR
    string = pyarrow.string()
    turn = pyarrow.struct([("content", string), ("role", string)])
    chats = {"messages", "chosen", "rejected"}
    types = dict.fromkeys(chats, pyarrow.list_(turn)) | {"preference_probability": pyarrow.float64()}
    assert all(field.type == types.get(field.name, string) for field in table.schema), table.schema
    row: dict[str, Any] = table.to_pylist()[0]
    assert row["chosen"] == [
        {"content": row["prompt"], "role": "user"},
        {"content": row["revision_response"], "role": "assistant"},
    ]
    assert row["messages"] == row["chosen"]
    assert row["rejected"][1]["content"] == row["init_response"]
    assert row["split"] == {"train_sft": "sft", "train_prefs": "dpo"}.get(name, "held_out")


def test_datasets_loads_the_folder(world: World) -> None:
    import datasets

    assert world.generate() == 0
    table = datasets.Dataset.from_parquet(
        str(world.stage / "data" / "train_sft.parquet"), cache_dir=str(world.folder / "cache")
    )
    assert table.num_rows == len(world.rows("sft.jsonl"))
