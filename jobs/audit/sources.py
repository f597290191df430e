"""What `cai audit SOURCE` can read: a run, a file, a folder, a Hub dataset or the original's JSON, as one dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.audit.files import rows_of
from jobs.audit.shapes import KNOWN, BadRowError, Place, read_row
from jobs.common.constitution import Constitution, load_constitution
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json, sha256_file
from jobs.common.table_files import is_original, is_table
from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt
from jobs.measure.run_data import read_run

HUB = "hub:"
LABELLED_BAD = "labelled_bad"
Rows = Iterable[tuple[Any | BadRowError, Place]]


@dataclass(frozen=True)
class Source:
    """One source, and what could not be read of its files."""

    data: Data
    rows: int = 0
    """Rows of its files, unreadable ones too; 0 for a run and for the original's JSON."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Rows in no known shape, by reason; a row that its source itself calls bad is none of them."""
    system_turns: int = 0
    """Rows that were read and have a message of the system."""


@dataclass
class _Read:
    """Rows found so far."""

    prompts: list[Prompt] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    system_turns: int = 0

    def add(self, rows: Rows) -> None:
        """Read rows; a bad one is counted under its reason."""
        for record, place in rows:
            try:
                if isinstance(record, BadRowError):
                    raise record
                row = read_row(record, place)
                self.system_turns += _has_system_turn(record)
            except BadRowError as reason:
                self.dropped[str(reason)] += 1
                continue
            if isinstance(row, Pair):
                self.pairs.append(row)
            elif isinstance(row, Example):
                self.examples.append(row)
            else:
                self.prompts.append(row)


def read_source(source: str, constitution: Constitution | None) -> Source:
    """Read one source.

    Raises:
        ConfigError: it does not exist.
        DataError: nothing in it can be read; names the shapes that can.
        UnavailableError: the Hub does not answer.
    """
    if source.startswith(HUB):
        from jobs.audit.hub_source import hub_files

        hub = hub_files(source)
        return _data(source, source, hub.files, constitution, hub.datasheet)
    path = Path(source)
    if not path.exists():
        raise ConfigError(f"No file or folder {source}. A dataset on the Hub is named hub:owner/name.")
    if stage := _stage_folder(path):
        return Source(read_run(stage, constitution or _own_constitution(stage)))
    if is_original(path) or (path.is_dir() and any(is_original(file) for file in path.glob("*.json"))):
        from jobs.audit.original_data import read_original

        return Source(_named(read_original(path, constitution), constitution))
    files = sorted(file for file in path.rglob("*") if is_table(file)) if path.is_dir() else [path]
    if not files or not all(is_table(file) for file in files):
        raise DataError(f"{source}: no .jsonl, .jsonl.gz, .parquet or .json file. Rows can be: {KNOWN}.")
    named = [(file, _name(file, path)) for file in files]
    hashes = {name: sha256_file(file) for file, name in named[:20]}
    return _data(path.resolve().name, source, named, constitution, {"sha256": hashes})


def _name(file: Path, source: Path) -> str:
    return str(file.relative_to(source)) if source.is_dir() else file.name


def _stage_folder(path: Path) -> Path | None:
    """The data stage's folder where the path is one, or is a run that has one."""
    if (path / "prompts.jsonl").is_file() and (path / "manifest.json").is_file():
        return path
    for stage in ("repair", "generate"):
        if (path / stage / "manifest.json").is_file():
            return path / stage
    return None


def _own_constitution(stage: Path) -> Constitution | None:
    """The constitution the run's recipe names, where it is still there."""
    recipe = read_json(stage / "manifest.json").get("recipe")
    try:
        return load_constitution(str(recipe["constitution"])) if isinstance(recipe, dict) else None
    except (ConfigError, KeyError):
        return None


def _data(
    name: str,
    source: str,
    files: Sequence[tuple[Path, str]],
    constitution: Constitution | None,
    datasheet: dict[str, Any],
) -> Source:
    read = _Read()
    for path, shown in files:
        read.add(rows_of(path, shown, f"{shown}:" if len(files) > 1 else ""))
    rows = len(read.pairs) + len(read.examples) + len(read.prompts)
    if not rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in read.dropped.most_common()) or "no rows"
        raise DataError(f"{source}: not one row can be read ({reasons}). Rows can be: {KNOWN}.")
    data = Data(name, list(_prompts(read)), read.examples, read.pairs, dropped=dict(read.dropped), datasheet=datasheet)
    unread = {reason: count for reason, count in read.dropped.most_common() if reason != LABELLED_BAD}
    return Source(_named(data, constitution), rows + read.dropped.total(), unread, read.system_turns)


def _has_system_turn(record: Any) -> bool:
    """Whether a chat of the row has a message of the system, which no record of ours keeps."""
    if not isinstance(record, Mapping):
        return False
    chats = [record.get(name) for name in ("messages", "prompt", "chosen", "rejected")]
    turns = [turn for chat in chats if isinstance(chat, list) for turn in chat if isinstance(turn, Mapping)]
    return any(turn.get("role", turn.get("from")) == "system" for turn in turns)


def _prompts(read: _Read) -> Iterator[Prompt]:
    """The source's own prompts, and one for every other prompt of a row.

    Several answers to one prompt are no duplicate; the same row twice is one, and its prompt comes twice.
    """
    yield from read.prompts
    seen: set[tuple[str, ...]] = {(prompt.text,) for prompt in read.prompts}
    rows: list[Example | Pair] = [*read.examples, *read.pairs]
    for row in rows:
        whole = (row.prompt, row.chosen, row.rejected) if isinstance(row, Pair) else (row.prompt, row.completion)
        if (row.prompt,) not in seen or whole in seen:
            yield Prompt(row.id, row.principle_id, row.prompt, row.split, row.kind, language=row.language)
        seen |= {(row.prompt,), whole}


def _named(data: Data, constitution: Constitution | None) -> Data:
    """The dataset held against a constitution, where one is given."""
    if constitution is None:
        return data
    return replace(
        data,
        principles=[PrincipleText(one.id, one.title, one.text) for one in constitution.principles],
        demonstrations=[
            *data.demonstrations,
            *(
                text
                for one in constitution.few_shot
                for text in (one.prompt, one.initial_response, one.critique, one.revision)
            ),
        ],
        datasheet=dict(data.datasheet)
        | {"constitution": constitution.name, "constitution_sha256": constitution.sha256},
        language=constitution.language,
        constitution=constitution.name,
    )
