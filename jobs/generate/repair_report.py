"""The end of repair: files, manifest, and a table that says for every gate what it was and what it is."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.common.console import console, say
from jobs.common.jsonl import write_atomic
from jobs.common.manifest import finished_manifest
from jobs.common.stage import OpenStage, Result
from jobs.generate.accounts import account
from jobs.generate.card import card
from jobs.generate.meter import money
from jobs.generate.repair_drop import MOST_GIVEN_UP
from jobs.generate.repair_files import write_lines, write_tables
from jobs.generate.repair_rounds import BROUGHT_BACK, Repair
from jobs.generate.session import Session
from jobs.generate.sorting import judged
from jobs.measure.gates import gates
from jobs.measure.measured import Gate

GAVE_UP = "gave_up_"
"""Every drop reason of repair begins so; the gate follows."""


def finish(stage: OpenStage, repair: Repair, session: Session | None) -> None:
    """Write every file and the manifest, and print the table.

    Args:
        stage: the open stage.
        repair: what was done.
        session: who was asked; None where nobody was.
    """
    before = finished_manifest(stage.context, "generate")
    failed = _failed(repair)
    measures = before["measures"] | _measures(repair, before["measures"], failed)
    counts = before["counts"] | _counts(repair)
    counts |= {name: _lines(path) for name in counts if (path := stage.folder / f"{name}.jsonl").is_file()}
    dropped = Counter(one.drop_reason for one in repair.rows.dropped)
    if repair.has_work:
        outputs = write_lines(stage.folder, repair.rows)
        if "data/README.md" in before["outputs"]:  # not where the data was imported: it is no chains of a teacher
            outputs += write_tables(stage.folder, repair.rows)
            outputs.append(stage.folder / "data" / "README.md")
            write_atomic(outputs[-1], card(stage.context.constitution(), counts, dropped, measures).encode())
    else:
        outputs = _copied(stage.context.folder / "generate", stage.folder, list(before["outputs"]))
    tokens: Counter[str] = Counter()
    cost_usd: float | None = 0.0
    if session:
        for meter in session.meters:
            tokens.update(meter.tokens())
        costs = [meter.total_usd for meter in session.meters]
        cost_usd = None if None in costs else sum(cost or 0.0 for cost in costs)
        measures["account"] = account(stage.context, session.journal, session.prices)
    stage.finish(Result(outputs, counts, dict(dropped), dict(tokens), cost_usd, measures=measures))
    if repair.has_work:
        console.print(_table(repair))
    _say_done(repair, failed, tokens, _paid(stage, session, cost_usd))


def _measures(repair: Repair, before: Mapping[str, Any], failed: list[Gate]) -> dict[str, Any]:
    """What is otherwise than in generate's manifest."""
    rows, rule = repair.rows, before.get("judge_rule")
    chains = [row.revision for row in rows.rows.values() if row.revision]
    return {
        "gates": _figures(repair),
        "failed_gates": [gate.name for gate in failed],
        # Where generate had no judge, whoever compared did so here.
        "judge_rule": repair.context.recipe.judge.rule if rule in {None, "off"} else rule,
        **judged(rows.comparisons, chains),
    }


def _copied(source: Path, folder: Path, names: list[str]) -> list[Path]:
    """The files of generate, byte for byte."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
    return [folder / name for name in names]


def _failed(repair: Repair) -> list[Gate]:
    """Gates of the recipe that the rows still fail."""
    found = repair.after
    return [one for one in gates(found.data, found.measured, repair.context.recipe.audit) if one.light == "red"]


def _counts(repair: Repair) -> dict[str, int]:
    rows, pairs = repair.rows, repair.rows.pairs
    return {
        "prompts": len(rows.prompts),
        "held_out_prompts": sum(prompt.split == "held_out" for prompt in rows.prompts.values()),
        "revisions": sum(row.revision is not None for row in rows.rows.values()),
        "sft": sum(row.split == "sft" for row in rows.rows.values()),
        "pairs": sum(row.split == "dpo" for row in pairs),
        "held_out_pairs": sum(row.split == "held_out" for row in pairs),
        "benign_twins": sum(row.record.kind == "benign_twin" for row in rows.rows.values()),
        "rewrites": sum(row.pair is not None and row.pair.chosen_by == "rewrite" for row in pairs),
        "minimal_edits": sum(row.pair is not None and row.pair.rejected_by == "minimal_edit" for row in pairs),
        "pairs_before": repair.pairs_before,
        "changed": sum(map(len, repair.changed.values())),
        "given_up": sum(count for _, count in _given_up(repair).items()),
    }


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _given_up(repair: Repair) -> Counter[str]:
    """Rows given up, by gate."""
    reasons = (one.drop_reason for one in repair.rows.dropped)
    return Counter(reason.removeprefix(GAVE_UP) for reason in reasons if reason.startswith(GAVE_UP))


def _figures(repair: Repair) -> dict[str, dict[str, Any]]:
    """By gate: value before and after, target, light, rows changed and given up."""
    given_up = _given_up(repair)
    return {
        name: {
            "before": gate.value,
            "after": repair.after.gates[name].value,
            "target": gate.limit,
            "light": repair.after.gates[name].light,
            "changed": len(repair.changed.get(name, ())),
            "given_up": given_up[name],
        }
        for name, gate in repair.before.gates.items()
    }


def _table(repair: Repair) -> Table:
    table = Table("gate", "before", "after", "target", "rows changed", "given up")
    for name, row in _figures(repair).items():
        shown = [_shown(row[key]) for key in ("before", "after", "target", "changed", "given_up")]
        table.add_row(name, *shown, style="red" if name in repair.after.failing else "")
    if brought_back := repair.changed.get(BROUGHT_BACK):
        table.add_row("judge flipped", "", "", "", str(len(brought_back)), "")
    return table


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}".rstrip("0").rstrip(".")


def _paid(stage: OpenStage, session: Session | None, cost_usd: float | None) -> str:
    if session is None:
        return "nothing asked"
    price = stage.context.recipe.teacher.price
    return money(cost_usd, price.dated if price else None, free=all(one.tariff.free for one in session.meters))


def _say_done(repair: Repair, failed: list[Gate], tokens: Counter[str], paid: str) -> None:
    counts = _counts(repair)
    reasons = ", ".join(f"{count} {gate}" for gate, count in sorted(_given_up(repair).items())) or "none"
    say(
        f"repair: {len(repair.rows.pairs)} of {repair.pairs_before} pairs, {counts['changed']} rows changed, given up: "
        f"{reasons}; {tokens['prompt_tokens']} tokens in, {tokens['reply_tokens']} out; {paid}"
    )
    for name in sorted(repair.after.failing):
        gate, given_up = repair.after.gates[name], _given_up(repair)[name]
        say(f"repair: {name} is above its target: {gate.says}. {_why(repair, name, given_up)}")
    if failed:
        say(f"repair: the recipe's own gates that still fail: {', '.join(gate.name for gate in failed)}")


def _why(repair: Repair, name: str, given_up: int) -> str:
    """Why a gate could not be brought to its target."""
    if name == "coverage":
        return "Some principles have no row that was kept: raise generate.prompts_per_principle or generate.tries."
    if name == "length_ratio":
        return "The teacher gives no usable rewrite for the rows that differ most."
    return (
        f"{len(repair.changed.get(name, ()))} rows could be changed and {given_up} were given up; at most "
        f"{MOST_GIVEN_UP:.0%} of the pairs are, because dropping more makes no teacher's pairs better."
    )
