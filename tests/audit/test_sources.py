"""Every kind of source as one dataset."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jobs.audit.several import read_sources, transfers
from jobs.audit.sources import read_source
from jobs.common.constitution import Constitution, load_constitution
from jobs.common.errors import ConfigError, DataError
from jobs.measure.data import Data
from tests.audit.stages import finish_generate, make_context, write_constitution

PAIR = {"prompt": "Q?", "chosen": "Yes.", "rejected": "No."}
EXAMPLE = {"prompt": "Q?", "completion": "Yes."}


def read(source: str, constitution: Constitution | None) -> Data:
    return read_source(source, constitution).data


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.json"])
def test_the_same_rows_in_any_kind_of_file_are_the_same_dataset(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        write_parquet(path, PAIR, PAIR | {"prompt": "P?"})
    elif name.endswith(".json"):
        path.write_text(json.dumps([PAIR, PAIR | {"prompt": "P?"}]), encoding="utf-8")
    else:
        write_lines(path, PAIR, PAIR | {"prompt": "P?"})
    data = read(str(path), None)
    assert [(one.id, one.prompt, one.chosen, one.split) for one in data.pairs] == [
        (f"{name}:1", "Q?", "Yes.", "dpo"),
        (f"{name}:2", "P?", "Yes.", "dpo"),
    ]
    assert [(one.text, one.split) for one in data.prompts] == [("Q?", "dpo"), ("P?", "dpo")]
    assert len(data.datasheet["sha256"][name]) == 64


def test_a_folder_of_splits_is_read_as_they_are_named(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "Yes."}]
    other = [chat[0], {"role": "assistant", "content": "No."}]
    row = {"prompt": "Q?", "messages": chat, "chosen": chat, "rejected": other, "init_response": "No."}
    for name in ("train_sft", "test_sft", "train_prefs", "test_prefs"):
        write_parquet(tmp_path / "data" / f"{name}.parquet", row)
    write_lines(tmp_path / "README.md", "not rows")
    data = read(str(tmp_path), None)
    assert Counter(one.split for one in data.examples) == {"sft": 1, "held_out": 1}
    assert Counter(one.split for one in data.pairs) == {"dpo": 1, "held_out": 1}
    assert all(one.initial == "No." for one in data.examples)


def test_bad_rows_are_counted_by_reason_and_the_good_ones_kept(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", PAIR, "{broken\n", "\n", {"prompt": "Q?", "chosen": "x"}, [], EXAMPLE)
    data = read(str(path), None)
    assert (len(data.pairs), len(data.examples)) == (1, 1)
    assert data.dropped == {"not_json": 1, "one_side_missing": 1, "not_an_object": 1}


def test_several_answers_to_one_prompt_are_one_prompt_and_a_row_that_comes_twice_is_two(tmp_path: Path) -> None:
    several = write_lines(tmp_path / "several.jsonl", PAIR, PAIR | {"rejected": "Never."})
    assert len(read(str(several), None).prompts) == 1
    twice = write_lines(tmp_path / "twice.jsonl", PAIR, PAIR)
    assert len(read(str(twice), None).prompts) == 2


def test_several_sources_are_one_dataset(tmp_path: Path) -> None:
    sources = [write_lines(tmp_path / "sft.jsonl", EXAMPLE, "x\n"), write_lines(tmp_path / "dpo.jsonl", PAIR, "y\n")]
    data = read_sources([str(path) for path in sources], None).data
    assert (len(data.examples), len(data.pairs)) == (1, 1)
    assert data.dropped == {"not_json": 2}
    assert data.name == "sft.jsonl + dpo.jsonl"
    assert set(data.datasheet) == {str(path) for path in sources}


def test_a_constitution_names_the_principles(tmp_path: Path) -> None:
    write_constitution(tmp_path / "tiny.yaml")
    constitution = load_constitution(str(tmp_path / "tiny.yaml"))
    data = read(str(write_lines(tmp_path / "rows.jsonl", PAIR | {"principle_id": "thrift"})), constitution)
    assert [one.id for one in data.principles] == ["honesty", "kindness", "thrift"]
    assert data.pairs[0].principle_id == "thrift"
    assert (data.constitution, data.datasheet["constitution_sha256"]) == ("tiny", constitution.sha256)


@pytest.mark.parametrize("below", ["", "generate"])
def test_a_run_and_its_data_stage_are_read_with_their_own_constitution(below: str, tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_generate(context, pairs=6)
    data = read(str(context.folder / below), None)
    assert Counter(one.split for one in data.prompts) == {"sft": 6, "dpo": 6, "held_out": 2}
    assert [one.id for one in data.principles] == ["honesty", "kindness", "thrift"]


def test_a_run_whose_constitution_is_gone_is_read_all_the_same(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_generate(context, pairs=6)
    (tmp_path / "tiny.yaml").unlink()
    data = read(str(context.folder), None)
    assert (len(data.pairs), data.principles) == (6, [])


ORIGINAL = {
    "red.json": {"0": [{"adversarial_prompt": "Q?", "correct_model_response_to_adversarial_prompt": "No."}]},
    "pref.json": {"0_0": [{"prompt": "Q?", "chosen_response": "Yes.", "rejected_response": "No."}]},
}


@pytest.mark.parametrize("name", ["", "pref.json"])
def test_the_originals_json_is_told_by_its_keys(name: str, tmp_path: Path) -> None:
    for file, content in ORIGINAL.items():
        (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    data = read(str(tmp_path / name), None)
    assert [(one.prompt, one.chosen, one.rejected) for one in data.pairs] == [("Q?", "Yes.", "No.")]
    assert len(data.prompts) == (0 if name else 1)


@pytest.mark.skipif("CAI_SEED_DATA" not in os.environ, reason="CAI_SEED_DATA is not set")
def test_the_original_authors_folder_is_one_dataset() -> None:
    data = read(str(Path(os.environ["CAI_SEED_DATA"]) / "south_africa"), load_constitution("south_africa"))
    assert (len(data.prompts), len(data.examples), len(data.pairs), len(data.principles)) == (220, 220, 220, 22)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b"", "not one row can be read (no rows)"),
        ("rows.jsonl", b"\xff\xfe\n", "1 not_json"),
        ("rows.parquet", b"PAR1 not really", "is not a readable parquet file"),
        ("rows.json", b"{]", "1 not_json"),
        ("rows.json", b'{"a": 1}', "not one row can be read (1 unknown_columns)"),
        ("rows.csv", b"a,b\n", "no .jsonl, .jsonl.gz, .parquet or .json file"),
        ("rows.jsonl.gz", b"not gzip", "cannot be read"),
        ("rows.jsonl.gz", gzip.compress(b'{"prompt": "x"}\n' * 99)[:40], "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read(str(tmp_path / name), None)
    assert said in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_folder_is_named_with_the_shapes_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompt \+ chosen \+ rejected"):
        read(str(tmp_path), None)


def test_a_path_that_is_not_there_points_to_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hub:owner/name"):
        read("owner/name", None)


def test_ids_of_several_files_are_kept_apart_and_twins_stay_with_their_siblings(tmp_path: Path) -> None:
    rows = [{"id": 0, "prompt": "Q?"}, {"id": 1, "prompt": "P?", "kind": "benign_twin", "twin_of": "0"}]
    for name in ("train", "test"):
        write_lines(tmp_path / f"{name}.jsonl", *rows)
    folder = read(str(tmp_path), None)
    assert [one.id for one in folder.prompts] == ["test.jsonl:0", "test.jsonl:1", "train.jsonl:0", "train.jsonl:1"]
    assert [one.twin_of for one in folder.prompts] == ["", "test.jsonl:0", "", "train.jsonl:0"]
    apart = read_sources([str(tmp_path / f"{name}.jsonl") for name in ("train", "test")], None).data
    assert {one.id for one in apart.prompts} == {one.id for one in folder.prompts}
    assert [one.id for one in read(str(tmp_path / "train.jsonl"), None).prompts] == ["0", "1"]


def test_sources_of_one_name_are_told_apart_by_their_whole_path(tmp_path: Path) -> None:
    sources = [str(write_lines(tmp_path / name / "rows.jsonl", PAIR | {"id": "x"})) for name in ("a", "b")]
    assert [one.id for one in read_sources(sources, None).data.pairs] == [f"{source}:x" for source in sources]


@pytest.mark.parametrize(("good", "bad", "too_many"), [(19, 1, False), (18, 1, True), (5, 0, False)])
def test_unreadable_rows_are_named_by_reason_and_over_a_twentieth_is_too_many(
    good: int, bad: int, too_many: bool, tmp_path: Path
) -> None:
    rows = [PAIR | {"prompt": f"Question {number}?"} for number in range(good)]
    found = read_sources([str(write_lines(tmp_path / "rows.jsonl", *rows, *["{\n"] * bad))], None)
    assert found.too_many_unread is too_many
    assert found.unread_line == (f"1 of {good + 1} rows could not be read: not JSON 1" if bad else "")


def test_a_row_that_its_source_calls_bad_is_dropped_but_not_unreadable(tmp_path: Path) -> None:
    rows = [EXAMPLE, EXAMPLE | {"label": False}]
    found = read_sources([str(write_lines(tmp_path / "rows.jsonl", *rows))], None)
    assert (found.data.dropped, found.unread_line) == ({"labelled_bad": 1}, "")


def test_rows_with_a_system_turn_are_counted_because_import_drops_them(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "Yes."}]
    rows = [{"messages": chat}, {"messages": [{"role": "system", "content": "Be kind."}, *chat]}]
    found = read_sources([str(write_lines(tmp_path / "rows.jsonl", *rows))], None)
    assert found.notes == ["1 row has a system turn, which cai import drops."]


def test_a_style_that_two_sources_share_transfers_both_ways_and_small_sources_are_left_out(tmp_path: Path) -> None:
    sources = []
    for name, pairs in (("one", 12), ("two", 15), ("small", 3)):
        rows = [
            {"prompt": f"{name} {n}?", "chosen": f"However, take road {n}.", "rejected": f"Just run {n}."}
            for n in range(pairs)
        ]
        sources.append(str(write_lines(tmp_path / f"{name}.jsonl", *rows)))
    found = transfers(read_sources(sources, None).each, seed=0)
    assert [(one.learned_from, one.tried_on, one.accuracy, one.pairs) for one in found] == [
        ("one.jsonl", "two.jsonl", 1.0, 15),
        ("two.jsonl", "one.jsonl", 1.0, 12),
    ]
