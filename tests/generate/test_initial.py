"""Who writes the initial response: a URL (everywhere else), a file, or the teacher's invention."""

from __future__ import annotations

import pytest

from jobs.common.held_out import Response
from jobs.common.jsonl import write_records
from tests.fakes.openai_server import FakeServer
from tests.generate.world import KEY, World


def responses(world: World, leave_out: int = 0) -> list[Response]:
    rows = world.rows("prompts.jsonl")
    return [
        Response(
            id=row["id"],
            principle_id=row["principle_id"],
            prompt=row["prompt"],
            system="base",
            response=f"My own answer to this, number {number}.",
            response_tokens=9,
            truncated=False,
            model="big-student",
            prompt_version="1",
        )
        for number, row in enumerate(rows[leave_out:])
    ]


def test_file_stops_after_the_prompts_and_goes_on_with_the_students_answers(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.sets("initial.endpoint=file") == 78
    shown = capsys.readouterr().err
    assert "cai respond --system base --run tiny" in shown
    assert "cai generate --run tiny" in shown
    frozen = (world.stage / "prompts.jsonl").read_bytes()
    path = world.runs / "tiny" / "initial" / "responses.jsonl"
    write_records(path, responses(world, leave_out=2))
    assert world.sets("initial.endpoint=file") == 78
    assert "lacks 2 of 18" in capsys.readouterr().err
    write_records(path, responses(world))
    assert world.sets("initial.endpoint=file") == 0
    assert (world.stage / "prompts.jsonl").read_bytes() == frozen
    rows = world.rows("revisions.jsonl")
    assert {row["initial_model"] for row in rows} == {"big-student"}
    assert all(row["initial_response"].startswith("My own answer") for row in rows)
    assert world.manifest()["measures"]["initial_kind"] == "file"
    assert {asked.body["model"] for asked in world.server.history} == {"fake-teacher"}
    assert world.sets("initial.endpoint=file") == 0
    write_records(path, [row.model_copy(update={"response": "Other words."}) for row in responses(world)])
    assert world.sets("initial.endpoint=file") == 78
    assert "responses.jsonl changed since generate finished. Run: cai generate" in capsys.readouterr().err


def test_an_empty_answer_of_the_student_is_a_failure_row_and_no_pair(world: World) -> None:
    assert world.sets("initial.endpoint=file") == 78
    path = world.runs / "tiny" / "initial" / "responses.jsonl"
    first, *rest = responses(world)
    write_records(path, [first.model_copy(update={"response": " "}), *rest])
    assert world.sets("initial.endpoint=file") == 0
    (failure,) = world.rows("failures.jsonl")
    assert (failure["id"], failure["step"], failure["reason"]) == (first.id, "initial", "empty")
    assert len(world.rows("revisions.jsonl")) == 17


def test_an_invented_response_is_labelled_in_rows_and_manifest(world: World) -> None:
    assert world.sets("initial.endpoint=teacher") == 0
    assert {row["initial_model"] for row in world.rows("revisions.jsonl")} == {"fake-teacher (invented)"}
    assert {row["rejected_model"] for row in world.rows("pairs.jsonl")} == {"fake-teacher (invented)"}
    assert world.manifest()["measures"]["initial_kind"] == "teacher"


def test_the_teachers_key_is_not_sent_to_the_students_host(world: World) -> None:
    with FakeServer() as student:
        assert world.sets(f"initial.endpoint={student.url}") == 0
        assert len(student.history) == 18
        assert not [asked for asked in student.history if KEY in asked.authorization]
        assert {asked.body["model"] for asked in student.history} == {"fake-student"}
    assert {asked.authorization for asked in world.server.history} == {f"Bearer {KEY}"}
