"""Replies that cannot be used are asked again, then counted with their reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.openai_server import Answer, plausible
from tests.generate.world import World, error_line


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Answer(content=""), "empty"),
        (Answer(content="### ### !!! 0101 0101"), "garbage"),
        (Answer(content='{"critique": "It begins'), "garbage"),
        (Answer(content='{"critique": "It begins', finish_reason="length"), "truncated"),
        (Answer(content="", finish_reason="content_filter"), "content_policy"),
    ],
    ids=["empty", "garbage", "broken-json", "cut-off", "filtered"],
)
def test_a_rejected_reply_is_asked_again_then_fails_with_its_reason(world: World, bad: Answer, reason: str) -> None:
    cursed: list[str] = []

    def sometimes(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) != 3:
            return plausible(body)
        cursed[:] = cursed or [chat[0]["content"]]
        return bad if chat[0]["content"] == cursed[0] else plausible(body)

    world.server.respond = sometimes
    assert world.generate() == 0
    assert [(row["step"], row["reason"]) for row in world.rows("failures.jsonl")] == [("critique", reason)]
    tries = [
        asked for asked in world.server.history if len(asked.body["messages"]) == 3 and cursed[0] in asked.identity
    ]
    assert len(tries) == 4
    assert len({asked.body["seed"] for asked in tries}) == 4


def test_one_bad_reply_is_replaced_by_the_next_sample(world: World) -> None:
    world.server.respond = lambda body: plausible(body) if len(body["messages"]) != 3 or spent.pop() else ""
    spent = [True] * 40 + [False]
    assert world.generate() == 0
    assert len(world.rows("revisions.jsonl")) == 18


def test_all_rows_dropped_says_why_and_leaves_no_manifest(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def echo(body: dict[str, Any]) -> str:
        chat = body["messages"]
        if len(chat) == 5:
            return json.dumps({"revision": chat[1]["content"]})
        return plausible(body)

    world.server.respond = echo
    assert world.generate() == 65
    line = error_line(capsys)
    assert "18 unchanged" in line
    assert not (world.stage / "manifest.json").exists()
    assert {row["drop_reason"] for row in world.rows("dropped.jsonl")} == {"unchanged"}


def test_a_revision_that_would_be_dropped_is_asked_again(world: World) -> None:
    bad = {"left": 18}

    def meta_first(body: dict[str, Any]) -> str:
        if len(body["messages"]) == 5 and bad["left"] > 0:
            bad["left"] -= 1
            return json.dumps({"revision": "Here is the revised answer: be kind to all of them."})
        return plausible(body)

    world.server.respond = meta_first
    assert world.generate() == 0
    asked = [request for request in world.server.history if len(request.body["messages"]) == 5]
    assert len(asked) >= 18 + 6
    assert len(world.rows("revisions.jsonl")) >= 12
