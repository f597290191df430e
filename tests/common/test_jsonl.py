from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.errors import DataError
from jobs.common.held_out import HeldOutPrompt
from jobs.common.jsonl import read_json, read_records, sha256_json, write_atomic, write_records


def held_out(text: str, number: int = 0) -> HeldOutPrompt:
    return HeldOutPrompt(id=f"ubuntu-{number}", principle_id="ubuntu", prompt=text, model="m", prompt_version="1")


@given(st.lists(st.text()))
def test_records_come_back_as_written_whatever_characters_they_hold(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("records") / "rows.jsonl"
    rows = [held_out(text, number) for number, text in enumerate(texts)]
    write_records(path, rows)
    assert read_records(path, HeldOutPrompt) == rows


def test_a_truncated_last_line_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_records(path, [held_out("one"), held_out("two")])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: the last line is cut off"):
        read_records(path, HeldOutPrompt)


def test_a_line_that_is_no_record_is_named_with_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_records(path, [held_out("one")])
    with path.open("a") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not a HeldOutPrompt \(principle_id: Field required\)"):
        read_records(path, HeldOutPrompt)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl does not exist"):
        read_records(tmp_path / "none.jsonl", HeldOutPrompt)


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("[1]")
    with pytest.raises(DataError, match="expected a JSON object, found list"):
        read_json(path)
    path.write_text('{"half')
    with pytest.raises(DataError, match=r"manifest\.json is damaged: not JSON"):
        read_json(path)


def test_equal_values_hash_the_same_whatever_their_key_order() -> None:
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
