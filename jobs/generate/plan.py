"""What generate will ask, use, cost and take, before a cent is spent: `cai plan`.

Nothing is sent, no key is read and nothing is written; fetch need not have run. Every figure is given three times: at
least (every reply usable and short), likely (by the assumptions printed below the table) and at most (every try and
every token limit used up).
"""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import TextWrapper

from jobs.common.errors import ConfigError
from jobs.common.stage import RunContext
from jobs.generate.opening import logical_endpoints
from jobs.generate.plan_habits import read_habits
from jobs.generate.plan_notes import assumption_lines, budget_lines, price_lines
from jobs.generate.plan_steps import Counting
from jobs.generate.plan_table import WIDTH, rows_of, table


def run_plan(context: RunContext) -> None:
    """Print the plan of a run.

    Raises:
        ConfigError: the constitution or `initial.endpoint` is wrong, or the tokenizer's package is missing.
    """
    recipe, initial = context.recipe, context.recipe.initial
    if initial.endpoint not in {"embedded", "file", "teacher"} and "://" not in initial.endpoint:
        raise ConfigError(f"initial.endpoint: found {initial.endpoint!r}. Use embedded, a URL, file or teacher.")
    endpoints, constitution = logical_endpoints(recipe), context.constitution()
    habits = read_habits(recipe, context.journal)
    steps = Counting(recipe, constitution, habits).steps()
    rows = rows_of(steps, recipe)
    writer = f"{recipe.teacher.model}, invented" if initial.endpoint == "teacher" else initial.model
    lines = [
        f"generate of run {context.run}: {len(constitution.principles)} principles of {constitution.name}, "
        f"prompts for each: {recipe.generate.prompts_per_principle}; nothing is sent now",
        f"teacher: {recipe.teacher.model} ({endpoints['teacher']}); "
        f"initial responses: {writer} ({endpoints['initial']})",
        "",
        *table(rows),
        "",
        *assumption_lines(recipe, steps, habits),
        *price_lines(recipe, steps, datetime.now(UTC).date()),
        *budget_lines(recipe, steps, rows),
    ]
    wrapper = TextWrapper(WIDTH, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False)
    print("\n".join(line if len(line) <= WIDTH else wrapper.fill(line) for line in lines))
