"""The asynchronous part of the stage: prompts, then chains."""

from __future__ import annotations

from contextlib import AsyncExitStack

from jobs.common.console import say
from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_records, write_records
from jobs.common.records import Failure, RedTeamPrompt, Response
from jobs.common.split import SplitShares, assign_splits
from jobs.generate import wording
from jobs.generate.chain import Chained, Chains, Initial
from jobs.generate.engine import Engine
from jobs.generate.red_team import Collected, RedTeam
from jobs.generate.requests import Sampling
from jobs.generate.session import Session


async def freeze_prompts(session: Session) -> list[RedTeamPrompt]:
    """The run's red-team prompts: those frozen before, or asked for and frozen now.

    Raises:
        UnavailableError: an endpoint cannot be used.
    """
    async with AsyncExitStack() as stack:
        return await _prompts(session, await session.connect(stack))


async def make_chains(session: Session) -> tuple[list[RedTeamPrompt], list[Chained | Failure]]:
    """Freeze the prompt set, then run every chain.

    Raises:
        ConfigError: initial responses should come from a file that is not there.
        UnavailableError: an endpoint cannot be used.
        StoppedError: the budget is used up.
    """
    recipe = session.context.recipe
    async with AsyncExitStack() as stack:
        engine = await session.connect(stack)
        prompts = await _prompts(session, engine)
        chains = Chains(
            engine,
            _initial(session, prompts),
            session.constitution,
            recipe.generate,
            session.sampling,
            session.failed,
        )
        session.show("chains", 0, len(prompts))
        chained = await chains.run(prompts, lambda done, total: session.show("chains", done, total))
        for one in session.engines:
            one.sender.breaker.finish()
        return prompts, chained


async def _prompts(session: Session, engine: Engine) -> list[RedTeamPrompt]:
    path = session.folder / "prompts.jsonl"
    return read_records(path, RedTeamPrompt) if path.exists() else await _ask_for_prompts(session, engine)


async def _ask_for_prompts(session: Session, engine: Engine) -> list[RedTeamPrompt]:
    recipe = session.context.recipe
    red_team = RedTeam(engine, session.constitution, recipe.generate, session.sampling, session.failed)
    session.show("red-team prompts", 0, recipe.generate.prompts_per_principle * len(session.constitution.principles))
    found = await red_team.collect(lambda done, total: session.show("red-team prompts", done, total))
    engine.sender.breaker.finish()  # a set that is short because the endpoint went down is not frozen
    _report_short(found, session)
    shares = SplitShares(recipe.generate.held_out_fraction, recipe.generate.sft_fraction, recipe.seed)
    splits = assign_splits(((draft.principle_id, draft.id) for draft in found.drafts), shares)
    order = {principle.id: index for index, principle in enumerate(session.constitution.principles)}
    prompts = [
        RedTeamPrompt(
            id=draft.id,
            principle_id=draft.principle_id,
            prompt=draft.prompt,
            split=splits[draft.id],
            model=engine.endpoint.model,
            prompt_version=wording.PROMPT_VERSION,
            sample_index=draft.sample_index,
        )
        for draft in sorted(found.drafts, key=lambda draft: order[draft.principle_id])
    ]
    write_records(session.folder / "dropped_prompts.jsonl", found.dropped)
    write_records(session.folder / "failed_prompts.jsonl", found.failures)
    write_records(session.folder / "prompts.jsonl", prompts)  # last: from here on the set is frozen
    return prompts


def _report_short(found: Collected, session: Session) -> None:
    wanted = session.context.recipe.generate.prompts_per_principle
    for principle in session.constitution.principles:
        count = found.count(principle.id)
        if count < wanted:
            asked = found.requests.get(principle.id, 0)
            say(f"generate: {principle.id} has {count} of {wanted} prompts after {asked} requests")


def _initial(session: Session, prompts: list[RedTeamPrompt]) -> Initial:
    settings = session.context.recipe.initial
    sampling = Sampling(settings.temperature, settings.top_p, session.context.recipe.seed)
    if settings.endpoint == "teacher":
        return Initial(f"{session.endpoints.teacher.model} (invented)", sampling)
    if settings.endpoint != "file":
        return Initial(settings.model, sampling, student=session.student)
    path = session.context.folder / "initial" / "responses.jsonl"
    first = f"Run: {session.context.command('initial')}, then: {session.rerun} (in containers, make sft does both)"
    if not path.exists():
        raise ConfigError(f"initial.endpoint is file, but {path} does not exist; the prompts are frozen. {first}")
    responses = [response for response in read_records(path, Response) if response.system == "base"]
    texts = {response.id: response for response in responses}
    missing = [prompt.id for prompt in prompts if prompt.id not in texts]
    if missing:
        raise ConfigError(f"{path} lacks {len(missing)} of {len(prompts)} prompts, first {missing[0]}. {first}")
    return Initial(responses[0].model if responses else settings.model, sampling, texts=texts)
