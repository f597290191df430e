"""The prompt set of a run: asked for once, split, and frozen before anything is written about it."""

from __future__ import annotations

from jobs.common.console import say
from jobs.common.jsonl import read_records, write_records
from jobs.common.records import RedTeamPrompt
from jobs.common.split import SplitShares, assign_splits
from jobs.generate import wording
from jobs.generate.engine import Engine
from jobs.generate.red_team import Collected, RedTeam
from jobs.generate.session import Session


async def frozen_prompts(session: Session, engine: Engine) -> list[RedTeamPrompt]:
    """The run's prompts: those frozen before, or asked for and frozen now.

    Raises:
        UnavailableError: the endpoint cannot be used.
    """
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
