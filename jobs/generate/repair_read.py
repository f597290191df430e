"""Reads a data stage's files for repair; imports hold many rows of one prompt, all under its id, and none is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from jobs.common.jsonl import read_records
from jobs.common.records import Comparison, Dropped, Failure, PreferencePair, RedTeamPrompt, Revision, SftExample, Split
from jobs.generate.repair_rows import ROW_FILES, Row, Rows, numbered


def read_rows(folder: Path) -> Rows:
    """Read a finished data stage.

    Raises:
        DataError: a file is damaged.
    """
    rows: dict[str, Row] = {}
    splits: list[Split] = ["sft", "dpo", "held_out"]
    for split in splits:
        example_file, pair_file = ROW_FILES[split]
        for record in (*_read(folder / example_file, SftExample), *_read(folder / pair_file, PreferencePair)):
            part = "example" if isinstance(record, SftExample) else "pair"
            setattr(_free(rows, record, split, part), part, record)
    _give_chains(rows, _read(folder / "revisions.jsonl", Revision))
    counted = Counter(row.prompt_id for row in rows.values())
    return Rows(
        {one.id: one for one in read_records(folder / "prompts.jsonl", RedTeamPrompt)},
        rows,
        _read(folder / "comparisons.jsonl", Comparison),
        _read(folder / "dropped.jsonl", Dropped),
        _read(folder / "failures.jsonl", Failure),
        {prompt_id: count for prompt_id, count in counted.items() if count > 1},
    )


def _free(rows: dict[str, Row], record: SftExample | PreferencePair, split: Split, part: str) -> Row:
    """The first row of the record's prompt and split that does not hold such a part yet; made where there is none."""
    number = 1
    while (found := rows.get(numbered(record.id, number))) and (found.split != split or getattr(found, part)):
        number += 1
    return rows.setdefault(
        numbered(record.id, number), Row(numbered(record.id, number), record.id, record.principle_id, split)
    )


def _give_chains(rows: dict[str, Row], revisions: list[Revision]) -> None:
    """Give each row its chain: the one that ends with its answer, else one of its prompt that no other row ends."""
    chains: dict[str, list[Revision]] = {}
    for one in revisions:
        chains.setdefault(one.id, []).append(one)
    for is_its_own in (True, False):
        for row in rows.values():
            own = chains.get(row.prompt_id, [])
            ends = {row.answer, row.example.completion if row.example else ""}
            at = next((at for at, one in enumerate(own) if not is_its_own or one.revision in ends), None)
            if row.revision is None and at is not None:
                row.revision = own.pop(at)


def _read(path: Path, model: type[Any]) -> list[Any]:
    return read_records(path, model) if path.is_file() else []
