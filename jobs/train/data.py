"""The rows of one training stage: checked against the split ledger, measured, and dropped with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.console import say
from jobs.common.data_stage import data_stage
from jobs.common.errors import DataError
from jobs.common.fetched import student_config
from jobs.common.jsonl import write_records
from jobs.common.ledger import Ledger, read_ledger
from jobs.common.manifest import finished_manifest
from jobs.common.records import Split
from jobs.common.row_limit import longest_row
from jobs.common.stage import OpenStage, RunContext
from jobs.train.examples import Row, user_texts
from jobs.train.fitted import NOT_A_PREFIX, Fitted, by_reason, fit
from jobs.train.held_out import MAX_HELD_OUT, spread
from jobs.train.mix_in import MixIns, mixed_rows

MAX_LOST = 0.05
"""Share of our own rows that may be dropped or cut before the stage stops."""
TOO_LONG = ("prompt_too_long", "truncated")
"""Why a row is lost that a larger max_length would keep."""


@dataclass(frozen=True)
class Data:
    """Rows of one stage, measured."""

    train: Fitted
    held_out: Fitted
    """For evaluation only."""

    @property
    def dropped(self) -> dict[str, int]:
        """Rows dropped, by reason."""
        reasons = [it.drop_reason for it in self.train.dropped]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}

    @property
    def counts(self) -> dict[str, int]:
        """Row counts of the manifest."""
        mixed = [row for row in self.train.rows if row.principle_id == "mix_in"]
        return {
            "rows_in": len(self.train.rows) + len(self.train.dropped),
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
        return f"Import the data again: {context.command('import', '--redo')}, with the sources it began with"
    return f"Run: {context.command('generate', '--redo')}"


def require_rows(context: RunContext, rows: Sequence[Row], name: str) -> None:
    """Stop where the data stage left nothing to train on.

    Raises:
        DataError: no rows; names what that stage dropped, by reason.
    """
    if rows:
        return
    stage = data_stage(context)
    dropped = finished_manifest(context, stage).get("dropped") or {}
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "nothing was dropped"
    raise DataError(
        f"{context.folder / stage / name}: 0 rows. {stage} dropped: {reasons} (see dropped.jsonl beside it). "
        f"Ask for more prompts: {context.command('generate', '--redo', '--set generate.prompts_per_principle=20')}"
    )


def require_few_lost(fitted: Fitted, context: RunContext, section: str) -> None:
    """Stop where too many of our own rows were dropped or cut.

    Raises:
        DataError: more than 5 % were; names counts, reasons and the next command.
    """
    lost = [*fitted.dropped, *fitted.cut]
    rows_in = len(fitted.rows) + len(fitted.dropped)
    if not rows_in or len(lost) / rows_in <= MAX_LOST:
        return
    if not fitted.rows and all(it.drop_reason == NOT_A_PREFIX for it in lost):
        raise DataError(
            f"{section}: none of {rows_in} rows begins with what the model sees when asked; {lost[0].id}: "
            f"{lost[0].detail}. Unless every answer begins with white space, the chat template "
            f"({context.recipe.student.chat_template}) is wrong for this tokenizer. {_made_again(context)}"
        )
    now = getattr(context.recipe, section).max_length
    long = any(it.drop_reason in TOO_LONG for it in lost)
    raise DataError(
        f"{section}: {len(fitted.dropped)} dropped and {len(fitted.cut)} cut of {rows_in} rows ({by_reason(lost)}), "
        f"over {MAX_LOST:.0%}, with {section}.max_length={now} "
        f"(named in {context.folder / section / 'dropped.jsonl'}). "
        + (_longer(context, section, now) if long else _made_again(context))
    )


def _longer(context: RunContext, section: str, now: int) -> str:
    """What to do about rows that are too long: a larger limit, as far as the student reads."""
    limit = longest_row(student_config(context) or {})
    most = min(2 * now, limit[0]) if limit else 2 * now
    if most <= now:
        return f"The student reads no more: shorten those rows, or ask for others. {_made_again(context)}"
    return f"Run: {context.command(section, '--redo', f'--set {section}.max_length={most}')}"


def prepare_data(
    stage: OpenStage, own: Sequence[Row], held_out: Sequence[Row], mix_ins: MixIns, tokenizer: Any
) -> Data:
    """Measure every row, draw the mix-ins beside our own, say what came of it, and name what is lost in dropped.jsonl.

    Raises:
        DataError: over 5 % of our rows would be dropped or cut, or none is left.
    """
    context, section = stage.context, stage.plan.name
    limit, dropped = getattr(context.recipe, section).max_length, stage.folder / "dropped.jsonl"
    ours = fit(own, tokenizer, limit)
    write_records(dropped, [*ours.dropped, *ours.cut])
    require_few_lost(ours, context, section)
    require_rows(context, ours.rows, "sft.jsonl" if section == "sft" else "pairs.jsonl")
    others = mixed_rows(mix_ins, len(ours.rows), tokenizer)
    train = ours.and_then(others)
    write_records(dropped, [*train.dropped, *train.cut])
    evaluated = fit(spread(held_out), tokenizer, limit)
    of_all = f" of {len(held_out)}" if len(held_out) > MAX_HELD_OUT else ""
    parts = (("of our own", ours), ("mixed in", others), (f"held out{of_all}", evaluated))
    counted = ", ".join(f"{len(it.rows)} {name}{it.lost()}" for name, it in parts)
    say(f"{section}: {'rows' if section == 'sft' else 'pairs'}: {counted}")
    return Data(train, evaluated)
