"""Merge an adapter into its base exactly and write a model folder that any library loads: `cai export`.

Reads fetch, the rows, and sft (and dpo); writes model/ (safetensors, tokenizer with our template, generation config)
and, with `export.gguf`, model.gguf. The merged model is compared with the trained one before it is written, and with
itself after it was read back: mean KL per token over held-out texts, and greedy answers to held-out prompts.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.data_stage import data_stage
from jobs.common.errors import DataError
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import whole_folder
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.train import guards
from jobs.train.device import libraries
from jobs.train.gguf_export import check_gguf, write_gguf
from jobs.train.likeness import Probe, logits_of, mean_kl, probe_of
from jobs.train.merge import merge_adapter, without_repacking
from jobs.train.speakers import Speaker, Trained, Weights, load_speaker, weights_of
from jobs.train.student import find_student, template_sha256

SECTION = "export"

KL_BOUND = {"float32": 1e-6, "bfloat16": 2e-2}
"""Most nats per token between merged and trained model, by the dtype of the written weights.

SmolLM2-135M, NF4, bf16: 4.2e-3 was measured. The trained model is 3.1e-3 from its own products in fp32, so rounding
explains it; the common way, adding to the base as it was before quantization, is at 4.6e-1.
"""

SENTENCEPIECE = "tokenizer.model"
"""What llama.cpp's converter reads such tokenizers from; the libraries here save tokenizer.json alone."""

READ_BACK = 4
"""Texts whose logits must be the same bits after reading the folder back."""


def run(context: RunContext) -> None:
    """Export the merged model; see the module docstring.

    Raises:
        ConfigError: a stage before it has not finished, or `export.gguf` is asked of a model that cannot be one.
        DataError: the merged model is not the trained one.
    """
    recipe = context.recipe
    system: Trained = recipe.export.system
    ingredients = {
        "export": recipe.export.model_dump(mode="json"),
        "student": recipe.student.model_dump(mode="json"),
        "chat_template_sha256": template_sha256(recipe.student.chat_template),
    }
    trained = ("sft",) if system == "sft" else ("sft", "dpo")
    plan = StagePlan(SECTION, ingredients, ("fetch", data_stage(context), *trained), lock="cuda")
    with open_stage(context, plan) as stage:
        if stage is None:
            return
        with libraries(SECTION, context.typed):
            stage.finish(_export(stage, system, weights_of(context, system)))


def _export(stage: OpenStage, system: Trained, weights: Weights) -> Result:
    context = stage.context
    if context.recipe.export.gguf:
        check_gguf(find_student(context, load_fetched(context)).folder)
    speaker = load_speaker(context, (system,), weights)
    probe = probe_of(context, speaker.tokenizer)
    say(f"export: {system} adapter into {speaker.student.name} ({weights.dtype}), compared on {probe.tokens} tokens")
    without_repacking(speaker.model)
    trained, answers = logits_of(speaker.model, probe.rows), probe.answers(speaker.model)
    model = merge_adapter(speaker.model, system)
    merged, merged_answers = logits_of(model, probe.rows), probe.answers(model)
    shown: dict[str, Any] = {
        "system": system,
        "quantization": weights.quantization,
        "weights_dtype": weights.dtype,
        "kl_to_trained": mean_kl(merged, trained),
        "kl_bound": KL_BOUND[weights.dtype],
        "same_answers": sum(ours == theirs for ours, theirs in zip(merged_answers, answers, strict=True)),
    }
    _check_kl(shown, context)
    folder = _write(model, speaker, stage.folder / "model")
    device, target, name = speaker.device, model.device, f"{speaker.student.name}-{system}"
    del model, speaker
    _check_read_back(folder, target, probe.rows[:READ_BACK], merged)
    shown["kl_of_merging_into_unquantised_base"] = _naive_kl(context, system, weights, (probe, trained))
    _say(shown, probe, folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if context.recipe.export.gguf:
        files.append(_write_gguf(folder, name))
    counts = {"texts": len(probe.rows), "prompts": len(probe.prompts)}
    return Result(files, counts, tokens={"measured": probe.tokens}, device=device.name, measures=shown)


def _check_kl(shown: dict[str, Any], context: RunContext) -> None:
    kl, bound, system = shown["kl_to_trained"], shown["kl_bound"], shown["system"]
    if not kl <= bound:  # NaN is over it too
        again = context.command(system, "--redo", f"--set {system}.precision=fp32")
        raise DataError(
            f"export: the merged model differs from the trained one by {kl:.2g} nats per token, more than {bound:g} "
            f"({shown['weights_dtype']}). Nothing was written; the adapter in {context.folder / system} is whole. "
            f"To export without rounding, train in fp32: {again}"
        )


def _write(model: Any, speaker: Speaker, folder: Path) -> Path:
    """Write the folder whole or not at all."""
    guards.check_padding(model.generation_config, speaker.tokenizer.pad_token_id)
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        speaker.tokenizer.save_pretrained(temporary)
        if (pieces := speaker.student.folder / SENTENCEPIECE).exists():
            shutil.copyfile(pieces, temporary / SENTENCEPIECE)
        for path in temporary.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner can read
    return folder


def _write_gguf(folder: Path, name: str) -> Path:
    path = folder.parent / "model.gguf"
    write_gguf(folder, path, name)
    say(f"export: {path} ({path.stat().st_size / 1e6:,.0f} MB)")
    return path


def _check_read_back(folder: Path, target: Any, rows: Sequence[Sequence[int]], merged: Sequence[Any]) -> None:
    """Load what was written as anybody would, and compare bits."""
    from transformers import AutoModelForCausalLM

    _free()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", device_map={"": target}, use_safetensors=True, local_files_only=True
    )
    for ours, theirs in zip(logits_of(model, rows), merged, strict=False):
        if not ours.equal(theirs):
            apart = float((ours - theirs).abs().max())
            raise DataError(f"{folder}: read back, it is another model (logits differ by {apart:.2g}).")


def _naive_kl(
    context: RunContext, system: Trained, weights: Weights, told: tuple[Probe, Sequence[Any]]
) -> float | None:
    """KL of the common way, the adapter merged into the base as it was before quantization; None where it was not."""
    if weights.quantization == "none":
        return None
    _free()
    probe, trained = told
    speaker = load_speaker(context, (system,), Weights("none", weights.dtype))
    return mean_kl(logits_of(merge_adapter(speaker.model, system), probe.rows), trained)


def _free() -> None:
    """Give the memory of dropped models back before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _say(shown: dict[str, Any], probe: Probe, folder: Path) -> None:
    naive = shown["kl_of_merging_into_unquantised_base"]
    beside = "" if naive is None else f"; merged into the unquantised base it would be {naive:.2g}"
    say(
        f"export: KL to the trained model {shown['kl_to_trained']:.2g} nats per token over {probe.tokens} tokens "
        f"({shown['kl_bound']:g} is allowed){beside}"
    )
    same = f"{shown['same_answers']} of {len(probe.prompts)} greedy answers are the trained model's"
    say(f"export: {same}, word for word; the model is in {folder}")
