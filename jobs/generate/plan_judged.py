"""The plan's rows for what comes after a revision: the judge's verdicts, rewrites and minimal edits.

At least: every first revision wins and every pair is of one length. At most: every round, every candidate and every way
to balance a pair is used up, and every prompt becomes a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jobs.common.constitution import Constitution, Principle
from jobs.common.records import Kind
from jobs.common.settings import Recipe
from jobs.generate import wording_judge, wording_rewrite
from jobs.generate.judge import FIRST_TOKEN, REASONING_TOKENS, VERDICT_TOKENS
from jobs.generate.plan_span import OTHER_VOCABULARY, Asked, Span, Step, read_tokens
from jobs.generate.requests import Schema, Turn

ROUNDS = 1.3
"""Assumed rounds of critique and revision until a revision wins."""
REASONS = 120
"""Assumed tokens of a verdict with reasons."""
WAYS = 3
"""Most ways to balance a pair, each judged: whole sentences left out, rewritten, edited."""
JUDGED, REWRITTEN, EDITED = 0.8, 0.6, 0.2
"""Assumed shares of the pairs that are judged again for balance, that ask for a rewrite, and for a minimal edit."""
STRANGER = Span(OTHER_VOCABULARY, 1, 4)
"""Tokens of another model's tokenizer for one of ours: a stranger may need up to one for every byte."""


@dataclass(frozen=True)
class Known:
    """What the steps before say about the texts that are read here."""

    recipe: Recipe
    constitution: Constitution
    asked: Asked
    """The teacher."""
    chains: Span
    """Prompts that get a chain."""
    prompt: Span
    """Tokens of a message, as the teacher counts them."""
    initial: Span
    """Tokens of an initial response, as the teacher counts them."""
    answer: Span
    """Tokens of a text the teacher writes."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of prompts."""
        return ("red_team", "benign_twin") if self.recipe.generate.benign_twins else ("red_team",)

    @property
    def pairs(self) -> Span:
        """Chains that become a pair: those of the splits `dpo` and `held_out`."""
        settings = self.recipe.generate
        share = 1 - (1 - settings.held_out_fraction) * settings.sft_fraction
        return self.chains * Span(0, share, 1)

    def mean(self, turns: Callable[[Principle, Kind], tuple[Turn, ...]], schema: Schema | None) -> Span:
        """Tokens of a request's own words, over principles and kinds: the least, the mean and the most."""
        found = [
            read_tokens(turns(one, kind), schema, self.asked)
            for one in self.constitution.principles
            for kind in self.kinds
        ]
        likely = sum(one.likely for one in found) / len(found)
        return Span(min(one.least for one in found), likely, max(one.most for one in found))


def rounds_of(recipe: Recipe) -> Span:
    """Rounds of critique and revision in one chain."""
    most = recipe.generate.max_revisions if recipe.judge.rule != "off" else 1
    return Span(1, min(ROUNDS, most), most)


def judge_steps(known: Known) -> list[Step]:
    """Verdicts, rewrites and edits, as far as the recipe asks for them."""
    steps = [] if known.recipe.judge.rule == "off" else [_verdicts(known)]
    return [*steps, _rewrites(known), _edits(known)] if known.recipe.generate.balance else steps


def _verdicts(known: Known) -> Step:
    settings, judge, rounds = known.recipe.generate, known.recipe.judge, rounds_of(known.recipe)
    others = 0 if known.recipe.initial.endpoint == "file" else known.recipe.initial.samples - 1
    again = known.pairs * rounds * Span(0, others, others)
    if settings.balance:
        again += known.pairs * Span(0, JUDGED, WAYS)
    requests = (known.chains * rounds + again) * Span(2, 2, 2 * settings.tries)
    each = known.mean(
        lambda principle, kind: wording_judge.compare_turns(principle, "", ("", ""), kind, think=judge.reasoning), None
    )
    each += known.prompt + known.initial + known.answer
    short = FIRST_TOKEN if known.asked.embedded else VERDICT_TOKENS
    written = Span(1, REASONS, REASONING_TOKENS) if judge.reasoning else Span(1, 1, short)
    each = each * STRANGER if judge.model else each
    return Step("verdicts", known.asked, requests, requests * each, requests * written)


def _rewrites(known: Known) -> Step:
    each = known.mean(
        lambda principle, _: wording_rewrite.length_turns("", "", principle, 100, " ".join(["opening"] * 5)),
        wording_rewrite.REWRITE,
    )
    return _written("rewrites", known, REWRITTEN, each)


def _edits(known: Known) -> Step:
    each = known.mean(
        lambda principle, kind: wording_rewrite.edit_turns("", "", principle, kind, 100), wording_rewrite.EDIT
    )
    return _written("minimal edits", known, EDITED, each)


def _written(name: str, known: Known, likely: float, each: Span) -> Step:
    requests = known.pairs * Span(0, likely, known.recipe.generate.tries)
    return Step(name, known.asked, requests, requests * (each + known.prompt + known.answer), requests * known.answer)
