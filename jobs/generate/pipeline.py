"""The asynchronous part of the stage: prompts, then chains."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from jobs.common.console import StageProgress, say
from jobs.common.constitution import Constitution
from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_records, write_records
from jobs.common.records import Failure, RedTeamPrompt, Response
from jobs.common.split import SplitShares, assign_splits
from jobs.common.stage import RunContext
from jobs.generate import wording
from jobs.generate.chain import Chained, Chains, Initial
from jobs.generate.journal import Journal
from jobs.generate.meter import Meter, figures
from jobs.generate.opening import Endpoints
from jobs.generate.red_team import Collected, RedTeam
from jobs.generate.requests import Sampling
from jobs.generate.teacher import Limits, Teacher, connect


@dataclass
class Session:
    """Everything one run of the stage holds while it asks."""

    context: RunContext
    constitution: Constitution
    endpoints: Endpoints
    journal: Journal
    progress: StageProgress
    folder: Path
    teacher_meter: Meter
    student_meter: Meter

    @property
    def rerun(self) -> str:
        """The command that goes on later."""
        return self.context.command("generate")

    @property
    def sampling(self) -> Sampling:
        """The teacher's sampling."""
        teacher = self.context.recipe.teacher
        return Sampling(teacher.temperature, teacher.top_p, self.context.recipe.seed)

    @property
    def meters(self) -> list[Meter]:
        """The meters in use, the teacher's first."""
        return [self.teacher_meter, self.student_meter]

    def show(self, step: str, done: int, total: int) -> None:
        """Show progress with speed, tokens and cost."""
        self.progress.update(step, done, total, figures(self.meters))


async def make_chains(session: Session) -> tuple[list[RedTeamPrompt], list[Chained | Failure]]:
    """Freeze the prompt set, then run every chain.

    Raises:
        ConfigError: initial responses should come from a file that is not there.
        UnavailableError: an endpoint cannot be used.
    """
    async with AsyncExitStack() as stack:
        teacher, student = await _connect(session, stack)
        prompts = await _freeze_prompts(session, teacher)
        recipe = session.context.recipe
        chains = Chains(
            teacher, _initial(session, student, prompts), session.constitution, recipe.generate, session.sampling
        )
        return prompts, await chains.run(prompts, lambda done, total: session.show("chains", done, total))


async def _connect(session: Session, stack: AsyncExitStack) -> tuple[Teacher, Teacher | None]:
    settings, endpoints = session.context.recipe.teacher, session.endpoints
    limits = Limits(settings.concurrency, settings.timeout_s, settings.max_attempts, session.rerun)
    teacher = await stack.enter_async_context(
        connect(endpoints.teacher, limits, session.journal, session.teacher_meter)
    )
    if endpoints.student is None:
        return teacher, None
    if endpoints.student == endpoints.teacher:
        return teacher, teacher
    student = connect(endpoints.student, limits, session.journal, session.student_meter)
    return teacher, await stack.enter_async_context(student)


async def _freeze_prompts(session: Session, teacher: Teacher) -> list[RedTeamPrompt]:
    path = session.folder / "prompts.jsonl"
    if path.exists():
        return read_records(path, RedTeamPrompt)
    recipe = session.context.recipe
    red_team = RedTeam(teacher, session.constitution, recipe.generate, session.sampling)
    found = await red_team.collect(lambda done, total: session.show("red-team prompts", done, total))
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
            model=session.endpoints.teacher.model,
            prompt_version=wording.PROMPT_VERSION,
            sample_index=draft.sample_index,
        )
        for draft in sorted(found.drafts, key=lambda draft: order[draft.principle_id])
    ]
    write_records(session.folder / "dropped_prompts.jsonl", found.dropped)
    write_records(session.folder / "failed_prompts.jsonl", found.failures)
    write_records(path, prompts)  # last: from here on the set is frozen
    return prompts


def _report_short(found: Collected, session: Session) -> None:
    wanted = session.context.recipe.generate.prompts_per_principle
    for principle in session.constitution.principles:
        count = found.count(principle.id)
        if count < wanted:
            asked = found.requests.get(principle.id, 0)
            say(f"generate: {principle.id} has {count} of {wanted} prompts after {asked} requests")


def _initial(session: Session, student: Teacher | None, prompts: list[RedTeamPrompt]) -> Initial:
    settings = session.context.recipe.initial
    sampling = Sampling(settings.temperature, settings.top_p, session.context.recipe.seed)
    if settings.endpoint == "teacher":
        return Initial(f"{session.endpoints.teacher.model} (invented)", sampling)
    if settings.endpoint != "file":
        return Initial(settings.model, sampling, student=student)
    path = session.context.folder / "initial" / "responses.jsonl"
    first = f"Run: {session.context.command('initial')}, then: {session.rerun}"
    if not path.exists():
        raise ConfigError(f"initial.endpoint is file, but {path} does not exist; the prompts are frozen. {first}")
    responses = [response for response in read_records(path, Response) if response.system == "base"]
    texts = {response.id: response.response for response in responses}
    missing = [prompt.id for prompt in prompts if prompt.id not in texts]
    if missing:
        raise ConfigError(f"{path} lacks {len(missing)} of {len(prompts)} prompts, first {missing[0]}. {first}")
    return Initial(responses[0].model if responses else settings.model, sampling, texts=texts)
