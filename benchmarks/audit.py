"""Measures the audit on 100,000 pairs of invented, varied texts: time, memory, size of the page.

    python -m benchmarks.audit                    # measures alone, then the whole of `cai audit`
    python -m benchmarks.audit --pairs 10000

Beside the pairs there are as many supervised rows, and every row has a prompt of its own. Words are invented and follow
Zipf's law; one prompt in a hundred is nearly a copy of another. Each line of the table is a process of its own. Exit
code 1: a bar was missed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

BAR_S, BAR_MIB, BAR_PAGE_MB = 120.0, 2048.0, 5.0
PRINCIPLES = 22
OPENINGS = ("Draft a letter", "Help me write", "Write a short speech", "Explain to me", "How can I", "Create a plan")


class Texts:
    """Invented texts of a seed."""

    def __init__(self, seed: int = 0, vocabulary: int = 30_000) -> None:
        self._random = np.random.default_rng(seed)
        syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
        lengths = self._random.integers(1, 5, vocabulary)
        self._words = np.array(["".join(self._random.choice(syllables, size)) for size in lengths])
        weights = 1 / np.arange(3, vocabulary + 3)
        self._cumulated = np.cumsum(weights / weights.sum())

    def some(self, count: int, low: int, high: int, *, opening: bool = False) -> list[str]:
        """`count` texts of `low` to `high` words in sentences."""
        sizes = self._random.integers(low, high + 1, count)
        drawn = self._words[np.searchsorted(self._cumulated, self._random.random(int(sizes.sum())))]
        ends = np.cumsum(sizes)
        texts = [_sentences(drawn[end - size : end].tolist()) for end, size in zip(ends, sizes, strict=True)]
        if not opening:
            return texts
        firsts = self._random.integers(0, len(OPENINGS), count)
        return [
            f"{OPENINGS[first]} about {text[0].lower()}{text[1:]}" for first, text in zip(firsts, texts, strict=True)
        ]

    def prompts(self, count: int) -> list[str]:
        """Prompts of which one in a hundred is nearly the one before."""
        texts = self.some(count, 8, 33, opening=True)
        for row in range(100, count, 100):
            texts[row] = f"{texts[row - 1]} Please."
        return texts


def _sentences(words: list[str]) -> str:
    return " ".join(" ".join(words[start : start + 14]).capitalize() + "." for start in range(0, len(words), 14))


def rows(pairs: int) -> dict[str, list[dict[str, str]]]:
    """Records of every file, as plain objects."""
    texts = Texts()
    prompts = texts.prompts(2 * pairs)
    chosen, rejected = texts.some(pairs, 60, 120), texts.some(pairs, 50, 110)
    completions = texts.some(pairs, 60, 120)
    shared = [
        {"id": f"p{row}", "principle_id": f"principle_{row % PRINCIPLES}", "prompt": prompt}
        for row, prompt in enumerate(prompts)
    ]
    return {
        "prompts": shared,
        "pairs": [
            row | {"chosen": one, "rejected": other}
            for row, one, other in zip(shared[:pairs], chosen, rejected, strict=True)
        ],
        "examples": [row | {"completion": text} for row, text in zip(shared[pairs:], completions, strict=True)],
    }


def _measure(pairs: int) -> float:
    """Seconds that measuring takes once the rows are in memory."""
    from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt
    from jobs.measure.measure import measure

    made = rows(pairs)
    data = Data(
        name="invented",
        prompts=[
            Prompt(row["id"], row["principle_id"], row["prompt"], split="dpo" if number < pairs else "sft")
            for number, row in enumerate(made["prompts"])
        ],
        examples=[Example(**row) for row in made["examples"]],
        pairs=[Pair(**row) for row in made["pairs"]],  # type: ignore[arg-type]
        principles=[
            PrincipleText(f"principle_{at}", f"Title {at}", text) for at, text in enumerate(_texts_of_principles())
        ],
    )
    del made
    started = time.monotonic()
    measure(data)
    return time.monotonic() - started


def _texts_of_principles() -> list[str]:
    return Texts(seed=1).some(PRINCIPLES, 30, 60)


def _audit(pairs: int, folder: Path) -> float:
    """Seconds that the whole command takes on two JSONL files."""
    from jobs.__main__ import main

    made = rows(pairs)
    for name in ("pairs", "examples"):
        lines = (json.dumps(row) + "\n" for row in made[name])
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    del made
    started = time.monotonic()
    try:
        main(["audit", str(folder), "--out", str(folder / "report")])
    except SystemExit as end:
        if end.code not in (0, 65):
            raise
    return time.monotonic() - started


@click.command()
@click.option("--pairs", default=100_000, show_default=True)
@click.option("--only", type=click.Choice(["measure", "audit"]), hidden=True)
def main(pairs: int, only: str | None) -> None:
    """Time the measures and the whole audit."""
    if only:
        with tempfile.TemporaryDirectory() as folder:
            seconds = _measure(pairs) if only == "measure" else _audit(pairs, Path(folder))
            page = Path(folder) / "report" / "audit.html"
            size = page.stat().st_size / 1e6 if page.exists() else None
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "mib": mib, "page_mb": size}))
        return
    table = Table(title=f"audit of {pairs:,} pairs, {pairs:,} supervised rows, {2 * pairs:,} prompts")
    for column in ("what", "seconds", "peak RSS, MiB", "page, MB", "holds"):
        table.add_column(column)
    holds = [_line(table, name, pairs) for name in ("measure", "audit")]
    Console().print(table)
    sys.exit(0 if all(holds) else 1)


def _line(table: Table, name: str, pairs: int) -> bool:
    command = [sys.executable, "-m", "benchmarks.audit", "--pairs", str(pairs), "--only", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    page = found["page_mb"]
    holds = found["seconds"] <= BAR_S and found["mib"] <= BAR_MIB and (page is None or page <= BAR_PAGE_MB)
    shown = "-" if page is None else f"{page:.2f}"
    table.add_row(name, f"{found['seconds']:.1f}", f"{found['mib']:.0f}", shown, "yes" if holds else "NO")
    return bool(holds)


if __name__ == "__main__":
    main()
