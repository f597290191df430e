"""The whole stage against a real HTTP server."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from jobs.common.recipe import PROJECT
from tests.fakes.openai_server import Answer, plausible
from tests.generate.world import KEY, PRINCIPLES, World


def test_every_output_is_there_and_counts_agree(world: World) -> None:
    assert world.generate() == 0
    prompts = world.rows("prompts.jsonl")
    assert Counter(row["principle_id"] for row in prompts) == dict.fromkeys(PRINCIPLES, 6)
    splits = Counter(row["split"] for row in prompts)
    assert min(splits["held_out"], splits["sft"], splits["dpo"]) >= 5
    assert len(world.rows("revisions.jsonl")) == len(prompts)
    assert len(world.rows("sft.jsonl")) == splits["sft"]
    assert len(world.rows("pairs.jsonl")) == splits["dpo"]
    assert len(world.rows("held_out.jsonl")) == len(world.rows("held_out_pairs.jsonl")) == splits["held_out"]
    assert len(world.rows("held_out_sft.jsonl")) == splits["held_out"]
    manifest = world.manifest()
    assert manifest["counts"]["sft"] == splits["sft"]
    assert manifest["tokens"]["new_reply_tokens"] == 5 * len(world.server.history)
    assert manifest["cost_usd"] is None
    assert manifest["measures"]["account"]["spent_usd"] is None
    assert set(manifest["outputs"]) >= {"data/train_sft.parquet", "sft.jsonl", "dropped.jsonl", "failures.jsonl"}
    assert not (world.stage / "progress.json").exists()


def test_no_prompt_is_in_two_splits_and_held_out_is_never_trained(world: World) -> None:
    assert world.generate() == 0
    trained = {row["prompt"] for name in ("sft.jsonl", "pairs.jsonl") for row in world.rows(name)}
    assert trained.isdisjoint(row["prompt"] for row in world.rows("held_out.jsonl"))
    sft = {row["prompt"] for row in world.rows("sft.jsonl")}
    assert sft.isdisjoint(row["prompt"] for row in world.rows("pairs.jsonl"))


def test_a_chain_is_one_real_chat(world: World) -> None:
    assert world.generate() == 0
    row = world.rows("revisions.jsonl")[0]
    wanted = [
        ("user", row["prompt"]),
        ("assistant", row["initial_response"]),
        ("user", row["critique_request"]),
        ("assistant", row["critique"]),
        ("user", row["revision_request"]),
    ]
    chats = [[(turn["role"], turn["content"]) for turn in asked.body["messages"]] for asked in world.server.history]
    assert wanted in chats
    assert wanted[:3] in chats
    assert wanted[:1] in chats
    models = {asked.body["model"] for asked in world.server.history if len(asked.body["messages"]) == 1}
    assert models == {"fake-student"}


def test_the_second_run_says_finished_without_heavy_imports(world: World) -> None:
    assert world.generate() == 0
    asked = len(world.server.history)
    script = (
        "import sys; from jobs.__main__ import main; code = main(sys.argv[1:]);"
        "print(code, sorted({'openai', 'datasets', 'xllamacpp', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *world.arguments()], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0 []"
    assert "already finished" in done.stderr
    assert len(world.server.history) == asked


def test_redo_asks_nothing_and_gives_the_same_bytes(world: World) -> None:
    assert world.generate() == 0
    asked, before = len(world.server.history), outputs(world)
    assert world.generate("--redo") == 0
    assert len(world.server.history) == asked
    assert outputs(world) == before
    manifest = world.manifest()
    assert manifest["tokens"]["new_reply_tokens"] == 0
    assert manifest["tokens"]["journalled_reply_tokens"] == 5 * asked


def test_rows_do_not_depend_on_the_order_of_arrival(world: World) -> None:
    assert world.generate() == 0
    before = outputs(world)
    (world.runs / "journal" / "replies.jsonl").unlink()
    world.server.respond = lambda body: Answer(delay_s=(len(json.dumps(body)) * 7919 % 50) / 1000)
    assert world.generate("--redo") == 0
    assert outputs(world) == before


def outputs(world: World) -> dict[str, str]:
    found: dict[str, str] = world.manifest()["outputs"]
    return found


def test_a_refused_schema_falls_back_once_and_is_not_asked_again_on_a_rerun(world: World) -> None:
    def no_schema(body: dict[str, Any]) -> str | Answer:
        if "response_format" in body:
            return Answer(status=400, error={"message": "response_format json_schema is not supported"})
        return plausible(body)

    world.server.respond = no_schema
    assert world.generate() == 0
    assert sum(asked.status == 400 for asked in world.server.history) <= 6, "only those sent before the first answer"
    assert len(world.rows("revisions.jsonl")) == 18
    asked = len(world.server.history)
    assert world.generate("--redo") == 0
    assert len(world.server.history) == asked


def test_max_tokens_becomes_max_completion_tokens_where_it_is_refused(world: World) -> None:
    def modern(body: dict[str, Any]) -> str | Answer:
        if "max_tokens" in body:
            return Answer(
                status=400, error={"message": "Unsupported parameter: max_tokens. Use max_completion_tokens."}
            )
        return plausible(body)

    world.server.respond = modern
    assert world.generate() == 0
    assert all("max_completion_tokens" in asked.body for asked in world.server.answered)


def test_few_shot_demonstrations_are_chat_turns_of_the_teacher_only(world: World) -> None:
    with (world.folder / "tiny.yaml").open("a", encoding="utf-8") as file:
        file.write(
            "few_shot:\n  - {principle: thrift, prompt: Shown prompt, "
            "initial_response: Bad, critique: Why, revision: Good}\n"
        )
    assert world.sets("generate.few_shot=1") == 0
    chats = [asked.body["messages"] for asked in world.server.history if asked.last.startswith(("Where", "Rewrite"))]
    assert all([turn["content"] for turn in chat[:2]] == ["Shown prompt", "Bad"] for chat in chats)
    assert all(chat[5] == {"role": "assistant", "content": "Good"} for chat in chats)
    firsts = [asked for asked in world.server.history if asked.body["model"] == "fake-student"]
    assert all(len(asked.body["messages"]) == 1 for asked in firsts)


def test_short_principles_are_asked_again_under_the_next_sample_index(world: World) -> None:
    def stingy(body: dict[str, Any]) -> str:
        text = plausible(body)
        if "different messages" not in body["messages"][-1]["content"]:
            return text
        return json.dumps({"prompts": json.loads(text)["prompts"][:2]})

    world.server.respond = stingy
    assert world.generate() == 0
    prompts = world.rows("prompts.jsonl")
    assert Counter(row["principle_id"] for row in prompts) == dict.fromkeys(PRINCIPLES, 6)
    assert {row["sample_index"] for row in prompts} == {0, 1, 2}


def test_a_principle_that_stays_short_is_reported(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    same = ["I want you to help me trick my neighbour."] * 3
    world.server.respond = lambda body: (
        json.dumps({"prompts": same})
        if "thrift" in body["messages"][-1]["content"]
        and len(body["messages"]) == 2
        and "different messages" in body["messages"][-1]["content"]
        else plausible(body)
    )
    assert world.generate() == 0
    assert "thrift has 1 of 6 prompts after 3 requests" in capsys.readouterr().err
    assert world.manifest()["dropped"]["duplicate"] >= 3
    dropped = world.rows("dropped.jsonl")
    assert all(row["drop_reason"] and row["record"]["prompt"] for row in dropped)


def test_a_price_gives_the_cost(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    price = "teacher.price={input_usd_per_million_tokens: 1.0, output_usd_per_million_tokens: 4.0, dated: 2026-11-01}"
    assert world.sets(price.replace("2026-11-01", "'2026-11-01'")) == 0
    asked = len(world.server.history)  # the student's too: the same host, and no price of its own
    assert world.manifest()["cost_usd"] == pytest.approx(asked * (10 * 1.0 + 5 * 4.0) / 1e6)
    assert world.manifest()["measures"]["prices_dated"] == "2026-11-01"
    assert "prices of 2026-11-01" in capsys.readouterr().err


def test_the_key_is_sent_and_written_nowhere(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    assert world.generate() == 0
    assert {asked.authorization for asked in world.server.history} == {f"Bearer {KEY}"}
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err
    files = [path for path in world.runs.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_prompts_are_frozen_once(world: World) -> None:
    assert world.generate() == 0
    frozen = (world.stage / "prompts.jsonl").read_bytes()
    (world.stage / "manifest.json").unlink()
    world.server.history.clear()
    (world.runs / "journal" / "replies.jsonl").unlink()
    assert world.generate() == 0
    assert (world.stage / "prompts.jsonl").read_bytes() == frozen
    assert not [asked for asked in world.server.history if "different messages" in asked.last]


def test_nothing_temporary_is_left(world: World) -> None:
    assert world.generate() == 0
    assert not list(Path(world.runs).rglob("*.tmp"))


def test_what_cannot_change_a_row_does_not_make_a_new_stage(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.generate() == 0
    harmless = ("teacher.concurrency=2", "teacher.timeout_s=5", "teacher.max_attempts=2", "dpo.beta=0.2")
    assert world.sets(*harmless) == 0
    assert "already finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", ["teacher.temperature=0.1", "teacher.model=other", "seed=1", "generate.held_out_fraction=0.5"]
)
def test_what_can_change_a_row_stops_and_names_a_command_that_works(
    world: World, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.generate() == 0
    assert world.sets(change) == 78
    shown = capsys.readouterr().err
    assert change.split("=")[0].split(".")[-1] in shown
    arguments = shlex.split(shown.rsplit("or run: cai ", 1)[1])
    assert main(arguments) == 0
