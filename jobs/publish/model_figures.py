"""The model card's numbers: training, preferences, export and answers, each line only where a stage measured it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobs.publish.card_figures import cell
from jobs.publish.model_evidence import Manifest

FEW_PAIRS = 30
"""Held-out pairs below which a share says little."""


def training_lines(sft: Manifest, dpo: Manifest) -> Iterator[str]:
    """Both stages beside each other."""
    yield from ("## Training", "", "| | SFT | DPO |", "|---|---|---|")
    for label, shown in _ROWS.items():
        first, second = shown("sft", sft), shown("dpo", dpo)
        if first or second:
            yield f"| {label} | {first or 'not measured'} | {second or 'not measured'} |"
    yield ""


def preference_lines(dpo: Manifest) -> Iterator[str]:
    """What held-out pairs say of the DPO model, in all and per principle."""
    measures = dpo["measures"]
    accuracy, pairs = measures.get("held_out_accuracy_after"), dpo["counts"].get("held_out_rows", 0)
    if accuracy is None:
        yield from ("## Held-out preferences", "", "Not measured: the run has no held-out pairs.", "")
        return
    yield from ("## Held-out preferences", "", "| | |", "|---|---|")
    yield f"| pairs | {pairs} |"
    yield f"| chosen is preferred | {100 * accuracy:.1f} % |"
    baseline = measures["length_baseline"]
    yield f"| the {baseline['rule']} one is chosen, without a model | {100 * baseline['held_out']:.1f} % |"
    yield f"| reward margin (0 before) | {measures['held_out_margin_after']:.4f} |"
    for side in ("chosen", "rejected"):
        before, after = (measures.get(f"held_out_{side}_logp_{when}") for when in ("before", "after"))
        if before is not None and after is not None:
            yield f"| log-probability of {side} | {before:.2f} → {after:.2f} ({after - before:+.2f}) |"
    yield ""
    if principles := _by_principle(measures):
        yield from ("| principle | chosen is preferred | margin |", "|---|---|---|")
        for name, (right, margin) in sorted(principles.items()):
            yield f"| {cell(name)} | {100 * right:.1f} % | {margin:.4f} |"
        yield ""


def export_lines(export: Manifest | None) -> Iterator[str]:
    """What merging changed."""
    if export is None:
        return
    measures, counts = export["measures"], export["counts"]
    yield from ("## The merged model", "", "| | |", "|---|---|")
    yield f"| adapter | {measures['system']}, merged in fp32 and rounded once to {measures['weights_dtype']} |"
    over = f"over {export['tokens']['measured']:,} tokens; at most {measures['kl_bound']:g} was allowed"
    yield f"| KL to the model as it was trained | {measures['kl_to_trained']:.2g} nats per token, {over} |"
    if (naive := measures["kl_of_merging_into_unquantised_base"]) is not None:
        yield f"| the same, merged into the base as it was before quantization | {naive:.2g} |"
    yield f"| greedy answers that stay the same | {measures['same_answers']} of {counts['prompts']} |"
    yield ""


def answer_lines(respond: Manifest | None) -> Iterator[str]:
    """Lengths of the answers to held-out prompts."""
    if respond is None:
        return
    limit = respond["recipe"]["respond"]["max_new_tokens"]
    yield from ("## Answers to held-out prompts", "", f"| system | mean tokens | cut at {limit} |", "|---|---|---|")
    for system in ("base", "sft", "dpo"):
        mean, cut = (respond["measures"][f"{system}_{name}"] for name in ("mean_tokens", "truncated"))
        yield f"| {system} | {mean:.1f} | {cut} of {respond['counts']['prompts']} |"
    yield ""


def _by_principle(measures: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    found = measures["held_out_after"]
    margins = {name.removeprefix("margin/"): value for name, value in found.items() if name.startswith("margin/")}
    return {name: (found[f"accuracy/{name}"], margin) for name, margin in margins.items()}


def _rows(_: str, manifest: Manifest) -> str:
    counts = manifest["counts"]
    mixed = counts.get("rows_mixed_in", 0)
    return f"{counts.get('rows_trained', 0):,}" + (f", {mixed:,} of them mixed in" if mixed else "")


def _settings(stage: str, manifest: Manifest) -> str:
    asked = manifest["recipe"][stage]
    beta = f", beta {asked['beta']:g}" if "beta" in asked else ""
    return f"learning rate {asked['learning_rate']:g}, {asked['batch_size']} rows per step{beta}"


def _loss_type(stage: str, manifest: Manifest) -> str:
    if stage == "sft":
        return "next token, answers only"
    kind = manifest["recipe"][stage]["loss_type"]
    return kind if isinstance(kind, str) else " + ".join(kind)


def _weights(stage: str, manifest: Manifest) -> str:
    kind = {"nf4": "4 bits (NF4), products in ", "none": ""}[manifest["recipe"][stage]["quantization"]]
    return f"{kind}{manifest['measures']['weights_dtype']}"


def _lora(stage: str, manifest: Manifest) -> str:
    lora = manifest["recipe"]["sft"]["lora"]
    return f"rank {lora['rank']}, alpha {lora['alpha']}" if stage == "sft" else "continues SFT's"


def _change(first: str, last: str) -> Any:
    def shown(_: str, manifest: Manifest) -> str:
        before, after = manifest["measures"].get(first), manifest["measures"].get(last)
        return "" if before is None or after is None else f"{before:.4f} → {after:.4f}"

    return shown


def _time(_: str, manifest: Manifest) -> str:
    return f"{manifest['wall_s'] / 60:.1f} min on {cell(str(manifest['device']))}"


def _figure(name: str) -> Any:
    def shown(_: str, manifest: Manifest) -> str:
        value = manifest["measures"].get(name)
        return "" if value is None else f"{value:,}"

    return shown


_ROWS: Mapping[str, Any] = {
    "rows": _rows,
    "settings": _settings,
    "loss": _loss_type,
    "LoRA": _lora,
    "frozen weights": _weights,
    "steps": _figure("steps"),
    "training loss, first → last step": _change("train_loss_first", "train_loss_last"),
    "held-out loss, before → after": _change("held_out_loss_before", "held_out_loss_after"),
    "trained values": _figure("trainable_parameters"),
    "tokens per second": _figure("tokens_per_s"),
    "wall time": _time,
}
