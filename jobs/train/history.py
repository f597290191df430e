"""What a trainer logged, as lines and figures."""

from __future__ import annotations

import json
from typing import Any

History = list[dict[str, Any]]

SHOWN = ("step", "epoch", "loss", "learning_rate", "grad_norm", "num_tokens", "rewards/accuracies", "rewards/margins")


def steps(history: History) -> History:
    """The entries of optimizer steps, without evaluations and the closing summary."""
    return [entry for entry in history if "loss" in entry]


def log_lines(history: History) -> bytes:
    """log.jsonl: one line per optimizer step."""
    lines = [{key: entry[key] for key in SHOWN if key in entry} for entry in steps(history)]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def tokens_seen(history: History) -> int:
    """Tokens of every whole step, prompts included; the trainer's own counter starts again at 0 on every resume."""
    seen, before = 0, 0
    for entry in steps(history):
        now = int(entry.get("num_tokens", 0))
        seen += now - before if now >= before else now
        before = now
    return seen


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
