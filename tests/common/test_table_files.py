"""Rows of files that other people wrote, whatever their ending."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from jobs.common.table_files import NotJson, is_original, records

ROWS = [{"prompt": "a"}, {"prompt": "b"}]
LINES = b'{"prompt": "a"}\n\n{"prompt": "b"}\n'


def test_every_ending_gives_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    (tmp_path / "c.json").write_text(json.dumps(ROWS), encoding="utf-8")
    (tmp_path / "d.json").write_bytes(LINES)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "e.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert [row for _, row in records(path)] == ROWS, path.name


def test_a_line_has_its_own_number_and_one_that_is_no_json_says_why(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES + b"{oops\n")
    numbered = list(records(path))
    assert [number for number, _ in numbered] == [1, 3, 4]
    assert isinstance(numbered[-1][1], NotJson)
    assert (numbered[-1][1].text, "property name" in numbered[-1][1].why) == ("{oops\n", True)


@pytest.mark.parametrize(("value", "told"), [({"0": []}, True), ({"3_4": []}, True), ({"a": []}, False), ([], False)])
def test_the_original_authors_shape_is_told_by_its_keys(tmp_path: Path, value: object, told: bool) -> None:
    (tmp_path / "x.json").write_text(json.dumps(value), encoding="utf-8")
    assert is_original(tmp_path / "x.json") is told
