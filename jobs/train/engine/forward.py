"""The packed forward pass: hidden states of all positions, log-probabilities of the scored ones."""

from __future__ import annotations

from functools import wraps
from types import MethodType
from typing import Any

import torch

from jobs.common.errors import ConfigError
from jobs.train.engine.head import TokenLogProbs
from jobs.train.engine.pack import Packed

SCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
"""Settings of models whose logits are not hidden states times head alone."""


def log_probs(model: Any, packed: Packed) -> Any:
    """Log-probability of every scored token, in the order of `packed.targets`.

    Args:
        model: went through `prepare_model`; may be wrapped for several processes.
        packed: one forward pass.

    Returns:
        (N,) fp32. Autocast is off: frozen weights set the dtype.
    """
    with torch.autocast(packed.input_ids.device.type, enabled=False):
        return model(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            scored_positions=packed.positions,
            scored_targets=packed.targets,
            **packed.attention,
        )


def row_sums(values: Any, packed: Packed) -> Any:
    """Sum of the scored tokens' values for every row: (rows,) in the dtype of `values`."""
    return values.new_zeros(packed.rows).index_add(0, packed.owner, values)


def install_head(model: Any, compiled: bool) -> None:
    """Teach a causal language model the keywords `scored_positions` and `scored_targets`; without them nothing changes.

    Args:
        model: may have adapters.
        compiled: compile what is done to the logits.

    Raises:
        ConfigError: the model's logits are scaled or capped, or its head is not a plain frozen matrix.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = base.get_output_embeddings()
    odd = [name for name in SCALED if getattr(base.config.get_text_config(), name, None) is not None]
    if odd or head is None or getattr(head, "bias", None) is not None or not isinstance(head, torch.nn.Linear):
        what = odd[0] if odd else "its output head"
        raise ConfigError(
            f"student.model: {type(base).__name__} cannot be trained here ({what}). Choose a Llama or Mistral model."
        )
    original = base.forward

    @wraps(type(base).forward)
    def forward(self: Any, *arguments: Any, scored_positions: Any = None, **given: Any) -> Any:
        if scored_positions is None:
            return original(*arguments, **given)
        targets = given.pop("scored_targets")
        given = {name: value for name, value in given.items() if value is not None}
        hidden = self.base_model(*arguments, use_cache=False, **given).last_hidden_state
        return self.get_output_embeddings()(hidden[0][scored_positions], targets)

    base.forward = MethodType(forward, base)
    _install_scores(head, compiled)


def _install_scores(head: Any, compiled: bool) -> None:
    """Teach the head to score targets itself: where its weight is divided (FSDP), calling it puts it together."""
    logits = head.forward

    def forward(self: Any, hidden: Any, targets: Any = None) -> Any:
        apply: Any = TokenLogProbs.apply
        return logits(hidden) if targets is None else apply(hidden, self.weight, targets, compiled)

    head.forward = MethodType(forward, head)
