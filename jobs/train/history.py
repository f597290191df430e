"""What a trainer logged, as lines and figures."""

from __future__ import annotations

import json
from typing import Any

History = list[dict[str, Any]]


def steps(history: History) -> History:
    """The entries of optimizer steps, without evaluations and the closing summary."""
    return [entry for entry in history if "loss" in entry]


def log_line(entry: dict[str, Any]) -> bytes:
    """An entry as a line of log.jsonl (jobs/train/logged.py), its step in front."""
    return (json.dumps({"step": entry["step"]} | entry) + "\n").encode()


def step_figures(entry: dict[str, Any]) -> dict[str, float]:
    """What a tracker is given of an optimizer step."""
    named = {"num_tokens": "tokens"}
    return {named.get(name, name): float(value) for name, value in entry.items() if name not in ("step", "rows")}


def tokens_seen(history: History) -> int:
    """Tokens of every whole step so far, prompts included, those before a resume too."""
    return next((int(entry["num_tokens"]) for entry in reversed(history) if "num_tokens" in entry), 0)


def first_and_last_loss(history: History) -> dict[str, float | None]:
    """Training loss of the first and last step, and the mean of the first and last third, which few rows sway less."""
    losses = [float(entry["loss"]) for entry in steps(history)]
    third = max(1, len(losses) // 3)
    return {
        "train_loss_first": losses[0] if losses else None,
        "train_loss_last": losses[-1] if losses else None,
        "train_loss_first_third": sum(losses[:third]) / third if losses else None,
        "train_loss_last_third": sum(losses[-third:]) / third if losses else None,
    }


def held_out_losses(history: History) -> list[tuple[int, float]]:
    """(step, loss) of every held-out evaluation during and after training."""
    return [(int(entry["step"]), float(entry["eval_loss"])) for entry in history if "eval_loss" in entry]
