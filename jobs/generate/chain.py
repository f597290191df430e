"""One chain per prompt: initial response, critique turn, revision turn, as one real chat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from jobs.common.constitution import Constitution
from jobs.common.generate_settings import GenerateSettings
from jobs.common.records import Failure, RedTeamPrompt, Response, Revision
from jobs.generate import wording
from jobs.generate.ask import ask_text, failure_of, together
from jobs.generate.engine import Engine, RefusedError
from jobs.generate.faults import Fault
from jobs.generate.filters import revision_fault
from jobs.generate.replies import Text, read_answer
from jobs.generate.requests import ChatRequest, Sampling, Schema, Step, Turn


@dataclass(frozen=True)
class Initial:
    """Where initial responses come from: a file, the student's endpoint, or the teacher's invention."""

    model: str
    """Name written into every row; an invented response says so."""
    sampling: Sampling
    student: Engine | None = None
    """The student's endpoint; None for `file` and `teacher`."""
    texts: Mapping[str, Response] | None = None
    """Answers by prompt id, for `file`."""


@dataclass(frozen=True)
class Chained:
    """A finished chain."""

    revision: Revision
    trimmed: int
    """How many of its texts were cut off and trimmed to whole sentences."""


@dataclass(frozen=True)
class Chains:
    """Everything a chain needs beside its prompt."""

    teacher: Engine
    initial: Initial
    constitution: Constitution
    settings: GenerateSettings
    sampling: Sampling
    failed: Callable[[Failure], None]
    """Told of every chain that failed, as it happens."""

    async def run(self, prompts: list[RedTeamPrompt], progress: Callable[[int, int], None]) -> list[Chained | Failure]:
        """Run every prompt's chain, in the prompts' order.

        Args:
            prompts: the frozen prompts.
            progress: called with chains done and wanted.

        Raises:
            UnavailableError: an endpoint cannot be used.
        """
        waiting = list(enumerate(prompts))[::-1]
        done: dict[int, Chained | Failure] = {}

        async def work(lane: int) -> None:
            # A lane ends one chain before it takes the next: its server still holds the chat so far.
            while waiting:
                index, prompt = waiting.pop()
                done[index] = await self._chain(prompt, lane)
                progress(len(done), len(prompts))

        await together([work(lane) for lane in range(min(self.teacher.lanes, len(prompts)))])
        return [done[index] for index in range(len(prompts))]

    async def _chain(self, prompt: RedTeamPrompt, lane: int) -> Chained | Failure:
        step: Step = "initial"
        principle = self.constitution.principle(prompt.principle_id)
        try:
            initial = await self._initial(prompt, lane)
            step = "critique"
            before = wording.demonstration_turns(self.constitution, self.settings.few_shot)
            turns = wording.critique_turns(before, prompt.prompt, initial.text, principle)
            critique = await ask_text(
                self.teacher, self._request("critique", turns, wording.CRITIQUE, lane), self.settings.tries
            )
            step = "revision"
            turns = wording.revision_turns(turns, critique.text, principle)
            revision = await ask_text(
                self.teacher,
                self._request("revision", turns, wording.REVISION, lane),
                self.settings.tries,
                fault=partial(revision_fault, initial.text, critique.text),
            )
        except RefusedError as error:
            failure = failure_of(error, prompt.id, principle.id, step)
            self.failed(failure)
            return failure
        record = Revision(
            id=prompt.id,
            principle_id=principle.id,
            prompt=prompt.prompt,
            split=prompt.split,
            initial_response=initial.text,
            critique_request=principle.critique_request,
            critique=critique.text,
            revision_request=principle.revision_request,
            revision=revision.text,
            initial_model=self.initial.model,
            model=self.teacher.endpoint.model,
            prompt_version=wording.PROMPT_VERSION,
        )
        return Chained(record, trimmed=sum(text.trimmed for text in (initial, critique, revision)))

    async def _initial(self, prompt: RedTeamPrompt, lane: int) -> Text:
        if self.initial.texts is not None:
            answer = self.initial.texts[prompt.id]
            found = read_answer(answer.response, truncated=answer.truncated)
            if isinstance(found, Text):
                return found
            said = f"the student's answer in initial/responses.jsonl: {found.detail}"
            raise RefusedError(Fault("refused", said, found.reason, body=answer.response), {"prompt": prompt.prompt})
        principle = self.constitution.principle(prompt.principle_id)
        student = self.initial.student
        request = ChatRequest(
            step="initial",
            turns=wording.initial_turns(prompt.prompt) if student else wording.invented_turns(prompt.prompt, principle),
            max_tokens=self.settings.response_tokens,
            sampling=self.initial.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=None if student else wording.RESPONSE,
            lane=lane,
        )
        return await ask_text(student or self.teacher, request, self.settings.tries)

    def _request(self, step: Step, turns: tuple[Turn, ...], schema: Schema, lane: int) -> ChatRequest:
        return ChatRequest(
            step=step,
            turns=turns,
            max_tokens=self.settings.critique_tokens if step == "critique" else self.settings.response_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=schema,
            lane=lane,
        )
