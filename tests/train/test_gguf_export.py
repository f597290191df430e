"""`export.gguf`: the bits survive, llama.cpp reads text as the student does and answers the same."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer

from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_json, write_json
from jobs.generate.embedded import Slots, serve
from jobs.train import dequantize, export
from jobs.train.gguf_export import _permute, check_gguf, write_gguf
from jobs.train.student import Student
from tests.train.builders import SENTENCES
from tests.train.trained import trained_run

Students = Callable[[str], Path]
TEXTS = (*SENTENCES, "In 1994, 27 April; it's 3.14 %.", "  two  spaces\n\n\tand a tab", "Ubuntu, şi încă ceva: 😀 ẞ")


@pytest.mark.parametrize("template", ["chatml", "mistral"])
def test_the_gguf_dequantises_to_the_exported_weights_and_llama_cpp_answers_as_they_do(
    tmp_path: Path, students: Students, template: str
) -> None:
    context = trained_run(tmp_path, students(template), "nf4", export={"gguf": True})

    export.run(context)

    folder, file = (context.folder / "export" / name for name in ("model", "model.gguf"))
    assert "model.gguf" in read_json(context.folder / "export" / "manifest.json")["outputs"]
    dequantize._write(file, tmp_path / "back", "again")
    ours, back = load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert ours.keys() == back.keys()
    assert all(ours[name].equal(back[name]) for name in ours)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with serve(file, Slots(1, 256), "again") as served:
        url = served.urls[0].removesuffix("/v1")
        for text in TEXTS:
            said = ask(url, "tokenize", content=text)["tokens"]
            assert said == tokenizer(text, add_special_tokens=False)["input_ids"], text
        chat = [{"role": "user", "content": SENTENCES[0]}]
        shown = ask(url, "apply-template", messages=chat)["prompt"]
        assert shown == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def ask(url: str, what: str, **body: Any) -> Any:
    request = urllib.request.Request(f"{url}/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"model_type": "qwen2"}, r"its architecture \(qwen2\) is not Llama's"),
        ({"attention_bias": True}, r"its architecture \(llama\) is not Llama's"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, r"its positions are scaled \(llama3\)"),
    ],
)
def test_another_architecture_is_refused_with_what_can_write_it(
    tmp_path: Path, students: Students, change: dict[str, Any], fault: str
) -> None:
    folder = copied(students("chatml"), tmp_path)
    write_json(folder / "config.json", read_json(folder / "config.json") | change)
    with pytest.raises(ConfigError, match=rf"export.gguf: tiny-chatml .*{fault}.*convert_hf_to_gguf.py"):
        check_gguf(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}},
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    ],
    ids=["metaspace", "normalizer", "prefix"],
)
def test_a_tokenizer_that_llama_cpp_would_split_otherwise_is_refused(
    tmp_path: Path, students: Students, change: dict[str, Any]
) -> None:
    folder = copied(students("chatml"), tmp_path)
    write_json(folder / "tokenizer.json", read_json(folder / "tokenizer.json") | change)
    with pytest.raises(ConfigError, match="its tokenizer is not a byte-level one"):
        check_gguf(folder)


def test_it_is_refused_before_any_weight_is_loaded(
    tmp_path: Path, students: Students, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = trained_run(tmp_path / "runs", students("chatml"), export={"gguf": True})
    folder = copied(students("chatml"), tmp_path)
    write_json(folder / "config.json", read_json(folder / "config.json") | {"mlp_bias": True})
    monkeypatch.setattr(export, "find_student", lambda *_: Student(folder, "s", "r", "chatml", "again"))
    monkeypatch.setattr(export, "load_speaker", None)
    with pytest.raises(ConfigError, match="cannot be written as GGUF here"):
        export.run(context)


def test_a_disk_that_fills_up_leaves_no_file(
    tmp_path: Path, students: Students, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(students("chatml"), tmp_path)
    write_json(folder / "generation_config.json", {"eos_token_id": [2], "pad_token_id": 0})
    (folder / "chat_template.jinja").write_text("{{ messages }}")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OSError, match="No space left"):
        write_gguf(folder, tmp_path / "model.gguf", "x")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_the_order_of_rotary_halves_comes_back(heads: int, half: int, width: int) -> None:
    weight = torch.arange(heads * 2 * half * width).reshape(heads * 2 * half, width)
    assert dequantize._unpermute(_permute(weight, heads), heads).equal(weight)


def copied(student: Path, to: Path) -> Path:
    folder = to / student.name
    folder.mkdir(parents=True)
    for path in student.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder
