"""Write red-team prompts, critiques, revisions and preference pairs: `cai generate`.

    prompts.jsonl  ──►  initial response ─► critique ─► revision  ──►  sft.jsonl, pairs.jsonl, held_out*.jsonl, data/
    (frozen, split)     (one chat per prompt, all at once)             (kept; the rest is in dropped/failures.jsonl)

Every reply is journalled when it arrives. A stopped run goes on where it was; a finished one is not asked again.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import Any

from jobs.common.console import StageProgress, say
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_records, sha256_file
from jobs.common.records import Dropped, Failure, RedTeamPrompt
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, finished_manifest, open_stage
from jobs.generate import opening, wording

NOT_INGREDIENTS = {"concurrency", "timeout_s", "max_attempts", "price"}
"""Keys of the teacher section that cannot change a row."""


def run(context: RunContext) -> None:
    """Run the generate stage.

    Raises:
        ConfigError: no key for a remote endpoint, or initial responses are missing.
        DataError: no row was kept; says why.
        UnavailableError: an endpoint is down or refuses.
        StoppedError: SIGTERM; the same command goes on.
    """
    _refuse_other_initial_responses(context)
    plan = StagePlan("generate", _ingredients(context), parents=("fetch",), lock="cpu")
    with open_stage(context, plan) as stage:
        if stage is not None:
            _generate(stage)


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
        "initial": recipe.initial.model_dump(mode="json"),
        "generate": recipe.generate.model_dump(mode="json"),
        "seed": recipe.seed,
        "constitution": {"name": constitution.name, "sha256": constitution.sha256},
        "prompt_version": wording.PROMPT_VERSION,
        "endpoints": opening.logical_endpoints(recipe),
    }


def _generate(stage: OpenStage) -> None:
    # Late, because a finished stage must not wait for openai.
    from jobs.generate.journal import open_journal
    from jobs.generate.meter import Meter
    from jobs.generate.pipeline import Session, make_chains
    from jobs.generate.signals import run_until_stopped
    from jobs.generate.sorting import sort_chains

    context, recipe = stage.context, stage.context.recipe
    with closing(open_journal(context.journal)) as journal, opening.open_endpoints(context) as endpoints:
        if journal.damaged:
            say(f"generate: {journal.path} has {journal.damaged} damaged lines; what they held is asked again")
        with StageProgress("generate", stage.folder) as progress:
            embedded = endpoints.teacher.is_embedded
            session = Session(
                context,
                context.constitution(),
                endpoints,
                journal,
                progress,
                stage.folder,
                Meter(recipe.teacher.price, free=embedded),
                Meter(None),
            )
            prompts, chained = run_until_stopped(make_chains(session), session.rerun)
    _finish(stage, session, prompts, sort_chains(chained))


def _finish(stage: OpenStage, session: Any, prompts: list[RedTeamPrompt], rows: Any) -> None:
    from jobs.generate import tables

    dropped = [*read_records(stage.folder / "dropped_prompts.jsonl", Dropped), *rows.dropped]
    failures = [*read_records(stage.folder / "failed_prompts.jsonl", Failure), *rows.failures]
    outputs = tables.write_leftovers(stage.folder, dropped, failures)
    by_reason = Counter(one.drop_reason for one in dropped)
    by_failure = Counter(f"{one.step} {one.reason}" for one in failures)
    if not rows.kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in (by_reason + by_failure).most_common())
        raise DataError(
            f"{stage.folder}: not one row was kept of {len(prompts)} prompts ({reasons or 'no prompt was accepted'}). "
            f"Look at dropped.jsonl and failures.jsonl there; a stronger teacher.model usually helps."
        )
    outputs += tables.write_rows(stage.folder, prompts, rows.kept)
    counts = rows.counts(prompts) | {"failures": len(failures)}
    recipe, meter = stage.context.recipe, session.teacher_meter
    tokens = {name: count + session.student_meter.tokens()[name] for name, count in meter.tokens().items()}
    measures = {
        "teacher": session.endpoints.teacher.model,
        "teacher_endpoint": session.endpoints.teacher.logical,
        "initial_kind": "url" if "://" in recipe.initial.endpoint else recipe.initial.endpoint,
        "initial_model": rows.kept[0].initial_model,
        "initial_responses_sha256": _initial_responses_sha256(stage.context),
        "cost": meter.money(),
        "new_cost_usd": meter.cost_usd(meter.new),
        "failures_by_reason": dict(by_failure),
    }
    stage.finish(Result(outputs, counts, dict(by_reason), tokens, cost_usd=meter.total_usd, measures=measures))
    _say_done(stage, counts, by_reason, tokens, meter.money())


def _say_done(
    stage: OpenStage, counts: dict[str, int], dropped: dict[str, int], tokens: dict[str, int], money: str
) -> None:
    context = stage.context
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    say(
        f"generate: {counts['sft']} SFT rows, {counts['pairs']} pairs, {counts['held_out_prompts']} held-out prompts "
        f"of {counts['prompts']} prompts; dropped: {reasons or 'none'}; {counts['failures']} failures; "
        f"{tokens['prompt_tokens']} tokens in, {tokens['reply_tokens']} out; {money}"
    )
    if context.recipe.teacher.endpoint == "embedded":
        say(
            "generate: a 135M teacher shows the machinery, not quality. A real run, with a key in OPENAI_API_KEY: "
            "cai fetch --recipe smollm2-135m && cai generate --recipe smollm2-135m"
        )
