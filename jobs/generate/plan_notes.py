"""What stands below the plan's table: what "likely" assumes, how old the prices are, and what fits the caps."""

from __future__ import annotations

from datetime import date
from math import ceil, floor, log10

from jobs.common.settings import Recipe
from jobs.generate import plan_cost
from jobs.generate.accounts import OWN_SERVER
from jobs.generate.plan_habits import Habits
from jobs.generate.plan_judged import EDITED, JUDGED, REWRITTEN, ROUNDS
from jobs.generate.plan_span import Span, Step
from jobs.generate.plan_table import Row, count, money

ROOM = 1.3
"""A cap this many times the likely figure leaves room for the error of the estimate."""


def assumption_lines(recipe: Recipe, steps: list[Step], habits: Habits) -> list[str]:
    """What likely, max and the minutes rest on."""
    lengths = ", ".join(f"{step} {tokens:.0f}{_source(step, habits)}" for step, tokens in habits.written.items())
    told = f" ({'* mean of the latest replies in the journal, others ' if habits.journalled else ''}assumed)"
    lines = [
        f"likely: {habits.usable_prompts:.0%} of the prompts usable, {habits.tries:g} replies for one text (assumed); "
        f"tokens of a reply: {lengths}{told}",
        f"max:    {recipe.generate.max_requests_per_principle} requests for prompts per principle, "
        f"{recipe.generate.tries} replies for every text, each at its token limit; "
        f"attempts that break off without a reply come on top (budget_usd and budget_tokens count them)",
        "tokens: by SmolLM2's tokenizer; exact for the embedded model, an estimate for others; max counts bytes",
    ]
    if recipe.judge.rule != "off" or recipe.generate.balance:
        lines.append(
            f"judge:  likely assumes {min(ROUNDS, recipe.generate.max_revisions):g} rounds of critique and revision, "
            f"and for each pair {JUDGED:g} more verdicts, {REWRITTEN:g} rewrites and {EDITED:g} minimal edits"
        )
    if recipe.initial.endpoint == "file":
        lines.append("file:   initial responses take no request here; cai respond --system base writes them on the GPU")
    return [*lines, *_time_lines(recipe, steps)]


def _source(step: str, habits: Habits) -> str:
    replies = habits.journalled.get(step)
    return f"* (of {replies})" if replies else ""


def _time_lines(recipe: Recipe, steps: list[Step]) -> list[str]:
    used = [step for step in steps if step.requests.most]
    found = []
    sizes = [plan_cost.embedded_parameters(step.asked, recipe) / 1e6 for step in used if step.asked.embedded]
    for size in dict.fromkeys(sizes):
        speed = plan_cost.WRITE_PER_S * plan_cost.EMBEDDED_PARAMETERS / 1e6 / size
        found.append(f"embedded {size:.0f}M model {speed:.0f} tokens/s on each of {plan_cost.cores()} cores")
    remote = [step.asked for step in used if not step.asked.embedded]
    if any(not plan_cost.is_batch(asked, recipe) for asked in remote):
        usual = plan_cost.SPEEDS[1]
        most = min(usual.in_flight, recipe.teacher.concurrency)
        found.append(f"endpoint {usual.tokens_per_s:.0f} tokens/s a request, {most} at once")
    if any(plan_cost.is_batch(asked, recipe) for asked in remote):
        found.append("a batch an hour, at most a day")
    return [f"minutes: likely assumes {'; '.join(found)}"]


def price_lines(recipe: Recipe, steps: list[Step], today: date) -> list[str]:
    """The prices used, their age, and where one is missing."""
    lines = []
    charged = dict.fromkeys(step.asked for step in steps if step.requests.most and not step.asked.embedded)
    sections = [(plan_cost.price_section(one, recipe), plan_cost.price_of(one, recipe)) for one in charged]
    for section, price in dict.fromkeys(sections):
        if price is OWN_SERVER:
            lines.append("dollars: a student in your own network counts as free, without an initial.price")
            continue
        if price is None:
            lines.append(f"dollars: unknown, put {section}.price in the recipe")
            continue
        batch = section == "teacher" and recipe.teacher.mode == "batch"
        less = f", {price.batch_discount:.0%} less as a batch" if batch else ""
        age = plan_cost.age_days(price, today)
        old = age is None or age > plan_cost.OLD_PRICES_DAYS
        since = f"{age} days old" if age is not None else "dated other than YYYY-MM-DD"
        lines.append(
            f"dollars: {section}.price of {price.dated}: ${price.input_usd_per_million_tokens:g} in, "
            f"${price.output_usd_per_million_tokens:g} out per million tokens{less}"
        )
        if old:
            lines.append(f"WARNING: {section}.price is {since}; read the prices again")
    return lines or ["dollars: the embedded model charges nothing"]


def budget_lines(recipe: Recipe, steps: list[Step], rows: list[Row]) -> list[str]:
    """Whether the likely and the worst case fit budget_usd and budget_tokens, and what to set."""
    charged = [step for step in steps if not step.asked.embedded]
    tokens = [step.tokens_in + step.tokens_out for step in charged]
    requests = [step.requests for step in charged]
    need = sum(tokens, Span())
    if not need.most:
        return []
    usd = [row.usd for row in rows[:-1] if row.usd is not None]
    lines = [_fits("budget_tokens", recipe.budget_tokens, need, _dearest(tokens, requests))]
    if len(usd) == len(steps):
        each = _dearest(usd, [step.requests for step in steps])
        lines.insert(0, _fits("budget_usd", recipe.budget_usd, sum(usd, Span()), each))
    elif recipe.budget_usd is not None:
        lines.insert(0, f"budget_usd {recipe.budget_usd:g}: cannot be kept without a price")
    return lines


def _dearest(needs: list[Span], requests: list[Span]) -> float:
    """The most that a single request can need."""
    return max(need.most / count.most for need, count in zip(needs, requests, strict=True) if count.most)


def _fits(key: str, cap: float | None, need: Span, each: float) -> str:
    show = money if key == "budget_usd" else count
    # Near the cap the last requests go one by one, and each must fit at its worst.
    likely, most = _rounded_up(min(need.likely * ROOM + each, need.most)), _rounded_up(need.most)
    choice = f"{likely:,.10g} suits the likely case, {most:,.10g} never stops a run"
    if cap is None:
        return f"{key}: not set; {choice}"
    set_to = f"{key} {cap:,.10g}:"
    if cap >= need.most:
        return f"{set_to} fits even the worst case"
    if cap >= need.likely:
        return f"{set_to} fits the likely case ({show(need.likely)}), not the worst ({show(need.most)}); {choice}"
    return f"{set_to} below the likely case ({show(need.likely)}), a run stops early; {choice}"


def _rounded_up(value: float) -> float:
    """Two digits that count, never below the value."""
    if value <= 0:
        return 0.0
    size = 10.0 ** (floor(log10(value)) - 1)
    return round(ceil(value / size - 1e-9) * size, 10)
