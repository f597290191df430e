"""The index is a cache: built at once or by and by, deleted, damaged or held by another, the answers stay the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.generate import journal_index, journal_tail
from jobs.generate.journal import Attempt, Journal, OpenAttempt, Reply, Spent, open_journal
from jobs.generate.journal_lines import answer_line
from jobs.generate.journal_records import Payer
from tests.generate.test_journal import FORK, flushed, key, pay

INDEX = "replies.v1.sqlite"
RUNS = ("demo", "other", "")


@dataclass
class Model:
    """The journal in plain Python."""

    replies: dict[str, Reply] = field(default_factory=dict)
    sent: dict[str, Attempt] = field(default_factory=dict)
    paid: dict[str, Reply] = field(default_factory=dict)
    open: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and batch id by attempt id."""

    def account(self, run: str) -> set[tuple[str, str, bool, int, int, int]]:
        sums: dict[tuple[str, str, bool], list[int]] = {}
        for number, reply in self.paid.items():
            sent = self.sent[number]
            if sent.run == run:
                total = sums.setdefault((sent.endpoint, sent.model, sent.batch), [0, 0, 0])
                total[:] = [total[0] + 1, total[1] + reply.prompt_tokens, total[2] + reply.reply_tokens]
        return {(*payer, *total) for payer, total in sums.items()}  # type: ignore[misc]

    def lost(self, run: str) -> dict[str, tuple[str, str]]:
        return {number: found for number, found in self.open.items() if self.sent[number].run == run}


ATTEMPTS = st.builds(
    Attempt,
    key=st.sampled_from("abcd").map(key),
    run=st.sampled_from(RUNS),
    endpoint=st.sampled_from(["x", "yé"]),
    model=st.sampled_from(["m", "n"]),
    step=st.just("critique"),
    prompt_tokens=st.integers(0, 9),
    reply_tokens=st.integers(0, 9),
    batch=st.booleans(),
)
REPLIES = st.builds(
    Reply,
    text=st.text(max_size=5),
    finish_reason=st.just("stop"),
    prompt_tokens=st.integers(0, 9),
    reply_tokens=st.integers(0, 9),
    model=st.just("m"),
    batch=st.booleans(),
)
EVENTS = st.one_of(
    st.tuples(st.just("begin"), ATTEMPTS),
    st.tuples(st.just("settle"), st.integers(0, 99), REPLIES),
    st.tuples(st.just("release"), st.integers(0, 99)),
    st.tuples(st.just("lose"), st.integers(0, 99), st.text(min_size=1, max_size=3)),
    st.tuples(st.just("batch"), st.lists(st.integers(0, 99), max_size=3), st.sampled_from(["b1", "b2"])),
    st.tuples(st.just("look")),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("copy last line")),
)


def apply(event: tuple, journal: Journal, model: Model) -> None:  # type: ignore[type-arg]
    """One event, to both; events that name an attempt take one that is open."""
    name = event[0]
    numbers = sorted(model.open)
    if name == "begin":
        number = journal.begin(event[1])
        model.sent[number] = event[1]
        model.open[number] = ("in flight", "")
    elif name == "batch":
        some = sorted({numbers[index % len(numbers)] for index in event[1]}) if numbers else []
        journal.batch_created(event[2], some)
        model.open |= {number: (model.open[number][0], event[2]) for number in some}
    elif name == "copy last line":
        data = journal.path.read_bytes()
        with journal.path.open("ab") as file:
            file.write(data[data[:-1].rfind(b"\n") :] if data else b"")
    elif numbers and name in {"settle", "release", "lose"}:
        number = numbers[event[1] % len(numbers)]
        if name == "settle":
            journal.settle(number, event[2])
            model.paid[number] = event[2]
            model.replies.setdefault(model.sent[number].key, event[2])
        elif name == "release":
            journal.release(number)
        else:
            journal.lose(number, event[2])
            model.open[number] = (event[2], model.open[number][1])
        if name != "lose":
            del model.open[number]


def compare(journal: Journal, model: Model) -> None:
    assert {name: journal.get(key(name)) for name in "abcd"} == {name: model.replies.get(key(name)) for name in "abcd"}
    assert journal.count() == len(model.replies)
    for run in RUNS:
        account = journal.account(run)
        assert {tuple(vars(spent).values()) for spent in account} == model.account(run)
        assert len(account) == len(model.account(run))
        for found in journal.lost(run):
            sent = model.sent[found.id]
            assert vars(found) | vars(sent) == vars(found)
    assert journal.damaged == 0


def lost(journal: Journal, run: str) -> dict[str, tuple[str, str]]:
    return {found.id: (found.reason, found.batch_id) for found in journal.lost(run)}


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_index_and_rebuilt_index_answer_as_plain_python_does(events: list[tuple]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Model()
        journal = open_journal(folder)
        for event in events:
            if event[0] == "reopen":
                journal.close()
                journal = open_journal(folder)
            elif event[0] == "look":
                compare(journal, model)
            else:
                apply(event, journal, model)
        compare(journal, model)
        journal.close()
        for again in ("as it is", "rebuilt"):
            if again == "rebuilt":
                (folder / INDEX).unlink()
            journal = open_journal(folder)
            compare(journal, model)
            assert {run: lost(journal, run) for run in RUNS} == {run: model.lost(run) for run in RUNS}
            journal.close()


def test_attempts_in_flight_here_are_not_lost_and_those_given_up_are(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    first, second = (journal.begin(Attempt(key(name), "demo", "e", "m", "critique", 3, 4)) for name in "ab")
    assert journal.lost("demo") == []
    journal.lose(second, "timeout \ud800")
    (found,) = journal.lost("demo")
    assert (found.id, found.reason, found.batch_id) == (second, "timeout ?", "")
    journal.close()
    journal = open_journal(tmp_path)
    assert {found.id: found.reason for found in journal.lost("demo")} == {first: "in flight", second: "timeout ?"}
    journal.settle(first, Reply(text="late", finish_reason="stop", prompt_tokens=1, reply_tokens=2, model="m"))
    assert [found.id for found in journal.lost("demo")] == [second]
    assert journal.account("demo") == [Spent("e", "m", False, 1, 1, 2)]
    with pytest.raises(KeyError):
        journal.settle(first, Reply(text="again", finish_reason="stop", prompt_tokens=1, reply_tokens=2, model="m"))
    journal.close()


def answers(folder: Path) -> tuple[list[Reply | None], list[Spent], list[OpenAttempt], int, int]:
    journal = open_journal(folder)
    found = [journal.get(key(str(number))) for number in range(320)]
    state = (found, journal.account("demo"), journal.lost("demo"), journal.damaged, journal.count())
    journal.close()
    return state


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed journal of 300 replies, ten open attempts and a damaged line."""
    folder = tmp_path_factory.mktemp("journal")

    async def fill() -> None:
        journal = open_journal(folder)
        for number in range(300):
            pay(journal, str(number), f"reply {number}")
        for number in range(300, 310):
            journal.begin(Attempt(key(str(number)), "demo", "e", "m", "critique", 3, 4))
        with journal.path.open("ab") as file:
            file.write(b"torn\n")
        journal.close()

    asyncio.run(fill())
    return folder


def foreign(index: Path) -> None:
    index.unlink()
    with sqlite3.connect(index) as connection:
        connection.execute("CREATE TABLE replies (name TEXT)")
    connection.close()


def of_another_journal(index: Path) -> None:
    other = index.parent / "other"
    journal = open_journal(other)
    for number in range(40):
        pay(journal, str(number), "of another journal " * 90)
    journal.close()
    shutil.copy(other / INDEX, index)
    shutil.rmtree(other)


HARMS = {
    "none": lambda index: None,
    "deleted": lambda index: index.unlink(),
    "empty": lambda index: index.write_bytes(b""),
    "no-database": lambda index: index.write_bytes(b"no database " * 1000),
    "cut": lambda index: index.write_bytes(index.read_bytes()[:9000]),
    "pages-of-noise": lambda index: index.write_bytes(index.read_bytes()[:4096] + b"\x07" * 60_000),
    "foreign": foreign,
    "of-another-journal": of_another_journal,
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_whatever_happens_to_the_index_the_answers_stay(written: Path, tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "journal"
    shutil.copytree(written, folder)
    before = answers(folder)
    assert (len(before[2]), before[3], before[4]) == (10, 1, 300)
    harm(folder / INDEX)
    assert answers(folder) == before
    assert answers(folder) == before


def test_an_index_that_is_damaged_while_it_is_open_is_made_anew(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    shutil.copytree(written, folder)
    before = answers(folder)
    journal = open_journal(folder)
    (folder / INDEX).write_bytes(b"\x07" * 50_000)
    assert [journal.get(key(str(number))) for number in range(320)] == before[0]
    assert (journal.account("demo"), journal.lost("demo")) == before[1:3]
    journal.close()
    assert answers(folder) == before


def test_use_after_closing_is_a_bug_and_harms_no_index(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    shutil.copytree(written, folder)
    journal = open_journal(folder)
    journal.close()
    with pytest.raises(sqlite3.ProgrammingError):
        journal.get(key("1"))
    assert (folder / INDEX).stat().st_size > 4096


def test_without_a_usable_index_file_memory_does(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "journal"
    shutil.copytree(written, folder)
    before = answers(folder)
    (folder / INDEX).unlink()
    (folder / INDEX).mkdir()
    assert answers(folder) == before
    assert "keeps its index in memory" in capsys.readouterr().err


def test_another_journal_under_the_same_name_has_none_of_the_old_replies(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    shutil.copytree(written, folder)
    (folder / "replies.jsonl").unlink()
    journal = open_journal(folder)
    assert (journal.count(), journal.damaged, journal.account("demo")) == (0, 0, [])
    assert journal.get(key("1")) is None
    journal.close()


def test_an_index_that_another_process_holds_never_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_tail, "FSYNC_WITHIN_S", 0.01)

    async def pay_on() -> None:
        journal = open_journal(tmp_path)
        journal.index.wait_s = 0.1
        pay(journal, "before", "before")
        journal.count()
        holder = sqlite3.connect(tmp_path / INDEX, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        for number in range(30):
            pay(journal, str(number), f"reply {number}")
            if number % 10 == 0:
                await flushed(journal)
        assert [getattr(journal.get(key(str(number))), "text", "") for number in range(30)] == [
            f"reply {number}" for number in range(30)
        ]
        assert sum(spent.requests for spent in journal.account("demo")) == 31
        holder.execute("ROLLBACK")
        holder.close()
        pay(journal, "after", "after")
        await flushed(journal)
        assert journal.index.find(bytes.fromhex(key("29")))
        pay(journal, "last", "last")
        assert not journal.tail.get(key("29")), "what the index knows is not kept in memory"
        journal.close()

    asyncio.run(pay_on())
    journal = open_journal(tmp_path)
    assert journal.count() == 33
    journal.close()


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_and_measure(folder: Path, told: Connection) -> None:
    before = rss_mb()
    journal = open_journal(folder)
    told.send((journal.count(), rss_mb() - before))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read the memory from")
def test_memory_stays_flat_however_many_replies_are_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_index, "TAKE_LINES", 10_000)
    monkeypatch.setattr(journal_index, "LET_OTHERS_S", 0)
    reply = Reply(text="a reply " * 50, finish_reason="stop", prompt_tokens=1, reply_tokens=2, model="m")
    with (tmp_path / "replies.jsonl").open("wb") as file:
        for number in range(100_000):
            file.write(answer_line(f"{number:016x}", key(str(number)), Payer("demo", "e", "m", False), reply))
    grown = []
    for _ in ("built", "opened"):
        here, there = FORK.Pipe()
        process = FORK.Process(target=open_and_measure, args=(tmp_path, there))
        process.start()
        count, megabytes = here.recv()
        process.join()
        assert count == 100_000
        grown.append(megabytes)
    assert grown[0] < 40
    assert grown[1] < 15


def test_replies_leave_memory_as_soon_as_the_index_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_tail, "FSYNC_WITHIN_S", 0.01)

    async def pay_many() -> None:
        journal = open_journal(tmp_path)
        most = 0
        for number in range(2_000):
            pay(journal, str(number), "a reply")
            most = max(most, sum(bool(journal.tail.get(key(str(past)))) for past in range(0, number, 100)))
            if number % 50 == 25:
                await flushed(journal)
        journal.close()
        assert most == 1

    asyncio.run(pay_many())
