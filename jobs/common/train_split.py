"""Which splits of other people's datasets may be trained, told by their names."""

from __future__ import annotations

import re

from pydantic_core import PydanticCustomError

_MEASURED_ON = re.compile(
    r"test|(?<![a-z])(?:train_?)?(?:valid|eval|h[eo]ld.?out|(?:val|dev|devel|development)(?:set)?(?![a-z]))",
    re.IGNORECASE,
)


def is_train_split(name: str) -> bool:
    """Whether a split is no test, validation, development or evaluation split, nor held out in another word."""
    return _MEASURED_ON.search(name) is None


def train_split(name: str) -> str:
    """The name of a split that may be trained; a validator of settings.

    Raises:
        PydanticCustomError: of a split that others measure on.
    """
    if not is_train_split(name):
        raise PydanticCustomError("train_split", "should be a train split; rows that others measure on train nothing")
    return name
