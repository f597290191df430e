"""What `fetch` brought: `runs/<run>/fetch/models.json`, read by every stage that needs weights.

fetched = load_fetched(context)
path = fetched.student.where(context.runs)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FetchedStudent(_Part):
    """The weights that are trained."""

    kind: Literal["gguf", "folder"]
    """`gguf`: one file that sft dequantises once; `folder`: config.json, tokenizer and safetensors."""
    path: str
    """Relative to the runs folder, or absolute for the user's own folder."""
    name: str
    """What responses and cards call it, such as `smollm2-135m-instruct`."""
    revision: str | None = None
    """Commit of a hub id."""
    sha256: dict[str, str] = {}
    """Digest of every file, by name."""

    def where(self, runs: Path) -> Path:
        """The file or folder itself."""
        return resolve(runs, self.path)


class FetchedFile(_Part):
    """One mix-in split."""

    path: str
    """A .jsonl or .parquet file, relative to the runs folder or absolute."""
    sha256: str
    """Digest of its bytes."""


class Fetched(_Part):
    """The whole of models.json."""

    student: FetchedStudent
    teacher_gguf: str | None = None
    """GGUF of the embedded teacher, where the recipe has one."""
    initial_gguf: str | None = None
    """GGUF that writes the initial responses, where the recipe has one."""
    mix_in: dict[str, FetchedFile] = {}
    """By `mix_in_key`."""


def resolve(runs: Path, path: str) -> Path:
    """A path of models.json: absolute as it is, anything else below the runs folder."""
    return Path(path) if Path(path).is_absolute() else runs / path


def relative(context: RunContext, path: Path) -> str:
    """A path below the runs folder as models.json has it; the inverse of `resolve`."""
    return path.resolve().relative_to(context.runs.resolve()).as_posix()


def dequantised(models: Path, name: str, sha256: str) -> Path:
    """Where sft puts the student of a GGUF with this digest."""
    return models / f"{name}-{sha256[:12]}-dequantised"


def student_folder(context: RunContext) -> Path | None:
    """The folder that the student is loaded from, of a GGUF the dequantised one.

    None where it has no config.json here: before fetch, or before sft has dequantised the GGUF.

    Raises:
        DataError: models.json is damaged.
    """
    if not (context.folder / "fetch" / "models.json").exists():
        return None
    found = load_fetched(context).student
    folder = found.where(context.runs)
    if found.kind == "gguf":
        folder = dequantised(context.models, found.name, found.sha256.get(folder.name, ""))
    return folder if (folder / "config.json").is_file() else None


def student_config(context: RunContext) -> dict[str, Any] | None:
    """The student's config.json; None where `student_folder` is.

    Raises:
        DataError: models.json or config.json is damaged.
    """
    folder = student_folder(context)
    return read_json(folder / "config.json") if folder else None


def mix_in_key(dataset: str, revision: str, split: str) -> str:
    """Name of a mix-in split in models.json."""
    return f"{dataset}@{revision}/{split}"


def load_fetched(context: RunContext) -> Fetched:
    """Read models.json of this run.

    Raises:
        DataError: it is missing or damaged; names the command that writes it.
    """
    path = context.folder / "fetch" / "models.json"
    again = f"Run: {context.command('fetch', '--redo')}"
    try:
        return Fetched.model_validate(read_json(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. {again}") from error
    except DataError as error:
        raise DataError(f"{error} {again}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path} is damaged ({field}: {first['msg']}). {again}") from error
