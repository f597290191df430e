"""Everything one run of the stage holds while it asks: endpoints, journal, budget, engines and what people see."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.common.console import StageProgress, say
from jobs.common.constitution import Constitution
from jobs.common.live import Live
from jobs.common.records import Failure
from jobs.common.stage import RunContext
from jobs.generate.accounts import Tariffs
from jobs.generate.advice import verbose_line
from jobs.generate.batch import open_desk
from jobs.generate.batch_restart import still_waiting
from jobs.generate.breaker import Run
from jobs.generate.budget import Budget
from jobs.generate.engine import Engine, open_engine
from jobs.generate.journal import Journal
from jobs.generate.meter import Meter
from jobs.generate.opening import Endpoints
from jobs.generate.requests import Sampling

HEARTBEAT_S = 1.0
"""Progress is shown at least so often, also while no reply comes."""


@dataclass
class Session:
    """One run of the stage."""

    context: RunContext
    constitution: Constitution
    endpoints: Endpoints
    journal: Journal
    progress: StageProgress
    folder: Path
    prices: Tariffs
    budget: Budget
    stage: str
    """Stage that asks: `generate` or `repair`."""
    engines: list[Engine] = field(default_factory=list)
    """The teacher's, then the student's and the judge's where they have one of their own."""
    student: Engine | None = None
    """Who writes initial responses; None for `file` and `teacher`."""
    judge: Engine | None = None
    """Who compares answers: the teacher, or another model at its endpoint; None where nobody does."""
    failures: int = 0
    _shown: tuple[str, int, int] = ("starting", 0, 0)

    @property
    def rerun(self) -> str:
        """The command that goes on later."""
        return self.context.command(self.stage)

    @property
    def sampling(self) -> Sampling:
        """The teacher's sampling."""
        teacher = self.context.recipe.teacher
        return Sampling(teacher.temperature, teacher.top_p, self.context.recipe.seed)

    @property
    def meters(self) -> list[Meter]:
        """What each engine used, the teacher's first."""
        return [engine.sender.meter for engine in self.engines]

    async def connect(self, stack: AsyncExitStack) -> Engine:
        """Open the engines, and give the teacher's; they end with the stack."""
        settings, run = self.context.recipe.teacher, Run(self.context.run, self.rerun)
        opened = open_engine(self.endpoints.teacher, settings, self.journal, run, self.budget)
        teacher = await stack.enter_async_context(opened)
        self.engines, self.student = [teacher], None
        if self.endpoints.student == self.endpoints.teacher:
            self.student = teacher
        elif self.endpoints.student is not None:
            # Its own prices, and none of the teacher's limits.
            more = {
                "price": self.prices.student.price,
                "requests_per_minute": None,
                "tokens_per_minute": None,
            }
            own = settings.model_copy(update=more | {"mode": "live"})
            opened = open_engine(self.endpoints.student, own, self.journal, run, self.budget)
            self.student = await stack.enter_async_context(opened)
            self.engines.append(self.student)
            if self.endpoints.student.logical == self.endpoints.teacher.logical:  # they go down together
                self.student.sender = replace(self.student.sender, breaker=teacher.sender.breaker)
        await self._connect_judge(stack, teacher)
        if settings.mode == "batch":
            for one in {id(engine): engine for engine in (teacher, self.judge) if engine}.values():
                desk = open_desk(one.sender, settings.max_attempts, self._student_is_asked)
                one.desk = await stack.enter_async_context(desk)
        elif waiting := still_waiting(self.journal, self.context.run, teacher.endpoint):
            say(
                f"{self.stage}: {len(waiting)} requests of this run wait in batches at {teacher.endpoint.shown}; "
                f"teacher.mode live asks them again, and teacher.mode batch would fetch them"
            )
        beat = asyncio.create_task(self._beat())
        stack.callback(beat.cancel)
        return teacher

    async def _connect_judge(self, stack: AsyncExitStack, teacher: Engine) -> None:
        """The teacher's own engine, or one for another model at its endpoint, with its limits and prices."""
        recipe = self.context.recipe
        model = recipe.judge.model or teacher.endpoint.model
        self.judge = None if recipe.judge.rule == "off" else teacher
        if self.judge is None or model == teacher.endpoint.model:
            return
        endpoint, run = replace(teacher.endpoint, model=model), Run(self.context.run, self.rerun)
        opened = open_engine(endpoint, recipe.teacher, self.journal, run, self.budget)
        self.judge = await stack.enter_async_context(opened)
        self.judge.sender = replace(self.judge.sender, breaker=teacher.sender.breaker)  # they go down together
        self.engines.append(self.judge)

    def show(self, step: str, done: int, total: int) -> None:
        """Show progress."""
        self._shown = (step, done, total)
        self.progress.update(step, done, total, self._figures(), live=self.live)

    def failed(self, failure: Failure) -> None:
        """Count an item that failed for good, and say so where every one is wanted."""
        self.failures += 1
        if self.context.verbose:
            say(verbose_line(failure))

    def live(self) -> Live:
        """The engines' figures at this moment."""
        paces, meters = [engine.sender.pace for engine in self.engines], self.meters
        known = all(meter.tariff.free or meter.tariff.price for meter in meters)
        left = self.budget.left
        return Live(
            in_flight=sum(pace.in_flight for pace in paces),
            limit=sum(int(pace.limit.value) for pace in paces),
            throttled=sum(pace.throttled_count for pace in paces),
            retried=sum(meter.retried for meter in meters),
            failed=self.failures,
            replies=sum(meter.new.requests for meter in meters),
            journalled=sum(meter.journalled.requests for meter in meters),
            tokens_per_s=sum(meter.speed.per_s() for meter in meters),
            prompt_tokens=sum(meter.new.prompt_tokens + meter.journalled.prompt_tokens for meter in meters),
            reply_tokens=sum(meter.new.reply_tokens + meter.journalled.reply_tokens for meter in meters),
            spent_usd=self.budget.spent.usd if known else None,
            left_usd=left.usd if self.budget.usd is not None else None,
            left_tokens=left.tokens if self.budget.tokens is not None else None,
            paused_s=min((pace.paused_s() for pace in paces), default=0.0),
        )

    async def drain(self) -> None:
        """Send nothing more and wait for what is on its way."""
        await asyncio.gather(*(engine.sender.pace.drain() for engine in self.engines))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            step, done, total = self._shown
            if total:
                self.progress.update(step, done, total, self._figures(), live=self.live)

    def _figures(self) -> str:
        """What waits in batches."""
        return " · ".join(filter(None, (engine.desk.figures for engine in self.engines if engine.desk)))

    def _student_is_asked(self) -> bool:
        """Are initial responses on their way, so that more requests will come for the teacher's next batch?"""
        if self.student is None or self.student.desk:
            return False
        pace = self.student.sender.pace
        return pace.in_flight > 0 or pace.paused_s() > 0
