"""`cai constitution draft`: fills in what is missing and touches nothing else."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.__main__ import main
from jobs.common.constitution import load_constitution
from jobs.common.errors import ConfigError
from jobs.generate.draft import usable_request
from jobs.generate.draft_file import Insertion, insert_requests
from tests.fakes.openai_server import Answer, plausible
from tests.generate.world import World

SOURCE = """# my constitution
name: mine
title: Mine
language: en
version: 1
description: For tests.
principles:
  - id: first   # keep me
    title: First things
    text: >-
      The answer puts first things
      first.
    category: order
    source: a test

  # about the second
  - id: second
    critique_request: ""
    title: Second thoughts
    text: "The answer thinks twice."
    revision_request: Rewrite it with second thoughts.
    category: order
    source: a test

few_shot: []   # none
"""


def draft(world: World, file: Path) -> int:
    return main(["constitution", "draft", str(file), "--recipe", world.recipe, "--runs", str(world.runs)])


def test_missing_requests_are_added_and_nothing_else_changes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    file = world.folder / "mine.yaml"
    file.write_text(SOURCE, encoding="utf-8")
    assert draft(world, file) == 0
    changed = file.read_text(encoding="utf-8")
    gone = [line for line in difflib.ndiff(SOURCE.splitlines(), changed.splitlines()) if line.startswith("- ")]
    assert gone == ['-     critique_request: ""']
    constitution = load_constitution(str(file))
    assert constitution.principle("first").revision_request.startswith("Rewrite")
    shown = capsys.readouterr().err
    assert "+ first.critique_request: " in shown
    assert "cai constitution check" in shown
    assert len(world.server.history) == 3
    assert draft(world, file) == 0
    assert "nothing to draft" in capsys.readouterr().err
    assert len(world.server.history) == 3


def test_what_the_teacher_cannot_write_is_named_and_the_rest_is_kept(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def half(body: dict[str, Any]) -> str:
        return "No." if "rewrite its last answer" in body["messages"][-1]["content"] else plausible(body)

    world.server.respond = half
    file = world.folder / "mine.yaml"
    file.write_text(SOURCE, encoding="utf-8")
    assert draft(world, file) == 65
    assert "1 of 3 requests could not be drafted" in capsys.readouterr().err
    assert "critique_request" in yaml.safe_load(file.read_text(encoding="utf-8"))["principles"][0]


def test_a_refused_key_leaves_the_file_as_it_was(world: World) -> None:
    world.server.respond = lambda _: Answer(status=401, error={"message": "no"})
    file = world.folder / "mine.yaml"
    file.write_text(SOURCE, encoding="utf-8")
    assert draft(world, file) == 69
    assert file.read_text(encoding="utf-8") == SOURCE


PARAGRAPH = (
    st.text(
        st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=300
    )
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: text.isprintable() and text)
)


@given(PARAGRAPH, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_paragraph_survives_the_yaml(
    tmp_path_factory: pytest.TempPathFactory, text: str, newline: str, last: bool
) -> None:
    file = tmp_path_factory.mktemp("draft") / "mine.yaml"
    source = SOURCE.split("\nfew_shot")[0] if last else SOURCE
    file.write_bytes(source.replace("\n", newline).encode())
    insert_requests(file, [Insertion(0, "critique_request", text), Insertion(1, "critique_request", text)])
    found = yaml.safe_load(file.read_bytes())["principles"]
    assert [principle["critique_request"] for principle in found] == [text, text]


def test_a_flow_style_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("principles:\n  - {id: a, text: b}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"flow\.yaml:2: principle written in \{braces\}"):
        insert_requests(file, [Insertion(0, "critique_request", "x")])
    assert file.read_text(encoding="utf-8") == "principles:\n  - {id: a, text: b}\n"


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("Rewrite the answer so that nobody is insulted.", True),
        ("Here is a request: rewrite the answer so that nobody is insulted.", False),
        ("Say who is insulted by the answer and why.", False),
        ("Rewrite it.", False),
    ],
)
def test_revision_requests_must_ask_for_a_change(text: str, usable: bool) -> None:
    assert (usable_request(text, "revision_request") is not None) is usable
