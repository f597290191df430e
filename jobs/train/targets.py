"""Which layers `sft.lora.target_modules` may name: the linear ones of the decoder's layers.

The packed path needs embeddings and head as they are, and an adapter on them cannot be merged into tied weights.
"""

from __future__ import annotations

import re
from typing import Any


def wrong_target(model: Any, targets: str | list[str]) -> str | None:
    """What is wrong with the recipe's targets, in words; None where each names such layers and nothing else.

    Args:
        model: the student, with weights or without.
        targets: `all-linear`, names, or one pattern for whole names, as PEFT has them.
    """
    if targets == "all-linear":
        return None
    linear, names = _linear(model), [name for name, _ in model.named_modules()]
    for target in [targets] if isinstance(targets, str) else targets:
        try:
            hits = _hits(target if isinstance(targets, str) else [target], names)
        except re.error as error:
            return f"sft.lora.target_modules: {target!r} is no pattern ({error}). {_known(linear)}"
        odd = next((name for name in hits if name not in linear), None)
        if odd or not hits:
            found = f"{target!r} names {odd}, no linear layer of the decoder" if odd else f"{target!r} names no layer"
            return f"sft.lora.target_modules: {found}. {_known(linear)}"
    return None if targets else f"sft.lora.target_modules: the list names no layer. {_known(linear)}"


def _linear(model: Any) -> set[str]:
    from torch.nn import Linear, ModuleList

    stacks = tuple(f"{name}." for name, part in model.named_modules() if isinstance(part, ModuleList))
    return {name for name, part in model.named_modules() if isinstance(part, Linear) and name.startswith(stacks)}


def _hits(target: str | list[str], names: list[str]) -> list[str]:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    config = LoraConfig(target_modules=target)
    return [name for name in names if check_target_module_exists(config, name)]


def _known(linear: set[str]) -> str:
    names = sorted({name.rsplit(".", 1)[-1] for name in linear})
    return f"There are [{', '.join(names)}], or all-linear."
