"""Peak memory of this project's training on a GPU beside what the plan predicts, within the memory of a smaller card.

    python -m benchmarks.training_memory [--model mistral-7b] [--quantization nf4] [--tokens 2048] [--gib 16]

Random weights, rows and sides of exactly --tokens tokens, three steps of `sft` and of `dpo` each, with the passes and
the checkpointing that "auto" chooses for --gib (of this GPU, whose allocator is held to it). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
from typing import Any, Literal

from benchmarks.training_meter import Meter, peak_bytes, reset_peak
from benchmarks.training_models import CONFIGS, RANK, Case, ModelSpec
from benchmarks.training_rows import Rows
from jobs.common.memory import GIB, Load
from jobs.common.memory import peak_bytes as predicted_bytes
from jobs.common.model_shape import shape_of
from jobs.train.device import go_offline

STEPS, ROWS, BATCH = 3, 16, 8
PROMPT = 0.25
"""Share of a row that is its prompt."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_memory", description=__doc__)
    parser.add_argument("--model", choices=list(CONFIGS), default="mistral-7b")
    parser.add_argument("--quantization", choices=["none", "nf4"], default="nf4")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--gib", type=float, help="memory of the card to stand in for; this GPU's own by default")
    given = parser.parse_args(arguments)
    go_offline()
    if given.gib:
        import torch

        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(given.gib * GIB / whole)
    print(f"| stage | {given.model}, {given.quantization}, {given.tokens} tokens | predicted GiB | peak GiB | off by |")
    print("|---|---|---|---|---|", flush=True)
    stages: tuple[Literal["sft", "dpo"], ...] = ("sft", "dpo")
    with tempfile.TemporaryDirectory() as scratch:
        for stage in stages:
            model = ModelSpec(given.model, "cuda", "bfloat16", given.quantization, None)
            print(_row(Case(stage, model, BATCH, scratch), given.tokens), flush=True)


def _row(case: Case, tokens: int) -> str:
    from benchmarks.training_ours import train

    facts: dict[str, Any] = {}
    reset_peak(case.model.device)
    ran = train(case, _rows(case, tokens), Meter(case.model.device, lambda steps: len(steps) >= STEPS), facts)
    real = peak_bytes(case.model.device)
    expected = predicted_bytes(_load(case, ran)).total
    gc.collect()
    sizes = f"{expected / GIB:.2f} | {real / GIB:.2f} | {expected / real - 1:+.1%}"
    return f"| {case.stage} | {facts['settings']} | {sizes} |"


def _load(case: Case, ran: dict[str, Any]) -> Load:
    how = ran["execution"]
    return Load(
        shape_of(case.model.config("sdpa").to_dict()),
        lora_rank=RANK,
        micro_batch_tokens=ran["heaviest"],
        quantization=case.model.quantization,  # type: ignore[arg-type]
        precision=how["precision"],
        gradient_checkpointing=how["gradient_checkpointing"],
        compiled=how["compiled"],
        scored_share=1 - PROMPT,
        device=case.model.device,  # type: ignore[arg-type]
    )


def _rows(case: Case, tokens: int) -> Rows:
    draw, start = random.Random(0), round(tokens * PROMPT)

    def ids(count: int) -> list[int]:
        return [draw.randrange(2, CONFIGS[case.model.name]["vocab_size"]) for _ in range(count)]

    sft = [(ids(tokens), start) for _ in range(ROWS)]
    pairs = [(ids(start), ids(tokens - start), ids(tokens - start)) for _ in range(ROWS)]
    return Rows(f"rows of {tokens} tokens", sft, pairs)


if __name__ == "__main__":
    main()
