"""Files of other people's datasets: JSONL, JSON lists and parquet, alone or in a folder such as a Hub snapshot."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.prepare.import_found import Use

ENDINGS = (".jsonl", ".json", ".parquet")
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


@dataclass(frozen=True)
class NotJson:
    """A line that is no JSON."""

    why: str
    text: str
    """Its first characters."""


def source_files(sources: Iterable[Path]) -> list[SourceFile]:
    """Every file of the sources, folders walked in the order of their names.

    Raises:
        DataError: a source is not there, is of another kind, or a folder holds none.
    """
    found: list[SourceFile] = []
    for source in sources:
        if source.is_file() and source.suffix in ENDINGS:
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


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of one file, numbered from 1; a line that is no JSON comes as `NotJson`.

    Raises:
        DataError: it is damaged, or more than half of its lines are no JSON; names the first such line.
    """
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    if path.suffix == ".json":
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            pass  # JSON lines under another name; read below, where a fault is named with its line
        else:
            yield from enumerate(_listed(path, document), start=1)
            return
    yield from _lines(path)


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    lines, bad, first = 0, 0, ""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            lines += 1
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                bad += 1
                first = first or f"{path}:{number}: not JSON ({error})"
                yield number, NotJson(str(error), line[:200].decode(errors="replace"))
    if 2 * bad > lines:
        count = f" {bad:,} of {lines:,} lines are no JSON: this is no JSON-lines file." if lines > 1 else ""
        raise DataError(f"{first}.{count}")


def _named(path: Path, name: str) -> SourceFile:
    words = _words(name)
    uses = {use for word, use in USE_WORDS.items() if word in words}
    return SourceFile(path, name, uses.pop() if len(uses) == 1 else None, bool(words & TEST_WORDS))


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z]+", name.lower()))


def _is_data(file: SourceFile) -> bool:
    """Not what lies beside the data in a folder: hidden caches, and JSON that describes it."""
    if not file.path.is_file() or file.path.suffix not in ENDINGS or re.search(r"(^|/)\.", file.name):
        return False
    return file.path.suffix != ".json" or bool(_words(file.name) & (TEST_WORDS | {"train"}))


def _listed(path: Path, document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and document and all(re.fullmatch(r"\d+(_\d+)?", key) for key in document):
        raise DataError(f"{path}: the original authors' shape. Give all three: --red-team, --sft and --preferences.")
    return [document]


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path}: damaged after row {number} ({error}).") from error
