"""How long replies are and how many can be used: stated assumptions, or what the journal says of the same model.

habits = read_habits(recipe, journal_folder)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from jobs.common.settings import Recipe
from jobs.generate.journal_lines import Answer, Intent, decode

USABLE_PROMPTS = {True: 0.8, False: 0.9}
"""Assumed share of the prompts asked for that pass the filters, by whether the teacher is the embedded 135M model."""
TRIES = {True: 1.3, False: 1.1}
"""Assumed replies for one usable text, by whether the teacher is the embedded 135M model."""
LENGTHS = {"initial": 300, "critique": 180, "revision": 280}
"""Assumed tokens of a text by step, where its limit leaves room."""
PROMPT_TOKENS = 35
"""Assumed tokens of one red-team prompt."""
ITEM_TOKENS = 5
"""Assumed tokens around one prompt in a list."""
SHARE_OF_LIMIT = 0.9
"""Assumed share of the limit that is used where it is shorter than the text."""
TAIL_BYTES = 8_000_000
"""How much of the journal's end is read."""
LEAST_REPLIES = 20
"""Replies from which a step's own mean replaces the assumption."""


@dataclass(frozen=True)
class Habits:
    """What to expect of the models of a recipe."""

    usable_prompts: float
    """Share of the prompts asked for that pass the filters."""
    tries: float
    """Replies asked for one text."""
    prompt_tokens: float
    """Tokens of one red-team prompt."""
    written: dict[str, float]
    """Tokens of a reply, by step."""
    journalled: dict[str, int]
    """Replies of the journal behind `written`, by step; a step that is missing is assumed."""


def read_habits(recipe: Recipe, journal: Path) -> Habits:
    """Assumptions for a recipe, with the mean lengths of this journal's latest replies where there are enough.

    Args:
        recipe: the recipe.
        journal: folder of the journal; it may be missing, and nothing in it is changed.
    """
    settings = recipe.generate
    limits = {
        "prompts": settings.prompt_tokens,
        "initial": settings.response_tokens,
        "critique": settings.critique_tokens,
        "revision": settings.response_tokens,
    }
    asked = dict.fromkeys(limits, recipe.teacher.model)
    if recipe.initial.endpoint != "teacher":
        asked["initial"] = recipe.initial.model
    lengths = LENGTHS | {"prompts": settings.prompts_per_request * (PROMPT_TOKENS + ITEM_TOKENS)}
    written = {step: min(float(lengths[step]), SHARE_OF_LIMIT * limit) for step, limit in limits.items()}
    counts = {}
    latest = _latest_lengths(journal / "replies.jsonl")
    for step, limit in limits.items():
        found = latest.get((step, asked[step], limit), [])
        if len(found) >= LEAST_REPLIES:
            counts[step], written[step] = len(found), min(limit, sum(found) / len(found))
    small = recipe.teacher.endpoint == "embedded"
    prompt_tokens = min(PROMPT_TOKENS, SHARE_OF_LIMIT * settings.prompt_tokens)
    return Habits(USABLE_PROMPTS[small], TRIES[small], prompt_tokens, written, counts)


def _latest_lengths(path: Path) -> dict[tuple[str, str, int], list[int]]:
    """Tokens of the latest replies by step, model and limit."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")
    begun: dict[int, tuple[str, str, int]] = {}
    lengths: dict[tuple[str, str, int], list[int]] = defaultdict(list)
    for line in lines:
        found = decode(line)
        if isinstance(found, Intent):
            begun[found.id] = (found.step, found.model, found.reply_tokens)
        elif isinstance(found, Answer) and found.id in begun:
            lengths[begun[found.id]].append(found.reply["reply_tokens"])
    return lengths
