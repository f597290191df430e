"""Files of other people's datasets: JSONL, JSON lists and parquet, alone or in a folder such as a Hub snapshot."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.common.table_files import ENDINGS, NotJson, is_original, is_table, records
from jobs.prepare.import_found import Use

TEST_WORDS = {"test", "validation", "valid", "val", "dev", "eval"}
"""Words of a file's name or folder whose rows no stage may train on."""
USE_WORDS: dict[str, Use] = {"sft": "sft", "prefs": "dpo"}
"""alignment-handbook's names of splits: train_sft, test_sft, train_prefs, test_prefs."""


@dataclass(frozen=True)
class SourceFile:
    """One file and what its name says about its rows."""

    path: Path
    name: str
    """Below the folder that was given; for messages and the manifest."""
    use: Use | None
    """Stage its rows are for; None where the name does not say."""
    held_out: bool


def source_files(sources: Iterable[Path]) -> list[SourceFile]:
    """Every file of the sources, folders walked in the order of their names.

    Raises:
        DataError: a source is not there, is of another kind, or a folder holds none.
    """
    found: list[SourceFile] = []
    for source in sources:
        if source.is_file() and is_table(source):
            found.append(_named(source, source.name))
        elif source.is_dir():
            inside = [_named(path, path.relative_to(source).as_posix()) for path in sorted(source.rglob("*"))]
            if not (usable := [file for file in inside if _is_data(file)]):
                raise DataError(f"{source}: holds no {', '.join(ENDINGS)} file with rows.")
            found += usable
        elif source.exists():
            raise DataError(f"{source}: a source is a folder or a file that ends in {', '.join(ENDINGS)}.")
        else:
            raise DataError(
                f"{source}: no such file or folder. A Hub dataset is downloaded first: "
                f"hf download --repo-type dataset {source} --local-dir FOLDER"
            )
    return found


def checked_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of one file as `records` gives them.

    Raises:
        DataError: it is damaged, or more than half of its lines are no JSON; names the first such line.
    """
    if is_original(path):
        raise DataError(f"{path}: the original authors' shape. Give all three: --red-team, --sft and --preferences.")
    rows, bad, first = 0, 0, ""
    for number, record in records(path):
        rows += 1
        if isinstance(record, NotJson):
            bad += 1
            first = first or f"{path}:{number}: not JSON ({record.why})"
        yield number, record
    if 2 * bad > rows:
        count = f" {bad:,} of {rows:,} lines are no JSON: this is no JSON-lines file." if rows > 1 else ""
        raise DataError(f"{first}.{count}")


def _named(path: Path, name: str) -> SourceFile:
    words = _words(name)
    uses = {use for word, use in USE_WORDS.items() if word in words}
    return SourceFile(path, name, uses.pop() if len(uses) == 1 else None, bool(words & TEST_WORDS))


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name.lower()))


def _is_data(file: SourceFile) -> bool:
    """Not what lies beside the data in a folder: hidden caches, and JSON that describes it."""
    if not file.path.is_file() or not is_table(file.path) or re.search(r"(^|/)\.", file.name):
        return False
    return file.path.suffix != ".json" or bool(_words(file.name) & (TEST_WORDS | {"train"}))
