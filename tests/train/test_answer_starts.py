"""Answers that begin with white space, in SmolLM2's own tokenizer: a line break joins the one that opens a turn."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import DataError
from jobs.common.fetched import FetchedFile
from jobs.common.jsonl import read_json, read_records, sha256_file
from jobs.common.records import Dropped
from jobs.common.stage import RunContext
from jobs.train import dpo, sft
from jobs.train.data import require_few_lost
from jobs.train.examples import Row, encode, pair_rows, said, sft_rows
from jobs.train.fitted import fit
from jobs.train.student import Student, load_tokenizer
from tests.train.builders import finish_fetch, finish_generate, make_context, pair, sft_example, small_generate
from tests.train.conftest import TINY, save_student


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random student with SmolLM2's tokenizer, read from the embedded GGUF."""
    from transformers import PreTrainedTokenizerFast

    from jobs.common.embedded_gguf import find_embedded_gguf

    gguf = find_embedded_gguf()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(gguf.parent, gguf_file=gguf.name)
    return save_student(tmp_path_factory.mktemp("students") / "tiny-smollm2", tokenizer)


@pytest.fixture(scope="module")
def real(smollm2: Path) -> Any:
    return load_tokenizer(Student(smollm2, "tiny", "1", "chatml", "again"))


def stages(tmp_path: Path, student: Path, files: dict[str, Any], mix_in: dict[str, Path] | None = None) -> RunContext:
    """A run that is ready for sft and dpo, each with the mix-in of its name, as many rows as our own."""
    paths = mix_in or {}
    mixes = {name: {"mix_in": [{"dataset": str(path), "weight": 1}]} for name, path in paths.items()}
    short = TINY | {"max_steps": 1}
    sections: dict[str, Any] = {
        "sft": short | mixes.get("sft", {}),
        "dpo": {key: value for key, value in short.items() if key != "lora"} | mixes.get("dpo", {}),
    }
    context = make_context(tmp_path / "runs", **sections)
    fetched = {f"{path}@main/train": FetchedFile(path=str(path), sha256=sha256_file(path)) for path in paths.values()}
    finish_fetch(context, student, fetched)
    finish_generate(context, files)
    return context


def dropped_and_counts(context: RunContext, section: str) -> tuple[dict[str, int], dict[str, int]]:
    manifest = read_json(context.folder / section / "manifest.json")
    return manifest["dropped"], manifest["counts"]


def test_the_tokenizer_joins_a_line_break_to_the_turns_own(real: Any) -> None:
    for answer, joined in (("Yes.", False), (" Yes.", False), ("\n\nYes.", True), ("\n Yes.", True)):
        asked = encode(real, said("user", "Why?"), ask=True)
        whole = encode(real, [*said("user", "Why?"), *said("assistant", answer)])
        assert (whole[: len(asked)] != asked) is joined, answer


@pytest.mark.parametrize("start", ["\n\n", "\n "])
def test_a_row_whose_prompt_is_no_prefix_is_dropped_by_name_on_either_side(real: Any, start: str) -> None:
    answers = "Because.", f"{start}Because."
    rows = sft_rows([sft_example(f"Why {i}?", answer) for i, answer in enumerate(answers)])
    pairs = pair_rows([pair("Q0?", "A", "B"), pair("Q1?", f"{start}A", "B"), pair("Q2?", "A", f"{start}B")])
    later = [*said("user", "Q?"), *said("assistant", "A")]
    chat = Row("c", "mix_in", later[:1], {"completion": [*later[1:], later[0], *said("assistant", f"{start}B")]}, {})

    for given, kept in ((rows, rows[:1]), (pairs, pairs[:1]), ([chat], [])):
        found = fit(given, real, 256)
        assert found.rows == kept
        assert {it.drop_reason for it in found.dropped} == {"prompt_not_a_prefix"}
        assert all(repr(start)[1:-1] in it.detail for it in found.dropped)


def test_one_such_row_of_our_own_is_dropped_and_the_stages_go_on(
    tmp_path: Path, smollm2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = small_generate(rows=20)
    first, one = files["sft"][0], files["pairs"][0]
    files["sft"] = [first.model_copy(update={"completion": f"\n\n{first.completion}"}), *files["sft"][1:]]
    files["pairs"] = [one.model_copy(update={"rejected": f"\n\n{one.rejected}"}), *files["pairs"][1:]]
    context = stages(tmp_path, smollm2, files)

    for stage, noun in ((sft, "rows"), (dpo, "pairs")):
        stage.run(context)
        assert dropped_and_counts(context, stage.SECTION)[0] == {"prompt_not_a_prefix": 1}
        (named,) = read_records(context.folder / stage.SECTION / "dropped.jsonl", Dropped)
        assert named.id in {first.id, one.id}
        line = f"{stage.SECTION}: {noun}: 19 of our own (dropped 1 prompt_not_a_prefix), 0 mixed in, 3 held out\n"
        assert line in capsys.readouterr().err


def test_mix_ins_with_such_answers_are_trained_whole(tmp_path: Path, smollm2: Path) -> None:
    starts = ["", "", "", "", "", "\n ", " ", "\n\n"]
    rows = [{"prompt": f"What is {i}?", "completion": f"{start}It is {i}."} for i, start in enumerate(starts)]
    pairs = [
        {"prompt": f"What is {i}?", "chosen": f"{start}It is {i}.", "rejected": f"{start}No."}
        for i, start in enumerate(starts)
    ]
    paths = {"sft": tmp_path / "rows.jsonl", "dpo": tmp_path / "pairs.jsonl"}
    for path, records in zip(paths.values(), (rows, pairs), strict=True):
        path.write_text("".join(json.dumps(it) + "\n" for it in records))
    context = stages(tmp_path, smollm2, small_generate(), paths)

    for stage in (sft, dpo):
        stage.run(context)
        dropped, counts = dropped_and_counts(context, stage.SECTION)
        assert (dropped, counts["rows_mixed_in"], counts["rows_trained"]) == ({}, 8, 16)


def test_a_share_of_such_rows_above_the_limit_stops_with_their_reason_and_not_with_a_larger_max_length(
    tmp_path: Path, smollm2: Path
) -> None:
    files = small_generate(rows=10)
    first = files["sft"][0]
    files["sft"] = [first.model_copy(update={"completion": "\n\nNo."}), *files["sft"][1:]]
    context = stages(tmp_path, smollm2, files)

    with pytest.raises(DataError, match=r"1 dropped and 0 cut of 10 rows \(1 prompt_not_a_prefix\)") as raised:
        sft.run(context)
    assert "Run: cai generate" in str(raised.value)
    assert "max_length=" not in str(raised.value).rpartition("Run:")[2]
    assert "template" not in str(raised.value)


def test_the_template_is_blamed_where_no_row_begins_as_the_model_is_asked(
    tmp_path: Path, students: Callable[[str], Path]
) -> None:
    context = make_context(tmp_path)
    finish_fetch(context, tmp_path)
    finish_generate(context, small_generate())
    tokenizer = load_tokenizer(Student(students("chatml"), "tiny", "1", "chatml", "again"))
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|im_start|>assistant\\n'", "'<|im_start|>answer\\n'")
    rows = sft_rows([sft_example(f"Why {i}?", "Because.") for i in range(8)])

    with pytest.raises(DataError, match=r"none of 8 rows begins .* the chat template \(chatml\) is wrong"):
        require_few_lost(fit(rows, tokenizer, 256), context, "sft")
