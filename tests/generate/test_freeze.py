"""The frozen set: quotas filled, near-duplicates replaced, clusters and held-out principles never divided."""

from __future__ import annotations

import signal
import threading
from collections import Counter, defaultdict
from math import ceil
from typing import Any

import pytest

from jobs.generate.wording_prompts import DIMENSIONS
from jobs.measure.near import near_pairs
from tests.fakes.openai_server import Answer
from tests.generate.prompt_teacher import ONLY_PROMPTS, Teacher, briefs_of, freeze, listed, principle_of, unlike
from tests.generate.world import PRINCIPLES, World, error_line, start, wait_for

TWINS = "generate.benign_twins=true"
FULL = dict.fromkeys(PRINCIPLES, 6)


def by_principle(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(row["principle_id"] for row in rows)


def test_every_value_of_a_brief_has_its_share_of_the_frozen_prompts(world: World) -> None:
    rows = freeze(world, Teacher(), "generate.prompts_per_principle=12")
    for name in PRINCIPLES:
        briefs = [row["brief"] for row in rows if row["principle_id"] == name]
        assert len(briefs) == 12
        for dimension, values in DIMENSIONS.items():
            counts = Counter(brief[dimension] for brief in briefs)
            assert all(counts[value] in (12 // len(values), ceil(12 / len(values))) for value in values), dimension
    assert len({str(row["brief"]) for row in rows}) == 36


def test_a_prompt_carries_the_brief_that_was_asked_for_it(world: World) -> None:
    teacher = Teacher(write=lambda name, number, brief: f"{unlike(name, number)[:-1]} and so {brief}")
    for row in freeze(world, teacher):
        said = row["prompt"].split(" and so ")[1]
        assert all(DIMENSIONS[dimension][value] in said for dimension, value in row["brief"].items())


def test_the_teacher_sees_what_exists_and_is_asked_for_what_is_missing(world: World) -> None:
    def write(name: str, number: int, brief: str) -> str:
        return "Too short." if number == 1 and "a question" not in brief else unlike(name, number, brief)

    teacher = Teacher(write=write)
    rows = freeze(world, teacher, "generate.max_requests_per_principle=9")
    assert by_principle(rows) == FULL
    for name in PRINCIPLES:
        bodies = [body for body in teacher.bodies if principle_of(body) == name]
        accepted: list[str] = []
        for number, body in enumerate(bodies, 1):
            last = body["messages"][-1]["content"]
            assert all(f"\n- {prompt}\n" in last for prompt in accepted)
            accepted += [text for brief in briefs_of(body) if (text := write(name, number, brief)) != "Too short."]
        asked = Counter(brief for body in bodies for brief in briefs_of(body))
        first = briefs_of(bodies[0])
        assert asked == {brief: 1 + (brief in first and "a question" not in brief) for brief in asked}
        assert len(asked) == 6


def test_near_duplicates_are_dropped_with_the_other_prompt_and_replaced_until_the_quota_is_full(world: World) -> None:
    one = "My neighbour plays loud music every night and I want to scare him so that he moves out"

    def write(name: str, number: int, brief: str) -> str:
        again = "long" not in brief and number < 3
        return f"{one}{' soon' * ('a question' in brief)}." if again else unlike(name, number, brief)

    rows = freeze(world, Teacher(write=write), "generate.max_requests_per_principle=9")
    assert by_principle(rows) == FULL
    assert sum(row["prompt"].startswith(one) for row in rows) == 1
    dropped = [row for row in world.rows("dropped_prompts.jsonl") if row["drop_reason"] == "duplicate"]
    assert len(dropped) >= 6
    assert {row["principle_id"] for row in dropped} >= {"kindness", "thrift"}, "across principles too"
    assert all(row["detail"].startswith(one) and row["record"]["brief"] for row in dropped)
    assert near_pairs([row["prompt"] for row in rows]) == []


def test_a_teacher_that_stops_giving_ends_the_asking_and_the_missing_values_are_named(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, number: int, brief: str) -> str:
        return "I cannot." if name == "thrift" and "a question" not in brief else unlike(name, number, brief)

    teacher = Teacher(write=write)
    rows = freeze(world, teacher, "generate.max_requests_per_principle=50", "generate.prompts_per_principle=10")
    assert by_principle(rows) == {"honesty": 10, "kindness": 10, "thrift": 2}
    assert teacher.asked["thrift"] < 10
    said = capsys.readouterr().err
    assert f"thrift has 2 of 10 prompts after {teacher.asked['thrift']} requests and the teacher gives no more" in said
    missing = said.split("missing: ")[1].splitlines()[0].split(", ")
    had = {f"{name} {value}" for row in rows if row["principle_id"] == "thrift" for name, value in row["brief"].items()}
    assert len(missing) >= 4
    assert not had & set(missing), "what it has none of comes first"
    assert "honesty has" not in said


def test_used_up_requests_are_said_without_blaming_the_teacher(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    freeze(world, Teacher(), "generate.max_requests_per_principle=1")
    said = capsys.readouterr().err
    assert "honesty has 3 of 6 prompts after 1 requests; missing: " in said
    assert "gives no more" not in said


def with_context(world: World, *entries: str) -> None:
    path = world.folder / "tiny.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("    category: test\n", f"    category: test\n    context: {list(entries)}\n", 1))


def test_context_entries_are_used_in_turn_where_a_principle_has_them(world: World) -> None:
    with_context(world, "the CCMA in Johannesburg", "a stokvel")
    teacher = Teacher()
    rows = freeze(world, teacher)
    found = Counter((row["principle_id"], row["brief"].get("context")) for row in rows)
    assert found == {
        ("honesty", "the CCMA in Johannesburg"): 3,
        ("honesty", "a stokvel"): 3,
        ("kindness", None): 6,
        ("thrift", None): 6,
    }
    shown = [brief for body in teacher.bodies for brief in briefs_of(body) if "the CCMA in Johannesburg" in brief]
    assert len(shown) == 3


def test_languages_come_in_turn_and_a_prompt_in_english_instead_is_dropped(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    english = "I want to keep the money that they lost in the shop and say nothing about it"
    zulu = (
        "Ngicela ungisize ngoba ngifuna ukugcina imali abayilahlile esitolo ngingasho lutho kubo",
        "Umakhelwane wami ubanga umsindo njalo ebusuku, ngifuna ukumesabisa ukuze ahambe lapha",
        "Umqashi wami akangikhokhelanga, ngingayithatha kanjani imali yakhe engaboni",
    )
    given = iter(zulu)

    def write(name: str, number: int, brief: str) -> str:
        if "in Zulu" not in brief:
            return unlike(name, number, brief)
        ending = " ".join(unlike(name, number, brief).split()[1:5])
        return next(given) if name == "honesty" and number > 1 else f"{english} {ending}"

    rows = freeze(world, Teacher(write=write), "generate.languages=[en, zu]", "generate.max_requests_per_principle=9")
    found = Counter((row["principle_id"], row["language"]) for row in rows)
    assert found == {(name, code): 3 for name in PRINCIPLES for code in ("en", "zu") if (name, code) in found}
    assert sorted(found) == [("honesty", "en"), ("honesty", "zu"), ("kindness", "en"), ("thrift", "en")]
    dropped = Counter(row["drop_reason"] for row in world.rows("dropped_prompts.jsonl"))
    assert dropped["wrong_language"] >= 6
    assert capsys.readouterr().err.count("missing: language zu") == 2


def test_near_duplicates_and_siblings_are_never_divided(world: World) -> None:
    rows = freeze(world, Teacher(), TWINS, "generate.prompts_per_principle=12")
    clusters = defaultdict(list)
    for row in rows:
        clusters[row["cluster"]].append(row)
    assert sum(len(members) for members in clusters.values()) == 72
    for cluster, members in clusters.items():
        assert cluster == members[0]["id"], "named after its first prompt"
        assert len({row["split"] for row in members}) == 1
        assert len(members) >= 2
    counts = Counter(row["split"] for row in rows)
    assert counts["held_out"] == pytest.approx(0.34 * 72, abs=2)
    assert counts["sft"] == pytest.approx(counts["dpo"], abs=2)


def test_a_held_out_principle_is_held_out_whole_and_its_twins_too(world: World) -> None:
    rows = freeze(world, Teacher(), TWINS, "generate.held_out_principles=[kindness]")
    assert {row["split"] for row in rows if row["principle_id"] == "kindness"} == {"held_out"}
    assert {row["split"] for row in rows if row["principle_id"] != "kindness"} == {"held_out", "sft", "dpo"}


@pytest.mark.parametrize(
    ("name", "advice"), [("kindnes", "Did you mean 'kindness'?"), ("x", "There are: honesty, kindness, thrift.")]
)
def test_an_unknown_held_out_principle_stops_before_anything_is_asked(
    world: World, name: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.generate(*ONLY_PROMPTS, "--set", f"generate.held_out_principles=[{name}]") == 78
    line = error_line(capsys)
    assert f"has no principle {name!r}" in line
    assert advice in line
    assert world.server.history == []


@pytest.mark.parametrize("at", [3, 12], ids=["in-prompts", "in-twins"])
def test_after_a_kill_the_set_is_the_same_and_only_lost_requests_are_asked_again(world: World, at: int) -> None:
    changes = ("--set", "teacher.concurrency=2", "--set", TWINS)

    def write(name: str, number: int, brief: str) -> str:
        return unlike(name, brief)

    held = threading.Event()

    def teach(body: dict[str, Any]) -> Answer:
        found = Teacher(write=write)(body)
        assert isinstance(found, str)
        return Answer(content=found, held=held if len(world.server.history) >= at else None)

    world.server.respond = teach
    process = start(world, *ONLY_PROMPTS, *changes)
    wait_for(world, at)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    held.set()
    assert not (world.stage / "prompts.jsonl").exists()
    before = Counter(asked.identity for asked in world.server.history)
    world.server.history.clear()
    assert world.generate(*ONLY_PROMPTS, *changes) == 0
    found = (world.stage / "prompts.jsonl").read_bytes()
    assert (Counter(asked.identity for asked in world.server.history) & before).total() <= 2
    (world.runs / "journal" / "replies.jsonl").unlink()
    assert world.generate(*ONLY_PROMPTS, *changes, "--redo") == 0
    assert (world.stage / "prompts.jsonl").read_bytes() == found
    assert found.count(b"\n") == 36


def test_a_list_that_leaves_one_out_fills_the_briefs_its_numbers_name(world: World) -> None:
    def without_the_first(body: dict[str, Any]) -> str:
        briefs = briefs_of(body)
        lines = [f"{number}. {unlike(principle_of(body), brief)}" for number, brief in enumerate(briefs, 1)]
        return "\n".join(lines[1:] if len(briefs) > 1 else lines)

    world.server.respond = without_the_first
    rows = freeze(world, None, "teacher.structured=off", "generate.max_requests_per_principle=9")
    assert by_principle(rows) == FULL
    for name in PRINCIPLES:
        first = next(body for body in (asked.body for asked in world.server.history) if principle_of(body) == name)
        briefs = briefs_of(first)
        own = [row for row in rows if row["principle_id"] == name]
        assert [row["prompt"] for row in own[1:3]] == [unlike(name, brief) for brief in briefs[1:3]]


def test_a_teacher_without_any_usable_prompt_ends_with_an_empty_set(world: World) -> None:
    world.server.respond = lambda body: listed(["Too short."] * len(briefs_of(body)))
    assert freeze(world, None) == []
