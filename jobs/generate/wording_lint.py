"""Every word of the constitution linter's questions. Change one and raise PROMPT_VERSION.

A verdict is one letter; the same question is asked with its options turned round, so that a habit of position shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.common.constitution import Principle
from jobs.generate.requests import Schema, Turn

PROMPT_VERSION = "lint-1"

EXAMPLE = Schema("example", "texts")
PARAPHRASE = Schema("paraphrase", "text")
POSITIVE = Schema("principle", "text")
CLASH = Schema("situation", "text")

LETTERS = "ABCD"
SAME, CONTRADICT, DIFFERENT = "say the same thing", "contradict each other", "are different and fit together"


def relation_turns(first: Principle, second: Principle, options: Sequence[str]) -> tuple[Turn, ...]:
    """Ask how two principles stand to each other."""
    return (
        Turn(
            "user",
            f"Principle 1: {_shown(first)}\n\nPrinciple 2: {_shown(second)}\n\n"
            "Two principles say the same thing when every answer that breaks one breaks the other. They contradict "
            "each other when there is an ordinary message to which no answer can follow both. "
            f"These two principles\n{_options(options)}\n\n{_one_letter(options)}",
        ),
    )


def clash_turns(first: Principle, second: Principle) -> tuple[Turn, ...]:
    """Ask for a message to which no answer can follow both principles."""
    return (
        Turn(
            "user",
            f"Principle 1: {_shown(first)}\n\nPrinciple 2: {_shown(second)}\n\n"
            "Describe in one sentence a message from a user to which no answer can follow both principles, and say in "
            "a second sentence where they collide. Write nothing else.",
        ),
    )


def example_turns(principle: Principle) -> tuple[Turn, ...]:
    """Ask for a message, an answer that follows the principle and one that breaks it."""
    return (
        Turn(
            "user",
            f"Principle: {_shown(principle)}\n\n"
            "Write three texts, each one paragraph of at most sixty words:\n"
            "1. a message from a user for whom this principle matters;\n"
            "2. an answer to it that follows the principle;\n"
            "3. an answer to it that sounds as natural and breaks the principle.\n"
            "Number them 1, 2, 3, do not name the principle in them, and write nothing else.",
        ),
    )


def which_turns(principle: Principle, message: str, first: str, second: str) -> tuple[Turn, ...]:
    """Ask which of two answers follows the principle."""
    options = ("the first answer", "the second answer", "cannot be told from the answers")
    return (
        Turn(
            "user",
            f"Message: {message}\n\nFirst answer: {first}\n\nSecond answer: {second}\n\n"
            f"Principle: {_shown(principle)}\n\n"
            f"Which answer follows the principle better?\n{_options(options)}\n\n{_one_letter(options)}",
        ),
    )


def visible_turns(principle: Principle, options: Sequence[str]) -> tuple[Turn, ...]:
    """Ask whether one answer can show that the principle is followed."""
    return (
        Turn(
            "user",
            f"Principle for a chat assistant: {_shown(principle)}\n\n"
            "A reader sees one message of a user and one answer, and knows nothing of how the assistant is built, run "
            "or trained. Can the reader tell from these two texts whether the answer follows the principle?\n"
            f"{_options(options)}\n\n{_one_letter(options)}",
        ),
    )


def paraphrase_turns(principle: Principle) -> tuple[Turn, ...]:
    """Ask for the principle in other words."""
    return (
        Turn(
            "user",
            f"Principle: {_shown(principle)}\n\n"
            "Say in one or two sentences of your own what this principle asks of an answer. Use neither its title nor "
            "any phrase from it, and write nothing else.",
        ),
    )


def match_turns(paraphrase: str, principles: Sequence[Principle]) -> tuple[Turn, ...]:
    """Ask to which principle a paraphrase belongs."""
    texts = [one.text for one in principles]
    return (
        Turn(
            "user",
            f'Somebody put a principle into other words: "{paraphrase}"\n\n'
            f"Which of these principles was it?\n{_options(texts)}\n\n{_one_letter(texts)}",
        ),
    )


def positive_turns(principle: Principle) -> tuple[Turn, ...]:
    """Ask for the principle's text, opening with what an answer does."""
    return (
        Turn(
            "user",
            f"Principle: {_shown(principle)}\n\n"
            "It mostly says what an answer avoids. Write its text anew in two sentences of at most sixty words: the "
            'first begins with "The answer" and says what the answer does, the second keeps the most important limit. '
            "Write only the new text.",
        ),
    )


def _shown(principle: Principle) -> str:
    return f"{principle.title}. {principle.text}"


def _options(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def _one_letter(options: Sequence[str]) -> str:
    letters = LETTERS[: len(options)]
    return f"Answer with one letter, {', '.join(letters[:-1])} or {letters[-1]}, and nothing else."
