"""Chains dropped because the judge contradicted itself: each answer is graded by itself, and some come back."""

from __future__ import annotations

from collections.abc import Callable

from jobs.common.constitution import Constitution
from jobs.common.records import Comparison, Revision
from jobs.generate.ask import together
from jobs.generate.engine import RefusedError
from jobs.generate.judge import Judge, Named
from jobs.generate.repair_principle import principle_of
from jobs.generate.repair_rows import Rows, row_of
from jobs.generate.rounds import LOST
from jobs.generate.sorting import told_apart_by

FLIPPED = LOST["flipped"]
"""Drop reason of chains whose judge contradicted itself when the order changed."""


def flipped_rows(rows: Rows) -> dict[str, Revision]:
    """Those chains, by id, with prompt and split of the ledger; none whose text another row has."""
    found: dict[str, Revision] = {}
    for one in rows.dropped:
        known = rows.prompts.get(one.id)
        if one.drop_reason == FLIPPED and known and not rows.of_prompt(known.id):
            as_known = {"id": known.id, "prompt": known.prompt, "split": known.split}
            found[known.id] = Revision.model_validate(one.record | as_known)
    told = _told(rows) if found else set()
    return {row_id: one for row_id, one in found.items() if told_apart_by(one.revision) not in told}


async def bring_back(
    rows: Rows, judge: Judge, constitution: Constitution, progress: Callable[[str, int, int], None]
) -> set[str]:
    """Grade both answers of every flipped chain by themselves; where the revision wins, its row comes back.

    Args:
        rows: changed in place.
        judge: who grades.
        constitution: whose principles the rows belong to.
        progress: told of what is asked, how many are done and of how many.

    Raises:
        UnavailableError: the endpoint cannot be used.
        StoppedError: the budget is used up.
    """
    flipped, done = flipped_rows(rows), 0

    async def look(revision: Revision, lane: int) -> Comparison | None:
        nonlocal done
        first = Named("revision", revision.revision)
        second = Named("initial", revision.initial_response)
        principle = principle_of(constitution, revision.principle_id)
        try:
            return await judge.alone(revision, principle, first, second, lane)
        except RefusedError:
            return None
        finally:
            done += 1
            progress("grades", done, len(flipped))

    graded = await together([look(one, lane) for lane, one in enumerate(flipped.values())])
    rows.comparisons += [one for one in graded if one]
    told, back = _told(rows), set()
    for (row_id, revision), comparison in zip(flipped.items(), graded, strict=True):
        text = told_apart_by(revision.revision)
        if comparison and comparison.verdict == "first" and text not in told:
            more = {"preference_probability": comparison.first_probability}
            rows.rows[row_id] = row_of(revision.model_copy(update=more))
            told.add(text)
            back.add(row_id)
    rows.dropped = [one for one in rows.dropped if one.drop_reason != FLIPPED or one.id not in back]
    return back


def _told(rows: Rows) -> set[str]:
    answers = {told_apart_by(row.answer) for row in rows.rows.values()}
    return answers | {told_apart_by(row.revision.revision) for row in rows.rows.values() if row.revision}
