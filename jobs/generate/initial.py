"""Initial responses: a file, the student's endpoint, or the teacher's invention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jobs.common.constitution import Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.common.held_out import Response
from jobs.common.records import RedTeamPrompt
from jobs.generate import wording
from jobs.generate.ask import ask_text, together
from jobs.generate.engine import Engine, RefusedError
from jobs.generate.faults import Fault
from jobs.generate.replies import Text, read_answer
from jobs.generate.requests import ChatRequest, Sampling


@dataclass(frozen=True)
class Initial:
    """Where initial responses come from."""

    model: str
    """Name written into every row; an invented response says so."""
    sampling: Sampling
    teacher: Engine
    settings: GenerateSettings
    samples: int = 1
    """Answers to each prompt."""
    student: Engine | None = None
    """The student's endpoint; None for `file` and `teacher`."""
    texts: Mapping[str, Response] | None = None
    """Answers by prompt id, for `file`."""

    async def ask(self, prompt: RedTeamPrompt, principle: Principle, lane: int) -> list[Text]:
        """The answers to a prompt; of several, those after the first that cannot be used are left out.

        Raises:
            RefusedError: there is no first answer.
            UnavailableError: the endpoint cannot be used.
        """
        if self.texts is not None:
            return [_from_file(self.texts[prompt.id], prompt)]
        if self.samples == 1:
            return [await self._sample(prompt, principle, 0, lane)]
        found = await together([self._or_none(prompt, principle, number, lane) for number in range(self.samples)])
        return [text for text in found if text]

    async def _or_none(self, prompt: RedTeamPrompt, principle: Principle, number: int, lane: int) -> Text | None:
        try:
            return await self._sample(prompt, principle, number, lane)
        except RefusedError:
            if number == 0:
                raise
            return None

    async def _sample(self, prompt: RedTeamPrompt, principle: Principle, number: int, lane: int) -> Text:
        student = self.student
        request = ChatRequest(
            step="initial",
            turns=wording.initial_turns(prompt.prompt) if student else wording.invented_turns(prompt.prompt, principle),
            max_tokens=self.settings.response_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=None if student else wording.RESPONSE,
            # A rejected reply is asked again under the next index: no two samples share one.
            sample_index=number * self.settings.tries,
            lane=lane,
        )
        return await ask_text(student or self.teacher, request, self.settings.tries)


def _from_file(answer: Response, prompt: RedTeamPrompt) -> Text:
    found = read_answer(answer.response, truncated=answer.truncated)
    if isinstance(found, Text):
        return found
    said = f"the student's answer in initial/responses.jsonl: {found.detail}"
    fault = Fault("refused", said, found.reason, body=answer.response)
    raise RefusedError(fault, {"prompt": prompt.prompt}, "initial")
