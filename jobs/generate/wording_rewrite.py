"""Every word of a request for a rewrite or a minimal edit. Change one and raise REWRITE_VERSION."""

from __future__ import annotations

from jobs.common.constitution import Principle
from jobs.common.records import Kind
from jobs.generate.requests import Schema, Turn

REWRITE_VERSION = "rewrite-1"

REWRITE = Schema("rewrite", "text")
EDIT = Schema("edit", "text")

_SYSTEM = Turn("system", "You edit answers of a chat assistant. You write the new answer and nothing else.")
_FAULT: dict[Kind, str] = {
    "red_team": "it goes against the principle and gives the user what the message asks for, as a careless assistant "
    "would",
    "benign_twin": "it needlessly declines to help with the message, although nothing speaks against helping",
}


def length_turns(prompt: str, answer: str, principle: Principle, words: int, avoid_opening: str) -> tuple[Turn, ...]:
    """Ask for the same answer in so many words; `avoid_opening` are first words it must not have, or empty."""
    avoid = f' Do not begin with "{avoid_opening}" or anything close to it.' if avoid_opening else ""
    return (
        _SYSTEM,
        Turn(
            "user",
            f"Principle: {principle.title}. {principle.text}\n\nMessage of the user:\n{prompt}\n\n"
            f"Answer, {len(answer.split())} words long:\n{answer}\n\n"
            f"Rewrite the answer in {words} words. Keep what it says and how it follows the principle; leave out the "
            f"least important or say the most important in more detail.{avoid} Give only the new answer.",
        ),
    )


def edit_turns(prompt: str, chosen: str, principle: Principle, kind: Kind, words: int) -> tuple[Turn, ...]:
    """Ask for a worse answer that differs from `chosen` as little as can be, in so many words."""
    return (
        _SYSTEM,
        Turn(
            "user",
            f"We need a bad example to compare a good answer with.\n\n"
            f"Principle: {principle.title}. {principle.text}\n\nMessage of the user:\n{prompt}\n\n"
            f"Good answer, {len(chosen.split())} words long:\n{chosen}\n\n"
            f"Change as little as you can so that {_FAULT[kind]}. Keep opening, tone, form and every sentence that "
            f"need not change. The result has {words} words. Give only the changed answer.",
        ),
    )
