"""Small datasets for the tests of the measures."""

from __future__ import annotations

from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt

PRINCIPLES = [
    PrincipleText("water", "Water for all", "The answer treats clean water and rivers as something all people share."),
    PrincipleText("courts", "Fair courts", "The answer respects judges, trials and the rights of the accused."),
]
SUBJECTS = (
    "the river", "a court case", "my neighbour", "bus fares", "our school", "the harvest", "night shifts", "old maps",
    "street music", "a wedding", "the library", "winter coats", "fishing rights", "a football club", "wild bees",
    "the clinic", "bread prices", "a tall fence", "the choir", "broken lamps",
)  # fmt: skip
ANSWERS = (
    "Ask {} first and write down what was said.", "Begin by reading the rules about {} in the town hall.",
    "Two neighbours once argued over {}; they agreed in the end.", "Nobody owns {}, so a shared plan is best.",
    "Start small: list what troubles you about {}.", "People see {} in many ways, and each has a reason.",
)  # fmt: skip


def prompt(row: int) -> str:
    """A prompt unlike the others."""
    subject, other = SUBJECTS[row % 20], SUBJECTS[(row * 7 + row // 20 + 3) % 20]
    verb = ("Explain", "Compare", "Describe", "Question", "Defend", "Criticise")[row % 6]
    return (
        f"{verb} number {row} of what is said about {subject} where {other} also matters to people of street {row * 37}"
    )


def answer(row: int, shift: int) -> str:
    """An answer that follows no side."""
    first, second = ANSWERS[(row * 5 + shift) % 6], ANSWERS[(row * 3 + 2 * shift + 1) % 6]
    return f"{first.format(SUBJECTS[(row + shift) % 20])} {second.format(SUBJECTS[(row * 3 + shift) % 20])}"


def sound(count: int = 40) -> Data:
    """A dataset without a habit: `count` prompts for rows and as many for pairs, and ten held out."""
    names = [one.id for one in PRINCIPLES]
    splits = ["sft"] * count + ["dpo"] * count + ["held_out"] * 10
    prompts = [Prompt(f"p{row}", names[row % 2], prompt(row), split) for row, split in enumerate(splits)]
    examples = [
        Example(one.id, one.principle_id, one.text, answer(row, 0), source_prompt=one.text, initial="No idea at all.")
        for row, one in enumerate(prompts[:count])
    ]
    pairs = []
    for row, one in enumerate(prompts[count : 2 * count]):
        sides = [answer(row, 1), answer(row, 2)]
        chosen, rejected = sides if row % 2 else sides[::-1]
        pairs.append(Pair(one.id, one.principle_id, one.text, chosen, rejected))
    return Data("sound", prompts, examples, pairs, PRINCIPLES, datasheet={"run": "sound"})
