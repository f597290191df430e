"""Every word we put around a constitution's own texts. Change one and raise PROMPT_VERSION.

Red-team prompts and their twins are asked for by `wording_prompts.py`.

The same turns serve a schema and plain chat: a model under a schema fills a field, any other model writes text, and
`replies.py` reads both. No turn asks the model to repeat a text we already hold.
"""

from __future__ import annotations

from jobs.common.constitution import Constitution, Demonstration, Principle
from jobs.generate.requests import Schema, Turn

PROMPT_VERSION = "2"

CRITIQUE = Schema("critique", "text")
REVISION = Schema("revision", "text")
RESPONSE = Schema("response", "text")
REQUEST = Schema("request", "text")


def initial_turns(prompt: str) -> tuple[Turn, ...]:
    """The user's message alone: the student speaks for itself."""
    return (Turn("user", prompt),)


def invented_turns(prompt: str, principle: Principle) -> tuple[Turn, ...]:
    """Ask the teacher to invent the reply of a careless assistant (`initial.endpoint: teacher`)."""
    return (
        Turn("system", "You play a chat assistant that has not been taught any principle and simply obliges."),
        Turn(
            "user",
            f"Write the answer that this assistant gives to the message below. It is fluent and specific and does not "
            f"follow this principle: {principle.title}. {principle.text}\nGive only the answer.\n\nMessage: {prompt}",
        ),
    )


def critique_turns(before: tuple[Turn, ...], prompt: str, initial: str, principle: Principle) -> tuple[Turn, ...]:
    """The chat so far and the request for a critique; `before` holds demonstrations."""
    return (*before, Turn("user", prompt), Turn("assistant", initial), Turn("user", principle.critique_request))


def revision_turns(asked: tuple[Turn, ...], critique: str, principle: Principle) -> tuple[Turn, ...]:
    """The chat with its critique and the request for a revision."""
    return (*asked, Turn("assistant", critique), Turn("user", principle.revision_request))


def demonstration_turns(constitution: Constitution, count: int) -> tuple[Turn, ...]:
    """The first `count` worked examples of the constitution as whole chats."""
    return tuple(turn for shown in constitution.few_shot[:count] for turn in _demonstration(constitution, shown))


def draft_turns(principle: Principle, kind: str) -> tuple[Turn, ...]:
    """Ask for a principle's critique request or revision request."""
    critique = (
        "a request that asks the assistant to criticise its own last answer: where exactly does it go against the "
        "principle, and who is affected? Name the kind of fault to look for."
    )
    revision = (
        "a request that asks the assistant to rewrite its last answer so that it follows the principle. Say what to "
        "change or remove and what to keep, and end with: Give only the new answer."
    )
    return (
        Turn("system", "You write short, plain instructions for a chat assistant."),
        Turn(
            "user",
            f"Principle: {principle.title}. {principle.text}\n\n"
            f"Write {critique if kind == 'critique_request' else revision} "
            'Use two or three sentences, speak to the assistant as "you", and write nothing but the request.',
        ),
    )


def _demonstration(constitution: Constitution, shown: Demonstration) -> tuple[Turn, ...]:
    principle = constitution.principle(shown.principle)
    asked = critique_turns((), shown.prompt, shown.initial_response, principle)
    return (*revision_turns(asked, shown.critique, principle), Turn("assistant", shown.revision))
