"""The constitution linter's checks: each asks the teacher about one principle, or one pair, and gives remarks.

A verdict counts only where it holds with the options or answers turned round; otherwise it is the teacher's habit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from jobs.common.constitution import Constitution, Principle
from jobs.generate import wording_lint as wording
from jobs.generate.lint_ask import Asker
from jobs.measure.constitution import Related, Remark, duplicate_remark, excerpt, nearest_principles

RELATIONS = (wording.SAME, wording.CONTRADICT, wording.DIFFERENT)
CHOICES = 4
"""Principles among which a paraphrase must find its own."""
COPIED = 0.5
"""Share of a paraphrase's word 3-grams from which it repeats the text instead of saying it anew."""


@dataclass(frozen=True)
class Checks:
    """What every check needs."""

    constitution: Constitution
    asker: Asker

    async def pair(self, related: Related, lane: int) -> list[Remark]:
        """Do two related principles say the same, or contradict each other? Two or three requests."""
        one, two = (self.constitution.principles[index] for index in (related.first, related.second))
        seen = set()
        for first, second, options in ((one, two, RELATIONS), (two, one, RELATIONS[::-1])):
            letter = await self.asker.letter(wording.relation_turns(first, second, options), len(options), lane)
            seen.add(options[wording.LETTERS.index(letter)] if letter else None)
        if seen == {wording.SAME}:
            return [duplicate_remark(two, one, f"the teacher says so in both orders (cosine {related.similarity:.2f})")]
        if seen == {wording.CONTRADICT}:
            clash = await self.asker.text(wording.clash_turns(one, two), wording.CLASH, lane)
            advice = f"Say in one of them, or in {one.id}, which goes first where they collide."
            return [Remark(two.id, "contradiction", f"with {one.id}: {clash or 'no example given'}", advice)]
        return []

    async def visible(self, principle: Principle, lane: int) -> list[Remark]:
        """Can an answer show that the principle is followed? Three to five requests."""
        evidence = await self._not_told_apart(principle, lane)
        if evidence == "":
            evidence = await self._said_to_be_invisible(principle, lane)
        if evidence is None:
            return [_not_checked(principle, "the teacher wrote no message with two answers")]
        advice = "Say what one answer does or leaves out, in words that a reader of that answer can point at."
        return [Remark(principle.id, "untestable", evidence, advice)] if evidence else []

    async def paraphrased(self, principle: Principle, lane: int) -> list[Remark]:
        """Does the teacher's own wording of the principle lead back to it? Three requests or a few more."""
        index = self.constitution.principles.index(principle)
        others = nearest_principles(self.constitution, index, CHOICES - 1)
        if not others:
            return []
        said = await self.asker.text(
            wording.paraphrase_turns(principle), wording.PARAPHRASE, lane, lambda text: not copies(text, principle.text)
        )
        advice = "Use plainer words, one idea and an example of what it asks, or a stronger teacher.model."
        if said is None:
            return [Remark(principle.id, "not paraphrased", "the teacher only repeats the text", advice)]
        options = [principle, *(self.constitution.principles[other] for other in others)]
        turn = hashlib.sha256(principle.id.encode()).digest()[0]
        for shift in (turn, turn + 1):
            shown = [options[(place + shift) % len(options)] for place in range(len(options))]
            letter = await self.asker.letter(wording.match_turns(said, shown), len(shown), lane)
            found = shown[wording.LETTERS.index(letter)] if letter else None
            if found is not principle:
                taken = f"taken for {found.id}" if found else "matched to none"
                return [Remark(principle.id, "not paraphrased", f"{excerpt(said)} was {taken}", advice)]
        return []

    async def positive(self, remark: Remark, lane: int) -> list[Remark]:
        """A remark on negative framing with the teacher's proposal of a positive text. One request or a few more."""
        principle = self.constitution.principle(remark.principle_id)
        text = await self.asker.text(wording.positive_turns(principle), wording.POSITIVE, lane)
        return [replace(remark, advice=f"Such as: {text}") if text else remark]

    async def _not_told_apart(self, principle: Principle, lane: int) -> str | None:
        """What went wrong in the blind test; empty where both orders were right, None where there was no example."""
        example = await self.asker.texts(wording.example_turns(principle), wording.EXAMPLE, 3, lane)
        if example is None:
            return None
        message, follows, breaks = example
        wrong = []
        for first, second, right in ((follows, breaks, "A"), (breaks, follows, "B")):
            letter = await self.asker.letter(wording.which_turns(principle, message, first, second), 3, lane)
            if letter != right:
                wrong.append("cannot tell" if letter in {"C", None} else "the other answer")
        if not wrong:
            return ""
        return f"of two answers to {excerpt(message)}, asked which follows it: {' and '.join(dict.fromkeys(wrong))}"

    async def _said_to_be_invisible(self, principle: Principle, lane: int) -> str:
        for options in (("yes", "no"), ("no", "yes")):
            letter = await self.asker.letter(wording.visible_turns(principle, options), 2, lane)
            if letter is None or options[wording.LETTERS.index(letter)] == "yes":
                return ""
        return "the teacher says in both orders that no answer can show it"


def copies(text: str, source: str) -> bool:
    """Is at least half of a text word for word in the source?"""
    words, known = _words(text), _words(source)
    grams = list(zip(words, words[1:], words[2:], strict=False))
    there = set(zip(known, known[1:], known[2:], strict=False))
    return bool(grams) and sum(gram in there for gram in grams) >= COPIED * len(grams)


def _words(text: str) -> list[str]:
    return [word.strip(".,;:!?\"'()").lower() for word in text.split()]


def _not_checked(principle: Principle, why: str) -> Remark:
    return Remark(principle.id, "not checked", why, "Use a stronger teacher.model, or read this principle yourself.")
