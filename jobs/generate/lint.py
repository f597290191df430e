"""Ask the teacher about a constitution: `cai constitution check FILE --teacher`.

Five questions that a reader of the file alone cannot answer: do two principles say the same, do two contradict each
other, can one answer show that a principle is followed, does the teacher understand it well enough to say it in other
words, and how would a negative text read positively. What comes out are remarks; only faults of form end with 78.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from jobs.common.console import console, say
from jobs.common.constitution import Constitution, Principle, read_constitution
from jobs.common.stage import RunContext
from jobs.generate.accounts import tariffs
from jobs.generate.ask import together
from jobs.generate.breaker import Run
from jobs.generate.budget import Budget
from jobs.generate.endpoint import Endpoint
from jobs.generate.engine import RefusedError, open_engine
from jobs.generate.journal import Journal, open_journal
from jobs.generate.lint_ask import Asker
from jobs.generate.lint_checks import Checks
from jobs.generate.meter import Meter, money
from jobs.generate.opening import open_endpoints
from jobs.generate.requests import Sampling
from jobs.generate.signals import run_until_stopped
from jobs.measure.constitution import Related, Remark, negative_framing, related_pairs

PAIRS_PER_PRINCIPLE = 1.5
"""Pairs asked about, as a multiple of the principles; every principle's nearest neighbour is among them."""
TOO_MANY = 0.5
"""Share of principles from which untestable and misread ones are taken as the teacher's limits."""
WIDTH = 110
ALONE, WITH_OTHERS = 4, 3
"""Requests for one principle; so many more where it has neighbours to be confused with."""


@dataclass(frozen=True)
class Questions:
    """What is asked about one constitution."""

    constitution: Constitution
    related: list[Related]
    framed: list[Remark]
    """Remarks on negative framing, for which a positive text is asked."""

    @classmethod
    def about(cls, constitution: Constitution) -> Questions:
        """Every principle, the most related pairs, and the negative texts."""
        most = round(PAIRS_PER_PRINCIPLE * len(constitution.principles))
        return cls(constitution, related_pairs(constitution, most), list(negative_framing(constitution)))

    def __str__(self) -> str:
        """How much will be asked, before it is."""
        principles = len(self.constitution.principles)
        each = ALONE + (WITH_OTHERS if principles > 1 else 0)
        usual = principles * each + 2 * len(self.related) + len(self.framed)
        pairs = f"the {len(self.related)} most related of {principles * (principles - 1) // 2} pairs"
        return f"{principles} principles and {pairs}: about {usual} requests"

    def work(self, checks: Checks) -> list[tuple[Principle, Coroutine[Any, Any, list[Remark]]]]:
        """Each check with the principle it will be named at."""
        principles = self.constitution.principles
        lanes = count()
        return [
            *((principles[pair.second], checks.pair(pair, next(lanes))) for pair in self.related),
            *((principle, checks.visible(principle, next(lanes))) for principle in principles),
            *((principle, checks.paraphrased(principle, next(lanes))) for principle in principles),
            *(
                (self.constitution.principle(one.principle_id), checks.positive(one, next(lanes)))
                for one in self.framed
            ),
        ]


def lint(file: Path, context: RunContext) -> None:
    """Ask the recipe's teacher about every principle and the most related pairs, and print a table of remarks.

    Raises:
        ConfigError: the file is no constitution, or the teacher's key, price or weights are missing.
        UnavailableError: the teacher cannot be used.
        StoppedError: SIGTERM or the recipe's budget; the same command goes on and pays nothing twice.
    """
    constitution, _ = read_constitution(file)
    questions = Questions.about(constitution)
    say(f"{file}: asking {context.recipe.teacher.model} about {questions}")
    rerun = " ".join(filter(None, [f"cai constitution check {file} --teacher", context.given]))
    with closing(open_journal(context.journal)) as journal, open_endpoints(context, with_student=False) as endpoints:
        tariffs(context, endpoints)  # refuses a cap in dollars without a price
        asking = _ask_all(questions, endpoints.teacher, journal, context, rerun)
        remarks, meter = run_until_stopped(asking, rerun)
    order = [principle.id for principle in constitution.principles]
    remarks.sort(key=lambda remark: order.index(remark.principle_id))
    if remarks:
        _print(remarks)
    _say_end(file, remarks, meter, context)
    lost = {remark.principle_id for remark in remarks if remark.finding in ("untestable", "not paraphrased")}
    if len(lost) > TOO_MANY * len(order):
        say(
            f"{file}: {context.recipe.teacher.model} lost its way with {len(lost)} of {len(order)} principles, which "
            f"tells more of this teacher than of them. Ask a larger one with --recipe or --set teacher.model=..."
        )


async def _ask_all(
    questions: Questions, endpoint: Endpoint, journal: Journal, context: RunContext, rerun: str
) -> tuple[list[Remark], Meter]:
    recipe = context.recipe
    sampling = Sampling(recipe.teacher.temperature, recipe.teacher.top_p, recipe.seed)
    budget = Budget(recipe.budget_usd, recipe.budget_tokens, rerun)
    async with open_engine(endpoint, recipe.teacher, journal, Run("", rerun), budget) as engine:
        checks = Checks(questions.constitution, Asker(engine, sampling, recipe.generate.tries))
        work = questions.work(checks)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            asking = bar.add_task("checks", total=len(work))
            answers = await together(
                [_unless_refused(principle, one, lambda: bar.advance(asking)) for principle, one in work]
            )
        engine.sender.breaker.finish()
        return [remark for some in answers for remark in some], engine.sender.meter


async def _unless_refused(
    principle: Principle, work: Coroutine[Any, Any, list[Remark]], done: Callable[[], None]
) -> list[Remark]:
    try:
        return await work
    except RefusedError as error:
        advice = "Read this principle yourself, or ask another teacher.model."
        return [Remark(principle.id, "not checked", f"the endpoint refused: {error.fault.detail}", advice)]
    finally:
        done()


def _print(remarks: list[Remark]) -> None:
    columns = ("principle", "finding", "evidence", "advice")
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for remark in remarks:
        cells = (remark.principle_id, remark.finding, remark.evidence, remark.advice)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells))
    Console(width=WIDTH, highlight=False).print(table)


def _say_end(file: Path, remarks: list[Remark], meter: Meter, context: RunContext) -> None:
    tokens, price = meter.tokens(), context.recipe.teacher.price
    paid = money(meter.new_usd, price.dated if price else None, free=meter.tariff.free)
    told = f"{len(remarks)} remarks" if len(remarks) != 1 else "1 remark"
    say(
        f"{file}: {told if remarks else 'no remarks'}; {meter.new.requests} new requests and "
        f"{meter.journalled.requests} from the journal, {tokens['new_prompt_tokens']} new tokens in, "
        f"{tokens['new_reply_tokens']} out; {paid}"
    )
