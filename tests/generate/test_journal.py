"""The journal survives kills, several writers and damage."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import multiprocessing
import os
import random
import tempfile
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.generate import journal_tail
from jobs.generate.journal import Attempt, Journal, Reply, open_journal

FORK = multiprocessing.get_context("fork")
TEXTS = st.text(st.characters(codec=None), max_size=60)


def key(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def attempt(name: str, run: str = "demo") -> Attempt:
    return Attempt(key(name), run, "api.example", "m", "critique", 10, 20)


def reply(text: str) -> Reply:
    return Reply(text=text, finish_reason="stop", prompt_tokens=1, reply_tokens=2, model="m")


def pay(journal: Journal, name: str, text: str) -> None:
    journal.settle(journal.begin(attempt(name)), reply(text))


async def flushed(journal: Journal) -> None:
    """Wait until what was written by now was flushed, well or not."""
    while journal.tail._timer:
        await asyncio.sleep(0.001)
    assert journal.tail._flush
    await asyncio.wait([asyncio.wrap_future(journal.tail._flush)])


def write(folder: Path, texts: dict[str, str]) -> None:
    journal = open_journal(folder)
    for name, text in texts.items():
        pay(journal, name, text)
    journal.close()


def read(folder: Path, names: str) -> tuple[dict[str, str], int]:
    journal = open_journal(folder)
    found = {name: got.text for name in names if (got := journal.get(key(name)))}
    damaged = journal.damaged
    journal.close()
    return found, damaged


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.characters(codec=None), TEXTS, max_size=6))
def test_what_is_settled_is_read_back_before_and_after_reopening(texts: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = open_journal(Path(folder))
        for name, text in texts.items():
            pay(journal, name, text)
            assert journal.get(key(name)) == reply(text)
        journal.close()
        assert read(Path(folder), "".join(texts)) == (texts, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=1, max_value=400), TEXTS)
def test_a_torn_tail_costs_one_line_and_the_next_writer_is_not_glued_to_it(cut: int, text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, {"a": "first", "b": text})
        path = folder / "replies.jsonl"
        data = path.read_bytes()
        second = data.rindex(b"\n\n") + 1
        path.write_bytes(data[: max(second, len(data) - cut)])
        torn_now = read(folder, "ab")
        write(folder, {"c": "after"})
        found, damaged = read(folder, "abc")
        assert found["a"] == "first"
        assert found["c"] == "after"
        assert damaged == torn_now[1] <= 1
        assert ("b" in found) or damaged == 1 or len(data) - cut <= second + 1


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255), st.booleans())
def test_a_changed_byte_never_becomes_another_reply(position: int, byte: int, index_stays: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, {"a": "first text", "b": "second text"})
        path = folder / "replies.jsonl"
        data = bytearray(path.read_bytes())
        data[position % len(data)] = byte
        path.write_bytes(data)
        if not index_stays:
            (folder / "replies.v1.sqlite").unlink()
        found, _ = read(folder, "ab")
        assert set(found.items()) <= {("a", "first text"), ("b", "second text")}
        assert len(found) >= 1


def test_garbage_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1"})
    with (tmp_path / "replies.jsonl").open("ab") as file:
        file.write(b'{"key": 3}\n[]\n\xff\xfe\nnull\n' + b"[" * 100_000 + b"\n")
    write(tmp_path, {"b": "2"})
    assert read(tmp_path, "ab") == ({"a": "1", "b": "2"}, 5)


GOOD_REPLY = {"text": "", "finish_reason": "stop", "prompt_tokens": 1, "reply_tokens": 1, "model": "m"}
GOOD_INTENT = vars(attempt("a"))
PAID = {"run": "demo", "endpoint": "e", "model": "m", "batch": False}


@pytest.mark.parametrize(
    "value",
    [
        {"key": key("a"), "reply": GOOD_REPLY | {"prompt_tokens": "1"}},
        {"key": key("a"), "reply": GOOD_REPLY | {"more": 1}},
        {"key": key("a"), "reply": [1]},
        {"key": "a", "reply": GOOD_REPLY},
        {"key": key("a").upper(), "reply": GOOD_REPLY},
        {"key": key("a"), "reply": GOOD_REPLY, "attempt": "f" * 16, "paid": PAID},
        {"key": key("a"), "reply": GOOD_REPLY, "attempt": "0" * 16, "paid": PAID | {"run": "\ud800"}},
        {"attempt": "0" * 16, "at": 1, "intent": GOOD_INTENT | {"run": 3}},
        {"attempt": "0" * 16, "at": 1, "intent": GOOD_INTENT | {"prompt_tokens": float("inf")}},
        {"attempt": 3, "at": 1, "intent": GOOD_INTENT},
        {"release": None},
        {"attempts": "00", "batch": "b"},
        {"note": "by hand"},
    ],
)
def test_a_line_by_hand_that_says_nothing_is_damaged_whatever_its_check_sum(
    tmp_path: Path, value: dict[str, object]
) -> None:
    (tmp_path / "replies.jsonl").write_bytes(checked(value))
    assert read(tmp_path, "a") == ({}, 1)


def checked(value: dict[str, object]) -> bytes:
    body = json.dumps(value, sort_keys=True).encode()
    return b'{"crc32": %d, %b\n' % (zlib.crc32(body), body[1:])


def test_unbelievable_token_counts_do_not_end_the_run(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    odd = Reply(text="", finish_reason="stop", prompt_tokens=10**30, reply_tokens=-1, model="m")
    journal.settle(journal.begin(attempt("a")), odd)
    (spent,) = journal.account("demo")
    assert (spent.prompt_tokens, spent.reply_tokens) == (2**40, 0)
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.get(key("a")) == odd
    journal.close()


def test_a_line_of_the_first_version_still_answers(tmp_path: Path) -> None:
    old = (
        b'{"crc32": 1396283975, "key": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "reply": '
        b'{"finish_reason": "stop", "model": "m", "prompt_tokens": 7, "reply_tokens": 9, "text": "Umu\\u2026"}}\n'
    )
    (tmp_path / "replies.jsonl").write_bytes(b"\n" + old)
    journal = open_journal(tmp_path)
    found = journal.get(key("a"))
    assert found is not None
    assert (found.text, found.prompt_tokens, found.batch) == ("Umu…", 7, False)
    assert (journal.damaged, journal.account(""), journal.count()) == (0, [], 1)
    journal.close()


def test_the_first_reply_to_a_request_stays(tmp_path: Path) -> None:
    write(tmp_path, {"a": "first"})
    write(tmp_path, {"a": "second"})
    assert read(tmp_path, "a")[0] == {"a": "first"}


def test_a_key_that_is_no_key_is_a_bug(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(ValueError, match="64 hex digits"):
        journal.get("ab")
    with pytest.raises(ValueError, match="64 hex digits"):
        journal.begin(replace(attempt("a"), key="AB" * 32))
    journal.close()


def write_many(folder: str, writer: int) -> None:
    write(Path(folder), {f"{writer}-{number}": f"{writer} " + "x" * 5000 for number in range(60)})


def test_two_processes_write_while_a_third_reads(tmp_path: Path) -> None:
    processes = [FORK.Process(target=write_many, args=(str(tmp_path), writer)) for writer in range(2)]
    journal = open_journal(tmp_path)
    for process in processes:
        process.start()
    counts = [0]
    while any(process.is_alive() for process in processes):
        counts.append(journal.count())
        time.sleep(0.02)
    assert counts == sorted(counts)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (journal.damaged, journal.count()) == (0, 120)
    assert all(journal.get(key(f"{writer}-{number}")) for writer in range(2) for number in range(60))
    assert sum(spent.requests for spent in journal.account("demo")) == 120
    journal.close()


def pay_and_tell(folder: Path, turn: int, tell: int) -> None:
    async def pay_on() -> None:
        journal = open_journal(folder)
        os.write(tell, b"open\n")
        for number in range(10**9):
            name = f"{turn}-{number}"
            attempt_id = journal.begin(attempt(name))
            os.write(tell, f"sent {attempt_id} {name}\n".encode())
            journal.settle(attempt_id, reply("x" * (number % 3000)))
            os.write(tell, f"kept {attempt_id} {name}\n".encode())
            if number % 10 == 0:
                await asyncio.sleep(0)

    asyncio.run(pay_on())


def killed(folder: Path, turn: int) -> list[list[str]]:
    """What a process told before it was killed at a random moment."""
    told, tell = os.pipe()
    process = FORK.Process(target=pay_and_tell, args=(folder, turn, tell))
    process.start()
    os.close(tell)
    with os.fdopen(told) as lines:
        lines.readline()
        timer = threading.Timer(random.Random(turn).uniform(0, 0.2), process.kill)
        timer.start()
        shown = lines.read()
    timer.join()
    process.join()
    return [line.split() for line in shown.splitlines()]


def test_kill_9_at_any_moment_keeps_every_line_that_was_written(tmp_path: Path) -> None:
    kept: set[str] = set()
    sent: set[str] = set()
    settled: set[str] = set()
    for turn in range(20):
        shown = killed(tmp_path, turn)
        kept |= {name for word, _, name in shown if word == "kept"}
        sent |= {number for word, number, _ in shown if word == "sent"}
        settled |= {number for word, number, _ in shown if word == "kept"}
        journal = open_journal(tmp_path)
        lost = {found.id for found in journal.lost("demo")}
        # What was written last may not have been told.
        assert len(sent - settled - lost) + len(lost - sent) <= turn + 1
        assert not lost & settled
        assert 0 <= journal.count() - len(kept) <= turn + 1
        assert sum(spent.requests for spent in journal.account("demo")) == journal.count()
        assert journal.damaged <= turn + 1
        assert all(journal.get(key(name)) for name in random.Random(turn).sample(sorted(kept), min(200, len(kept))))
        journal.close()
    assert len(kept) > 100


def test_fsync_is_shared_and_comes_within_100_ms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(journal_tail.os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    waits_s: list[float] = []

    async def arrive() -> None:
        journal = open_journal(tmp_path)
        loop = asyncio.get_running_loop()
        later = loop.call_later

        def timed(wait_s: float, *call: Any) -> asyncio.TimerHandle:
            waits_s.append(wait_s)
            return later(wait_s, *call)

        monkeypatch.setattr(loop, "call_later", timed)
        for number in range(20):
            pay(journal, str(number), "x")
        assert (tmp_path / "replies.jsonl").read_bytes().count(b'"text"') == 20, "written before the shared fsync"
        assert synced == []
        (wait_s,) = waits_s
        assert wait_s < 0.1
        await flushed(journal)
        assert synced == [journal.descriptor]
        assert journal.index.find(bytes.fromhex(key("19"))), "in the index by then"
        journal.close()

    asyncio.run(arrive())


def test_a_disk_that_fails_is_told_at_the_next_line_and_at_every_one_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def arrive() -> None:
        journal = open_journal(tmp_path)
        attempt_id = journal.begin(attempt("a"))
        monkeypatch.setattr(journal_tail.os, "fsync", broken)
        await flushed(journal)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                journal.settle(attempt_id, reply("x"))
        with pytest.raises(OSError, match="Input/output"):
            journal.close()

    asyncio.run(arrive())


def test_a_full_disk_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    real = os.write
    monkeypatch.setattr(journal_tail.os, "write", lambda descriptor, data: real(descriptor, data[:30]))
    with pytest.raises(OSError, match="No space left"):
        journal.begin(attempt("a"))
    monkeypatch.undo()
    pay(journal, "b", "after")
    journal.close()
    assert read(tmp_path, "ab") == ({"b": "after"}, 1)


def test_one_journal_may_see_several_event_loops(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)

    async def arrive(name: str) -> None:
        pay(journal, name, name)

    async def arrive_and_wait(name: str) -> None:
        await arrive(name)
        await flushed(journal)

    asyncio.run(arrive("a"))  # its loop ends before its timer comes
    asyncio.run(arrive_and_wait("b"))
    assert journal.index.find(bytes.fromhex(key("b")))
    journal.close()
    assert read(tmp_path, "ab") == ({"a": "a", "b": "b"}, 0)
