"""The asynchronous part of the stage: prompts, then chains."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from jobs.common.errors import ConfigError
from jobs.common.held_out import Response
from jobs.common.jsonl import read_records
from jobs.common.records import Failure, RedTeamPrompt
from jobs.generate.chain import Chained, Chains
from jobs.generate.engine import Engine
from jobs.generate.freeze import frozen_prompts
from jobs.generate.initial import Initial
from jobs.generate.judge import Judge
from jobs.generate.requests import Sampling
from jobs.generate.rewrite import Rewriter
from jobs.generate.rounds import Rounds
from jobs.generate.session import Session


async def freeze_prompts(session: Session) -> list[RedTeamPrompt]:
    """The run's red-team prompts: those frozen before, or asked for and frozen now.

    Raises:
        UnavailableError: an endpoint cannot be used.
    """
    async with AsyncExitStack() as stack:
        return await frozen_prompts(session, await session.connect(stack))


async def make_chains(session: Session) -> tuple[list[RedTeamPrompt], list[Chained | Failure]]:
    """Freeze the prompt set, then run every chain.

    Raises:
        ConfigError: initial responses should come from a file that is not there.
        UnavailableError: an endpoint cannot be used.
        StoppedError: the budget is used up.
    """
    async with AsyncExitStack() as stack:
        engine = await session.connect(stack)
        prompts = await frozen_prompts(session, engine)
        chains = _chains(session, engine, prompts)
        session.show("chains", 0, len(prompts))
        chained = await chains.run(prompts, lambda done, total: session.show("chains", done, total))
        for one in session.engines:
            one.sender.breaker.finish()
        return prompts, chained


def _chains(session: Session, teacher: Engine, prompts: list[RedTeamPrompt]) -> Chains:
    recipe, settings = session.context.recipe, session.context.recipe.generate
    judge = Judge(session.judge, recipe.judge, settings.tries, recipe.seed) if session.judge else None
    rounds = Rounds(teacher, session.constitution, settings, session.sampling, judge)
    rewriter = Rewriter(teacher, settings, session.sampling) if settings.balance else None
    return Chains(_initial(session, teacher, prompts), rounds, rewriter, session.failed)


def _initial(session: Session, teacher: Engine, prompts: list[RedTeamPrompt]) -> Initial:
    recipe, settings = session.context.recipe, session.context.recipe.initial
    sampling = Sampling(settings.temperature, settings.top_p, recipe.seed)
    initial = Initial(settings.model, sampling, teacher, recipe.generate, settings.samples)
    if settings.endpoint == "teacher":
        return replace(initial, model=f"{teacher.endpoint.model} (invented)")
    if settings.endpoint != "file":
        return replace(initial, student=session.student)
    path = session.context.folder / "initial" / "responses.jsonl"
    first = f"Run: {session.context.command('initial')}, then: {session.rerun} (in containers, make sft does both)"
    if not path.exists():
        raise ConfigError(f"initial.endpoint is file, but {path} does not exist; the prompts are frozen. {first}")
    responses = [response for response in read_records(path, Response) if response.system == "base"]
    texts = {response.id: response for response in responses}
    missing = [prompt.id for prompt in prompts if prompt.id not in texts]
    if missing:
        raise ConfigError(f"{path} lacks {len(missing)} of {len(prompts)} prompts, first {missing[0]}. {first}")
    return replace(initial, model=responses[0].model if responses else settings.model, texts=texts)
