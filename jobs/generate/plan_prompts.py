"""The plan's rows for red-team prompts and benign twins, from the very briefs and turns that the run will use."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from jobs.common.constitution import Constitution, Principle
from jobs.common.settings import Recipe
from jobs.generate import wording_prompts
from jobs.generate.briefs import Brief, plan_briefs
from jobs.generate.plan_habits import Habits
from jobs.generate.plan_span import Asked, Span, Step, read_tokens

LEAST_PROMPT_TOKENS = 4
"""A prompt has at least five words; the first may share a token with what stands before it."""
USABLE_TWINS = 0.9
"""Assumed share of the prompts that get a twin."""
BYTES_PER_TOKEN = 4
"""Assumed bytes of a token of the prompts that a request shows."""


def red_team_wanted(recipe: Recipe, constitution: Constitution, habits: Habits) -> Span:
    """Red-team prompts that will be there."""
    settings, principles = recipe.generate, len(constitution.principles)
    wanted, room = settings.prompts_per_principle, settings.max_requests_per_principle * settings.prompts_per_request
    likely = min(wanted, room * habits.usable_prompts)
    return Span(principles * min(wanted, room), principles * likely, principles * wanted)


def prompts_wanted(recipe: Recipe, constitution: Constitution, habits: Habits) -> Span:
    """Red-team prompts and twins; at least, no prompt gets a twin."""
    each = Span(1, 1 + USABLE_TWINS, 2) if recipe.generate.benign_twins else Span(1, 1, 1)
    return red_team_wanted(recipe, constitution, habits) * each


def prompts_step(recipe: Recipe, constitution: Constitution, habits: Habits, asked: Asked) -> Step:
    """Requests for red-team prompts, each with its briefs and the prompts that exist by then."""
    settings, principles = recipe.generate, len(constitution.principles)
    size, most = settings.prompts_per_request, settings.max_requests_per_principle
    least = min(most, ceil(settings.prompts_per_principle / size))
    likely = min(most, max(least, settings.prompts_per_principle / (size * habits.usable_prompts)))
    tokens_in = Span()
    for principle in constitution.principles:
        briefs = plan_briefs(principle, constitution, settings, recipe.seed)
        groups = [briefs[start : start + size] for start in range(0, len(briefs), size)][:least]
        every = [_tokens_in(principle, group, size, asked) for group in groups]
        shown = sum(_shown_tokens(number * size, habits) for number in range(len(groups))) if size > 1 else 0.0
        tokens_in += Span(
            sum(one.least for one in every),
            (sum(one.likely for one in every) + shown) / len(every) * likely,
            _most_in(principle, briefs, size, asked) * most,
        )
    requests = Span(principles * least, principles * likely, principles * most)
    least_written = red_team_wanted(recipe, constitution, habits).least * LEAST_PROMPT_TOKENS
    written = max(least_written, requests.likely * habits.written["prompts"])
    tokens_out = Span(least_written, written, requests.most * settings.prompt_tokens)
    return Step("red-team prompts", asked, requests, tokens_in, tokens_out)


def twins_step(recipe: Recipe, constitution: Constitution, habits: Habits, asked: Asked) -> Step:
    """One text for every red-team prompt, asked for until it can be used."""
    settings, small = recipe.generate, recipe.generate.prompts_per_request == 1
    turns = wording_prompts.one_twin_turns if small else wording_prompts.twin_turns
    schema = None if small else wording_prompts.TWIN
    every = [read_tokens(turns(principle, ""), schema, asked) for principle in constitution.principles]
    each = sum(every, Span()) * Span(*[1 / len(every)] * 3)
    text = Span(LEAST_PROMPT_TOKENS, min(settings.prompt_tokens, habits.prompt_tokens), settings.prompt_tokens)
    requests = red_team_wanted(recipe, constitution, habits) * Span(
        1, min(habits.tries, settings.tries), settings.tries
    )
    return Step("benign twins", asked, requests, requests * (each + text), requests * Span(1, text.likely, text.most))


def _tokens_in(
    principle: Principle, briefs: Sequence[Brief], size: int, asked: Asked, accepted: Sequence[str] = ()
) -> Span:
    if size == 1:
        return read_tokens(wording_prompts.one_prompt_turns(principle, briefs[0].language), None, asked)
    values, languages = [brief.values for brief in briefs], [brief.language for brief in briefs]
    turns = wording_prompts.prompts_turns(principle, values, languages, accepted)
    return read_tokens(turns, wording_prompts.PROMPTS, asked)


def _shown_tokens(accepted: int, habits: Habits) -> float:
    return min(accepted * habits.prompt_tokens, wording_prompts.SHOWN_BYTES / BYTES_PER_TOKEN)


def _most_in(principle: Principle, briefs: Sequence[Brief], size: int, asked: Asked) -> float:
    """The longest brief in every place, and as many prompts shown as fit."""
    longest = max(briefs, key=lambda brief: len(wording_prompts.brief_line(brief.values, brief.language).encode()))
    shown = ["x" * (wording_prompts.SHOWN_BYTES - len("- \n"))]
    return _tokens_in(principle, [longest] * size, size, asked, shown).most
