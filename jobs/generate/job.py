"""Write red-team prompts, critiques, revisions and preference pairs: `cai generate`.

    prompts.jsonl ─► initial response ─► critique ─► revision ─► judge ─► balance ─► sft, pairs, held_out*.jsonl, data/
    (frozen, split)                       └── again where it does not win ──┘         (the rest: dropped and failures)

Every reply is journalled when it arrives. A stopped run goes on where it was; a finished one is not asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from jobs.common.console import StageProgress, say
from jobs.common.errors import ConfigError
from jobs.common.jsonl import sha256_file
from jobs.common.manifest import finished_manifest
from jobs.common.stage import OpenStage, RunContext, StagePlan, open_stage
from jobs.generate import opening, wording, wording_judge, wording_rewrite

if TYPE_CHECKING:
    from jobs.generate.session import Session

NOT_INGREDIENTS = {
    "mode",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_s",
    "max_attempts",
    "price",
}
"""Keys of the teacher section that cannot change a row."""


def run(context: RunContext) -> None:
    """Run the generate stage.

    Raises:
        ConfigError: no key for a remote endpoint, no price for a capped one, or initial responses are missing.
        DataError: no row was kept; says why.
        UnavailableError: an endpoint is down or refuses.
        StoppedError: SIGTERM or the budget; the same command goes on.
    """
    _refuse_other_initial_responses(context)
    with open_stage(context, _plan(context)) as stage:
        if stage is not None:
            _generate(stage)


def run_prompts(context: RunContext) -> None:
    """Freeze the red-team prompts and end there, for `initial.endpoint: file`: the student answers them next.

    Raises:
        JobError: as `run`.
    """
    if context.recipe.initial.endpoint != "file":
        say(f"prompts: initial.endpoint is {context.recipe.initial.endpoint}; generate writes the prompts itself")
        return
    with open_stage(context, _plan(context)) as stage:
        if stage is None:
            return
        frozen = stage.folder / "prompts.jsonl"
        if frozen.exists():
            say(f"prompts: already frozen ({frozen})")
            return
        from jobs.generate.pipeline import freeze_prompts
        from jobs.generate.signals import run_until_stopped

        with open_session(stage) as session, session.progress:
            prompts = run_until_stopped(freeze_prompts(session), session.rerun, session.drain)
        say(f"prompts: {len(prompts)} red-team prompts in {frozen}. Next: {context.command('initial')}")


def _plan(context: RunContext) -> StagePlan:
    return StagePlan("generate", _ingredients(context), parents=("fetch",), lock="cpu")


def _initial_responses_sha256(context: RunContext) -> str | None:
    path = context.folder / "initial" / "responses.jsonl"
    used = context.recipe.initial.endpoint == "file" and path.exists()
    return sha256_file(path) if used else None


def _refuse_other_initial_responses(context: RunContext) -> None:
    # They are written after the prompts are frozen, so a fingerprint taken before cannot hold them.
    manifest = context.folder / "generate" / "manifest.json"
    if context.redo or context.recipe.initial.endpoint != "file" or not manifest.exists():
        return
    before = finished_manifest(context, "generate")["measures"].get("initial_responses_sha256")
    if before != _initial_responses_sha256(context):
        raise ConfigError(
            f"{context.folder / 'initial' / 'responses.jsonl'} changed since generate finished. "
            f"Run: {context.command('generate', '--redo')}"
        )


def _ingredients(context: RunContext) -> dict[str, Any]:
    recipe, constitution = context.recipe, context.constitution()
    return {
        "teacher": recipe.teacher.model_dump(mode="json", exclude=NOT_INGREDIENTS),
        "initial": recipe.initial.model_dump(mode="json", exclude={"price"}),
        "generate": recipe.generate.model_dump(mode="json"),
        "judge": recipe.judge.model_dump(mode="json"),
        "seed": recipe.seed,
        "constitution": {"name": constitution.name, "sha256": constitution.sha256},
        "prompt_version": wording.PROMPT_VERSION,
        "judge_version": wording_judge.JUDGE_VERSION,
        "rewrite_version": wording_rewrite.REWRITE_VERSION,
        "endpoints": opening.logical_endpoints(recipe),
    }


def _generate(stage: OpenStage) -> None:
    # Late, because a finished stage must not wait for openai.
    from jobs.generate.pipeline import make_chains
    from jobs.generate.results import finish
    from jobs.generate.signals import run_until_stopped

    with open_session(stage) as session:
        with session.progress:
            prompts, chained = run_until_stopped(make_chains(session), session.rerun, session.drain)
        finish(stage, session, prompts, chained)


@contextmanager
def open_session(stage: OpenStage, *, with_student: bool = True) -> Iterator[Session]:
    """Everything the part of a stage that asks needs, open.

    Raises:
        ConfigError: no key for a remote endpoint, no price for a capped one, or no weights.
    """
    from jobs.generate.accounts import open_budget, tariffs
    from jobs.generate.journal import open_journal
    from jobs.generate.session import Session

    context, name = stage.context, stage.plan.name
    opened = opening.open_endpoints(context, with_student=with_student)
    with closing(open_journal(context.journal)) as journal, opened as endpoints:
        if journal.damaged:
            say(f"{name}: {journal.path} has {journal.damaged} damaged lines; what they held is asked again")
        prices = tariffs(context, endpoints)
        budget = open_budget(context, journal, endpoints, prices, context.command(name))
        progress, constitution = StageProgress(name, stage.folder), context.constitution()
        yield Session(context, constitution, endpoints, journal, progress, stage.folder, prices, budget, name)
