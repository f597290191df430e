"""The journal survives kills, several writers and damage."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.generate.journal import Reply, open_journal

TEXTS = st.text(st.characters(codec=None), max_size=60)


def reply(text: str) -> Reply:
    return Reply(text=text, finish_reason="stop", prompt_tokens=1, reply_tokens=2, model="m")


def write(folder: Path, texts: dict[str, str]) -> None:
    journal = open_journal(folder)
    for key, text in texts.items():
        journal.append(key, reply(text))
    journal.close()


def read(folder: Path) -> tuple[dict[str, str], int]:
    journal = open_journal(folder)
    journal.close()
    return {key: found.text for key, found in journal.replies.items()}, journal.damaged


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), TEXTS, max_size=6))
def test_what_is_appended_is_read_back(texts: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), texts)
        assert read(Path(folder)) == (texts, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=1, max_value=400), TEXTS)
def test_a_torn_tail_costs_one_line_and_the_next_writer_is_not_glued_to_it(cut: int, text: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, {"a": "first", "b": text})
        path = folder / "replies.jsonl"
        data = path.read_bytes()
        second = data.index(b"\n\n") + 1
        path.write_bytes(data[: max(second, len(data) - cut)])
        write(folder, {"c": "after"})
        found, damaged = read(folder)
        assert found["a"] == "first"
        assert found["c"] == "after"
        assert damaged <= 1
        assert ("b" in found) or damaged == 1 or len(data) - cut <= second + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_changed_byte_never_becomes_another_reply(position: int, byte: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, {"a": "first text", "b": "second text"})
        path = folder / "replies.jsonl"
        data = bytearray(path.read_bytes())
        data[position % len(data)] = byte
        path.write_bytes(data)
        found, _ = read(folder)
        assert set(found.items()) <= {("a", "first text"), ("b", "second text")}
        assert len(found) >= 1


def test_garbage_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1"})
    with (tmp_path / "replies.jsonl").open("ab") as file:
        file.write(b'{"key": 3}\n[]\n\xff\xfe\nnull\n')
    write(tmp_path, {"b": "2"})
    assert read(tmp_path) == ({"a": "1", "b": "2"}, 4)


def test_the_first_reply_to_a_request_stays(tmp_path: Path) -> None:
    write(tmp_path, {"a": "first"})
    write(tmp_path, {"a": "second"})
    assert read(tmp_path)[0] == {"a": "first"}


def write_many(folder: str, writer: int) -> None:
    write(Path(folder), {f"{writer}-{number}": f"{writer} " + "x" * 5000 for number in range(60)})


def test_two_processes_may_append_to_one_journal(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=write_many, args=(str(tmp_path), writer)) for writer in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found, damaged = read(tmp_path)
    assert damaged == 0
    assert len(found) == 120


def test_fsync_is_shared_and_comes_within_100_ms(tmp_path: Path) -> None:
    synced: list[int] = []

    async def arrive() -> None:
        journal = open_journal(tmp_path)
        for number in range(20):
            journal.append(str(number), reply("x"))
        assert journal._pending is not None
        synced.append((tmp_path / "replies.jsonl").read_bytes().count(b'"key"'))
        await asyncio.sleep(0.15)
        assert journal._pending is None
        journal.close()

    asyncio.run(arrive())
    assert synced[0] == 20, "each reply is written before the shared fsync"
