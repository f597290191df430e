"""Traffic lights over the measures: what habit the data has, in plain words, and what to do about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from jobs.common.settings import AuditSettings
from jobs.measure.data import Data
from jobs.measure.measured import Gate, Measured

FEWEST_ROWS = 30
"""Rows below which a gate only warns: the 95 % interval of a half is then wider than 17 points either way."""

Light = Literal["green", "amber", "red", "grey"]


@dataclass(frozen=True)
class _Seen:
    """One habit as measured."""

    value: float | None
    rows: int
    """Rows behind the value."""
    says: str


def gates(data: Data, measured: Measured, settings: AuditSettings) -> list[Gate]:
    """All ten lights, in the order of `Gate.name`."""
    repair = _repair(data)
    prompts = "Ask for other prompts (generate.prompts_per_principle, or context: in the constitution)"
    limits: list[tuple[str, float, _Seen, str]] = [
        ("malformed", settings.malformed, _malformed(data, measured), repair),
        ("leaks", settings.leaks, _leaks(data, measured), repair),
        ("duplicates", settings.duplicates, _duplicates(data, measured), repair),
        ("length_only", settings.length_only, _length_only(measured), repair),
        ("refusal_only", settings.refusal_only, _refusal_only(data, measured), repair),
        ("prompt_blind", settings.prompt_blind, _prompt_blind(measured), repair),
        ("length_ratio", settings.length_ratio, _length_ratio(data, measured), repair),
        ("opening", settings.opening, _opening(data, measured), repair),
    ]
    found = [_gate(name, limit, seen, fix) for name, limit, seen, fix in limits]
    covered = _coverage(data, measured)
    missing = covered.value is not None and covered.value < settings.coverage
    light = _light(missing, covered)
    fix = f"{prompts}, then run generate again." if missing else ""
    found.append(Gate("coverage", covered.value, settings.coverage, light, covered.says, fix))
    return [*found, _splits(data)]


def _gate(name: str, limit: float, seen: _Seen, fix: str) -> Gate:
    broken = seen.value is not None and seen.value > limit
    return Gate(name, seen.value, limit, _light(broken, seen), seen.says, fix if broken else "")


def _light(broken: bool, seen: _Seen) -> Light:
    if seen.value is None:
        return "grey"
    if not broken:
        return "green"
    return "red" if seen.rows >= FEWEST_ROWS else "amber"


def _repair(data: Data) -> str:
    run = data.datasheet.get("run")
    if run:
        return f"cai repair --run {run}"
    return "Import it as a run (cai import), then: cai repair --run <that run>"


def _malformed(data: Data, measured: Measured) -> _Seen:
    rows = len(data.prompts) + len(data.examples) + len(data.pairs)
    bad = len({(one.part, one.row) for one in measured.malformed})
    if not rows:
        return _Seen(None, 0, "there are no rows")
    reasons = Counter(one.reason for one in measured.malformed)
    named = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in reasons.most_common())
    says = f"{bad:,} of {rows:,} rows hold what does not belong: {named}" if bad else f"no fault in {rows:,} rows"
    return _Seen(bad / rows, rows, says)


def _leaks(data: Data, measured: Measured) -> _Seen:
    rows = len(data.prompts) or len(data.examples) + len(data.pairs)
    if not measured.leak_matrix:
        return _Seen(None, rows, "there is only one split")
    shared = len({(leak.second_split, leak.second) for leak in measured.leaks})
    ways = Counter(leak.method for leak in measured.leaks)
    named = ", ".join(f"{count:,} {method}" for method, count in ways.most_common())
    says = f"{shared:,} prompts stand in two splits ({named})" if shared else "no prompt stands in two splits"
    return _Seen(shared, rows, says)


def _duplicates(data: Data, measured: Measured) -> _Seen:
    if not data.prompts:
        return _Seen(None, 0, "there are no prompts")
    ways = Counter(link.method for link in measured.near)
    named = ", ".join(f"{count:,} by {method}" for method, count in ways.most_common())
    count = len(measured.near)
    says = f"{count:,} of {len(data.prompts):,} prompts repeat another ({named})"
    return _Seen(count, len(data.prompts), says if count else f"no two of {len(data.prompts):,} prompts are alike")


def _length_only(measured: Measured) -> _Seen:
    if measured.lengths is None:
        return _Seen(None, 0, "there are no pairs")
    right, word = measured.lengths.length_only, "longer" if measured.lengths.longer_is_chosen else "shorter"
    says = f"chosen is {word} in {right.value:.1%} of {right.total:,} pairs (characters, a tie counts half)"
    return _Seen(right.value, right.total, says)


def _refusal_only(data: Data, measured: Measured) -> _Seen:
    right = measured.types.refusal_only
    if not data.pairs:
        return _Seen(None, 0, "there are no pairs")
    sides = [measured.types.refusals[side].value for side in ("chosen", "rejected")]
    says = (
        f"who refuses tells chosen in {right.value:.1%} of {right.total:,} pairs: {sides[0]:.1%} of the chosen and "
        f"{sides[1]:.1%} of the rejected answers open with a refusal"
    )
    return _Seen(right.value, right.total, says)


def _prompt_blind(measured: Measured) -> _Seen:
    if measured.blind is None:
        return _Seen(None, 0, "too few pairs or prompts for a classifier")
    found = measured.blind
    shares = [found.by_prompt] + ([found.by_principle] if found.by_principle else [])
    worst = max(shares, key=lambda one: one.value)
    words = ", ".join(repr(word) for word, _ in found.for_chosen[:5])
    says = f"a classifier that never sees the prompt finds chosen in {worst.value:.1%} of {worst.total:,} pairs"
    return _Seen(worst.value, worst.total, f"{says}; words that give chosen away: {words}" if words else says)


def _length_ratio(data: Data, measured: Measured) -> _Seen:
    if measured.lengths is None:
        return _Seen(None, 0, "there are no pairs")
    found = measured.lengths
    says = f"chosen has {found.chosen_words:.1f} words on average, rejected {found.rejected_words:.1f}"
    return _Seen(max(found.ratio, 1 / found.ratio), len(data.pairs), says)


def _opening(data: Data, measured: Measured) -> _Seen:
    found = measured.openings
    rows = len(data.examples) if found.largest_field == "completion" else len(data.pairs)
    if not found.largest_field:
        return _Seen(None, 0, "there are no answers")
    return _Seen(
        found.largest_share, rows, f"{found.largest_share:.1%} of {found.largest_field} begin {found.largest!r}"
    )


def _coverage(data: Data, measured: Measured) -> _Seen:
    """Principles with training rows, of those that are not held out whole."""
    if not data.principles:
        return _Seen(None, 0, "the source names no principles")
    rows = {principle.id: measured.coverage[principle.id] for principle in data.principles}
    wanted = {
        name: found for name, found in rows.items() if not found["prompts"] or found["held_out"] < found["prompts"]
    }
    if not wanted:
        return _Seen(None, 0, "every principle is held out")
    without = [name for name, found in wanted.items() if not found["sft"] + found["dpo"]]
    says = f"{len(wanted) - len(without)} of {len(wanted)} principles have training rows"
    if without:
        says += f"; without: {', '.join(without[:8])}{' ...' if len(without) > 8 else ''}"
    return _Seen(1 - len(without) / len(wanted), len(data.examples) + len(data.pairs), says)


def _splits(data: Data) -> Gate:
    """Does every row stand in the split that the ledger gives its prompt?"""
    ledger = {prompt.id: prompt.split for prompt in data.prompts if prompt.split}
    if not ledger:
        says = "the source has no splits: nothing says which prompts no training may see"
        return Gate("splits", None, 0, "amber", says, "Import it as a run (cai import), which splits it by cluster.")
    moved = [row.id for part in (data.examples, data.pairs) for row in part if _astray(row.id, row.split, ledger)]
    count = Counter(ledger.values())
    shares = ", ".join(f"{name.replace('_', '-')} {count[name]:,}" for name in ("held_out", "sft", "dpo"))
    if moved:
        says = f"{len(moved):,} rows stand in another split than the ledger's, such as {moved[0]}"
        return Gate("splits", len(moved), 0, "red", says, "Run generate again with --redo: the files were mixed up.")
    return Gate("splits", 0, 0, "green", f"prompts are split before anything is written about them: {shares}", "")


def _astray(row_id: str, split: str, ledger: dict[str, str]) -> bool:
    return bool(split) and ledger.get(row_id, split) != split
