"""Ask again for the rows that break a gate of the data report, and give up by name what stays broken: `cai repair`.

    generate's rows ─► measure ─► one copy of each prompt, one split for each cluster ─► ask ─► measure ─► … ─► give up

It aims below the gates that stop a run (`repair_choose.targets`), so that what it leaves is not just under them. The
same files as generate's are written below `repair/`; every later stage reads those. A reply is journalled when it
comes: a stopped repair goes on where it was, and one that is redone asks nothing twice.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from jobs.common.console import say
from jobs.common.errors import ConfigError, DataError
from jobs.common.manifest import finished_manifest
from jobs.common.stage import OpenStage, RunContext, StagePlan, open_stage
from jobs.generate import opening, wording_judge, wording_rewrite
from jobs.generate.job import NOT_INGREDIENTS, open_session

if TYPE_CHECKING:
    from jobs.generate.repair_rounds import Repair
    from jobs.generate.session import Session


def run(context: RunContext) -> None:
    """Run the repair stage.

    Raises:
        ConfigError: generate has not finished, no key for a remote endpoint, or the embedded model as the teacher of
            rows that others wrote; nothing is left behind.
        DataError: a gate of the recipe still fails; the files are written, and the line says why.
        UnavailableError: an endpoint is down or refuses.
        StoppedError: SIGTERM or the budget; the same command goes on.
    """
    with open_stage(context, _plan(context)) as stage:
        if stage is not None:
            with _nothing_left_where_refused(stage):
                _repair(stage)
    _stop_where_gates_fail(context)
    if stage is not None:
        say(f"repair: next: {_audit(context)}")


def _plan(context: RunContext) -> StagePlan:
    recipe, constitution = context.recipe, context.constitution()
    ingredients = {
        "teacher": recipe.teacher.model_dump(mode="json", exclude=NOT_INGREDIENTS),
        "generate": recipe.generate.model_dump(mode="json"),
        "judge": recipe.judge.model_dump(mode="json"),
        "audit": recipe.audit.model_dump(mode="json", exclude={"on_failure"}),
        "seed": recipe.seed,
        "constitution": {"name": constitution.name, "sha256": constitution.sha256},
        "judge_version": wording_judge.JUDGE_VERSION,
        "rewrite_version": wording_rewrite.REWRITE_VERSION,
        "endpoints": opening.logical_endpoints(recipe),
    }
    return StagePlan("repair", ingredients, parents=("generate",), lock="cpu")


@contextmanager
def _nothing_left_where_refused(stage: OpenStage) -> Iterator[None]:
    """Takes back the start of a stage that the recipe or the environment forbids: generate's rows stay in use."""
    is_new = [path.name for path in stage.folder.iterdir()] == ["begun.json"]
    try:
        yield
    except ConfigError:
        if is_new:
            shutil.rmtree(stage.folder)
        raise


def _repair(stage: OpenStage) -> None:
    # Late, because a finished stage must not wait for scikit-learn.
    from jobs.generate.repair_report import finish
    from jobs.generate.repair_rounds import Repair
    from jobs.generate.signals import run_until_stopped

    repair = Repair(stage.context, stage.folder)
    if not repair.has_work:
        few = f", but for {', '.join(repair.too_few)} on too few rows to tell" if repair.too_few else ""
        say(f"repair: every gate is at its target{few}; the rows stay as generate wrote them")
        finish(stage, repair, None)
        return
    repair.tidy()
    if not repair.must_ask:
        repair.give_up()
        finish(stage, repair, None)
        return
    _refuse_a_weaker_writer(repair)
    with open_session(stage, with_student=False) as session:  # no student is asked
        with session.progress:
            run_until_stopped(_ask(session, repair), session.rerun, session.drain)
        repair.give_up()
        finish(stage, repair, session)


def _refuse_a_weaker_writer(repair: Repair) -> None:
    """The embedded model mends its own rows only: what others wrote would become worse."""
    context = repair.context
    teacher = context.recipe.teacher
    others = Counter(row.record.model for row in repair.rows.rows.values() if row.record.model != teacher.model)
    if teacher.endpoint == "embedded" and others:
        ((writer, _),) = others.most_common(1)
        raise ConfigError(
            f"Rows of {context.folder / 'generate'} were written by {writer!r}, and the embedded teacher "
            f"{teacher.model!r} would rewrite them. Name a recipe whose teacher is as strong as their writer, such as: "
            f"{context.command('repair', '--recipe smollm2-135m')}"
        )


async def _ask(session: Session, repair: Repair) -> None:
    async with AsyncExitStack() as stack:
        teacher = await session.connect(stack)
        await repair.ask(session, teacher)
        for one in session.engines:
            one.sender.breaker.finish()


def _stop_where_gates_fail(context: RunContext) -> None:
    failed: list[str] = finished_manifest(context, "repair")["measures"]["failed_gates"]
    if failed and context.recipe.audit.on_failure == "stop":
        raise DataError(
            f"{context.folder / 'repair'}: the data still fails {', '.join(failed)}. See the rows: "
            f"{_audit(context)}; a stronger teacher.model usually helps."
        )


def _audit(context: RunContext) -> str:
    """The command that reports on the repaired rows; an earlier report is of generate's."""
    is_older = (context.folder / "audit" / "manifest.json").exists()
    return context.command("audit", *(["--redo"] if is_older else []))
