"""Talk to a run's model in the terminal: `cai chat RUN --stage dpo`, or with base, SFT and DPO side by side.

Greedy, so the same words get the same answers. Every system remembers its own answers. Only finished adapters speak.

    /reset         forget what was said
    /system TEXT   begin anew with this system prompt; without TEXT, with the template's own
    /quit          end; so does the end of the input
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.common.console import say
from jobs.common.held_out import System
from jobs.common.manifest import finished_manifest
from jobs.common.stage import RunContext
from jobs.train.device import libraries
from jobs.train.examples import Messages, encode, said
from jobs.train.page import SYSTEMS
from jobs.train.speakers import Speaker, Trained, load_speaker, untrained_weights, weights_of

ANSWER_TOKENS = 512
"""Longest answer; small models can repeat themselves without end."""
COMMANDS = "/reset, /system TEXT, /quit"


@dataclass
class Conversation:
    """What was said so far, by each system that speaks."""

    systems: Sequence[System]
    opening: Messages = field(default_factory=list)
    """The system prompt as a message, or nothing."""
    turns: dict[System, Messages] = field(default_factory=dict)

    def reset(self) -> None:
        """Forget the turns; the system prompt stays."""
        self.turns = {}

    def asked(self, system: System, message: str) -> Messages:
        """The whole conversation of one system up to this message."""
        return self.opening + self.turns.get(system, []) + said("user", message)

    def answered(self, system: System, message: str, answer: str) -> None:
        """Remember one exchange."""
        self.turns.setdefault(system, []).extend(said("user", message) + said("assistant", answer))


def run(context: RunContext, stage: System, compare: bool) -> None:
    """Read messages from stdin and answer them until /quit or the end of the input.

    Args:
        context: which run.
        stage: who speaks.
        compare: let base, SFT and DPO answer every message.

    Raises:
        ConfigError: fetch, or the adapter that should speak, has not finished.
    """
    systems: tuple[System, ...] = SYSTEMS if compare else (stage,)
    names: tuple[Trained, ...] = ("sft", "dpo") if compare else () if stage == "base" else (stage,)
    finished_manifest(context, "fetch")
    every = [weights_of(context, name) for name in names]
    with libraries("chat", context.typed):
        speaker = load_speaker(context, names, every[-1] if every else untrained_weights(context))
        say(f"chat: {speaker.student.name}, {' beside '.join(systems)}, on {speaker.device.name}. {COMMANDS}")
        _talk(speaker, Conversation(systems))


def _talk(speaker: Speaker, conversation: Conversation) -> None:
    while (line := _next_line()) is not None:
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/reset":
            conversation.reset()
        elif command == "/system":
            conversation.reset()
            conversation.opening = said("system", rest.strip()) if rest.strip() else []
        elif command.startswith("/"):
            say(f"chat: no command {command}. There are: {COMMANDS}")
        elif line:
            _answer(speaker, conversation, line)


def _next_line() -> str | None:
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  gives input() a line editor
    try:
        return input("> " if terminal else "").strip()
    except EOFError:
        return None


def _answer(speaker: Speaker, conversation: Conversation, message: str) -> None:
    answers: dict[System, str] = {}
    for system in conversation.systems:
        ids = encode(speaker.tokenizer, conversation.asked(system, message), ask=True)
        room = speaker.model.config.max_position_embeddings - len(ids)
        if room < 1:
            say(f"chat: with this message it is {len(ids)} tokens, more than the model reads. Say it shorter or /reset")
            return
        with speaker.speaking_as(system):
            answers[system] = _generate(speaker, ids, min(room, ANSWER_TOKENS), stream=len(conversation.systems) == 1)
    for system, answer in answers.items():
        conversation.answered(system, message, answer)
    if len(answers) > 1:
        _show(answers)


def _generate(speaker: Speaker, ids: list[int], limit: int, *, stream: bool) -> str:
    """One greedy answer; `stream` prints it word by word."""
    import torch
    from transformers import TextStreamer

    streamer = TextStreamer(speaker.tokenizer, skip_prompt=True, skip_special_tokens=True) if stream else None
    asked = torch.tensor([ids], device=speaker.model.device)
    with torch.inference_mode():
        output = speaker.model.generate(
            input_ids=asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=limit,
            do_sample=False,
            streamer=streamer,
        )
    return str(speaker.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True)).strip()


def _show(answers: dict[System, str]) -> None:
    table = Table(expand=True)
    for system in answers:
        table.add_column(system, ratio=1, overflow="fold")
    table.add_row(*(Text(answer) for answer in answers.values()))
    Console().print(table)
