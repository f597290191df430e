"""Traffic lights over the measures: what habit the data has, in plain words, and what to do about it."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from jobs.common.settings import AuditSettings
from jobs.measure import habits
from jobs.measure.data import Data
from jobs.measure.habits import FEWEST_ROWS, Seen, has_ledger
from jobs.measure.measured import Gate, Measured

Light = Literal["green", "amber", "red", "grey"]
_IMPORT = "Import it as a run (cai import)"


def gates(data: Data, measured: Measured, settings: AuditSettings) -> list[Gate]:
    """All ten lights, in the order of `Gate.name`."""
    repair = _repair(data)
    limits: list[tuple[str, float, Seen, str]] = [
        ("malformed", settings.malformed, habits.malformed(data, measured, settings.malformed), repair),
        ("leaks", settings.leaks, habits.leaks(data, measured), repair),
        ("duplicates", settings.duplicates, habits.duplicates(data, measured), repair),
        ("length_only", settings.length_only, habits.length_only(measured), repair),
        ("refusal_only", settings.refusal_only, habits.refusal_only(data, measured), repair),
        ("prompt_blind", settings.prompt_blind, habits.prompt_blind(measured), repair),
        ("length_ratio", settings.length_ratio, habits.length_ratio(data, measured), repair),
        ("opening", settings.opening, habits.opening(data, measured), repair),
    ]
    found = [_gate(name, limit, seen, fix) for name, limit, seen, fix in limits]
    covered = _coverage(data, measured)
    missing = covered.value is not None and covered.value < settings.coverage
    light = _light(missing, covered)
    fix = _ask_for_prompts(data) if missing else ""
    found.append(Gate("coverage", covered.value, settings.coverage, light, covered.says, fix))
    return [*found, _splits(data)]


def _gate(name: str, limit: float, seen: Seen, fix: str) -> Gate:
    broken = seen.value is not None and seen.value > limit
    return Gate(name, seen.value, limit, _light(broken, seen), seen.says, fix if broken else "")


def _light(broken: bool, seen: Seen) -> Light:
    if seen.value is None:
        return "grey"
    if not broken:
        return "green"
    return "red" if seen.rows >= FEWEST_ROWS else "amber"


def _repair(data: Data) -> str:
    run = data.datasheet.get("run")
    if run:
        return f"cai repair --run {run}"
    return f"{_IMPORT}, then: cai repair --run <that run>"


def _ask_for_prompts(data: Data) -> str:
    if data.datasheet.get("run"):
        return "Ask for other prompts (generate.prompts_per_principle, or context: in the constitution), then generate"
    return "Add rows for them, or audit against the constitution the data was made for: --constitution ..."


def _coverage(data: Data, measured: Measured) -> Seen:
    """Principles with training rows, of those that are not held out whole."""
    if not data.principles:
        return Seen(None, 0, "the source names no principles")
    rows = {principle.id: measured.coverage[principle.id] for principle in data.principles}
    if not any(count for found in rows.values() for count in found.values()):
        return Seen(None, 0, "no row names a principle of the constitution")
    wanted = {
        name: found for name, found in rows.items() if not found["prompts"] or found["held_out"] < found["prompts"]
    }
    if not wanted:
        return Seen(None, 0, "every principle is held out")
    without = [name for name, found in wanted.items() if not found["sft"] + found["dpo"]]
    says = f"{len(wanted) - len(without)} of {len(wanted)} principles have training rows"
    if without:
        says += f"; without: {', '.join(without[:8])}{' ...' if len(without) > 8 else ''}"
    return Seen(1 - len(without) / len(wanted), len(data.examples) + len(data.pairs), says)


def _splits(data: Data) -> Gate:
    """Does every row stand in the split that the ledger gives its prompt?"""
    count = Counter(prompt.split for prompt in data.prompts if prompt.split)
    if not count:
        says = "the source has no splits: nothing says which prompts no training may see"
        return Gate("splits", None, 0, "amber", says, f"{_IMPORT}, which splits it by cluster")
    if not has_ledger(data):
        named = f"the files name train {count['sft'] + count['dpo']:,}, test {count['held_out']:,}"
        says = f"no ledger; {named}" if count["held_out"] else "no ledger, and no file is named as a test set"
        return Gate("splits", None, 0, "grey", says, f"{_IMPORT}, which splits it by cluster")
    ledger = {prompt.id: prompt.split for prompt in data.prompts}
    moved = [row.id for part in (data.examples, data.pairs) for row in part if _astray(row.id, row.split, ledger)]
    if moved:
        says = f"{len(moved):,} rows stand in another split than the ledger's, such as {moved[0]}"
        run = data.datasheet.get("run")
        fix = f"The files were mixed up: cai generate --run {run} --redo" if run else "Audit the run itself"
        return Gate("splits", len(moved), 0, "red", says, fix)
    shares = ", ".join(f"{name.replace('_', '-')} {count[name]:,}" for name in ("held_out", "sft", "dpo"))
    return Gate("splits", 0, 0, "green", f"prompts are split before anything is written about them: {shares}", "")


def _astray(row_id: str, split: str, ledger: dict[str, str]) -> bool:
    return bool(split) and ledger.get(row_id, split) != split
