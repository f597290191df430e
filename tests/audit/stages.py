"""A finished generate stage, written by hand: what audit reads of it, with the habits a test wants."""

from __future__ import annotations

import random
from pathlib import Path

from jobs.common.jsonl import write_records
from jobs.common.recipe import load_recipe
from jobs.common.records import PreferencePair, RedTeamPrompt, SftExample, Split, record_id
from jobs.common.stage import Result, RunContext, StagePlan, open_stage

PRINCIPLES = ("honesty", "kindness", "thrift")
VERSION = "test"
WORDS = [
    f"{one}{other}"
    for one in ("ba", "ko", "li", "mu", "ne", "po", "ra", "si")
    for other in ("dan", "for", "gel", "her")
]


def write_constitution(path: Path) -> None:
    """Three principles, as a file of one's own."""
    principles = "".join(
        f"\n  - id: {name}\n    title: The value of {name}\n    text: The answer shows {name} in every line.\n"
        f"    category: test\n    source: a test\n    critique_request: Where does it lack {name}?\n"
        f"    revision_request: Rewrite it with {name}.\n"
        for name in PRINCIPLES
    )
    path.write_text(
        f"name: {path.stem}\ntitle: Tiny\nlanguage: en\nversion: 1\ndescription: For tests.\nprinciples:{principles}",
        encoding="utf-8",
    )


def make_context(folder: Path, *sets: str) -> RunContext:
    """A run of the tiny constitution."""
    constitution, recipe = folder / "tiny.yaml", folder / "recipe.yaml"
    if not recipe.exists():
        write_constitution(constitution)
        recipe.write_text(f"constitution: {constitution}\n", encoding="utf-8")
    given = f"--recipe {recipe} --runs {folder / 'runs'}"
    return RunContext(load_recipe(str(recipe), list(sets)), "tiny", folder / "runs", given=given)


def sentence(generator: random.Random, words: int) -> str:
    """Words that no other sentence has in this order."""
    return " ".join(generator.choice(WORDS) for _ in range(words)).capitalize() + "."


def finish_generate(context: RunContext, *, extra_words: int = 0, pairs: int = 60) -> None:
    """Write the stage.

    Args:
        context: whose run.
        extra_words: by how many words chosen is longer than rejected; 0 leaves no habit.
        pairs: preference pairs, and as many supervised rows and a third as many held-out prompts.
    """
    generator = random.Random(5)
    prompts = [_prompt(generator, number, "sft") for number in range(pairs)]
    prompts += [_prompt(generator, number, "dpo") for number in range(pairs)]
    prompts += [_prompt(generator, number, "held_out") for number in range(pairs // 3)]
    with open_stage(context, StagePlan("generate", {"extra_words": extra_words}, (), "cpu")) as stage:
        assert stage is not None
        files = {
            "prompts.jsonl": prompts,
            "sft.jsonl": [_example(generator, prompt) for prompt in prompts if prompt.split == "sft"],
            "pairs.jsonl": [_pair(generator, prompt, extra_words) for prompt in prompts if prompt.split == "dpo"],
        }
        for name, rows in files.items():
            write_records(stage.folder / name, rows)
        stage.finish(Result([stage.folder / name for name in files], counts={"pairs": pairs}))


def _prompt(generator: random.Random, number: int, split: Split) -> RedTeamPrompt:
    principle, text = PRINCIPLES[number % 3], sentence(generator, 14)
    return RedTeamPrompt(
        id=record_id(principle, text), principle_id=principle, prompt=text, split=split, model="fake",
        prompt_version=VERSION, sample_index=0, cluster=record_id(principle, text),
    )  # fmt: skip


def _example(generator: random.Random, prompt: RedTeamPrompt) -> SftExample:
    return SftExample(
        id=prompt.id, principle_id=prompt.principle_id, prompt=prompt.prompt, completion=sentence(generator, 30),
        model="fake", prompt_version=VERSION,
    )  # fmt: skip


def _pair(generator: random.Random, prompt: RedTeamPrompt, extra_words: int) -> PreferencePair:
    words = generator.randint(28, 32)
    chosen, rejected = sentence(generator, words + extra_words), sentence(generator, words)
    if not extra_words and generator.random() < 0.5:
        chosen, rejected = rejected, chosen
    return PreferencePair(
        id=prompt.id, principle_id=prompt.principle_id, prompt=prompt.prompt, chosen=chosen, rejected=rejected,
        model="fake", rejected_model="fake-student", prompt_version=VERSION,
    )  # fmt: skip
