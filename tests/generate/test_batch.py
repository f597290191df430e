"""`teacher.mode: batch` against a server with a Batch API: the same records at half the price, whatever goes wrong."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.generate import batch_lines, batch_post, batch_watch, faults, teacher
from jobs.generate.endpoint import Endpoint
from jobs.generate.faults import Fault, FaultError
from jobs.generate.journal import Reply, open_journal
from tests.fakes.load_behaviour import Behaviour
from tests.generate.batches import LINES, QUIET_S, Batches, served, world
from tests.generate.world import error_line

__all__ = ["served", "world"]

ENDPOINT = Endpoint("host", "model", ("http://host/v1",), "auto")
FIELDS = st.sampled_from(["custom_id", "response", "error", "status_code", "body", "choices", "message", "code"])
VALUES = st.none() | st.integers() | st.text() | st.floats(allow_nan=True)
JSON = st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner), max_leaves=12)


def test_both_modes_give_the_same_records_and_a_batch_costs_half(world: Batches) -> None:
    live = world.live_rows()
    assert world.generate() == 0
    stats = world.server.stats()
    assert (stats.batches, stats.batch_lines, stats.attempts) == (3, LINES, 45), "the student alone is asked live"
    assert world.rows() == live
    halves, whole = world.manifest(), world.manifest("live")
    assert halves["cost_usd"] == pytest.approx(whole["cost_usd"] / 2)
    assert halves["measures"]["account"]["spent_usd"] == pytest.approx(whole["cost_usd"] / 2)
    assert halves["tokens"] == whole["tokens"]


def test_a_slow_student_does_not_split_the_step(world: Batches) -> None:
    world.server.change(Behaviour(batch_s=0.02, latency_s=3 * QUIET_S))
    assert world.generate("teacher.concurrency=16") == 0
    stats = world.server.stats()
    assert (stats.batches, stats.attempts) == (3, 45)


def test_without_a_batch_api_it_says_so_once_and_asks_live(world: Batches, capsys: pytest.CaptureFixture[str]) -> None:
    live = world.live_rows()
    world.server.change(Behaviour(batch_api=False))
    assert world.generate() == 0
    assert world.rows() == live
    assert capsys.readouterr().err.count("has no Batch API (HTTP 404); asking live") == 1


def test_lines_that_fail_or_expire_are_sent_again_and_no_other(world: Batches) -> None:
    live = world.live_rows()
    world.server.change(Behaviour(batch_s=0.02, batch_line_failed=0.15, batch_line_expired=0.15))
    assert world.generate() == 0
    stats = world.server.stats()
    assert world.rows() == live
    assert stats.delivered_twice == 0
    assert stats.batch_lines > LINES, "some were sent again in a batch"
    assert stats.attempts > 45, "few or stubborn ones were asked live"


def test_a_refused_line_fails_as_it_does_live(world: Batches) -> None:
    poison = Behaviour(batch_s=0.02, poison=0.05)
    world.server.change(poison)
    live = world.live_rows()
    assert world.generate() == 0
    assert world.rows() == live
    failures = (world.folder / "batch" / "tiny" / "generate" / "failures.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in failures} == {"content_policy"}


def test_batches_that_are_never_taken_are_halved_and_then_asked_live(
    world: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    live = world.live_rows()
    world.server.change(Behaviour(batch_s=0.02, batch_failed=1.0))
    assert world.generate() == 0
    assert world.rows() == live
    assert world.server.stats().batch_lines == 0
    shown = capsys.readouterr().err
    assert "does not take a batch of 45 requests: server_error: The batch could not be validated" in shown


def spent_usd(world: Batches) -> float:
    """What the journal says the teacher was paid for replies that came."""
    with closing(open_journal(world.folder / "batch" / "journal")) as journal:
        paid = [one for one in journal.account("tiny") if one.model == "fake-teacher"]
        assert journal.lost("tiny") == []
    return sum((one.prompt_tokens + 4 * one.reply_tokens) / (2 if one.batch else 1) / 1e6 for one in paid)


def test_a_budget_stops_within_the_cap_and_a_larger_one_ends_as_if_nothing_had_happened(
    world: Batches, capsys: pytest.CaptureFixture[str]
) -> None:
    # Replies near their limits, so that many fit the budget at once.
    caps = ("generate.prompt_tokens=120", "generate.response_tokens=64", "generate.critique_tokens=64")
    live = world.live_rows(*caps)
    cap = world.manifest("live")["cost_usd"] * 0.45
    assert world.generate(*caps, f"budget_usd={cap}") == 75
    assert "Raise budget_usd and run again" in error_line(capsys)
    assert cap / 2 < spent_usd(world) <= cap
    assert world.generate(*caps) == 0
    assert world.rows() == live
    assert world.server.stats().delivered_twice == 0


def test_what_is_too_much_at_once_is_sent_in_parts_one_after_another(
    world: Batches, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look, taken = teacher.BatchApi.look, list[int]()
    errors = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}]}

    async def crowded(api: teacher.BatchApi, batch_id: str) -> teacher.Batch:
        batch = await look(api, batch_id)
        assert batch.request_counts
        if batch.request_counts.total <= 12:
            taken.append(batch.request_counts.total)
            return batch
        full: dict[str, Any] = batch.to_dict() | {"status": "failed", "errors": errors}
        return teacher.Batch.model_validate(full)

    monkeypatch.setattr(teacher.BatchApi, "look", crowded)
    assert world.generate() == 0
    assert "does not take a batch of 45 requests: token_limit_exceeded" in capsys.readouterr().err
    assert world.server.stats().attempts == 45, "nothing was asked live but the student"
    assert max(taken) <= 10


def test_a_refused_parameter_is_left_out_of_the_next_batch(world: Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    old: set[str] = set()
    encode, read = batch_post.encode, batch_watch.read

    def noted(custom_id: str, body: dict[str, Any]) -> bytes:
        old.update([custom_id] if "max_tokens" in body else [])
        return encode(custom_id, body)

    def refused(raw: bytes, endpoint: Endpoint, _: object) -> tuple[str, Reply | Fault] | None:
        found = read(raw, endpoint, {})
        if found and found[0] in old:
            said = b'{"error": {"message": "Unsupported parameter: max_tokens"}}'
            return found[0], faults.classify(400, {}, said, model="m", key_name="k")
        return found

    monkeypatch.setattr(batch_post, "encode", noted)
    monkeypatch.setattr(batch_watch, "read", refused)
    assert world.generate() == 0
    assert len(old) == 45, "the first batch alone"
    assert world.server.stats().batch_lines == LINES + 45


def test_a_batch_whose_creation_got_no_answer_is_looked_for_before_another_is_made(
    world: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = teacher.BatchApi.create

    async def silent(api: teacher.BatchApi, file_id: str, marker: dict[str, str]) -> teacher.Batch:
        await create(api, file_id, marker)
        raise FaultError(faults.no_answer(ConnectionResetError(), sent=True))

    monkeypatch.setattr(teacher.BatchApi, "create", silent)
    assert world.generate() == 0
    assert world.server.stats().batches == 3


def test_a_refused_key_ends_the_run_with_69(
    world: Batches, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def unauthorised(*_: object) -> None:
        raise FaultError(faults.classify(401, {}, b"no", model="m", key_name="OPENAI_API_KEY"))

    monkeypatch.setattr(teacher.BatchApi, "upload", unauthorised)
    assert world.generate("budget_usd=0.022") == 69
    assert "the key is refused. Check OPENAI_API_KEY" in error_line(capsys)


def test_the_embedded_teacher_has_no_batches(world: Batches, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.generate("teacher.endpoint=embedded") == 78
    assert "teacher.mode is batch" in error_line(capsys)


@given(st.one_of(st.binary(), st.builds(lambda value: json.dumps(value).encode(), JSON)))
def test_no_line_of_an_output_file_is_an_error(raw: bytes) -> None:
    found = batch_lines.read(raw, ENDPOINT, {})
    assert found is None or isinstance(found[0], str)
