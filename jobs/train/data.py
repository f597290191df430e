"""The rows of one training stage: checked against the split ledger, measured, and dropped with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.data_stage import data_stage
from jobs.common.errors import DataError
from jobs.common.jsonl import write_records
from jobs.common.ledger import Ledger, read_ledger
from jobs.common.records import Dropped, Split
from jobs.common.stage import OpenStage, RunContext, finished_manifest
from jobs.train.examples import Fitted, Row, fit, require_few_lost, require_rows, user_texts

MAX_HELD_OUT = 256
"""Held-out rows behind the losses and margins of a manifest: more would cost time and hardly change the figure."""


@dataclass(frozen=True)
class Data:
    """Rows of one stage, measured."""

    train: Fitted
    held_out: Fitted
    """For evaluation only."""
    refused: list[Dropped]
    """Mix-in rows that must not be trained."""

    @property
    def dropped(self) -> dict[str, int]:
        """Rows dropped, by reason."""
        reasons = [it.drop_reason for it in (*self.refused, *self.train.dropped)]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}

    @property
    def counts(self) -> dict[str, int]:
        """Row counts of the manifest."""
        mixed = [row for row in self.train.rows if row.principle_id == "mix_in"]
        return {
            "rows_in": len(self.train.rows) + len(self.train.dropped) + len(self.refused),
            "rows_trained": len(self.train.rows),
            "rows_mixed_in": len(mixed),
            "rows_truncated": len(self.train.cut),
            "held_out_rows": len(self.held_out.rows),
        }


def checked_ledger(context: RunContext, rows: Sequence[Row], split: Split) -> Ledger:
    """The run's split ledger, after checking that every row of ours may train this split.

    Raises:
        DataError: a row meets a prompt of another split by id, words or nearness, or is about a principle that the
            recipe holds out; names the first, both splits and the next command.
    """
    ledger = read_ledger(context)
    for row in rows:
        fault = None
        if row.principle_id in context.recipe.generate.held_out_principles:
            fault = f"is about {row.principle_id}, held out whole (generate.held_out_principles)"
        elif hit := ledger.conflict(row.id, user_texts(row.prompt), split):
            fault = str(hit)
        if fault:
            raise DataError(
                f"{context.folder / data_stage(context)}: row {row.id} of {split} {fault}; it must not train {split}. "
                f"{_made_again(context)}"
            )
    return ledger


def _made_again(context: RunContext) -> str:
    if "import" in finished_manifest(context, "generate")["ingredients"]:
        return f"Import the data again: cai import --run {context.run} --redo, with the sources it began with"
    return f"Run: {context.command('generate', '--redo')}"


def prepare_data(
    stage: OpenStage, rows: Sequence[Row], refused: list[Dropped], held_out: Sequence[Row], tokenizer: Any
) -> Data:
    """Measure every row and write what is dropped or cut to dropped.jsonl.

    Raises:
        DataError: over 5 % of the rows would be dropped or cut, or none is left.
    """
    context, section = stage.context, stage.plan.name
    limit = getattr(context.recipe, section).max_length
    train = fit(rows, tokenizer, limit)
    write_records(stage.folder / "dropped.jsonl", [*refused, *train.dropped, *train.cut])
    require_few_lost(train, context, section)
    require_rows(context, train.rows, "sft.jsonl" if section == "sft" else "pairs.jsonl")
    return Data(train, fit(held_out[:MAX_HELD_OUT], tokenizer, limit), refused)
