"""The judge through the real command: what wins is kept, everything else is dropped with its reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest

from tests.fakes.openai_server import Answer
from tests.generate.scripted import FIRST_TRY, GOOD, Scripted, always_a, contrary, fair, no_taste, text_of
from tests.generate.world import World

BOTH = "judge.rule=both_orders"


def judged(world: World) -> list[dict[str, Any]]:
    return [asked.body for asked in world.server.answered if "Answer A:" in asked.last]


def reasons(world: World) -> Counter[str]:
    return Counter(row["drop_reason"] for row in world.rows("dropped.jsonl"))


def test_a_revision_that_wins_in_both_orders_is_kept_with_its_probability(world: World) -> None:
    world.server.respond = Scripted()
    assert world.sets(BOTH) == 0
    rows = world.rows("revisions.jsonl")
    assert len(rows) == 18
    assert all(row["preference_probability"] == pytest.approx(0.8) and row["rounds"] == 1 for row in rows)
    comparisons = world.rows("comparisons.jsonl")
    assert len(comparisons) == 18, "one for each chain, reused for its pair"
    assert {row["verdict"] for row in comparisons} == {"first"}
    assert all(row["preference_probability"] == pytest.approx(0.8) for row in world.rows("pairs.jsonl"))
    measures = world.manifest()["measures"]
    assert measures["judge"] == "fake-teacher"
    assert measures["verdicts"] == {"first": 18}
    assert measures["mean_preference_probability"] == pytest.approx(0.8)
    assert "compared them blind" in (world.stage / "data" / "README.md").read_text(encoding="utf-8")


def test_the_judge_sees_both_orders_and_nothing_that_names_the_revision(world: World) -> None:
    world.server.respond = Scripted()
    assert world.sets(BOTH) == 0
    asked = judged(world)
    assert len(asked) == 36
    assert all(body["logprobs"] is True and body["top_logprobs"] == 20 and body["temperature"] == 0 for body in asked)
    row = world.rows("revisions.jsonl")[0]
    own = [body["messages"][-1]["content"] for body in asked if row["prompt"] in body["messages"][-1]["content"]]
    places = [text.index(row["revision"]) < text.index(row["initial_response"]) for text in own]
    assert sorted(places) == [False, True]
    assert not any("revis" in str(body["messages"]).lower().replace(row["revision"], "") for body in asked)


@pytest.mark.parametrize(
    ("taste", "reason", "verdict"),
    [
        (always_a, "judge_flipped", "flipped"),
        (no_taste, "judge_tie", "tie"),
        (contrary, "judge_lost", "second"),
    ],
)
def test_a_revision_that_does_not_win_is_dropped_with_both_probabilities(
    world: World, taste: Any, reason: str, verdict: str
) -> None:
    def mixed(first: str, second: str) -> float:
        return fair(first, second) if "river" in first + second else taste(first, second)

    world.server.respond = Scripted(taste=mixed)
    assert world.sets(BOTH, "generate.prompts_per_principle=12") == 0
    dropped = world.rows("dropped.jsonl")
    assert dropped
    assert {row["drop_reason"] for row in dropped} == {reason}
    assert all("shown first" in row["detail"] and "shown second" in row["detail"] for row in dropped)
    assert len(dropped) == Counter(row["verdict"] for row in world.rows("comparisons.jsonl"))[verdict]
    assert len(dropped) + len(world.rows("revisions.jsonl")) == 36


def test_a_judge_that_always_says_a_keeps_nothing_and_says_so(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.respond = Scripted(taste=always_a)
    assert world.sets(BOTH) == 65
    assert "18 judge_flipped" in capsys.readouterr().err


def test_the_mean_of_both_orders_decides_where_the_recipe_says_so(world: World) -> None:
    def biased(first: str, second: str) -> float:
        return 0.95 if GOOD in first else 0.7

    world.server.respond = Scripted(taste=biased)
    assert world.sets("judge.rule=mean") == 0
    assert len(world.rows("revisions.jsonl")) == 18
    row = world.rows("comparisons.jsonl")[0]
    assert (row["shown_first"], row["shown_second"]) == (pytest.approx(0.95), pytest.approx(0.3))
    assert row["verdict"] == "first"
    assert 0.7 < row["first_probability"] < 0.75, "mean in log-odds, not of probabilities"


def test_a_revision_that_loses_gets_another_round_about_itself(world: World) -> None:
    world.server.respond = Scripted(good_from_round=2, taste=lambda a, b: fair(a, b) if GOOD in a + b else 0.5)
    assert world.sets(BOTH, "generate.max_revisions=2") == 0
    rows = world.rows("revisions.jsonl")
    assert len(rows) == 18
    assert {row["rounds"] for row in rows} == {2}
    chats = [asked.body["messages"] for asked in world.server.answered]
    seconds = [chat for chat in chats if len(chat) > 2 and chat[1]["content"].startswith(FIRST_TRY)]
    assert len(seconds) == 36, "critique and revision of the first revision"
    verdicts = Counter(row["verdict"] for row in world.rows("comparisons.jsonl"))
    assert verdicts == {"tie": 18, "first": 18}
    assert all(GOOD in row["chosen"] for row in world.rows("pairs.jsonl"))


def test_an_unreadable_judge_is_asked_again_and_then_the_row_is_dropped(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.server.respond = Scripted(judge_letters="Neither.")
    assert world.sets(BOTH, "generate.tries=2") == 65
    assert "18 judge_unreadable" in capsys.readouterr().err
    assert len(judged(world)) == 18 * 2 * 2


def test_an_endpoint_without_logprobs_gives_hard_verdicts_and_is_not_asked_for_them_again(world: World) -> None:
    scripted = Scripted(gives_logprobs=False)

    def without(body: dict[str, Any]) -> str | Answer:
        if "logprobs" in body:
            return Answer(status=400, error={"message": "Unsupported parameter: top_logprobs, logprobs"})
        return scripted(body)

    world.server.respond = without
    assert world.sets(BOTH, "teacher.concurrency=1") == 0
    assert all(row["shown_first"] == pytest.approx(0.9) for row in world.rows("comparisons.jsonl"))
    refused = [asked.body["top_logprobs"] for asked in world.server.history if asked.status == 400]
    assert set(refused) == {20, 5}, "fewer are tried before none"
    assert len(refused) <= 6


def test_an_endpoint_that_gives_few_logprobs_is_asked_for_few(world: World) -> None:
    scripted = Scripted()

    def few(body: dict[str, Any]) -> str | Answer:
        if body.get("top_logprobs", 0) > 5:
            return Answer(status=400, error={"message": "top_logprobs must be at most 5"})
        return scripted(body)

    world.server.respond = few
    assert world.sets(BOTH) == 0
    assert all(row["shown_first"] == pytest.approx(0.8) for row in world.rows("comparisons.jsonl"))


def test_after_reasons_the_probability_is_kept_near_one_half(world: World) -> None:
    world.server.respond = Scripted()
    assert world.sets(BOTH, "judge.reasoning=true") == 0
    assert all(row["shown_first"] == 0.6 and row["verdict"] == "first" for row in world.rows("comparisons.jsonl"))
    assert all("First give your reasons" in str(body["messages"]) for body in judged(world))


def test_another_model_may_judge(world: World) -> None:
    world.server.respond = Scripted()
    assert world.sets(BOTH, "judge.model=fake-judge") == 0
    assert {body["model"] for body in judged(world)} == {"fake-judge"}
    assert {row["model"] for row in world.rows("comparisons.jsonl")} == {"fake-judge"}
    tokens = world.manifest()["tokens"]
    assert tokens["new_reply_tokens"] == 5 * len(world.server.answered)


def test_a_redone_stage_asks_the_judge_nothing(world: World) -> None:
    world.server.respond = Scripted()
    assert world.sets(BOTH) == 0
    asked, before = len(world.server.history), world.manifest()["outputs"]
    assert world.generate("--set", BOTH, "--redo") == 0
    assert len(world.server.history) == asked
    assert world.manifest()["outputs"] == before


def test_a_judge_that_refuses_for_good_fails_the_row(world: World) -> None:
    scripted = Scripted()

    def policy(body: dict[str, Any]) -> str | Answer:
        if "Answer A:" in str(body["messages"]) and "river" in str(body["messages"]):
            return Answer(status=400, error={"message": "flagged by content policy"})
        return scripted(body)

    world.server.respond = policy
    assert world.sets(BOTH, "generate.prompts_per_principle=12") == 0
    failures = world.rows("failures.jsonl")
    assert failures
    assert {(row["step"], row["reason"]) for row in failures} == {("judge", "content_policy")}
    assert all("judge.model" in row["advice"] for row in failures)
    assert {row["id"] for row in failures}.isdisjoint(row["id"] for row in world.rows("revisions.jsonl"))


def test_of_several_samples_the_pair_takes_the_one_closest_in_length(world: World) -> None:
    lengths = [25, 39, 90]

    def student(body: dict[str, Any]) -> str:
        return text_of(str(body), lengths[body["seed"] % 3])

    world.server.respond = Scripted(student=student)
    assert world.sets(BOTH, "initial.samples=4") == 0
    pairs = world.rows("pairs.jsonl")
    assert pairs
    by_id = {row["id"]: row for row in world.rows("revisions.jsonl")}
    compared = Counter(row["id"] for row in world.rows("comparisons.jsonl"))
    for pair in pairs:
        assert compared[pair["id"]] == 4
    asked: dict[str, list[int]] = defaultdict(list)
    for one in world.server.answered:
        if one.body["model"] == "fake-student":
            asked[one.last].append(lengths[one.body["seed"] % 3])
    for pair in pairs:
        assert pair["chosen"] == by_id[pair["id"]]["revision"]
        nearest = min(asked[pair["prompt"]], key=lambda words: max(words / 40, 40 / words))
        assert len(pair["rejected"].split()) == nearest
    assert all(compared[row["id"]] == 1 for row in world.rows("sft.jsonl")), "supervised rows need one comparison"
