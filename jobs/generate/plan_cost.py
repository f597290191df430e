"""Dollars and minutes of a step, from its requests and tokens."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import date
from math import inf
from typing import Literal

from jobs.common.generate_settings import PriceSettings
from jobs.common.settings import Recipe
from jobs.generate.accounts import student_price
from jobs.generate.budget import Tariff
from jobs.generate.embedded import MOST_SERVERS
from jobs.generate.opening import logical_endpoints
from jobs.generate.plan_span import Asked, Span, Step

OLD_PRICES_DAYS = 180
"""Age from which prices are worth reading again."""
BATCH_MINUTES = Span(5, 60, 24 * 60)
"""Assumed for one batch; endpoints promise a day."""
EMBEDDED_PARAMETERS = 135e6
READ_PER_S, WRITE_PER_S = 340.0, 55.0
"""Prompt and reply tokens a second of the embedded 135M model on one idle core, which has most of a chat in memory."""


@dataclass(frozen=True)
class Speed:
    """What is assumed of a remote endpoint."""

    wait_s: float
    """Seconds before a reply begins."""
    tokens_per_s: float
    """Reply tokens a second of one request."""
    in_flight: int
    """Requests it takes at once."""


SPEEDS = (Speed(0.3, 150, 256), Speed(0.8, 60, 64), Speed(3.0, 20, 8))
"""A fast endpoint, a usual one and a slow one."""


def is_batch(asked: Asked, recipe: Recipe) -> bool:
    """Does it go through the Batch API?"""
    return asked.by == "teacher" and not asked.embedded and recipe.teacher.mode == "batch"


def price_section(asked: Asked, recipe: Recipe) -> Literal["teacher", "initial"]:
    """Which section of the recipe holds the price: a student at the teacher's own host needs none of its own."""
    if asked.by == "teacher":
        return "teacher"
    hosts = logical_endpoints(recipe)
    return "teacher" if recipe.initial.price is None and hosts["initial"] == hosts["teacher"] else "initial"


def price_of(asked: Asked, recipe: Recipe) -> PriceSettings | None:
    """The price table for those who are asked."""
    if asked.by == "teacher":
        return recipe.teacher.price
    return student_price(recipe, at_the_teachers=price_section(asked, recipe) == "teacher")


def dollars(step: Step, recipe: Recipe) -> Span | None:
    """Cost of a step in US dollars; None where no price is known."""
    if not step.requests.most:
        return Span()
    tariff, batch = Tariff(price_of(step.asked, recipe), free=step.asked.embedded), is_batch(step.asked, recipe)
    tokens = zip(step.tokens_in.parts, step.tokens_out.parts, strict=True)
    found = [tariff.usd(round(tokens_in), round(tokens_out), batch=batch) for tokens_in, tokens_out in tokens]
    known = [usd for usd in found if usd is not None]
    return Span(*known) if len(known) == len(found) else None


def minutes(step: Step, recipe: Recipe) -> Span:
    """Minutes of a step by the assumed speeds and the recipe's limits."""
    if not step.requests.most:
        return Span()
    if step.asked.embedded:
        return _embedded_minutes(step, recipe)
    if is_batch(step.asked, recipe):
        return BATCH_MINUTES
    figures = zip(SPEEDS, step.requests.parts, step.tokens_out.parts, strict=True)
    free = [_remote_minutes(*figure, recipe) for figure in figures]
    if step.asked.by == "student":
        return Span(*free)
    return Span(*map(max, free, _limited_minutes(step, recipe).parts))


def _remote_minutes(speed: Speed, requests: float, tokens_out: float, recipe: Recipe) -> float:
    if not requests:
        return 0.0
    one_s = speed.wait_s + tokens_out / requests / speed.tokens_per_s
    return max(1.0, requests / min(speed.in_flight, recipe.teacher.concurrency)) * one_s / 60


def _limited_minutes(step: Step, recipe: Recipe) -> Span:
    """What the teacher's limits per minute leave."""
    settings, tokens = recipe.teacher, step.tokens_in + step.tokens_out
    by_requests = [part / (settings.requests_per_minute or inf) for part in step.requests.parts]
    by_tokens = [part / (settings.tokens_per_minute or inf) for part in tokens.parts]
    return Span(*map(max, by_requests, by_tokens))


def _embedded_minutes(step: Step, recipe: Recipe) -> Span:
    share = embedded_parameters(step.asked, recipe) / EMBEDDED_PARAMETERS / min(cores(), MOST_SERVERS)
    figures = zip((0.7, 1.0, 2.0), step.tokens_in.parts, step.tokens_out.parts, strict=True)
    return Span(*[slow * share * (into / READ_PER_S + out / WRITE_PER_S) / 60 for slow, into, out in figures])


def embedded_parameters(asked: Asked, recipe: Recipe) -> float:
    """Parameters of the embedded model, by the size in its name; the 135M model's where the recipe names none."""
    name = recipe.initial.gguf_repo if asked.by == "student" else None
    size = re.search(r"(\d+(?:\.\d+)?)([mb])\b", name.lower()) if name else None
    return float(size[1]) * (1e6 if size[2] == "m" else 1e9) if size else EMBEDDED_PARAMETERS


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def age_days(price: PriceSettings, today: date) -> int | None:
    """Days since the prices were read; None where the recipe holds no such date."""
    try:
        return (today - date.fromisoformat(price.dated)).days
    except ValueError:
        return None
