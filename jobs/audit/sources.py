"""What `cai audit SOURCE …` can read: runs, files, folders, Hub datasets, the original's JSON; all as one dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.audit.files import is_original, is_table, rows_of
from jobs.audit.shapes import KNOWN, BadRowError, Place, read_row
from jobs.common.constitution import Constitution, load_constitution
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json, sha256_file
from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt
from jobs.measure.run_data import read_run

HUB = "hub:"
Rows = Iterable[tuple[Any | BadRowError, Place]]


@dataclass
class _Read:
    """Rows found so far."""

    prompts: list[Prompt] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, rows: Rows) -> None:
        """Read rows; a bad one is counted under its reason."""
        for record, place in rows:
            try:
                if isinstance(record, BadRowError):
                    raise record
                row = read_row(record, place)
            except BadRowError as reason:
                self.dropped[str(reason)] += 1
                continue
            if isinstance(row, Pair):
                self.pairs.append(row)
            elif isinstance(row, Example):
                self.examples.append(row)
            else:
                self.prompts.append(row)


def read_sources(sources: list[str], constitution: Constitution | None) -> Data:
    """Read every source and put them together.

    Raises:
        ConfigError: a source does not exist.
        DataError: nothing in a source can be read; names the shapes that can.
        UnavailableError: the Hub does not answer.
    """
    found = [read_source(source, constitution) for source in sources]
    if len(found) == 1:
        return found[0]
    dropped: Counter[str] = Counter()
    for data in found:
        dropped.update(data.dropped)
    return replace(
        found[0],
        name=" + ".join(data.name for data in found),
        prompts=[prompt for data in found for prompt in data.prompts],
        examples=[example for data in found for example in data.examples],
        pairs=[pair for data in found for pair in data.pairs],
        principles=next((data.principles for data in found if data.principles), []),
        demonstrations=list(dict.fromkeys(text for data in found for text in data.demonstrations)),
        dropped=dict(dropped),
        datasheet={data.name: dict(data.datasheet) for data in found},
        constitution=next((data.constitution for data in found if data.constitution), ""),
    )


def read_source(source: str, constitution: Constitution | None) -> Data:
    """Read one source; errors as in `read_sources`."""
    if source.startswith(HUB):
        from jobs.audit.hub_source import hub_files

        hub = hub_files(source)
        rows = (row for path, name in hub.files for row in rows_of(path, name))
        return _data(source, rows, constitution, hub.datasheet)
    path = Path(source)
    if not path.exists():
        raise ConfigError(f"No file or folder {source}. A dataset on the Hub is named hub:owner/name.")
    if stage := _stage_folder(path):
        return read_run(stage, constitution or _own_constitution(stage))
    if is_original(path) or (path.is_dir() and any(is_original(file) for file in path.glob("*.json"))):
        from jobs.audit.original_data import read_original

        return _named(read_original(path, constitution), constitution)
    files = sorted(file for file in path.rglob("*") if is_table(file)) if path.is_dir() else [path]
    if not files or not all(is_table(file) for file in files):
        raise DataError(f"{source}: no .jsonl, .jsonl.gz, .parquet or .json file. Rows can be: {KNOWN}.")
    rows = (row for file in files for row in rows_of(file, _name(file, path)))
    hashes = {_name(file, path): sha256_file(file) for file in files[:20]}
    return _data(source, rows, constitution, {"sha256": hashes})


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


def _data(name: str, rows: Rows, constitution: Constitution | None, datasheet: dict[str, Any]) -> Data:
    read = _Read()
    read.add(rows)
    if not (read.pairs or read.examples or read.prompts):
        reasons = ", ".join(f"{count} {reason}" for reason, count in read.dropped.most_common()) or "no rows"
        raise DataError(f"{name}: not one row can be read ({reasons}). Rows can be: {KNOWN}.")
    prompts = list(_prompts(read))
    return _named(
        Data(name, prompts, read.examples, read.pairs, dropped=dict(read.dropped), datasheet=datasheet), constitution
    )


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
