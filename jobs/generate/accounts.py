"""What a run has paid so far, from the journal: every reply that came, and the worst case of those that never did."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from jobs.common.context import RunContext
from jobs.common.errors import ConfigError
from jobs.common.generate_settings import PriceSettings
from jobs.common.hosts import is_private_host
from jobs.common.settings import Recipe
from jobs.generate.batch_restart import still_waiting
from jobs.generate.budget import Budget, Cost, Tariff
from jobs.generate.journal import Journal, OpenAttempt, Spent
from jobs.generate.opening import Endpoints

OWN_SERVER = PriceSettings(input_usd_per_million_tokens=0.0, output_usd_per_million_tokens=0.0, dated="own server")
"""For a student that is served in the user's own network."""


@dataclass(frozen=True)
class Tariffs:
    """Prices of everything a run asks."""

    teacher: Tariff
    student: Tariff
    student_endpoint: str
    student_model: str
    """Logical endpoint and model that have the student's tariff; everything else has the teacher's."""

    def of(self, endpoint: str, model: str) -> Tariff:
        """The tariff of a model at a logical endpoint; what an earlier recipe asked counts at the teacher's."""
        if endpoint.startswith("embedded:"):
            return Tariff(None, free=True)
        return self.student if (endpoint, model) == (self.student_endpoint, self.student_model) else self.teacher


def tariffs(context: RunContext, endpoints: Endpoints) -> Tariffs:
    """The prices of the recipe.

    Raises:
        ConfigError: dollars are capped and an endpoint has no price.
    """
    recipe, student = context.recipe, endpoints.student
    teacher = Tariff(recipe.teacher.price, free=endpoints.teacher.is_embedded)
    found = Tariffs(teacher, teacher, "", "")
    if student is not None and student != endpoints.teacher:
        at_the_teachers = student.logical == endpoints.teacher.logical
        own = Tariff(student_price(recipe, at_the_teachers=at_the_teachers), free=student.is_embedded)
        found = Tariffs(teacher, own, student.logical, student.model)
    for name, tariff in (("teacher", found.teacher), ("initial", found.student)):
        if recipe.budget_usd is not None and not tariff.free and tariff.price is None:
            raise ConfigError(
                f"budget_usd is {recipe.budget_usd:g}, but the recipe has no price for {name}. Put {name}.price into "
                f"it (input_usd_per_million_tokens, output_usd_per_million_tokens, dated; 0 for your own server), "
                f"or cap budget_tokens instead."
            )
    return found


def open_budget(context: RunContext, journal: Journal, endpoints: Endpoints, prices: Tariffs, rerun: str) -> Budget:
    """The run's caps and what is spent of them so far; what waits in batches is set aside until `batch.py` has it."""
    spent, waiting = Cost(), Cost()
    asked = {endpoints.teacher, replace(endpoints.teacher, model=context.recipe.judge.model or endpoints.teacher.model)}
    in_batches = [one for endpoint in asked for one in still_waiting(journal, context.run, endpoint)]
    fetched = {one.id for one in in_batches} if context.recipe.teacher.mode == "batch" else set()
    for paid in journal.account(context.run):
        spent += prices.of(paid.endpoint, paid.model).cost(paid.prompt_tokens, paid.reply_tokens, batch=paid.batch)
    for lost in journal.lost(context.run):
        if lost.id in fetched:
            waiting += worst_cost(lost, prices)
        else:
            spent += worst_cost(lost, prices)
    recipe = context.recipe
    return Budget(recipe.budget_usd, recipe.budget_tokens, rerun, spent, waiting)


def worst_cost(attempt: OpenAttempt, prices: Tariffs) -> Cost:
    """What a request whose reply never came may have cost at most."""
    return prices.of(attempt.endpoint, attempt.model).cost(
        attempt.prompt_tokens, attempt.reply_tokens, batch=attempt.batch
    )


def account(context: RunContext, journal: Journal, prices: Tariffs) -> dict[str, Any]:
    """The run's whole account for its manifest: exact for every reply received, over all resumes."""

    def usd(one: Spent | OpenAttempt) -> float | None:
        tariff = prices.of(one.endpoint, one.model)
        return tariff.usd(one.prompt_tokens, one.reply_tokens, batch=one.batch)

    def total(every: list[float | None]) -> float | None:
        return None if None in every else sum(one or 0.0 for one in every)

    paid = journal.account(context.run)
    lost = journal.lost(context.run)
    paid_usd, lost_usd = [usd(one) for one in paid], [usd(one) for one in lost]
    return {
        "paid": [asdict(one) | {"usd": cost} for one, cost in zip(paid, paid_usd, strict=True)],
        "lost_requests": len(lost),
        "lost_at_worst_usd": total(lost_usd),
        "lost": [asdict(one) for one in lost],
        "spent_usd": total(paid_usd + lost_usd),
    }


def student_price(recipe: Recipe, *, at_the_teachers: bool) -> PriceSettings | None:
    """The price of the student's endpoint: its own, the teacher's at the same host, none in the user's own network."""
    url = recipe.initial.endpoint
    if recipe.initial.price is not None:
        return recipe.initial.price
    if at_the_teachers and recipe.teacher.price:
        return recipe.teacher.price
    return OWN_SERVER if "://" in url and is_private_host(urlsplit(url).hostname or "") else None
