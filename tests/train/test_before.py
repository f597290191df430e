"""What stops a training stage before its folder is touched, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import Fetched, FetchedStudent
from jobs.common.jsonl import sha256_file, write_json
from jobs.common.stage import RunContext, StagePlan, open_stage
from jobs.train import adapters, before, sft
from jobs.train.adapters import new_adapter
from jobs.train.before import require_trainable
from jobs.train.device import Device, libraries
from jobs.train.student import Student, find_student, load_model, skeleton
from jobs.train.targets import wrong_target
from tests.train.builders import make_context
from tests.train.test_student import write_gguf

Runs = Callable[..., RunContext]
Students = Callable[[str], Path]

LINEAR = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def changed(context: RunContext, sections: dict[str, dict[str, Any]], redo: bool = True) -> RunContext:
    """The same run with other settings."""
    recipe = context.recipe
    updates = {name: getattr(recipe, name).model_copy(update=update) for name, update in sections.items()}
    return replace(context, recipe=recipe.model_copy(update=updates), redo=redo)


def lora(context: RunContext, targets: Any) -> dict[str, Any]:
    return {"lora": context.recipe.sft.lora.model_copy(update={"target_modules": targets})}


def finished(context: RunContext, stage: str, ingredients: dict[str, Any] | None = None) -> None:
    write_json(
        context.folder / stage / "manifest.json", {"outputs": {}, "fingerprint": "f", "ingredients": ingredients or {}}
    )


def files(context: RunContext) -> set[str]:
    return {str(path.relative_to(context.folder)) for path in context.folder.rglob("*")}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["nonsense"], r"'nonsense' names no layer\."),
        (["q_proj", "nonsense"], r"'nonsense' names no layer\."),
        (["lm_head", "q_proj"], r"'lm_head' names lm_head, no linear layer of the decoder\."),
        (["embed_tokens", "q_proj"], r"'embed_tokens' names model\.embed_tokens, no linear layer"),
        (["mlp"], r"'mlp' names model\.layers\.0\.mlp, no linear layer"),
        (["input_layernorm"], r"'input_layernorm' names model\.layers\.0\.input_layernorm, no linear layer"),
        ("q_proj", r"'q_proj' names no layer\."),
        (r".*(q_proj|norm)", r"names model\.layers\.0\.input_layernorm, no linear layer"),
        ("(", r"'\(' is no pattern"),
        ([], r"the list names no layer\."),
    ],
)
def test_an_adapter_on_other_than_linear_decoder_layers_is_refused_before_anything_moves(
    tiny_run: Runs, targets: Any, message: str
) -> None:
    context = tiny_run()
    finished(context, "sft")
    there = files(context)
    known = rf"There are \[{', '.join(LINEAR)}\], or all-linear\."
    command = r"Run: cai sft --run r --redo --set sft\.lora\.target_modules=all-linear$"

    with pytest.raises(ConfigError, match=rf"^sft\.lora\.target_modules: .*{message}.* {known} {command}"):
        sft.run(changed(context, {"sft": lora(context, targets)}))
    assert files(context) == there


@pytest.mark.parametrize(
    "targets", ["all-linear", LINEAR, ["q_proj"], r".*\.layers\.1\..*_proj", ["layers.0.self_attn.q_proj"]]
)
def test_linear_decoder_layers_are_taken_however_they_are_named(students: Students, targets: Any) -> None:
    assert wrong_target(skeleton(students("chatml")), targets) is None


def test_a_student_that_could_not_be_looked_at_before_is_looked_at_when_it_gets_its_adapter(
    students: Students, tmp_path: Path
) -> None:
    settings = make_context(tmp_path).recipe.sft.lora.model_copy(update={"target_modules": ["embed_tokens"]})

    with pytest.raises(ConfigError, match=r"embed_tokens, no linear layer .* run sft again with --redo\.$"):
        new_adapter(skeleton(students("chatml")), settings, 0)


def test_the_look_at_the_layers_leaves_an_adapters_random_start_alone(
    students: Students, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    settings = make_context(tmp_path).recipe.sft.lora.model_copy(update={"target_modules": LINEAR})
    found = []
    for look in (wrong_target, lambda *_: None):
        monkeypatch.setattr(adapters, "wrong_target", look)
        with libraries("sft", "r"):
            model = new_adapter(AutoModelForCausalLM.from_pretrained(students("chatml")), settings, 7)
        found.append(adapters.snapshot(model))

    assert found[0].keys() == found[1].keys()
    assert all(value.equal(found[1][name]) for name, value in found[0].items())


@pytest.mark.parametrize("section", ["sft", "dpo"])
def test_rows_beyond_the_students_positions_are_refused_before_anything_moves(tiny_run: Runs, section: str) -> None:
    context = tiny_run()
    finished(context, section)
    there = files(context)
    more: dict[str, Any] = {"max_length": 513, "micro_batch_tokens": "auto"}

    with pytest.raises(
        ConfigError,
        match=rf"{section}: max_length 513 is beyond the 512 positions .*"
        rf"Run: cai {section} --run r --redo --set {section}\.max_length=512$",
    ):
        require_trainable(changed(context, {section: more}), section)
    require_trainable(changed(context, {section: more | {"max_length": 512}}), section)
    assert files(context) == there


def test_rows_and_layers_are_looked_at_in_a_gguf_once_it_was_dequantised(students: Students, tmp_path: Path) -> None:
    context = make_context(tmp_path, sft={"lora": {"target_modules": ["q_proj"]}})
    write_gguf(tmp_path / "tiny.gguf", students("chatml"))
    digests = {"tiny.gguf": sha256_file(tmp_path / "tiny.gguf")}
    fetched = Fetched(student=FetchedStudent(kind="gguf", path="tiny.gguf", name="tiny", sha256=digests))
    write_json(context.folder / "fetch" / "models.json", fetched.model_dump(mode="json"))
    require_trainable(context, "sft")
    with libraries("sft", "r"):
        find_student(context, fetched)

    require_trainable(changed(context, {"sft": {"max_length": 512}}), "sft")
    with pytest.raises(ConfigError, match="sft: max_length 1000000 is beyond the 512 positions"):
        require_trainable(changed(context, {"sft": {"max_length": 10**6}}), "sft")
    with pytest.raises(ConfigError, match="'nonsense' names no layer"):
        require_trainable(changed(context, {"sft": {"max_length": 512, **lora(context, ["nonsense"])}}), "sft")


@pytest.mark.parametrize(("trained", "asked"), [("nf4", "none"), ("none", "nf4")])
def test_dpo_over_other_frozen_weights_than_sft_is_refused_before_anything_moves(
    tiny_run: Runs, trained: str, asked: str
) -> None:
    context = tiny_run()
    finished(context, "sft", {"sft": {"quantization": trained}})
    finished(context, "dpo")
    there = files(context)
    command = f"Run: cai dpo --run r --redo --set sft.quantization={trained} --set dpo.quantization={trained}$"

    with pytest.raises(
        ConfigError, match=rf"dpo\.quantization is {asked}, and .*sft was trained with {trained}: .*{command}"
    ):
        require_trainable(changed(context, {"dpo": {"quantization": asked}}), "dpo")
    require_trainable(changed(context, {"dpo": {"quantization": trained}}), "dpo")
    assert files(context) == there


def test_a_stage_that_has_finished_is_not_looked_at_again(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    context = tiny_run()
    finished(context, "sft")
    monkeypatch.setattr(before, "student_folder", lambda _: pytest.fail("looked at"))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    again = changed(context, {"sft": lora(context, ["nonsense"])}, redo=False)

    require_trainable(again, "sft")
    with pytest.raises(ConfigError, match="num_processes is 1"):
        require_trainable(replace(again, redo=True), "sft")


def test_a_run_that_lacks_its_earlier_stages_is_left_to_who_opens_the_stage(tmp_path: Path) -> None:
    context = make_context(tmp_path)

    require_trainable(context, "sft")
    require_trainable(context, "dpo")
    with (
        pytest.raises(ConfigError, match='No finished "fetch" stage'),
        open_stage(context, StagePlan("sft", {}, ("fetch",), "cuda")),
    ):
        pass


@pytest.mark.parametrize(
    "config",
    [{"model_type": "nothing"}, {"model_type": "llama", "vocab_size": "many"}],
    ids=["another model", "a size that is no number"],
)
def test_a_config_that_describes_no_model_is_refused_in_one_line(tmp_path: Path, config: dict[str, Any]) -> None:
    write_json(tmp_path / "config.json", config)
    student = Student(tmp_path, "odd", "1", "chatml", "again")

    with libraries("sft", "r"), pytest.raises(DataError, match=r" \(student\) cannot be loaded: ") as first:
        skeleton(tmp_path)
    with libraries("sft", "r"), pytest.raises(DataError, match=r" \(student\) cannot be loaded: ") as then:
        load_model(student, "none", Device("cpu", "cpu"), "fp32", "sdpa")
    assert "\n" not in f"{first.value}{then.value}"
