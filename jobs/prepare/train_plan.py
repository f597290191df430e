"""What sft and dpo will take on every GPU type, before any download: the second half of `cai plan`.

Memory, precision, size of a forward pass, gradient checkpointing, minutes and dollars. Sends nothing, writes nothing,
and needs neither torch nor weights: the student's shape is in a table, or in its config.json once it is fetched.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import TextWrapper

from jobs.common.errors import DataError
from jobs.common.fetched import load_fetched
from jobs.common.gpus import Gpu
from jobs.common.jsonl import read_json
from jobs.common.model_shape import KNOWN, ModelShape, shape_of
from jobs.common.stage import RunContext
from jobs.prepare.train_plan_cost import Stage
from jobs.prepare.train_plan_notes import choice_lines, note_lines
from jobs.prepare.train_plan_rows import Section, rows_of
from jobs.prepare.train_plan_table import offers_of, stage_line, table

WIDTH = 110
SECTIONS: tuple[Section, ...] = ("sft", "dpo")


def run_plan(context: RunContext, gpus: tuple[Gpu, ...]) -> None:
    """Print the training plan of a run.

    Args:
        context: the run.
        gpus: GPU types with their prices.

    Raises:
        ConfigError: the constitution is wrong.
        DataError: a finished stage's file, or the student's config.json, is damaged.
    """
    recipe = context.recipe
    shape = find_shape(context)
    if shape is None:
        print(
            f"training: the shape of {recipe.student.model} is not known before its config.json is here. "
            f"Run: {context.command('fetch')}, then cai plan again"
        )
        return
    stages = [
        Stage(section, getattr(recipe, section), rows, shape, recipe.sft.lora.rank)
        for section in SECTIONS
        if (rows := rows_of(context, section))
    ]
    lines = [
        f"training of {recipe.student.model} ({shape.parameters / 1e6:,.0f}M weights), "
        f"LoRA rank {recipe.sft.lora.rank} ({shape.lora_parameters(recipe.sft.lora.rank):,} weights)"
    ]
    if stages:
        offers = offers_of(stages, gpus)
        lines += [*map(stage_line, stages), "", *table(stages, offers), ""]
        lines += [*choice_lines(offers), *note_lines(stages, offers, gpus)]
    else:
        lines.append("no rows to train on: the data stage finished without any")
    wrapper = TextWrapper(WIDTH, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False)
    print("\n".join(line if len(line) <= WIDTH else wrapper.fill(line) for line in lines))


def find_shape(context: RunContext) -> ModelShape | None:
    """The student's shape: its own config.json where it is here, else the table's; None where neither knows.

    Raises:
        DataError: config.json is damaged or describes another kind of model.
    """
    model = context.recipe.student.model
    folder = Path(model)
    if not folder.is_dir() and (context.folder / "fetch" / "models.json").exists():
        fetched = load_fetched(context).student
        if fetched.name == model.rsplit("/", 1)[-1].lower():
            folder = fetched.where(context.runs)
    config = folder / "config.json"
    if config.is_file():
        try:
            return shape_of(read_json(config))
        except DataError as error:
            raise DataError(f"{folder}: {error}") from error
    return KNOWN.get(model)
