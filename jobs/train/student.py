"""The student: its folder, its tokenizer with our chat template, and its frozen weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import Fetched
from jobs.common.jsonl import read_json, sha256_file, sha256_json
from jobs.common.model_shape import ModelShape, shape_of
from jobs.common.stage import RunContext
from jobs.train.chat_templates import TEMPLATES, require_fit, template_text
from jobs.train.device import Device
from jobs.train.divided import dividing

PAD_CANDIDATES = ("<pad>", "[PAD]", "<|pad|>", "<|endoftext|>", "<|finetune_right_pad_id|>")
"""Names of tokens that models keep for padding, tried when the tokenizer's own choice would hide its end of turn."""


@dataclass(frozen=True)
class Student:
    """A student that is ready to load."""

    folder: Path
    """config.json, tokenizer and safetensors."""
    name: str
    """Short name, such as `smollm2-135m-instruct`."""
    revision: str
    """What identifies the exact weights: hub commit, or hash over the files' hashes."""
    template: str
    """Name of a shipped template."""
    again: str
    """What brings it anew, as it is typed; for messages."""


def template_sha256(template: str) -> str:
    """Hash of the shipped template: part of every training fingerprint."""
    return sha256_file(TEMPLATES / f"{template}.jinja")


def find_student(context: RunContext, fetched: Fetched) -> Student:
    """The student's folder; a GGUF is dequantised on first use.

    Raises:
        DataError: weights are missing or not safetensors.
    """
    from jobs.train.dequantize import dequantized_folder

    found = fetched.student
    path = found.where(context.runs)
    again = context.command("fetch", "--redo")
    if not path.exists():
        raise DataError(f"{path} (student) does not exist. Run: {again}")
    folder = dequantized_folder(path, found.name, context.models, again) if found.kind == "gguf" else path
    missing = [name for name in found.sha256 if found.kind == "folder" and not (folder / name).exists()]
    if missing or not (folder / "config.json").exists():
        raise DataError(f"{folder / (missing or ['config.json'])[0]} (student) is missing. Run: {again}")
    if not any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} (student) has no *.safetensors; other weight formats can run code and are refused.")
    revision = found.revision or sha256_json(found.sha256)
    if found.kind == "gguf":
        again = f"rm -r {folder}, then this command once more"
    return Student(folder, found.name, revision, context.recipe.student.chat_template, again)


def student_shape(student: Student) -> ModelShape:
    """The student's sizes, from its config.json.

    Raises:
        DataError: it is not a Llama-like model.
    """
    return shape_of(read_json(student.folder / "config.json"))


def load_tokenizer(student: Student) -> Any:
    """The tokenizer with our template and a pad token that never ends an answer.

    Raises:
        ConfigError: the template does not belong to the model, or no token is fit for padding.
        DataError: the tokenizer is missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(student.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the library of tokenizers raises nothing narrower
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{student.folder / 'tokenizer.json'} (student) is missing or damaged: {reason}. Run: {student.again}"
        ) from error
    require_fit(tokenizer, student.template, student.name)
    tokenizer.chat_template = template_text(student.template)
    tokenizer.pad_token = _pad_token(tokenizer, student)
    return tokenizer


def end_of_turn(tokenizer: Any, student: Student) -> int:
    """Id of the token that ends an assistant turn in the student's template."""
    token = "<|im_end|>" if student.template == "chatml" else tokenizer.eos_token
    return int(tokenizer.convert_tokens_to_ids(token))


def load_model(student: Student, quantization: str, device: Device, precision: str, attention: str) -> Any:
    """The frozen weights on the device, in 4 bits where asked.

    Args:
        student: what to load.
        quantization: `none` or `nf4`.
        device: where they go.
        precision: `bf16` or `fp32`: dtype of the weights, or of the products with those in 4 bits.
        attention: transformers' name of the attention, such as `choose_attention` gives.

    Raises:
        DataError: the weights cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    with _loading(student.folder):
        return AutoModelForCausalLM.from_pretrained(
            student.folder,
            dtype=dtype,
            device_map={"": "cpu" if dividing() else device.kind},  # divided weights go to the GPU in parts
            quantization_config=four_bit if quantization == "nf4" else None,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )


def skeleton(folder: Path) -> Any:
    """The model without its weights, for the names of its layers.

    Raises:
        DataError: config.json describes no model that can be loaded.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with _loading(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{folder} (student) cannot be loaded: {reason}") from error


def set_special_tokens(model: Any, tokenizer: Any, stop: int) -> None:
    """Make the model's configurations agree with the tokenizer: pad, and every token that ends an answer."""
    ends = model.generation_config.eos_token_id
    known = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    model.generation_config.eos_token_id = [stop, *(end for end in known if end not in (stop, tokenizer.pad_token_id))]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id


def _pad_token(tokenizer: Any, student: Student) -> str:
    stop = end_of_turn(tokenizer, student)
    vocabulary = tokenizer.get_vocab()
    for token in (tokenizer.pad_token, *PAD_CANDIDATES, tokenizer.unk_token):
        if token in vocabulary and vocabulary[token] not in (stop, tokenizer.eos_token_id):
            return str(token)
    raise ConfigError(
        f"The tokenizer of {student.name} has no token for padding that does not also end an answer "
        f"(tried {', '.join(PAD_CANDIDATES)} and the unknown token). Choose another student."
    )
