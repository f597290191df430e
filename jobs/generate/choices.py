"""Reads a reply that chooses: how probable was each choice where the model made it?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

SURE = 0.99
"""No choice is more probable than this, nor less than 1 - SURE: one reply is never proof."""
WRITTEN = 0.9
"""Probability of a choice that was only written, by an endpoint that gives no token probabilities."""


def read_choice(text: str, logprobs: Any, choices: Sequence[str]) -> dict[str, float] | None:
    """Probability of each choice, together 1.

    Read at the last token that is a choice, and where none is, at the token where a choice was most probable. Without
    token probabilities the last choice in the text gets `WRITTEN`, the others share the rest.

    Args:
        text: the reply.
        logprobs: the completion's `logprobs`: `content` is a list of tokens with `token`, `logprob`, `top_logprobs`.
        choices: what the reply chooses between.

    Returns:
        None where no choice can be read.
    """
    try:
        if tokens := logprobs["content"]:
            return _from_tokens(tokens, choices)
    except (AttributeError, KeyError, TypeError, ValueError):
        pass  # none, or in another shape: the text says the choice too
    written = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, choices))})(?![\w'])", text)
    if not written:
        return None
    rest = (1 - WRITTEN) / (len(choices) - 1)
    return {choice: WRITTEN if choice == written[-1] else rest for choice in choices}


def _from_tokens(tokens: Sequence[Mapping[str, Any]], choices: Sequence[str]) -> dict[str, float] | None:
    written = [token for token in tokens if str(token["token"]).strip() in choices]
    if written:
        return _distribution(_alternatives(written[-1]), choices)
    found = max(map(_alternatives, tokens), key=lambda one: sum(_masses(one, choices).values()))
    return _distribution(found, choices) if any(_masses(found, choices).values()) else None


def _alternatives(token: Mapping[str, Any]) -> dict[str, float]:
    """Probability by token at one position."""
    listed = [token, *(token.get("top_logprobs") or ())]
    return {str(one["token"]): math.exp(min(0.0, float(one["logprob"]))) for one in listed}


def _masses(alternatives: Mapping[str, float], choices: Sequence[str]) -> dict[str, float]:
    return {
        choice: sum(chance for token, chance in alternatives.items() if token.strip() == choice) for choice in choices
    }


def _distribution(alternatives: Mapping[str, float], choices: Sequence[str]) -> dict[str, float]:
    # A choice that is not listed is no more probable than the least of those that are, nor than what they leave.
    unlisted = min(min(alternatives.values()), max(0.0, 1.0 - sum(alternatives.values())))
    masses = {choice: mass or unlisted for choice, mass in _masses(alternatives, choices).items()}
    total = sum(masses.values()) or 1.0
    clipped = {choice: min(SURE, max(1 - SURE, mass / total)) for choice, mass in masses.items()}
    total = sum(clipped.values())
    return {choice: mass / total for choice, mass in clipped.items()}
