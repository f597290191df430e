"""This project against plain TRL: the same model, rows, batches, adapter, optimizer, dtype and machine in one run.

    python -m benchmarks.training [--device cuda] [--model smollm2-1.7b mistral-7b] [--quantization nf4] [--only dpo]
                                  [--random-weights] [--seconds 400]

Opponents: TRL with the original authors' settings, and TRL with the best of its own that a short search finds. Prints
a Markdown table per stage and model as it is done, and writes every figure to training.json in $OUT, or in
benchmarks/results. Needs no hub: smollm2-135m has its embedded weights on a CPU, other shapes have random ones; rows
are the original's where `benchmarks.training_rows` left them (benchmarks/results/training-rows.json, which can be
carried to another machine), else made up in the same lengths. `--model tiny` tries the command out in a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from benchmarks.table import machine
from benchmarks.training_drive import Drive
from benchmarks.training_models import CONFIGS, Case, ModelSpec
from benchmarks.training_peak import flops_per_token, matmul_peak
from benchmarks.training_rows import RESULTS, embedded_folder, load_rows
from benchmarks.training_table import SIDES as TITLES
from benchmarks.training_table import case_table, figures

SIDES = {"sft": ["ours", "original", "packed", "grouped"], "dpo": ["ours", "original", "best", "precomputed"]}
BATCH = {"cuda": 64, "cpu": 8}
"""Rows behind one optimizer step."""
DTYPE = "bfloat16"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    given = _parser().parse_args(arguments)
    deadline = time.monotonic() + given.seconds
    drive = Drive(deadline, _told)
    results: dict[str, Any] = {"machine": f"{machine()}, {given.device}", "rows": load_rows().name, "cases": []}
    _told(f"{results['machine']}; {results['rows']}\n")
    with tempfile.TemporaryDirectory() as scratch:
        cases = list(_cases(given, scratch))
        try:
            if given.device == "cuda":
                drive.start(sorted({name for case in cases for name in _sides(case, given)}))
            for number, case in enumerate(cases):
                share = (deadline - time.monotonic()) / (len(cases) - number)
                sides = _sides(case, given)
                results["cases"].append(_measure(drive, case, sides, time.monotonic() + share))
                _write(results)
        finally:
            drive.end()


def _sides(case: Case, given: argparse.Namespace) -> list[str]:
    return [name for name in given.sides if name in SIDES[case.stage]]


def _measure(drive: Drive, case: Case, sides: list[str], until: float) -> dict[str, Any]:
    seen = drive.measure(case, sides, until)
    peak = matmul_peak(case.model.device, next((it.facts["gpu"] for it in seen.values() if "gpu" in it.facts), ""))
    per_token = flops_per_token(case, load_rows())
    _told(case_table(case, seen, per_token, peak))
    for name, it in seen.items():
        for label, speed in it.facts.get("tried", {}).items():
            _told(f"- {name} tried {label}: {speed}")
    _told("")
    return {
        "case": asdict(case),
        "peak_flops": peak,
        "flops_per_token": per_token,
        "sides": {
            name: asdict(it) | {"medians": asdict(found) if (found := figures(it)) else None}
            for name, it in seen.items()
        },
    }


def _cases(given: argparse.Namespace, scratch: str) -> Iterator[Case]:
    for model in given.model:
        stages: list[Literal["sft", "dpo"]] = [given.only] if given.only else ["sft", "dpo"]
        for stage in stages:
            own = model == "smollm2-135m" and not given.random_weights
            folder = str(embedded_folder()) if own else None
            spec = ModelSpec(model, given.device, DTYPE, given.quantization, folder)
            yield Case(stage, spec, BATCH[given.device], scratch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--model", choices=list(CONFIGS), nargs="+", default=["smollm2-135m"])
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none")
    parser.add_argument("--random-weights", action="store_true", help="smollm2-135m too; the others have them always")
    parser.add_argument("--only", choices=["sft", "dpo"])
    parser.add_argument("--sides", choices=list(TITLES), nargs="+", default=list(TITLES), help="which, in this order")
    parser.add_argument(
        "--seconds", type=float, default=3600.0, help="time for everything; ends sooner when all is measured"
    )
    return parser


def _write(results: dict[str, Any]) -> None:
    folder = Path(os.environ.get("OUT", RESULTS))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


def _told(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
