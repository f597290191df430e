"""The special tokens that our chat templates write literally: what a student's vocabulary must have."""

TURN_TOKENS: dict[str, tuple[str, ...]] = {"chatml": ("<|im_start|>", "<|im_end|>"), "mistral": (), "zephyr": ()}
"""By template; each must be one token of the vocabulary. Zephyr's `<|user|>` is plain text."""
