"""Repair's files: the same set as generate's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from jobs.common.jsonl import write_records
from jobs.generate import tables
from jobs.generate.repair_rows import ROW_FILES, Rows


def write_lines(folder: Path, rows: Rows) -> list[Path]:
    """Write the JSONL files and return the paths."""
    every, prompts = list(rows.rows.values()), list(rows.prompts.values())
    records: dict[str, Sequence[BaseModel]] = {
        "prompts.jsonl": prompts,
        "revisions.jsonl": [row.revision for row in every if row.revision],
        "held_out.jsonl": [tables.held_out_prompt(prompt) for prompt in prompts if prompt.split == "held_out"],
        "comparisons.jsonl": rows.comparisons,
        "dropped.jsonl": rows.dropped,
        "failures.jsonl": rows.failures,
    }
    for split, (example_file, pair_file) in ROW_FILES.items():
        own = [row for row in every if row.split == split]
        if example_file:
            records[example_file] = [row.example for row in own if row.example]
        if pair_file:
            records[pair_file] = [row.pair for row in own if row.pair]
    for name, found in records.items():
        write_records(folder / name, found)
    return [folder / name for name in records]


def write_tables(folder: Path, rows: Rows) -> list[Path]:
    """Write the parquet files of everything that has its chain, and return the paths."""
    chains = [row.revision for row in rows.rows.values() if row.revision]
    return tables.write_parquet(
        folder / "data", chains, {row.prompt_id: row.pair for row in rows.pairs if row.pair and row.revision}
    )
