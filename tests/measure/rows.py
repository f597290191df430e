"""Small datasets for the tests of the measures."""

from __future__ import annotations

import random

from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt

PRINCIPLES = [
    PrincipleText("water", "Water for all", "The answer treats clean water and rivers as something all people share."),
    PrincipleText("courts", "Fair courts", "The answer respects judges, trials and the rights of the accused."),
]
SUBJECTS = (
    "river", "court", "neighbour", "bus", "school", "harvest", "night", "map", "music", "wedding", "library", "coat",
    "fish", "club", "bee", "clinic", "bread", "fence", "choir", "lamp", "bridge", "garden", "letter", "market", "storm",
    "ticket", "window", "village", "teacher", "engine", "forest", "kitchen", "doctor", "painter", "island", "candle",
)  # fmt: skip
VERBS = ("carries", "mends", "forgets", "paints", "counts", "borrows", "praises", "follows", "hides", "warms")


def prompt(row: int) -> str:
    """A prompt unlike the others."""
    return f"{_words(f'prompt {row}', 14).capitalize()}?"


def answer(row: int, side: int) -> str:
    """An answer that follows no habit."""
    return f"{_words(f'answer {row} {side}', 18).capitalize()}."


def _words(seed: str, count: int) -> str:
    drawn = random.Random(seed)
    return " ".join(f"{drawn.choice(SUBJECTS)} {drawn.choice(VERBS)}" for _ in range(count // 2))


def sound(count: int = 40) -> Data:
    """A dataset without a habit: `count` prompts for rows and as many for pairs, and ten held out."""
    names = [one.id for one in PRINCIPLES]
    splits = ["sft"] * count + ["dpo"] * count + ["held_out"] * 10
    prompts = [
        Prompt(f"p{row}", names[row % 2], prompt(row), split, cluster=f"p{row}") for row, split in enumerate(splits)
    ]
    examples = [
        Example(one.id, one.principle_id, one.text, answer(row, 0), source_prompt=one.text, initial="No idea at all.")
        for row, one in enumerate(prompts[:count])
    ]
    pairs = [
        Pair(one.id, one.principle_id, one.text, answer(row, 1), answer(row, 2))
        for row, one in enumerate(prompts[count : 2 * count])
    ]
    return Data("sound", prompts, examples, pairs, PRINCIPLES, datasheet={"run": "sound"})
