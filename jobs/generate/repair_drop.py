"""What repair gives up: duplicates and leaks at once, for the rest the fewest rows that bring a gate to its target."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable

from jobs.common.records import Split
from jobs.generate.repair_found import (
    Found,
    fields,
    one_sided_refusals,
    repeats_request,
    told_by_classifier,
    told_by_length,
)
from jobs.generate.repair_rows import Row, Rows
from jobs.measure.findings import Part
from jobs.measure.texts import refuses

MOST_GIVEN_UP = 0.2
"""Most pairs given up for the sake of shares: dropping more would not make the teacher's pairs better ones."""


def drop_copies(rows: Rows, found: Found) -> None:
    """Keep one prompt of each set that says the same, and put clusters that splits share into one split."""
    for copies in _copies(found):
        present = [prompt_id for prompt_id in copies if prompt_id in rows.prompts]
        kept = min(present, key=lambda one: _worth(rows, one), default="")
        for prompt_id in present:
            if prompt_id != kept:
                rows.drop_prompt(prompt_id, "gave_up_duplicates", f"says the same as {kept}")
    for cluster in _clusters(rows, found):
        splits = {rows.prompts[prompt_id].split for prompt_id in cluster}
        if len(splits) > 1:
            # Never from held-out into training; a pair is scarcer than a supervised row.
            wanted: Split = "held_out" if "held_out" in splits else "dpo"
            for prompt_id in cluster:
                rows.move(prompt_id, wanted)


def give_up(rows: Rows, found: Found, most: int) -> int:
    """Drop rows until every gate that dropping can help is at its target; gives how many pairs went.

    Args:
        rows: changed in place.
        found: their measures.
        most: pairs that may be dropped for the sake of shares; malformed rows go in any case.
    """
    failing, pairs = found.failing, len(rows.pairs)
    if "malformed" in failing:
        _drop_malformed(rows, found)
    left = most - (pairs - len(rows.pairs))
    trained = Counter(row.principle_id for row in rows.rows.values() if row.split != "held_out")
    for name, worst in SHARES.items():
        if name in failing:
            for row in worst(rows, found):
                is_trained = row.split != "held_out"
                is_last = is_trained and trained[row.principle_id] == 1
                if is_last or (row.pair and left <= 0):
                    continue
                left -= bool(row.pair)
                trained[row.principle_id] -= is_trained
                rows.drop(row.id, f"gave_up_{name}", found.gates[name].says)
    return pairs - len(rows.pairs)


def _drop_malformed(rows: Rows, found: Found) -> None:
    ids: dict[Part, list[str]] = {
        "prompts": [one.id for one in found.data.prompts],
        "examples": found.examples,
        "pairs": found.pairs,
    }
    asked = "the answer repeats what the teacher was asked"
    said = {row.id: asked for row in rows.rows.values() if repeats_request(row)}
    for fault in found.measured.malformed:
        broken, detail = ids[fault.part][fault.row], f"{fault.reason}: {fault.detail}"
        if fault.part != "prompts":
            said[broken] = detail
        elif broken in rows.prompts:
            rows.drop_prompt(broken, "gave_up_malformed", detail)
    for row_id, detail in said.items():
        if row_id in rows.rows:
            rows.drop(row_id, "gave_up_malformed", detail)


def _share(told: list[Row], ties: int, total: int, limit: float) -> list[Row]:
    """The fewest of the rows that a rule gets right, worst first, without which it is right in a share of `limit`."""
    over = len(told) + (ties + 1) // 2 - limit * total
    return told[: math.ceil(over / (1 - limit))] if over > 0 and limit < 1 else []


def _refusals(rows: Rows, found: Found) -> list[Row]:
    told, _ = one_sided_refusals(rows)
    ties = sum(refuses(row.answer) == refuses(row.other) for row in rows.pairs)
    return _share(told, ties, len(rows.pairs), found.gates["refusal_only"].limit)


def _openings(rows: Rows, found: Found) -> list[Row]:
    worst: dict[str, Row] = {}
    for field in fields(rows):
        total, limit = len(field.texts), found.gates["opening"].limit
        for same in field.by_opening().values():
            over = len(same) - limit * total
            for row_id in same[: math.ceil(over / (1 - limit))] if over > 0 else ():
                worst[row_id] = rows.rows[row_id]
    return list(worst.values())


def _lengths(rows: Rows, found: Found) -> list[Row]:
    ties = sum(len(row.answer) == len(row.other) for row in rows.pairs)
    return _share(told_by_length(rows.pairs, found), ties, len(rows.pairs), found.gates["length_only"].limit)


def _blind(rows: Rows, found: Found) -> list[Row]:
    told = [rows.rows[row_id] for row_id in told_by_classifier(found) if row_id in rows.rows]
    return _share(told, 0, len(rows.pairs), found.gates["prompt_blind"].limit)


SHARES: dict[str, Callable[[Rows, Found], list[Row]]] = {
    "refusal_only": _refusals,
    "opening": _openings,
    "length_only": _lengths,
    "prompt_blind": _blind,
}
"""Gates on shares, in the order in which rows are dropped for them → the rows to drop."""


def _clusters(rows: Rows, found: Found) -> list[list[str]]:
    """Prompts that belong into one split, by id: near-duplicates with their twins, and what leaks."""
    ids = [one.id for one in found.data.prompts]
    by_cluster: dict[int, list[str]] = defaultdict(list)
    for prompt_id, cluster in zip(ids, found.measured.clusters, strict=True):
        by_cluster[cluster].append(prompt_id)
    sets = [*by_cluster.values(), *([leak.first, leak.second] for leak in found.measured.leaks)]
    return [present for one in _joined(sets) if (present := [name for name in one if name in rows.prompts])]


def _copies(found: Found) -> list[list[str]]:
    """Sets of prompts that say the same, by id."""
    prompts = found.data.prompts
    return _joined([[prompts[near.first].id, prompts[near.second].id] for near in found.measured.near])


def _joined(sets: list[list[str]]) -> list[list[str]]:
    """Sets with a member in common become one; members keep their order."""
    home: dict[str, list[str]] = {}
    for one in sets:
        whole: dict[str, None] = {}
        for name in one:
            whole |= dict.fromkeys(home.get(name, [name]))
        merged = list(whole)
        home |= dict.fromkeys(merged, merged)
    return list({id(one): one for one in home.values()}.values())


def _worth(rows: Rows, prompt_id: str) -> tuple[bool, bool]:
    """Sorts prompts that say the same: a held-out one stays, then one that has a row."""
    return rows.prompts[prompt_id].split != "held_out", not rows.of_prompt(prompt_id)
