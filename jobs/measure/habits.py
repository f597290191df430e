"""What each gate sees: one habit, its value, the rows behind it and a sentence that says it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from jobs.measure.data import Data
from jobs.measure.findings import Leak
from jobs.measure.measured import Measured
from jobs.measure.shares import percent

FEWEST_ROWS = 30
"""Rows below which a gate only warns: the 95 % interval of a half is then wider than 17 points either way."""


@dataclass(frozen=True)
class Seen:
    """One habit as measured."""

    value: float | None
    """None where it could not be measured."""
    rows: int
    """Rows behind the value."""
    says: str
    """In plain words, without a full stop."""


_ANSWERS = {"chosen": "the chosen answers", "rejected": "the rejected answers", "completion": "the supervised answers"}
_PARTS = {"prompts": "prompts", "examples": "supervised rows", "pairs": "pairs"}


def has_ledger(data: Data) -> bool:
    """Were the prompts split by cluster before anything was written? Only a run's own prompts say so."""
    return bool(data.prompts) and all(prompt.split and prompt.cluster for prompt in data.prompts)


def malformed(data: Data, measured: Measured, limit: float) -> Seen:
    """Share of faulty rows in the worst of prompts, supervised rows and pairs: a large part hides no small one."""
    totals = {"prompts": len(data.prompts), "examples": len(data.examples), "pairs": len(data.pairs)}
    bad = {part: {one.row for one in measured.malformed if one.part == part} for part in totals}
    shares = {part: len(bad[part]) / total for part, total in totals.items() if total}
    if not shares:
        return Seen(None, 0, "there are no rows")
    # A part of too few rows only warns, so it comes second to one that fails.
    worst = max(shares, key=lambda part: (shares[part] > limit and totals[part] >= FEWEST_ROWS, shares[part]))
    if not shares[worst]:
        return Seen(0.0, totals[worst], f"no fault in {sum(totals.values()):,} rows")
    reasons = Counter(one.reason for one in measured.malformed if one.part == worst)
    named = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in reasons.most_common())
    says = f"{len(bad[worst]):,} of {totals[worst]:,} {_PARTS[worst]} hold what does not belong: {named}"
    others = [
        f"{len(rows):,} of {totals[part]:,} {_PARTS[part]}" for part, rows in bad.items() if rows and part != worst
    ]
    return Seen(shares[worst], totals[worst], "; ".join([says, *others]))


def leaks(data: Data, measured: Measured) -> Seen:
    """Prompts in two splits: held-out ones that training sees, and those that both training sets see."""
    rows = len(data.prompts) or len(data.examples) + len(data.pairs)
    if not measured.leak_matrix:
        return Seen(None, rows, "there is only one split")
    tested = [leak for leak in measured.leaks if "held_out" in (leak.first_split, leak.second_split)]
    trained = [leak for leak in measured.leaks if "held_out" not in (leak.first_split, leak.second_split)]
    says = []
    if tested:
        says.append(f"{_shared(tested):,} held-out prompts stand in training, too ({_ways(tested)})")
    if trained and has_ledger(data):
        says.append(f"{_shared(trained):,} prompts stand in both training splits of the ledger ({_ways(trained)})")
    elif trained:
        says.append(
            f"supervised rows and pairs share {_shared(trained):,} prompts ({_ways(trained)}): fine for training, "
            "not for a held-out test"
        )
    return Seen(_shared(measured.leaks), rows, "; ".join(says) or "no prompt stands in two splits")


def _shared(found: list[Leak]) -> int:
    return len({(leak.second_split, leak.second) for leak in found})


def _ways(found: list[Leak]) -> str:
    return ", ".join(f"{count:,} {method}" for method, count in Counter(leak.method for leak in found).most_common())


def duplicates(data: Data, measured: Measured) -> Seen:
    """Prompts that repeat another."""
    if not data.prompts:
        return Seen(None, 0, "there are no prompts")
    ways = Counter(link.method for link in measured.near)
    named = ", ".join(f"{count:,} by {method}" for method, count in ways.most_common())
    count = len(measured.near)
    says = f"{count:,} of {len(data.prompts):,} prompts repeat another, by words ({named})"
    return Seen(
        count, len(data.prompts), says if count else f"no two of {len(data.prompts):,} prompts are alike by words"
    )


def length_only(measured: Measured) -> Seen:
    """Pairs that length alone tells apart."""
    if measured.lengths is None:
        return Seen(None, 0, "there are no pairs")
    right, word = measured.lengths.length_only, "longer" if measured.lengths.longer_is_chosen else "shorter"
    says = f"chosen is {word} in {percent(right.value)} of {right.total:,} pairs (characters, a tie counts half)"
    return Seen(right.value, right.total, says)


def refusal_only(data: Data, measured: Measured) -> Seen:
    """Pairs that refusing alone tells apart."""
    right = measured.types.refusal_only
    if not data.pairs:
        return Seen(None, 0, "there are no pairs")
    sides = [measured.types.refusals[side].value for side in ("chosen", "rejected")]
    says = (
        f"who refuses tells chosen in {percent(right.value)} of {right.total:,} pairs: {percent(sides[0])} of the "
        f"chosen and {percent(sides[1])} of the rejected answers open with a refusal"
    )
    return Seen(right.value, right.total, says)


def prompt_blind(measured: Measured) -> Seen:
    """Pairs that a classifier tells apart without the prompt; folds by prompt or by principle, whichever is worse."""
    if measured.blind is None:
        return Seen(None, 0, "too few pairs or prompts for a classifier")
    found = measured.blind
    shares = [found.by_prompt] + ([found.by_principle] if found.by_principle else [])
    worst = max(shares, key=lambda one: one.value)
    words = ", ".join(repr(word) for word, _ in found.for_chosen[:5])
    says = f"a classifier that never sees the prompt finds chosen in {percent(worst.value)} of {worst.total:,} pairs"
    return Seen(worst.value, worst.total, f"{says}; words that give chosen away: {words}" if words else says)


def length_ratio(data: Data, measured: Measured) -> Seen:
    """Ratio of the sides' words in the middle pair, the larger over the smaller."""
    if measured.lengths is None:
        return Seen(None, 0, "there are no pairs")
    found = measured.lengths
    says = (
        f"chosen has {found.chosen_words:.1f} words on average, rejected {found.rejected_words:.1f}; the middle pair's "
        f"ratio is x{found.typical_ratio:.2f}"
    )
    return Seen(max(found.typical_ratio, 1 / found.typical_ratio), len(data.pairs), says)


def opening(data: Data, measured: Measured) -> Seen:
    """Answers of one field that begin alike."""
    found = measured.openings
    rows = len(data.examples) if found.largest_field == "completion" else len(data.pairs)
    if not found.largest_field:
        return Seen(None, 0, "there are no answers")
    says = f"{percent(found.largest_share)} of {_ANSWERS[found.largest_field]} begin {found.largest!r}"
    return Seen(found.largest_share, rows, says)
