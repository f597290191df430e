"""DPO goes on from the SFT model, so both train over the same frozen weights."""

from __future__ import annotations

from typing import Any


def follow_sft(recipe: Any) -> Any:
    """The recipe as it is written, with `sft.quantization` for dpo too where its own is not said."""
    sft, dpo = (recipe.get(name, {}) if isinstance(recipe, dict) else None for name in ("sft", "dpo"))
    if isinstance(sft, dict) and isinstance(dpo, dict) and "quantization" in sft:
        return recipe | {"dpo": {"quantization": sft["quantization"]} | dpo}
    return recipe
