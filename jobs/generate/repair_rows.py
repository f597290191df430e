"""The rows of a data stage while repair works on them: prompts, and each row's texts wherever a file holds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobs.common.jsonl import read_records
from jobs.common.records import (
    Comparison,
    Dropped,
    Failure,
    PreferencePair,
    RedTeamPrompt,
    Revision,
    SftExample,
    Split,
)
from jobs.generate import tables

ROW_FILES = {
    "sft": ("sft.jsonl", ""),
    "dpo": ("", "pairs.jsonl"),
    "held_out": ("held_out_sft.jsonl", "held_out_pairs.jsonl"),
}
"""Split → its file of supervised examples and its file of pairs; empty where it has none."""


@dataclass
class Row:
    """Everything a run holds under one id."""

    id: str
    principle_id: str
    split: Split
    example: SftExample | None = None
    """Of the splits `sft` and `held_out`."""
    pair: PreferencePair | None = None
    """Of the splits `dpo` and `held_out`."""
    revision: Revision | None = None
    """Its chain; None where the data was imported without one."""

    @property
    def answer(self) -> str:
        """The text to learn: chosen, or the completion."""
        return self.pair.chosen if self.pair else self.example.completion if self.example else ""

    @property
    def other(self) -> str:
        """The text it stands against: rejected, or the initial response; empty where there is none."""
        return self.pair.rejected if self.pair else self.revision.initial_response if self.revision else ""

    @property
    def record(self) -> PreferencePair | SftExample:
        """The record its texts are in."""
        found = self.pair or self.example
        assert found
        return found

    def rewritten(self, answer: str, model: str) -> Row:
        """The same row with another answer."""
        example, pair, revision = self.example, self.pair, self.revision
        if example:
            example = example.model_copy(update={"completion": answer, "model": model})
            revision = revision and revision.model_copy(update={"revision": answer, "model": model})
        if pair:
            pair = pair.model_copy(update={"chosen": answer, "model": model, "chosen_by": "rewrite"})
        return replace(self, example=example, pair=pair, revision=revision)

    def edited(self, rejected: str, model: str) -> Row:
        """The same row with another rejected side; its pair must be there."""
        assert self.pair
        update = {"rejected": rejected, "rejected_model": model, "rejected_by": "minimal_edit"}
        return replace(self, pair=self.pair.model_copy(update=update))


@dataclass
class Rows:
    """A data stage's files, in memory."""

    prompts: dict[str, RedTeamPrompt]
    """By id, in the file's order."""
    rows: dict[str, Row]
    comparisons: list[Comparison] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def pairs(self) -> list[Row]:
        """Rows that hold a pair."""
        return [row for row in self.rows.values() if row.pair]

    def drop(self, row_id: str, reason: str, detail: str) -> None:
        """Take a row out, whole and with its reason; its prompt stays in the ledger."""
        row = self.rows.pop(row_id)
        self._note(row_id, row.principle_id, (reason, detail), row.record)

    def drop_prompt(self, prompt_id: str, reason: str, detail: str) -> None:
        """Take a prompt out of the ledger, and its row with it."""
        prompt = self.prompts.pop(prompt_id)
        row = self.rows.pop(prompt_id, None)
        self._note(prompt_id, prompt.principle_id, (reason, detail), row.record if row else prompt)

    def move(self, prompt_id: str, split: Split) -> None:
        """Put a prompt and its row into another split; what the row lacks there is made of its chain."""
        prompt = self.prompts[prompt_id]
        self.prompts[prompt_id] = prompt.model_copy(update={"split": split})
        row = self.rows.get(prompt_id)
        if row is None or row.split == split:
            return
        made = Row(row.id, row.principle_id, split)
        if row.revision:
            made = row_of(row.revision.model_copy(update={"split": split}))
        wants_example, wants_pair = (bool(name) for name in ROW_FILES[split])
        example, pair = row.example or made.example, row.pair or made.pair
        if (wants_example and not example) or (wants_pair and not pair):
            self.drop(prompt_id, "gave_up_leaks", f"belongs to {split}, and no chain is there to make its row of")
            return
        self.rows[prompt_id] = replace(
            row,
            split=split,
            example=example if wants_example else None,
            pair=pair if wants_pair else None,
            revision=made.revision,
        )

    def straighten(self) -> None:
        """Give every row the prompt and the split that the ledger has for it."""
        for row in list(self.rows.values()):
            known = self.prompts.get(row.id)
            if known is None:
                continue
            if row.record.prompt != known.prompt:
                right = {"prompt": known.prompt}
                example = row.example and row.example.model_copy(update=right)
                pair = row.pair and row.pair.model_copy(update=right)
                self.rows[row.id] = replace(row, example=example, pair=pair)
            self.move(row.id, known.split)

    def _note(self, row_id: str, principle_id: str, why: tuple[str, str], record: BaseModel) -> None:
        reason, detail = why
        self.dropped.append(
            Dropped(
                id=row_id,
                principle_id=principle_id,
                drop_reason=reason,
                detail=detail,
                record=record.model_dump(mode="json"),
            )
        )


def row_of(revision: Revision) -> Row:
    """The row of a chain in its split."""
    row = Row(revision.id, revision.principle_id, revision.split, revision=revision)
    example_file, pair_file = ROW_FILES[revision.split]
    row.example = tables.sft_example(revision) if example_file else None
    row.pair = tables.preference_pair(revision) if pair_file else None
    return row


def read_rows(folder: Path) -> Rows:
    """Read a finished data stage.

    Raises:
        DataError: a file is damaged.
    """
    revisions = {one.id: one for one in _read(folder / "revisions.jsonl", Revision)}
    rows: dict[str, Row] = {}
    for split, (example_file, pair_file) in ROW_FILES.items():
        for record in (*_read(folder / example_file, SftExample), *_read(folder / pair_file, PreferencePair)):
            row = rows.setdefault(record.id, Row(record.id, record.principle_id, split))  # type: ignore[arg-type]
            row.revision = revisions.get(record.id)
            if isinstance(record, SftExample):
                row.example = record
            else:
                row.pair = record
    return Rows(
        {one.id: one for one in read_records(folder / "prompts.jsonl", RedTeamPrompt)},
        rows,
        _read(folder / "comparisons.jsonl", Comparison),
        _read(folder / "dropped.jsonl", Dropped),
        _read(folder / "failures.jsonl", Failure),
    )


def _read(path: Path, model: type[Any]) -> list[Any]:
    return read_records(path, model) if path.is_file() else []
