"""A constitution: principles with stable ids, read from one YAML file.

cai constitution check constitutions/south_africa.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.common.errors import ConfigError
from jobs.common.jsonl import sha256_json
from jobs.common.recipe import PROJECT
from jobs.common.yamlfile import KeyPath, YamlFile, load_yaml

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=False)


class Principle(_Part):
    """One principle and the two requests that apply it."""

    id: Identifier
    """Stable id such as `ubuntu`; never a list position."""
    title: Text
    """A few words."""
    text: Text
    """What an answer should do."""
    category: Text
    """Group in reports."""
    source: Text
    """Where the principle comes from: section, case, tradition or text."""
    critique_request: str = ""
    """User turn that asks for the critique; `cai constitution draft` fills an empty one."""
    revision_request: str = ""
    """User turn that asks for the revision."""
    context: list[Text] = []
    """Real institutions, places, languages and disputes that red-team prompts may be about, one per entry."""


class Demonstration(_Part):
    """A worked example put before a chain as chat turns (few-shot)."""

    principle: Identifier
    """Id of the principle whose requests are used."""
    prompt: Text
    """User message."""
    initial_response: Text
    """A first answer with a fault."""
    critique: Text
    """A good critique."""
    revision: Text
    """A good rewritten answer."""


class Constitution(_Part):
    """The whole file."""

    name: Identifier
    """Equals the file's stem."""
    title: Text
    """For people."""
    language: Text
    """BCP 47 code of the texts."""
    version: int
    """Raised when a principle's meaning changes."""
    description: Text
    """Whose values these are, and what they are not."""
    principles: Annotated[list[Principle], Field(min_length=1)]
    """In the author's order; the order means nothing to the jobs."""
    few_shot: list[Demonstration] = []
    """Demonstrations for `generate.few_shot`."""

    def principle(self, principle_id: str) -> Principle:
        """The principle with this id; KeyError if there is none."""
        for principle in self.principles:
            if principle.id == principle_id:
                return principle
        raise KeyError(principle_id)

    @property
    def sha256(self) -> str:
        """Hash of the content, whatever the file's layout."""
        return sha256_json(self.model_dump(mode="json"))


def constitution_path(name: str) -> Path:
    """A name means `constitutions/<name>.yaml`; anything with a slash or an ending is a path."""
    return Path(name) if "/" in name or name.endswith((".yaml", ".yml")) else PROJECT / "constitutions" / f"{name}.yaml"


def load_constitution(name: str) -> Constitution:
    """Read a constitution that generate can use.

    Raises:
        ConfigError: anything `read_constitution` names, or a principle without its requests.
    """
    path = constitution_path(name)
    if not path.is_file() and path.parent == PROJECT / "constitutions":
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        raise ConfigError(f"No constitution {name!r} in constitutions/. There are: {', '.join(known)}; or give a path.")
    constitution, file = read_constitution(path)
    for index, principle in enumerate(constitution.principles):
        for field in ("critique_request", "revision_request"):
            if not getattr(principle, field):
                raise ConfigError(
                    f"{file.where(('principles', index))}: principle {principle.id!r} has no {field}. "
                    f"Run: cai constitution draft {path}"
                )
    return constitution


def read_constitution(path: Path) -> tuple[Constitution, YamlFile]:
    """Read a constitution whose requests may still be missing, with the lines of its keys.

    Raises:
        ConfigError: not UTF-8, a BOM, unknown or missing keys, no principles, duplicate ids; names file, line, field.
    """
    file = load_yaml(path)
    try:
        constitution = Constitution.model_validate(file.value)
    except ValidationError as error:
        first = error.errors()[0]
        at: KeyPath = tuple(first["loc"])
        dotted = ".".join(str(part) for part in at)
        raise ConfigError(f"{file.where(at)}: {dotted}: {first['msg']}, found {_found(first['input'])}.") from error
    seen: dict[str, int] = {}
    for index, principle in enumerate(constitution.principles):
        if principle.id in seen:
            first_line = file.where(("principles", seen[principle.id], "id")).rsplit(":", 1)[-1]
            raise ConfigError(
                f"{file.where(('principles', index, 'id'))}: id: duplicate {principle.id!r}, "
                f"first used on line {first_line}."
            )
        seen[principle.id] = index
    for index, demonstration in enumerate(constitution.few_shot):
        if demonstration.principle not in seen:
            where = file.where(("few_shot", index, "principle"))
            raise ConfigError(f"{where}: principle: no principle has the id {demonstration.principle!r}.")
    return constitution, file


def _found(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
