"""Other people's datasets: every shape is read, every row that cannot be trusted is named, nothing is mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.common.errors import ConfigError, DataError
from jobs.common.held_out import HeldOutPrompt
from jobs.common.jsonl import read_records, write_records
from jobs.common.ledger import read_ledger
from jobs.common.manifest import finished_manifest
from jobs.common.recipe import load_recipe
from jobs.common.records import Comparison, Dropped, PreferencePair, RedTeamPrompt, Revision, SftExample
from jobs.common.stage import Result, RunContext, StagePlan, open_stage
from jobs.prepare.import_files import SourceFile, source_files
from jobs.prepare.import_found import Found
from jobs.prepare.import_rows import read_file
from jobs.prepare.importer import Sources, import_data
from jobs.prepare.status import show_status
from tests.prepare.test_importer import ASKED

SHARES = ("generate.held_out_fraction=0.2", "generate.sft_fraction=0.5")


def make_context(tmp_path: Path, *changes: str) -> RunContext:
    return RunContext(recipe=load_recipe("demo", (*SHARES, *changes)), run="demo", runs=tmp_path / "runs")


def run_import(context: RunContext, *sources: Path) -> dict[str, Any]:
    if not (context.folder / "fetch" / "manifest.json").exists():
        with open_stage(context, StagePlan("fetch", {}, (), "cpu")) as stage:
            assert stage is not None
            stage.finish(Result(outputs=[]))
    import_data(context, Sources(others=sources))
    return finished_manifest(context, "generate")


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def said(role: str, content: str) -> dict[str, str]:
    return {"content": content, "role": role}


def chat(prompt: str, answer: str) -> list[dict[str, str]]:
    return [said("user", prompt), said("assistant", answer)]


def sft_row(prompt: Any, /, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": f"Better: {prompt}"} | more


def pair_row(prompt: str, /, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": f"Better: {prompt}", "rejected": f"Worse: {prompt}", **more}


def harmless_row(prompt: str) -> dict[str, Any]:
    """A row of the Hub's constitutional-AI datasets."""
    return {
        "init_prompt": prompt,
        "init_response": f"Worse: {prompt}",
        "critic_prompt": "What is wrong with it?",
        "critic_response": "It takes sides.",
        "revision_prompt": "Write it again.",
        "revision_response": f"Better: {prompt}",
        "prompt": prompt,
        "messages": chat(prompt, f"Better: {prompt}"),
        "chosen": chat(prompt, f"Better: {prompt}"),
        "rejected": chat(prompt, f"Worse: {prompt}"),
    }


def read_one(tmp_path: Path, row: Any, name: str = "rows.jsonl") -> Found:
    (file,) = source_files([jsonl(tmp_path / name, [row])])
    found = Found()
    read_file(found, file, {"ubuntu"})
    return found


@pytest.mark.parametrize(
    "row",
    [
        sft_row("Why share?"),
        {"messages": chat("Why share?", "Better: Why share?")},
        {"messages": chat("Why share?", "Better: Why share?"), "prompt": "Why share?", "chosen": None},
        {"prompt": [said("user", "Why share?")], "completion": [said("assistant", "Better: Why share?")]},
    ],
)
def test_every_shape_of_an_sft_row(tmp_path: Path, row: dict[str, Any]) -> None:
    found = read_one(tmp_path, row)
    assert found.dropped == found.pairs == []
    (example,) = found.examples
    assert (example.prompt, example.completion, example.principle_id) == (
        "Why share?", "Better: Why share?", "imported",
    )  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        pair_row("Why share?"),
        {"chosen": chat("Why share?", "Better: Why share?"), "rejected": chat("Why share?", "Worse: Why share?")},
        {
            "prompt": [said("user", "Why share?")],
            "chosen": [said("assistant", "Better: Why share?")],
            "rejected": [said("assistant", "Worse: Why share?")],
        },
    ],
)
def test_every_shape_of_a_pair(tmp_path: Path, row: dict[str, Any]) -> None:
    found = read_one(tmp_path, row)
    assert found.dropped == found.examples == []
    (pair,) = found.pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Why share?", "Better: Why share?", "Worse: Why share?")
    assert (pair.chosen_by, pair.rejected_by) == ("imported", "imported")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": " Why?\n", "completion": "\n\nYes.\n"},
        {"prompt": " Why?\n", "completion": [said("assistant", "\n Yes.")]},
        {"messages": chat(" Why?\n", "\tYes. ")},
        {"prompt": " Why?\n", "chosen": "\n\nYes.", "rejected": " No.\n"},
        {"chosen": chat(" Why?\n", "\nYes."), "rejected": chat(" Why?\n", "\nNo.")},
    ],
)
def test_an_answer_is_kept_without_the_white_space_around_it_and_a_prompt_as_it_is(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    found = read_one(tmp_path, row)
    assert found.dropped == []
    kept = [(it.prompt, it.completion) for it in found.examples] + [(it.prompt, it.chosen) for it in found.pairs]
    assert kept == [(" Why?\n", "Yes.")]
    assert [it.rejected for it in found.pairs] in ([], ["No."])


def test_a_row_of_the_hubs_datasets_is_a_chain_an_sft_row_and_a_pair_and_its_file_says_which(tmp_path: Path) -> None:
    both = read_one(tmp_path, harmless_row("Why share?"))
    assert (len(both.examples), len(both.pairs), len(both.chains)) == (1, 1, 1)
    for name, counts in (("train_sft-00000-of-00001.jsonl", (1, 0)), ("test_prefs.jsonl", (0, 1))):
        found = read_one(tmp_path, harmless_row("Why share?"), name)
        assert (len(found.examples), len(found.pairs)) == counts
        assert [prompt.held_out for prompt in found.prompts.values()] == [name.startswith("test")]


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        ([1], "bad_shape", "expected an object, found list"),
        ({"text": "x"}, "bad_shape", "needs messages, or prompt and completion; or prompt, chosen and rejected"),
        (sft_row("x", completion=3), "bad_shape", "completion is neither a text nor a list of messages: '3'"),
        ({"prompt": "x", "chosen": "y", "rejected": None}, "bad_shape", "found chosen, prompt, rejected"),
        (sft_row("x", completion="half \ud83d"), "bad_shape", "half a character"),
        (sft_row("x", completion=" "), "empty", "empty completion"),
        (pair_row("x", chosen="", rejected="\n"), "empty", "empty chosen, rejected"),
        (sft_row(" "), "no_prompt", "empty prompt"),
        ({"completion": "x"}, "no_prompt", "no prompt"),
        ({"messages": [said("assistant", "y")]}, "no_prompt", "no message of the user"),
        (pair_row("x", rejected=" Better: x"), "same_sides", "chosen and rejected are the same"),
        ({"messages": []}, "not_a_chat", "does not end with the assistant's message"),
        ({"messages": [said("user", "x")]}, "not_a_chat", "does not end with the assistant's message"),
        ({"messages": [{"from": "human", "value": "x"}]}, "not_a_chat", "no known role or no text"),
        ({"messages": [said("user", "x"), {"role": "assistant", "content": None}]}, "not_a_chat", "no text"),
        (sft_row("x", prompt=[said("assistant", "y")]), "not_a_chat", "prompt is no message of the user"),
        ({"messages": [*chat("a", "b"), *chat("c", "d")]}, "many_turns", "messages has 4 messages"),
        ({"messages": [said("system", "s"), *chat("a", "b")]}, "system_turn", "messages has a message of the system"),
        ({"prompt": [said("system", "s"), said("user", "a")], "completion": "b"}, "system_turn", "prompt has a"),
        (sft_row("x", messages=chat("Other", "y")), "prompt_differs", "prompt 'x' is not the chat's 'Other'"),
        (sft_row("x", messages=chat("X!", "y")), "prompt_punctuation_differs", "prompt 'x' is not the chat's 'X!'"),
        ({"chosen": chat("a", "b"), "rejected": chat("c", "d")}, "prompt_differs", "chosen answers 'a', rejected 'c'"),
        (sft_row("x", principle_id="nobody"), "unknown_principle", "'nobody' is not in the constitution"),
        (sft_row("x", principle_id=3), "unknown_principle", "'3' is not in the constitution"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_taken_whole_is_dropped_with_its_reason(
    tmp_path: Path, row: Any, reason: str, detail: str
) -> None:
    found = read_one(tmp_path, row)
    assert found.examples == found.pairs == []
    (dropped,) = found.dropped
    assert dropped.drop_reason == reason
    assert dropped.detail.startswith("rows.jsonl:1: ")
    assert detail in dropped.detail


def test_a_dropped_row_is_kept_whole_and_named_by_its_own_id(tmp_path: Path) -> None:
    (dropped,) = read_one(tmp_path, {"id": "a-7", "prompt": "x", "completion": ""}).dropped
    assert dropped.id == "rows.jsonl:1 (a-7)"
    assert dropped.record == {"id": "a-7", "prompt": "x", "completion": ""}


def test_a_row_that_comes_twice_is_dropped_and_another_answer_to_its_prompt_is_kept(tmp_path: Path) -> None:
    rows = [sft_row("x"), sft_row("x", completion="\nBetter: x"), sft_row("x", completion="Another")]
    (file,) = source_files([jsonl(tmp_path / "rows.jsonl", rows)])
    found = Found()
    read_file(found, file, ())
    assert [row.drop_reason for row in found.dropped] == ["duplicate"]
    assert [row.completion for row in found.examples] == ["Better: x", "Another"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=[]), max_size=5)
    | st.sampled_from(["user", "assistant"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
COLUMNS = st.sampled_from(["prompt", "completion", "messages", "chosen", "rejected", "principle_id", "id"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@example(rows=[{"prompt": [{"role": []}], "completion": 0}])
@given(rows=st.lists(st.dictionaries(COLUMNS, JSON, max_size=6) | JSON, min_size=1, max_size=4))
def test_no_row_breaks_the_import_and_none_goes_unnamed(tmp_path: Path, rows: list[Any]) -> None:
    path = jsonl(tmp_path / "rows.jsonl", rows)
    found = Found()
    read_file(found, SourceFile(path, path.name, None, held_out=False), {"ubuntu"})
    assert len(found.examples) + len(found.pairs) + len(found.dropped) >= len(rows)
    write_records(tmp_path / "kept.jsonl", [*found.examples, *found.pairs, *found.dropped])
    assert {row.id for row in (*found.examples, *found.pairs)} == set(found.prompts)


def test_plain_rows_become_a_finished_generate_stage_with_every_file(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    rows = [row(text, principle_id="ubuntu") for text in ASKED for row in (sft_row, pair_row)]

    manifest = run_import(context, jsonl(tmp_path / "rows.jsonl", rows))

    folder = context.folder / "generate"
    prompts = read_records(folder / "prompts.jsonl", RedTeamPrompt)
    assert [prompt.prompt for prompt in prompts] == ASKED
    assert all(prompt.cluster == prompt.id for prompt in prompts)
    held_out = {row.prompt for row in read_records(folder / "held_out.jsonl", HeldOutPrompt)}
    sft = {row.prompt for row in read_records(folder / "sft.jsonl", SftExample)}
    pairs = {row.prompt for row in read_records(folder / "pairs.jsonl", PreferencePair)}
    assert (len(held_out), len(sft), len(pairs)) == (2, 4, 4)
    assert held_out | sft | pairs == set(ASKED)
    assert {row.prompt for row in read_records(folder / "held_out_sft.jsonl", SftExample)} == held_out
    assert {row.prompt for row in read_records(folder / "held_out_pairs.jsonl", PreferencePair)} == held_out
    assert read_records(folder / "comparisons.jsonl", Comparison) == []
    assert manifest["counts"]["sft_rows_of_dpo_prompts"] == manifest["counts"]["pairs_of_sft_prompts"] == 4
    assert set(manifest["outputs"]) == {path.name for path in folder.glob("*.jsonl")}


def test_a_hub_snapshot_keeps_its_test_splits_held_out_and_its_chains(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    parts = {"train_sft": ASKED[:4], "train_prefs": ASKED[4:7], "test_sft": ASKED[7:9], "test_prefs": ASKED[9:]}
    for name, texts in parts.items():
        blob = parquet(blobs / f"{name}.parquet", [harmless_row(text) for text in texts])
        (snapshot / "data").mkdir(parents=True, exist_ok=True)
        (snapshot / "data" / f"{name}-00000-of-00001.parquet").symlink_to(blob)  # as the Hub's cache lays them out
    (snapshot / "constitution.json").write_text('{"constitutions": []}')
    (snapshot / ".cache").mkdir()
    (snapshot / ".cache" / "train.jsonl").write_text("{")

    manifest = run_import(context, snapshot)

    folder = context.folder / "generate"
    assert manifest["dropped"] == {}
    assert {row.prompt for row in read_records(folder / "held_out.jsonl", HeldOutPrompt)} == set(ASKED[7:])
    assert {row.prompt for row in read_records(folder / "sft.jsonl", SftExample)} == set(ASKED[:4])
    assert {row.prompt for row in read_records(folder / "pairs.jsonl", PreferencePair)} == set(ASKED[4:7])
    revisions = read_records(folder / "revisions.jsonl", Revision)
    assert [(row.prompt, row.revision) for row in revisions if row.split == "sft"] == [
        (text, f"Better: {text}") for text in ASKED[:4]
    ]
    assert sorted(manifest["ingredients"]["import"]) == sorted(f"data/{name}-00000-of-00001.parquet" for name in parts)


def test_near_duplicates_stay_together_and_follow_a_test_split(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    near = ASKED[0].replace("our market", "our own market")
    long = f"{ASKED[1]} {' '.join(f'Point {number} of my list is about the budget.' for number in range(30))}"
    train = jsonl(tmp_path / "rows.jsonl", [sft_row(text) for text in (near, long, *ASKED[2:])])
    test = jsonl(tmp_path / "test.jsonl", [sft_row(ASKED[0]), sft_row(ASKED[1])])

    run_import(context, train, test)

    held_out = read_records(context.folder / "generate" / "held_out.jsonl", HeldOutPrompt)
    assert {row.prompt for row in held_out} == {near, long, *ASKED[:2]}
    ledger = read_ledger(context)
    for row in read_records(context.folder / "generate" / "sft.jsonl", SftExample):
        assert ledger.held_out_hit([row.prompt]) is None


def test_a_held_out_principle_trains_nothing(tmp_path: Path) -> None:
    context = make_context(tmp_path, "generate.held_out_principles=[ubuntu]", "generate.held_out_fraction=0")
    rows = [sft_row(text, principle_id="ubuntu" if number < 3 else "") for number, text in enumerate(ASKED)]

    run_import(context, jsonl(tmp_path / "rows.jsonl", rows))

    folder = context.folder / "generate"
    assert {row.prompt for row in read_records(folder / "held_out.jsonl", HeldOutPrompt)} == set(ASKED[:3])
    assert {row.principle_id for row in read_records(folder / "sft.jsonl", SftExample)} == {"imported"}


def test_pairs_alone_are_imported_and_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context(tmp_path)

    manifest = run_import(context, jsonl(tmp_path / "pairs.jsonl", [pair_row(text) for text in ASKED]))

    assert (manifest["counts"]["pairs"], manifest["counts"]["held_out"]) == (8, 2)
    assert "sft.jsonl has no rows, so cai sft has nothing to train on" in capsys.readouterr().err
    show_status(context.runs, "demo")
    assert "8 pairs" in capsys.readouterr().out


def test_one_line_that_is_no_json_is_dropped_by_name_and_the_rest_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context, path = make_context(tmp_path), jsonl(tmp_path / "rows.jsonl", [sft_row(text) for text in ASKED])
    path.write_text('{"prompt": broken\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    manifest = run_import(context, path)
    assert manifest["dropped"] == {"not_json": 1}
    assert manifest["counts"]["prompts"] == len(ASKED)
    (dropped,) = read_records(context.folder / "generate" / "dropped.jsonl", Dropped)
    assert dropped.detail.startswith("rows.jsonl:1: not JSON")
    assert "import: 1 dropped: not json 1" in capsys.readouterr().err


def test_an_import_needs_no_fetch_because_it_reads_no_weights(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    import_data(context, Sources(others=(jsonl(tmp_path / "rows.jsonl", [sft_row(text) for text in ASKED]),)))
    assert (context.folder / "generate" / "manifest.json").exists()


def test_many_dropped_rows_are_not_all_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = make_context(tmp_path)
    bad = [sft_row(text, completion="") for text in map(str, range(50))]

    run_import(context, jsonl(tmp_path / "rows.jsonl", [*bad, sft_row(ASKED[0]), sft_row(ASKED[1])]))

    error = capsys.readouterr().err
    assert error.count("dropped empty") == 20
    assert "and 30 more, named in dropped.jsonl" in error
    assert len(read_records(context.folder / "generate" / "dropped.jsonl", Dropped)) == 50


def test_the_same_sources_are_already_finished_and_others_are_other_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context, source = make_context(tmp_path), tmp_path / "rows.jsonl"
    run_import(context, jsonl(source, [sft_row(text) for text in ASKED]))
    run_import(context, source)
    assert "generate: already finished" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"finished with other settings: import.rows.jsonl was"):
        run_import(context, jsonl(source, [sft_row(text) for text in ASKED[:5]]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"prompt": "x", "completion": "y"}\n{\n{', "rows.jsonl:2: not JSON"),
        ("rows.json", b'{"a": 1}\n{\n[', "2 of 3 lines are no JSON"),
        ("rows.parquet", b"PAR1", "rows.parquet: damaged after row 0"),
        ("rows.json", b'{"0_0": []}', "rows.json: the original authors' shape. Give all three: --red-team"),
        ("rows.csv", b"", "rows.csv: a source is a folder or a file that ends in .jsonl, .jsonl.gz, .parquet, .json"),
        ("rows.jsonl", b"", "rows.jsonl: nothing left to train on; dropped: nothing"),
        ("rows.jsonl", b"1\n", "dropped: bad shape 1. First: rows.jsonl:1: expected an object, found int."),
    ],
)
def test_a_damaged_or_foreign_file_stops_with_its_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    context = make_context(tmp_path)
    with pytest.raises(DataError) as raised:
        run_import(context, tmp_path / name)
    assert message in str(raised.value)
    assert not (context.folder / "generate" / "manifest.json").exists()


def test_sources_that_are_not_there_or_hold_nothing_say_what_to_do(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("No rows.")
    with pytest.raises(DataError, match=r"empty: holds no .jsonl, .jsonl.gz, .parquet, .json file"):
        run_import(context, tmp_path / "empty")
    with pytest.raises(DataError, match=r"HuggingFaceH4/some: no such file or folder. A Hub dataset is downloaded"):
        run_import(context, Path("HuggingFaceH4/some"))
    with pytest.raises(ConfigError, match=r"nothing to import. Give files or folders, or --red-team"):
        import_data(context, Sources())
    with pytest.raises(ConfigError, match="cai import: --sft, --preferences missing; the original's three files"):
        import_data(context, Sources(red_team=tmp_path))


def test_json_lists_and_json_lines_under_the_name_of_json_are_read(tmp_path: Path) -> None:
    rows = [sft_row(ASKED[0]), sft_row(ASKED[1])]
    listed, lines = tmp_path / "listed.json", jsonl(tmp_path / "lines.json", rows)
    listed.write_text(json.dumps(rows, indent=1))
    for path in (listed, lines):
        (file,) = source_files([path])
        found = Found()
        read_file(found, file, ())
        assert [row.prompt for row in found.examples] == ASKED[:2]


def test_files_of_one_name_from_two_folders_are_both_in_the_manifest(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    one = jsonl(tmp_path / "a" / "train.jsonl", [sft_row(text) for text in ASKED[:5]])
    two = jsonl(tmp_path / "b" / "train.jsonl", [sft_row(text) for text in ASKED[5:]])

    manifest = run_import(context, one.parent, two.parent)

    assert sorted(manifest["ingredients"]["import"]) == ["train.jsonl", "train.jsonl (2)"]
    assert manifest["counts"]["prompts"] == 10
