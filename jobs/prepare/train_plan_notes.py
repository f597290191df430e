"""What stands below the training plan's table: which GPU to take, what fills its memory, what the figures rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from jobs.common.gpus import PRICES_DATED, Gpu
from jobs.common.memory import GIB
from jobs.common.processor import cores, native_bf16
from jobs.common.speed import COMPILE_S, STEP_S, peak_flops, share_of_peak
from jobs.prepare.train_plan_cost import START_S, Forecast, Stage, seconds
from jobs.prepare.train_plan_rows import ANSWER_TOKENS, BYTES_PER_TOKEN, MIX_IN_TOKENS, PROMPT_TOKENS
from jobs.prepare.train_plan_table import Offer, dollars, minutes, offers_of

CPU_PARAMETERS = 1e9
"""Students below this are worth training on a CPU."""


def choice_lines(offers: Sequence[Offer]) -> list[str]:
    """Which GPU is the cheapest, which the fastest, and what fills the memory of the cheapest."""
    known = [(offer.usd, offer.seconds, offer) for offer in offers if offer.usd is not None and offer.seconds]
    if not known:
        return ["cheapest that fits: none, or its speed is not known"]
    cheapest, fastest = min(known, key=lambda it: it[0]), min(known, key=lambda it: it[1])
    shown = "; ".join(
        f"{word}: {offer.gpu.name}, {minutes(taken)} minutes, ${dollars(usd)}"
        for word, (usd, taken, offer) in (("cheapest that fits", cheapest), ("fastest", fastest))
    )
    return [shown, *(_memory(it) for it in cheapest[2].forecasts if it)]


def _memory(forecast: Forecast) -> str:
    peak = forecast.peak
    parts = {"weights": peak.weights, "adapter": peak.adapter, "gradients": peak.gradients, "Adam": peak.optimizer}
    parts["activations"] = peak.activations
    if peak.logits > peak.workspace:
        parts["head"] = peak.logits
    else:
        parts["workspace"] = peak.workspace
    told = " + ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    layers = "compiled" if forecast.compiled else "not compiled"
    return f"{forecast.stage.section} there, layers {layers}: {peak.total / GIB:.1f} GiB = {told}"


def note_lines(stages: Sequence[Stage], offers: Sequence[Offer], gpus: Sequence[Gpu]) -> list[str]:
    """What would be better, and what the figures rest on."""
    lines = [*_cpu_lines(stages), *_weights_lines(stages, offers, gpus)]
    lines += [
        "passes: forward passes of one optimizer step; ckpt: activations are computed again in the backward pass",
        f"tokens: bytes / {BYTES_PER_TOKEN:g}, without the student's tokenizer; a pair's prompt counts once",
    ]
    if not all(stage.rows.measured for stage in stages):
        lines.append(
            f"rows:   assumed until generate has finished: every prompt gives a row, prompt {PROMPT_TOKENS} tokens, "
            f"answer {ANSWER_TOKENS}"
        )
    if any(stage.rows.mixed for stage in stages):
        lines.append(f"mix-in: {MIX_IN_TOKENS} tokens a row or side of a pair (assumed)")
    return [
        *lines,
        f"layers: compiled where that saves more than the {COMPILE_S:.0f} s it takes, as the trainer decides it: "
        + "; ".join(_compiled_on(at, stage, offers) for at, stage in enumerate(stages)),
        f"minutes: passes at a share of the GPU's bf16 peak, {', '.join(map(_shares, stages))}; {STEP_S:g} s a step, "
        f"{START_S:.0f} s to start, compiling and all evaluations come on top",
        f"dollars: low offers of {PRICES_DATED}, as examples; yours: --gpu-price NAME=USD, for an hour",
    ]


def _compiled_on(at: int, stage: Stage, offers: Sequence[Offer]) -> str:
    """On which of the GPUs that hold it a stage compiles its layers."""
    held = [it for offer in offers if not offer.gpu.refusal and (it := offer.forecasts[at])]
    compiled, eager = ([it.gpu.name for it in held if it.compiled is wanted] for wanted in (True, False))
    if not compiled or not eager:
        return f"{stage.section} on {'all' if compiled else 'none'}"
    few = len(compiled) <= len(eager)
    return f"{stage.section} on {'' if few else 'all but '}{', '.join(compiled if few else eager)}"


def _shares(stage: Stage) -> str:
    compiled, eager = (
        share_of_peak(stage.section, replace(stage.load(1), compiled=compiled)) for compiled in (True, False)
    )
    return f"{stage.section} {compiled:.0%} compiled and {eager:.0%} not"


def _cpu_lines(stages: Sequence[Stage]) -> list[str]:
    """How long the CPU of this machine would take, for small students."""
    if any(stage.shape.parameters > CPU_PARAMETERS for stage in stages):
        return []
    told = []
    for stage in stages:
        wanted = stage.settings.precision
        precision: Literal["bf16", "fp32"] = ("bf16" if native_bf16() else "fp32") if wanted == "auto" else wanted
        load = replace(stage.load(1), device="cpu", precision=precision)
        flops = peak_flops("cpu", load)
        told.append(f"{stage.section} {minutes(seconds(stage, load, flops) if flops else None)} ({precision})")
    return [f"minutes on this machine's CPU, {cores()} cores: {', '.join(told)}"]


def _weights_lines(stages: Sequence[Stage], offers: Sequence[Offer], gpus: Sequence[Gpu]) -> list[str]:
    """Where 4-bit weights are not needed, or would make a GPU large enough."""
    packed = any(stage.settings.quantization == "nf4" for stage in stages)
    other = [
        replace(stage, settings=stage.settings.model_copy(update={"quantization": "none" if packed else "nf4"}))
        for stage in stages
    ]
    fitting = {offer.gpu.name for offer in offers if _fits(offer)}
    if packed:
        faster = [offer.gpu.name for offer in offers_of(other, gpus) if _fits(offer, without_checkpointing=True)]
        return [f"quantization: none is faster where it fits: {', '.join(faster)}"] if faster else []
    more = [offer.gpu.name for offer in offers_of(other, gpus) if _fits(offer) and offer.gpu.name not in fitting]
    return [f"quantization: nf4 would fit {', '.join(more)} too"] if more else []


def _fits(offer: Offer, *, without_checkpointing: bool = False) -> bool:
    return not offer.gpu.refusal and all(
        it and not (without_checkpointing and it.checkpointing) for it in offer.forecasts
    )
