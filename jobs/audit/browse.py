"""Rows that travel inside the page: twelve random ones per principle first, then as many as fit; and the label audit.

Texts go into the page as JSON whose `<`, `>` and `&` are escaped, so that no row can end the script element it lies in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from jobs.audit.blocks import Section, Table, View, clip
from jobs.measure.data import Example, Pair, Prompt

ROWS_BYTES = 3_000_000
"""Most bytes of rows in the page, so that it stays under 5 MB with any number of pairs."""
LONGEST = 2_000
"""Most characters of one text in the page."""
PER_PRINCIPLE = 12
LABELS = 30

Key = tuple[str, int]


@dataclass(frozen=True)
class Browse:
    """The rows in the page."""

    json: Markup
    keys: frozenset[str]
    """`pairs-17`: the part and the row's position."""
    shown: int
    total: int


def browse(view: View, sections: Iterable[Section], budget: int = ROWS_BYTES) -> Browse:
    """Choose rows until the budget of bytes is spent.

    Args:
        sections: rows they link to come first after the twelve of each principle.
    """
    faults: dict[Key, list[str]] = {}
    for one in view.measured.malformed:
        faults.setdefault((one.part, one.row), []).append(one.reason)
    parts: list[str] = []
    keys: set[str] = set()
    used = 2
    candidates = _candidates(view)
    for key in _in_order(view, candidates, sections):
        name = f"{key[0]}-{key[1]}"
        if name in keys:
            continue
        text = safe_json(_row(view, key, faults.get(key, [])))
        size = len(text.encode("utf-8", "replace")) + 2
        if used + size > budget:
            break
        keys.add(name)
        parts.append(text)
        used += size
    joined = Markup("[" + ",\n".join(parts) + "]")
    return Browse(joined, frozenset(keys), len(keys), len(candidates))


def safe_json(value: Any) -> str:
    """JSON that can stand inside a script element whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def labels(view: View) -> Markup:
    """Thirty random pairs, sides shuffled, for a reader who does not know which was chosen."""
    generator = random.Random(f"labels:{view.seed}")
    pairs = view.data.pairs
    numbers = generator.sample(range(len(pairs)), min(LABELS, len(pairs)))
    shown = []
    for number in numbers:
        pair, swapped = pairs[number], generator.random() < 0.5
        sides = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
        shown.append(
            {
                "id": pair.id,
                "principle": view.title(pair.principle_id),
                "prompt": clip(pair.prompt, LONGEST),
                "a": clip(sides[0], LONGEST),
                "b": clip(sides[1], LONGEST),
                "label": "B" if swapped else "A",
            }
        )
    return Markup(safe_json(shown))


def _candidates(view: View) -> list[Key]:
    """Every row, and every prompt that has none."""
    data = view.data
    seen = {pair.prompt for pair in data.pairs} | {example.prompt for example in data.examples}
    alone = [number for number, prompt in enumerate(data.prompts) if prompt.text not in seen]
    return [
        *(("pairs", number) for number in range(len(data.pairs))),
        *(("examples", number) for number in range(len(data.examples))),
        *(("prompts", number) for number in alone),
    ]


def _in_order(view: View, candidates: list[Key], sections: Iterable[Section]) -> Iterator[Key]:
    generator = random.Random(f"rows:{view.seed}")
    shuffled = generator.sample(candidates, len(candidates))
    by_principle: dict[str, list[Key]] = {}
    for key in shuffled:
        twelve = by_principle.setdefault(_principle(view, key), [])
        if len(twelve) < PER_PRINCIPLE:
            twelve.append(key)
    for together in zip_longest(*by_principle.values()):
        yield from (key for key in together if key is not None)
    tables = (block for section in sections for block in section.blocks if isinstance(block, Table))
    for cell in (cell for table in tables for line in table.rows for cell in line if cell.row):
        part, _, number = cell.row.rpartition("-")
        yield part, int(number)
    yield from shuffled


def _principle(view: View, key: Key) -> str:
    part, number = key
    if part == "pairs":
        return view.data.pairs[number].principle_id
    return (view.data.examples if part == "examples" else view.data.prompts)[number].principle_id


def _row(view: View, key: Key, faults: list[str]) -> dict[str, Any]:
    part, number = key
    row: Pair | Example | Prompt
    texts: dict[str, str]
    if part == "pairs":
        pair = view.data.pairs[number]
        row, texts = pair, {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    elif part == "examples":
        example = view.data.examples[number]
        row = example
        texts = {"prompt": example.prompt, "initial": example.initial, "critique": example.critique}
        texts["completion"] = example.completion
    else:
        prompt = view.data.prompts[number]
        row, texts = prompt, {"prompt": prompt.text, "answer": prompt.answer}
    return {
        "key": f"{part}-{number}",
        "id": row.id,
        "principle": view.title(row.principle_id),
        "split": row.split,
        "kind": row.kind.replace("_", " "),
        "language": row.language,
        "faults": faults,
        "texts": {name: clip(text, LONGEST) for name, text in texts.items() if text or name == "prompt"},
    }
