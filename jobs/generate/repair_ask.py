"""What repair asks about a row: a rewrite of its answer, or a minimal edit of it as the rejected side.

Nothing is taken on the teacher's word: a new text must pass the filters, have the length it was asked for, and win
against its other side before the judge. A row for which no such text comes stays as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from jobs.common.constitution import Constitution, Principle
from jobs.common.records import Comparison
from jobs.generate.ask import together
from jobs.generate.engine import RefusedError
from jobs.generate.filters import answer_fault, same_text
from jobs.generate.fitting import fit_both, fit_one
from jobs.generate.judge import Judge, Named
from jobs.generate.repair_choose import Task, is_sound
from jobs.generate.repair_principle import principle_of
from jobs.generate.repair_rows import Row, Rows
from jobs.generate.replies import Text
from jobs.generate.rewrite import LEAST_WORDS, NEAR, Rewriter, Wish, target_words, word_bounds

FIRST_SAMPLE = 100
"""Sample index of the first request: generate's own rewrites, which did not help, are before it."""
TRIES = 2
"""Rewrites asked for one row in one round, and minimal edits where none of them can be used."""


@dataclass(frozen=True)
class Asker:
    """Who is asked."""

    rewriter: Rewriter
    judge: Judge | None
    """None where the recipe has `judge.rule: off`."""
    constitution: Constitution
    progress: Callable[[str, int, int], None]
    """Told of what is asked, how many are done and of how many."""

    async def mend(self, rows: Rows, tasks: list[Task], number: int) -> set[str]:
        """Ask about every row of a round and put what can be used into `rows`; gives the ids of the changed ones.

        Args:
            rows: changed in place.
            tasks: at most one for each row.
            number: of the round, from 0; a later one draws other replies.

        Raises:
            UnavailableError: the endpoint cannot be used.
            StoppedError: the budget is used up.
        """
        waiting, changed = list(enumerate(tasks))[::-1], dict[int, tuple[Row, list[Comparison]]]()
        done = 0

        async def work(lane: int) -> None:
            nonlocal done
            while waiting:
                index, task = waiting.pop()
                found = await self._mended(rows.rows[task.row_id], task, number, lane)
                if found:
                    changed[index] = found
                done += 1
                self.progress(f"round {number + 1}", done, len(tasks))

        await together([work(lane) for lane in range(min(self.rewriter.engine.lanes, len(tasks)))])
        for _, (row, comparisons) in sorted(changed.items()):
            rows.rows[row.id] = row
            rows.comparisons += comparisons
        return {row.id for row, _ in changed.values()}

    async def _mended(self, row: Row, task: Task, number: int, lane: int) -> tuple[Row, list[Comparison]] | None:
        """The row with a text that can be used, or None."""
        principle = principle_of(self.constitution, row.principle_id)
        said: list[Comparison] = []
        async for candidate in self._candidates(row, task, principle, (FIRST_SAMPLE + number * TRIES, lane)):
            if better := await self._better(candidate, principle, said, lane):
                return better, said
        return None

    async def _candidates(
        self, row: Row, task: Task, principle: Principle, where: tuple[int, int]
    ) -> AsyncIterator[Row]:
        """What could stand in the row's place, the cheapest first; `where` is the first sample index and the lane."""
        model, (first, lane) = self.rewriter.engine.endpoint.model, where
        if task.gate == "length_only" and (cut := _cut(row)):
            yield cut
        for index in range(first, first + TRIES) if task.ask == "rewrite" else ():
            wish = Wish(_words(row), task.avoid_opening, index)
            rewriting = self.rewriter.to_length(row.record, row.answer, principle, wish, lane)
            text = _fitted(row, await _text_of(rewriting))
            if text and not answer_fault(row.record.kind, row.other, "", text) and is_sound(task, text):
                yield row.rewritten(text, model)
        # A chosen side with a fault of its own must not become the rejected one's pattern.
        may_edit = row.pair and (task.ask == "edit" or task.gate == "length_only")
        for index in range(first, first + TRIES) if may_edit else ():
            editing = self.rewriter.minimal_edit(row.record, row.answer, principle, sample_index=index, lane=lane)
            text = await _text_of(editing)
            if text and is_sound(task, text) and _is_edit(text, row.answer):
                yield row.edited(text, model)

    async def _better(self, row: Row, principle: Principle, said: list[Comparison], lane: int) -> Row | None:
        """The row where its answer still wins against its other side; without a judge or another side it may stand."""
        if self.judge is None or not row.other:
            return row
        first, second = Named("chosen", row.answer), Named("rejected", row.other)
        try:
            found = await self.judge.compare(row.record, principle, first, second, lane)
            said.append(found)
            if found.verdict == "flipped":
                found = await self.judge.alone(row.record, principle, first, second, lane)
                said.append(found)
        except RefusedError:
            return None
        return row.judged(found.first_probability) if found.verdict == "first" else None


def _cut(row: Row) -> Row | None:
    """The row with whole sentences left out at the ends of both sides, where that alone brings them to one length."""
    fitted = fit_both(row.id, row.answer, row.other) if row.pair else None
    if fitted is None or row.pair is None:
        return None
    cut = row.pair.model_copy(update={"rejected": fitted[1]})
    return replace(row, pair=cut).rewritten(fitted[0], cut.model)


def _words(row: Row) -> int:
    """Words an answer is to have: near its other side's, or as many as it has."""
    return target_words(row.id, row.other) if row.other else len(row.answer.split())


def _fitted(row: Row, text: str | None) -> str | None:
    """A rewritten text as long as the row needs it; None where it is not."""
    if text is None or not row.pair:
        return text
    return fit_one(text, *word_bounds(row.id, row.other))


def _is_edit(text: str, chosen: str) -> bool:
    """An answer, changed and hardly in length."""
    words = len(chosen.split())
    is_near = abs(len(text.split()) - words) <= max(LEAST_WORDS, NEAR * words)
    return is_near and not same_text(text, chosen) and not answer_fault("red_team", "", "", text)


async def _text_of(asking: Awaitable[Text]) -> str | None:
    try:
        return (await asking).text
    except RefusedError:
        return None
