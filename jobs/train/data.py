"""The rows of one training stage: checked against the held-out prompts, measured, and dropped with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.jsonl import read_records, write_records
from jobs.common.records import Dropped, HeldOutPrompt
from jobs.common.stage import OpenStage, RunContext
from jobs.train.examples import Fitted, Row, fit, require_disjoint, require_few_lost, require_rows

MAX_HELD_OUT = 256
"""Held-out rows behind the losses and margins of a manifest: more would cost time and hardly change the figure."""


@dataclass(frozen=True)
class Data:
    """Rows of one stage, measured."""

    train: Fitted
    held_out: Fitted
    """For evaluation only, shortest first."""
    refused: list[Dropped]
    """Mix-in rows that hold a held-out prompt."""

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


def held_out_prompts(context: RunContext, rows: Sequence[Row]) -> list[HeldOutPrompt]:
    """The run's held-out prompts, after checking that no training row is one of them.

    Raises:
        DataError: a training row has the id or the text of a held-out prompt.
    """
    held_out = read_records(context.folder / "generate" / "held_out.jsonl", HeldOutPrompt)
    require_disjoint(rows, held_out)
    return held_out


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
    # Shortest first: batches of equal length waste no padding, and evaluation has no order.
    shortest_first = sorted(
        held_out[:MAX_HELD_OUT], key=lambda row: (len(str(row.answers)) + len(str(row.prompt)), row.id)
    )
    return Data(train, fit(shortest_first, tokenizer, limit), refused)
