"""Red-team prompts come as a stream: no principle waits for another one, and who is first changes nothing."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.fakes.openai_server import Answer, sentence
from tests.generate.world import HANGS_S, PRINCIPLES, World

ONLY_PROMPTS = ("--set", "initial.endpoint=file", "--until", "prompts")


def principle_of(body: dict[str, Any]) -> str:
    last = body["messages"][-1]["content"]
    return next(name for name in PRINCIPLES if name in last)


def listed(prompts: list[str]) -> str:
    return json.dumps({"prompts": prompts})


def test_one_slow_reply_does_not_hold_back_the_other_principles(world: World) -> None:
    first, all_others_asked = threading.Event(), threading.Event()
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def stingy(body: dict[str, Any]) -> str:
        """One prompt a request, and honesty's first reply comes only when the others have asked for all of theirs."""
        name = principle_of(body)
        with lock:
            asked[name] += 1
            number = asked[name]
            if asked["kindness"] >= 4 and asked["thrift"] >= 4:
                all_others_asked.set()
        if name == "honesty" and not first.is_set():
            first.set()
            assert all_others_asked.wait(HANGS_S), "the others wait for honesty's reply"
        return listed([sentence(f"{name} {number}")])

    world.server.respond = stingy
    assert world.generate(*ONLY_PROMPTS, "--set", "teacher.timeout_s=1000") == 0
    assert all_others_asked.is_set()
    assert asked == dict.fromkeys(PRINCIPLES, 4)  # max_requests_per_principle


def shared_pool(body: dict[str, Any]) -> str:
    """Replies full of prompts that other principles get as well, and of their own; the same for the same request."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    count = 1 + digest[0] % 3
    prompts = [
        sentence(f"shared {digest[n + 1] % 9}" if digest[n + 9] % 2 else f"own {digest.hex()} {n}")
        for n in range(count)
    ]
    return listed([*prompts, "Too short."][: 3 - digest[20] % 2])


def late(delays: Iterator[float], body: dict[str, Any]) -> Answer:
    return Answer(content=shared_pool(body), delay_s=next(delays))


def frozen(world: World) -> dict[str, bytes]:
    names = ("prompts.jsonl", "dropped_prompts.jsonl", "failed_prompts.jsonl")
    return {name: (world.stage / name).read_bytes() for name in names}


def test_the_result_is_the_same_in_every_order_of_arrival(world: World, tmp_path: Path) -> None:
    found: list[Any] = []
    for seed in (None, 1, 2, 3):
        draw = random.Random(seed)
        delays = iter([0.0] * 200 if seed is None else [draw.choice([0, 0, 0.01, 0.05]) for _ in range(200)])
        world.server.respond = partial(late, delays)
        (world.runs / "journal" / "replies.jsonl").unlink(missing_ok=True)
        assert world.generate(*ONLY_PROMPTS, *(("--redo",) if found else ())) == 0
        found.append((frozen(world), Counter(one.identity for one in world.server.history)))
        world.server.history.clear()
    assert all(one == found[0] for one in found)
    dropped = Counter(row["drop_reason"] for row in world.rows("dropped_prompts.jsonl"))
    assert dropped["duplicate"] >= 3, "the test asks for something that never happened"


def test_a_principle_that_lost_prompts_to_another_one_asks_once_more(world: World) -> None:
    both = [sentence(f"both {number}") for number in range(3)]

    def same_first(body: dict[str, Any]) -> str:
        name, first = principle_of(body), "seed" in body and asked[principle_of(body)] == 0
        asked[name] += 1
        own = [sentence(f"{name} {asked[name]} {number}") for number in range(3)]
        return listed(both if first and name != "thrift" else own)

    asked: Counter[str] = Counter()
    world.server.respond = same_first
    assert world.generate(*ONLY_PROMPTS) == 0
    rows = world.rows("prompts.jsonl")
    assert Counter(row["principle_id"] for row in rows) == dict.fromkeys(PRINCIPLES, 6)
    assert {row["principle_id"] for row in rows if row["prompt"] in both} == {"honesty"}
    assert {row["id"] for row in world.rows("dropped_prompts.jsonl")}
    assert asked == {"honesty": 2, "kindness": 3, "thrift": 2}


def test_a_request_that_fails_leaves_the_others_and_is_asked_again_under_the_next_index(world: World) -> None:
    def touchy(body: dict[str, Any]) -> str | Answer:
        name = principle_of(body)
        asked[name] += 1
        if name == "kindness" and asked[name] == 1:
            return Answer(status=400, error={"message": "content policy", "code": "content_policy_violation"})
        return listed([sentence(f"{name} {asked[name]} {number}") for number in range(3)])

    asked: Counter[str] = Counter()
    world.server.respond = touchy
    assert world.generate(*ONLY_PROMPTS) == 0
    assert Counter(row["principle_id"] for row in world.rows("prompts.jsonl")) == dict.fromkeys(PRINCIPLES, 6)
    assert asked == {"honesty": 2, "kindness": 3, "thrift": 2}
    (failure,) = world.rows("failed_prompts.jsonl")
    assert (failure["principle_id"], failure["step"], failure["reason"]) == ("kindness", "prompts", "content_policy")
