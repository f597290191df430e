"""The recipe that an import is writing, and what it says about every old key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jobs.common.errors import ConfigError
from jobs.common.yamlfile import YamlFile

Status = Literal["kept", "renamed", "dead", "differs", "lost"]
"""`kept`: same name; `renamed`: another name or form; `dead`: decided elsewhere; `differs`: not written there, and its
default is another one here; `lost`: has no place here."""


@dataclass(frozen=True)
class Line:
    """What became of one key, or of a default that the file relies on."""

    key: str
    value: Any
    status: Status
    became: str


@dataclass
class Draft:
    """One old file on its way into a recipe."""

    file: YamlFile
    """The old file; its value is a mapping."""
    stage: Literal["sft", "dpo"]
    """What the old file trains."""
    onto: dict[str, Any] | None
    """The recipe that gets a dpo section, as it stands in its file."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The new keys, nested as in YAML."""

    @property
    def old(self) -> dict[str, Any]:
        """The old file's keys."""
        return dict(self.file.value)

    def put(self, dotted: str, value: Any) -> str:
        """Set a key of the recipe; returns it as text."""
        section = self.recipe
        *parents, last = dotted.split(".")
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
        return f"{dotted}: {shown(value)}"

    def put_here(self, name: str, value: Any) -> str:
        """Set a key of this file's own stage."""
        return self.put(f"{self.stage}.{name}", value)

    def number(self, key: str, default: float) -> float:
        """A numeric old key, or its default where it is missing or null.

        Raises:
            ConfigError: the value is no number; names file and line.
        """
        value = self.old.get(key)
        if value is None:
            return default
        try:
            return float(value)  # YAML reads 5e-7 as text
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.file.where((key,))}: {key}: expected a number, found {value!r}.") from error


def shown(value: Any) -> str:
    """A value as the table shows it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
