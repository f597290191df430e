"""One side of the training benchmark as a process of its own: hears cases on stdin, answers on stdout, JSON by line.

`python -m benchmarks.training_side SIDE BEGUN_AT` is what benchmarks/training.py starts.
"""

from __future__ import annotations

import gc
import sys
import time
import warnings
from typing import Any

from benchmarks.training_meter import WARM_UP, Channel, Meter, peak_bytes, reset_peak
from benchmarks.training_models import CONFIGS, Case
from benchmarks.training_rows import Rows, load_rows
from jobs.train.device import go_offline

TRIED_STEPS = 2
"""Steps of a candidate that are timed, after the warm-up."""
REPEATED = 2
"""How often rows are repeated in an epoch on a GPU, so that a fast machine does not measure epoch ends."""
CPU_PAIRS = 64
"""Pairs on a CPU, where a reference pass over all of them would take minutes."""


def main(side: str, begun_at: float) -> None:
    """Answer orders until the parent is done."""
    go_offline()
    warnings.simplefilter("ignore")
    channel = Channel(sys.stdout, begun_at)
    sys.stdout = sys.stderr  # libraries print
    while (order := channel.hear())["do"] == "case":
        case = Case.from_json(order["case"])
        try:
            channel.search_s = order["search_s"]
            channel.say(end=_run(side, case, channel))
        except Exception as error:  # the parent prints it; the next case may still run
            channel.say(error=f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}")
        _let_go()


def _run(side: str, case: Case, channel: Channel) -> dict[str, Any]:
    import torch

    device = case.model.device
    rows = _rows(case)
    channel.facts = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    if side == "ours":
        from benchmarks.training_ours import train

        def go(meter: Meter) -> dict[str, Any]:
            return train(case, rows, meter, channel.facts)

    else:
        from benchmarks import training_trl

        plan = training_trl.original(case) if side == "original" else _best(case, rows, side, channel)
        channel.facts["settings"] = plan.label

        def go(meter: Meter) -> dict[str, Any]:
            return training_trl.train(case, rows, plan, meter)

    reset_peak(device)
    meter = Meter(device, channel.rounds(WARM_UP[device]))
    more = go(meter)
    return more | {"peak_bytes": peak_bytes(device), "losses": [step[3] for step in meter.steps]}


def _best(case: Case, rows: Rows, side: str, channel: Channel) -> Any:
    """The fastest candidate; the others' figures are told too."""
    from benchmarks import training_trl

    warm_up = 1
    some = Rows(rows.name, rows.sft, rows.pairs[: case.batch_size * (warm_up + TRIED_STEPS)])
    began = time.monotonic()
    found: dict[float, Any] = {}
    tried: dict[str, Any] = {}
    for plan in training_trl.candidates(case, side):
        if found and time.monotonic() - began > channel.search_s:
            break

        def after(steps: list[list[float]]) -> bool:
            channel.first_step_ended()
            return len(steps) >= warm_up + TRIED_STEPS

        meter = Meter(case.model.device, after)
        try:
            training_trl.train(case, some, plan, meter)
        except Exception as error:  # out of memory, a kernel that is missing: the next candidate
            tried[plan.label] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}"
            continue
        finally:
            _let_go()
        timed = meter.steps[warm_up:]
        unit = 1 if case.stage == "sft" else 2
        speed = sum(step[unit] for step in timed) / sum(step[0] for step in timed)
        found[speed] = plan
        tried[plan.label] = round(speed, 2)
        channel.say(tried={plan.label: tried[plan.label]})
    channel.facts["tried"] = tried
    if not found:
        raise RuntimeError(f"no candidate ran: {tried}")
    return found[max(found)]


def _rows(case: Case) -> Rows:
    rows = load_rows().within(CONFIGS[case.model.name]["vocab_size"])
    if case.model.device == "cpu":
        return Rows(rows.name, rows.sft, rows.pairs[:CPU_PAIRS])
    return Rows(rows.name, rows.sft * REPEATED, rows.pairs * REPEATED)


def _let_go() -> None:
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
