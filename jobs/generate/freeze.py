"""The prompt set of a run: asked for once, split by near-duplicate cluster, and frozen before anything is written."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from jobs.common.console import say
from jobs.common.constitution import Constitution
from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_records, write_records
from jobs.common.ledger import overlapping
from jobs.common.records import RedTeamPrompt
from jobs.common.split import SplitShares, assign_splits
from jobs.generate import wording
from jobs.generate.briefs import lacking
from jobs.generate.engine import Engine
from jobs.generate.red_team import Collected, RedTeam
from jobs.generate.session import Session
from jobs.generate.slots import Draft
from jobs.generate.twins import FoundTwins, TwinWriter
from jobs.measure.findings import Near
from jobs.measure.near import clusters, near_pairs


async def frozen_prompts(session: Session, engine: Engine) -> list[RedTeamPrompt]:
    """The run's prompts: those frozen before, or asked for and frozen now.

    Raises:
        ConfigError: `generate.held_out_principles` names a principle that does not exist.
        UnavailableError: the endpoint cannot be used.
    """
    check_held_out(session.context.recipe.generate.held_out_principles, session.constitution)
    path = session.folder / "prompts.jsonl"
    return read_records(path, RedTeamPrompt) if path.exists() else await _ask_for_prompts(session, engine)


def check_held_out(held_out: Sequence[str], constitution: Constitution) -> None:
    """Every principle that should be held out exists.

    Raises:
        ConfigError: one does not; names the nearest.
    """
    known = [principle.id for principle in constitution.principles]
    for name in held_out:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
            raise ConfigError(f"generate.held_out_principles: {constitution.name} has no principle {name!r}. {advice}")


async def _ask_for_prompts(session: Session, engine: Engine) -> list[RedTeamPrompt]:
    settings = session.context.recipe.generate
    asked = (engine, session.constitution, settings, session.sampling, session.failed)
    session.show("red-team prompts", 0, settings.prompts_per_principle * len(session.constitution.principles))
    found = await RedTeam(*asked).collect(lambda done, total: session.show("red-team prompts", done, total))
    drafts, twins = found.drafts, FoundTwins()
    if settings.benign_twins:
        session.show("benign twins", 0, len(drafts))
        twins = await TwinWriter(*asked).write(
            drafts, found.distinct, lambda done, total: session.show("benign twins", done, total)
        )
    engine.sender.breaker.finish()  # a set that is short because the endpoint went down is not frozen
    _report_short(found, session)
    _report_alone(twins, len(drafts))
    twin_of = {twin.twin_of: twin for twin in twins.twins}
    both = [one for draft in drafts for one in (draft, twin_of.get(draft.id)) if one]
    prompts = _split(both, session, engine.endpoint.model)
    write_records(session.folder / "dropped_prompts.jsonl", [*found.dropped, *twins.dropped])
    write_records(session.folder / "failed_prompts.jsonl", [*found.failures, *twins.failures])
    write_records(session.folder / "prompts.jsonl", prompts)  # last: from here on the set is frozen
    return prompts


def _split(drafts: Sequence[Draft], session: Session, model: str) -> list[RedTeamPrompt]:
    """The prompts with cluster and split; near-duplicates and siblings are on one side of it."""
    recipe = session.context.recipe
    families = [draft.twin_of or draft.id for draft in drafts]
    texts = [draft.prompt for draft in drafts]
    links = near_pairs(texts, families)
    # What training would refuse as near a held-out prompt must not be divided either.
    links += [Near(one, other, "exact", 1.0) for one, other in overlapping(texts)]
    numbers = clusters(len(drafts), links, families)
    first = {number: draft.id for number, draft in reversed(list(zip(numbers, drafts, strict=True)))}
    cluster_of = {draft.id: first[number] for number, draft in zip(numbers, drafts, strict=True)}
    splits = assign_splits(
        ((draft.principle_id, draft.id) for draft in drafts),
        SplitShares(recipe.generate.held_out_fraction, recipe.generate.sft_fraction, recipe.seed),
        cluster_of=cluster_of,
        held_out_principles=recipe.generate.held_out_principles,
    )
    return [
        RedTeamPrompt(
            id=draft.id,
            principle_id=draft.principle_id,
            prompt=draft.prompt,
            split=splits[draft.id],
            model=model,
            prompt_version=wording.PROMPT_VERSION,
            sample_index=draft.sample_index,
            kind=draft.kind,
            twin_of=draft.twin_of,
            language=draft.brief.language,
            brief=dict(draft.brief.values),
            cluster=cluster_of[draft.id],
        )
        for draft in drafts
    ]


def _report_short(found: Collected, session: Session) -> None:
    wanted = session.context.recipe.generate.prompts_per_principle
    for slots in found.slots:
        if not slots.open:
            continue
        ends = " and the teacher gives no more" if slots.gave_up else ""
        missing = lacking(slots.briefs, [slots.briefs[number] for number in slots.open])
        named = f"; missing: {', '.join(missing)}" if missing else ""
        say(
            f"generate: {slots.principle.id} has {len(slots.filled)} of {wanted} prompts "
            f"after {slots.requests} requests{ends}{named}"
        )


def _report_alone(twins: FoundTwins, wanted: int) -> None:
    alone = len(twins.dropped) + len(twins.failures)
    if alone:
        say(f"generate: {alone} of {wanted} red-team prompts have no benign twin: none of the replies was one")
