"""The end of the stage: chains through the filters, into files and the manifest."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.jsonl import read_records, sha256_file, write_atomic
from jobs.common.records import Dropped, Failure, RedTeamPrompt
from jobs.common.stage import OpenStage, Result
from jobs.generate import tables
from jobs.generate.accounts import account
from jobs.generate.card import card
from jobs.generate.chain import Chained
from jobs.generate.meter import money
from jobs.generate.session import Session
from jobs.generate.sorting import Sorted, judged, sort_chains


def finish(stage: OpenStage, session: Session, prompts: list[RedTeamPrompt], chained: list[Chained | Failure]) -> None:
    """Sort the chains, write every file and the manifest.

    Raises:
        DataError: no row was kept; says why.
    """
    rows = sort_chains(chained)
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
    outputs += tables.write_rows(stage.folder, prompts, rows.kept, rows.pairs, rows.comparisons)
    counts = rows.counts(prompts) | {"failures": len(failures)}
    measures = _measures(session, rows, by_failure)
    outputs.append(stage.folder / "data" / "README.md")
    write_atomic(outputs[-1], card(session.constitution, counts, by_reason, measures).encode())
    tokens: Counter[str] = Counter()
    for meter in session.meters:
        tokens.update(meter.tokens())
    result = Result(
        outputs,
        counts,
        dict(by_reason),
        dict(tokens),
        cost_usd=_rows_usd(session),
        measures=measures,
    )
    stage.finish(result)
    _say_done(stage, session, result)


def _measures(session: Session, rows: Sorted, by_failure: Counter[str]) -> dict[str, Any]:
    recipe, teacher = session.context.recipe, session.endpoints.teacher
    answers = session.context.folder / "initial" / "responses.jsonl"
    price = recipe.teacher.price
    return {
        "teacher": teacher.model,
        "teacher_endpoint": teacher.logical,
        "teacher_mode": recipe.teacher.mode,
        "languages": recipe.generate.languages,
        "initial_kind": "url" if "://" in recipe.initial.endpoint else recipe.initial.endpoint,
        "initial_model": rows.kept[0].initial_model,
        "initial_responses_sha256": sha256_file(answers) if recipe.initial.endpoint == "file" else None,
        "account": account(session.context, session.journal, session.prices),
        "prices_dated": price.dated if price else None,
        "failures_by_reason": dict(by_failure),
        "judge_rule": recipe.judge.rule,
        **judged(rows.comparisons, rows.kept),
    }


def _rows_usd(session: Session) -> float | None:
    """What the replies behind the rows cost, whoever paid them and when."""
    costs = [meter.total_usd for meter in session.meters]
    return None if None in costs else sum(cost or 0.0 for cost in costs)


def _verdicts(result: Result) -> str:
    """What the judge said, in words; nothing where nobody judged."""
    said = result.measures["verdicts"]
    return f"judge: {', '.join(f'{count} {verdict}' for verdict, count in said.items())}; " if said else ""


def _say_done(stage: OpenStage, session: Session, result: Result) -> None:
    context, counts, tokens = stage.context, result.counts, result.tokens
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(result.dropped.items()))
    price = context.recipe.teacher.price
    paid = money(result.cost_usd, price.dated if price else None, free=all(one.tariff.free for one in session.meters))
    say(
        f"generate: {counts['sft']} SFT rows, {counts['pairs']} pairs, {counts['held_out_prompts']} held-out prompts "
        f"of {counts['prompts']} prompts; {_verdicts(result)}dropped: {reasons or 'none'}; "
        f"{counts['failures']} failures; "
        f"{tokens['prompt_tokens']} tokens in, {tokens['reply_tokens']} out; {paid}"
    )
    if counts["failures"]:
        say(
            f"generate: {counts['failures']} failed items are in {stage.folder / 'failures.jsonl'}, each with request, "
            f"status and advice. With that done, only they are asked again by: {context.command('generate', '--redo')}"
        )
    lost = result.measures["account"]["lost_requests"]
    if lost:
        say(f"generate: {lost} requests never got their reply; manifest.json lists them, each at its worst case")
    if context.recipe.teacher.endpoint == "embedded":
        say(
            "generate: a 135M teacher shows the machinery, not quality. A real run, with a key in OPENAI_API_KEY: "
            "cai fetch --recipe smollm2-135m && cai generate --recipe smollm2-135m"
        )
