"""The rows of a data stage while repair works on them: prompts, and each row's texts wherever a file holds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import BaseModel

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
    """An example, a pair, or both, of one prompt with their chain."""

    id: str
    """Its own, in memory: the prompt's, with a number behind where the files hold more rows of that prompt."""
    prompt_id: str
    """The prompt's in the ledger, and the id of every record of the row."""
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
        """The same row with another answer, which no judge has seen."""
        example, pair, revision = self.example, self.pair, self.revision
        new = {"model": model, "preference_probability": None}
        if example:
            example = example.model_copy(update={"completion": answer, "model": model})
            revision = revision and revision.model_copy(update=new | {"revision": answer})
        if pair:
            pair = pair.model_copy(update=new | {"chosen": answer, "chosen_by": "rewrite"})
        return replace(self, example=example, pair=pair, revision=revision)

    def edited(self, rejected: str, model: str) -> Row:
        """The same row with another rejected side, which no judge has seen; its pair must be there."""
        assert self.pair
        update = {"rejected": rejected, "rejected_model": model, "rejected_by": "minimal_edit"}
        return replace(self, pair=self.pair.model_copy(update=update | {"preference_probability": None}))

    def judged(self, probability: float | None) -> Row:
        """The same row with the judge's probability that its answer is better than the text it stands against."""
        new, revision = {"preference_probability": probability}, self.revision
        if revision and (revision.revision, revision.initial_response) == (self.answer, self.other):
            revision = revision.model_copy(update=new)
        return replace(self, pair=self.pair and self.pair.model_copy(update=new), revision=revision)


@dataclass
class Rows:
    """A data stage's files, in memory."""

    prompts: dict[str, RedTeamPrompt]
    """By id, in the file's order."""
    rows: dict[str, Row]
    comparisons: list[Comparison] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    repeats: dict[str, int] = field(default_factory=dict)
    """Rows of a prompt when they were read, where there were more than one."""

    @property
    def pairs(self) -> list[Row]:
        """Rows that hold a pair."""
        return [row for row in self.rows.values() if row.pair]

    def of_prompt(self, prompt_id: str) -> list[Row]:
        """The rows of a prompt."""
        ids = (numbered(prompt_id, number) for number in range(1, self.repeats.get(prompt_id, 1) + 1))
        return [self.rows[row_id] for row_id in ids if row_id in self.rows]

    def in_files(self, part: Literal["example", "pair"]) -> list[str]:
        """Ids of the rows that hold an example or a pair, in the order in which the files have them."""
        place = ("example", "pair").index(part)
        splits = [split for split, files in ROW_FILES.items() if files[place]]
        every = list(self.rows.values())
        return [row.id for split in splits for row in every if row.split == split and getattr(row, part)]

    def drop(self, row_id: str, reason: str, detail: str) -> None:
        """Take a row out, whole and with its reason; its prompt stays in the ledger."""
        row = self.rows.pop(row_id)
        self._note(row.prompt_id, row.principle_id, (reason, detail), row.record)

    def drop_prompt(self, prompt_id: str, reason: str, detail: str) -> None:
        """Take a prompt out of the ledger, and its rows with it."""
        rows, prompt = self.of_prompt(prompt_id), self.prompts.pop(prompt_id)
        for row in rows:
            self.drop(row.id, reason, detail)
        if not rows:
            self._note(prompt_id, prompt.principle_id, (reason, detail), prompt)

    def move(self, prompt_id: str, split: Split) -> None:
        """Put a prompt and its rows into another split; what a row lacks there is made of its chain."""
        prompt = self.prompts[prompt_id]
        self.prompts[prompt_id] = prompt.model_copy(update={"split": split})
        for row in self.of_prompt(prompt_id):
            if row.split != split:
                self._move(row, split)

    def _move(self, row: Row, split: Split) -> None:
        made = Row(row.id, row.prompt_id, row.principle_id, split)
        if row.revision:
            made = row_of(row.revision.model_copy(update={"split": split}))
        wants_example, wants_pair = (bool(name) for name in ROW_FILES[split])
        example = row.example or made.example if wants_example else None
        pair = row.pair or made.pair if wants_pair else None
        if not example and not pair:
            self.drop(row.id, "gave_up_leaks", f"belongs to {split}, and no chain is there to make its row of")
            return
        self.rows[row.id] = replace(row, split=split, example=example, pair=pair, revision=made.revision)

    def straighten(self) -> None:
        """Give every row the prompt and the split that the ledger has for it."""
        for row in list(self.rows.values()):
            known = self.prompts.get(row.prompt_id)
            if known is None:
                continue
            if row.record.prompt != known.prompt:
                right = {"prompt": known.prompt}
                example = row.example and row.example.model_copy(update=right)
                pair = row.pair and row.pair.model_copy(update=right)
                self.rows[row.id] = replace(row, example=example, pair=pair)
            self.move(known.id, known.split)

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
    row = Row(revision.id, revision.id, revision.principle_id, revision.split, revision=revision)
    example_file, pair_file = ROW_FILES[revision.split]
    row.example = tables.sft_example(revision) if example_file else None
    row.pair = tables.preference_pair(revision) if pair_file else None
    return row


def numbered(prompt_id: str, number: int) -> str:
    """Id in memory of a prompt's row, counted from 1."""
    return prompt_id if number == 1 else f"{prompt_id}#{number}"
