"""`cai chat`: who speaks, what is remembered, and how it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import ConfigError
from jobs.common.held_out import System
from jobs.common.stage import RunContext
from jobs.train import chat
from jobs.train.examples import Messages
from tests.train.trained import trained_run

Runs = Callable[..., RunContext]
Ask = Callable[..., tuple[str, str]]


@pytest.fixture
def trained(tmp_path: Path, students: Callable[[str], Path]) -> Runs:
    """A run whose sft and dpo have finished: `trained("mistral", "nf4")`."""
    return lambda template="chatml", quantization="none": trained_run(tmp_path, students(template), quantization)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Type lines into a chat through a pipe; gives stdout and stderr."""

    def typed(context: RunContext, text: str, stage: System = "dpo", compare: bool = False) -> tuple[str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        capsys.readouterr()
        chat.run(context, stage, compare)
        captured = capsys.readouterr()
        return captured.out, captured.err

    return typed


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[Messages]:
    """Answers of 8 tokens; gives every conversation that was put to the model."""
    asked: list[Messages] = []
    encode = chat.encode

    def listen(tokenizer: Any, messages: Messages, ask: bool) -> list[int]:
        asked.append([dict(message) for message in messages])
        return encode(tokenizer, messages, ask=ask)

    monkeypatch.setattr(chat, "ANSWER_TOKENS", 8)
    monkeypatch.setattr(chat, "encode", listen)
    return asked


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("template", ["chatml", "mistral"])
def test_each_system_gives_its_own_answer_and_the_same_one_again(
    trained: Runs, ask: Ask, short: list[Messages], template: str, quantization: str
) -> None:
    context = trained(template, quantization)
    systems: tuple[System, ...] = ("base", "sft", "dpo")
    first, again = ([ask(context, "Why share water?\n", system)[0] for system in systems] for _ in range(2))
    assert first == again
    assert len(set(first)) == 3


def test_the_conversation_is_remembered_until_reset(trained: Runs, ask: Ask, short: list[Messages]) -> None:
    out, _ = ask(trained(), "One?\nTwo?\n/reset\nThree?\n")
    assert [[message["role"] for message in turns] for turns in short] == [
        ["user"],
        ["user", "assistant", "user"],
        ["user"],
    ]
    assert short[1][0]["content"] == "One?"
    assert short[1][1]["content"] in out


def test_a_system_prompt_opens_a_new_conversation(trained: Runs, ask: Ask, short: list[Messages]) -> None:
    ask(trained(), "One?\n/system Be brief.\nTwo?\n/system\nThree?\n")
    assert short[1] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two?"}]
    assert short[2] == [{"role": "user", "content": "Three?"}]


def test_side_by_side_every_system_remembers_its_own_answers(trained: Runs, ask: Ask, short: list[Messages]) -> None:
    out, _ = ask(trained(), "One?\nTwo?\n", compare=True)
    headings = [line for line in out.splitlines() if all(name in line for name in ("base", "sft", "dpo"))]
    assert len(headings) == 2
    assert len({turns[1]["content"] for turns in short[3:]}) == 3, "the three answered differently before"


def test_after_quit_nothing_is_answered(trained: Runs, ask: Ask, short: list[Messages]) -> None:
    ask(trained(), "/quit\nOne?\n")
    assert short == []


def test_an_unknown_command_is_not_put_to_the_model(trained: Runs, ask: Ask, short: list[Messages]) -> None:
    _, err = ask(trained(), "/rest\n\n")
    assert "chat: no command /rest. There are: /reset, /system TEXT, /quit" in err
    assert short == []


def test_a_conversation_longer_than_the_model_reads_is_told_and_goes_on(
    trained: Runs, ask: Ask, short: list[Messages]
) -> None:
    out, err = ask(trained(), "word " * 600 + "\nOne?\n")
    assert "more than the model reads" in err
    assert out.strip()
    assert short[1] == [{"role": "user", "content": "One?"}], "what was not answered is not remembered"


@pytest.mark.parametrize(("stage", "compare", "wanted"), [("dpo", False, "dpo"), ("base", True, "dpo")])
def test_only_finished_adapters_speak(trained: Runs, ask: Ask, stage: System, compare: bool, wanted: str) -> None:
    context = trained()
    (context.folder / "dpo" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=rf'No finished "{wanted}" stage .* Run: cai {wanted} --run r'):
        ask(context, "One?\n", stage, compare)
    assert ask(context, "", "sft")[0] == ""
