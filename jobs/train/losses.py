"""TRL's preference losses as functions of log-probabilities alone, whatever forward pass they came from.

TRL's trainer computes its losses inside one method that also runs the model. Here that method runs on the CPU with a
stand-in for the model, so the loss code, all 15 kinds of it, stays TRL's own; the forward pass is the packed one.

A step's loss is the mean over its pairs, however many forward passes they took: every part gets the loss's weight
times its share of the step. `sft` averages over tokens, so its share is counted in tokens. `aot` and `aot_unpaired`
sort the pairs of a step, so they need the whole step at once (`whole`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from jobs.common.loss_settings import PER_PAIR
from jobs.train.margins import GAINED
from jobs.train.objective import Objective, objective

__all__ = ["Objective", "Part", "Share", "join", "loss_of", "objective"]

DISCOPOP_TAU = 0.05
"""TRL's default modulation temperature of `discopop` (arXiv 2406.08414)."""


@dataclass(frozen=True)
class Part:
    """Pairs whose log-probabilities are known: one forward pass, or a whole step."""

    chosen: Sequence[Any]
    """(tokens,) fp32 on the CPU per pair: log-probabilities of the chosen side's tokens."""
    rejected: Sequence[Any]
    reference: Any
    """(2, pairs) fp32: summed log-probabilities of the chosen and rejected sides under the reference."""
    smoothing: Any
    """(pairs,) fp32: how likely each pair is the wrong way round."""

    @property
    def share(self) -> Share:
        """How much of a step this is."""
        return Share(len(self.chosen), sum(len(row) for row in self.chosen))

    @property
    def lengths(self) -> Any:
        """(2, pairs): tokens of every side."""
        return torch.tensor([[len(row) for row in side] for side in (self.chosen, self.rejected)])

    @property
    def sums(self) -> Any:
        """(2, pairs): summed log-probability of every side, added up as TRL adds them."""
        return _padded([*self.chosen, *self.rejected]).sum(1).view(2, -1)


@dataclass(frozen=True)
class Share:
    """A size in the two units that losses are averaged in."""

    pairs: int
    chosen_tokens: int


def join(parts: Sequence[Part]) -> Part:
    """Several parts as one."""
    return Part(
        list(chain.from_iterable(part.chosen for part in parts)),
        list(chain.from_iterable(part.rejected for part in parts)),
        torch.cat([part.reference for part in parts], 1),
        torch.cat([part.smoothing for part in parts]),
    )


def loss_of(goal: Objective, part: Part, step: Share) -> tuple[Any, dict[str, float]]:
    """What a part adds to the loss of a step, and TRL's figures of the part.

    Args:
        goal: the losses.
        part: the pairs; gradients flow into their log-probabilities.
        step: size of the whole step. A part that is the whole step gives the plain loss.

    Returns:
        A scalar, and means over the part's pairs: TRL's `rewards/*` and `logps/*`, and `GAINED`.
    """
    rows = _padded([*part.chosen, *part.rejected])
    mask = _padded([torch.ones(len(row), dtype=torch.long) for row in (*part.chosen, *part.rejected)])
    stand_in = _trainer(goal, _weights(goal, part.share, step))
    completion = torch.cat([torch.zeros(len(mask), 1, dtype=torch.long), mask], 1)  # a sequence opens with its prompt
    loss = _trl()(stand_in, lambda **_: _outputs(rows), _inputs(completion, part.reference), return_outputs=False)
    figures = {name: values[0] for name, values in stand_in._metrics["train"].items() if name.startswith(FIGURES)}
    ratios = rows.sum(1).view(2, -1) - part.reference
    per_token = ratios / part.lengths
    figures[GAINED] = float(per_token[0].detach().mean())
    return loss + _flipped(goal, part, ratios, per_token) * (part.share.pairs / step.pairs), figures


FIGURES = ("rewards/", "logps/")
"""TRL's figures that are kept; the others need logits, which the packed forward pass never holds."""


def _trl() -> Any:
    from trl import DPOTrainer

    return DPOTrainer._compute_loss


def _weights(goal: Objective, share: Share, step: Share) -> list[float]:
    tokens, pairs = share.chosen_tokens / step.chosen_tokens, share.pairs / step.pairs
    return [
        weight * (tokens if name == "sft" else pairs) for name, weight in zip(goal.names, goal.weights, strict=True)
    ]


def _flipped(goal: Objective, part: Part, ratios: Any, per_token: Any) -> Any:
    """What label smoothing adds to the mean over the part's pairs, where TRL's loss knows none.

    The pair the other way round has the loss L(-d), so smoothing adds e (L(-d) - L(d)); for these losses (`PER_PAIR`)
    that is linear in d, the difference of log-ratios, or of their means per token.
    """
    margin, mean_margin = ratios[0] - ratios[1], per_token[0] - per_token[1]
    slopes = {
        "sigmoid": goal.beta * margin,
        "sigmoid_norm": goal.beta * mean_margin,
        "ipo": mean_margin * 2 / goal.beta,
    }
    added = margin.new_zeros(())
    for name, weight in zip(goal.names, goal.weights, strict=True):
        if name in PER_PAIR:
            added = added + weight * (part.smoothing * slopes[name]).mean()
    return added


def _trainer(goal: Objective, weights: list[float]) -> Any:
    """What TRL's loss code reads off its trainer."""
    alone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda values: values, gather_for_metrics=lambda values: values
    )
    return SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=alone,
        args=SimpleNamespace(discopop_tau=DISCOPOP_TAU),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        loss_types=goal.names,
        loss_weights=weights,
        beta=goal.beta,
        label_smoothing=goal.smoothing or 0.0,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )


def _outputs(rows: Any) -> Any:
    nothing = rows.new_zeros(rows.shape)  # figures that need logits: TRL computes them, nobody reads them
    return SimpleNamespace(log_probs=rows, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def _inputs(completion: Any, reference: Any) -> dict[str, Any]:
    return {
        "input_ids": completion,
        "attention_mask": completion,
        "completion_mask": completion,
        "ref_chosen_logps": reference[0],
        "ref_rejected_logps": reference[1],
    }


def _padded(rows: Sequence[Any]) -> Any:
    return pad_sequence(list(rows), batch_first=True)
