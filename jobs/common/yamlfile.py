"""YAML as people write it, read strictly: UTF-8, no BOM, no duplicate keys, and the line of every key.

Recipes and constitutions both come through here, so that every error can name file and line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jobs.common.errors import ConfigError

KeyPath = tuple[str | int, ...]
BOOLEAN = "tag:yaml.org,2002:bool"


class Loader(yaml.SafeLoader):
    """Only true and false are booleans, as in YAML 1.2: `structured: off` and `language: no` are texts."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(BOOLEAN, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its value and the line each key path stands on."""

    path: Path
    value: Any
    lines: dict[KeyPath, int]

    def where(self, key_path: KeyPath) -> str:
        """`file:line` of a key, or of its nearest parent where the key itself is not written."""
        while key_path and key_path not in self.lines:
            key_path = key_path[:-1]
        return f"{self.path}:{self.lines.get(key_path, 1)}"


def load_yaml(path: Path) -> YamlFile:
    """Read one YAML mapping.

    Raises:
        ConfigError: missing file, a byte-order mark, bytes that are not UTF-8, bad YAML, a repeated key.
    """
    text = _decode(path)
    try:
        node = yaml.compose(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
        raise ConfigError(f"{path}:{line}: not YAML: {_reason(error)}") from error
    lines: dict[KeyPath, int] = {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:1: expected a mapping of keys, found {_kind(node)}.")
    value = _build(path, node, (), lines)
    return YamlFile(path=path, value=value, lines=lines)


def _decode(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder, expected a YAML file.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    if data.startswith(b"\xef\xbb\xbf"):
        raise ConfigError(f"{path}:1: starts with a byte-order mark (EF BB BF). Save it as UTF-8 without BOM.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = f"0x{data[error.start]:02X}"
        raise ConfigError(
            f"{path}:{line}: not UTF-8: byte {found} (Latin-1?). Run: iconv -f latin1 -t utf-8 {path.name}"
        ) from error


def _build(path: Path, node: yaml.Node, at: KeyPath, lines: dict[KeyPath, int]) -> Any:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in mapping:
                raise ConfigError(f"{path}:{line}: key {key!r} is written twice.")
            lines[(*at, key)] = line
            mapping[key] = _build(path, value_node, (*at, key), lines)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(path, child, (*at, index), lines) for index, child in enumerate(node.value)]
    try:
        return Loader("").construct_object(node)
    except (yaml.YAMLError, ValueError) as error:  # an unknown tag; 2025-02-30, which looks like a date and is none
        line = node.start_mark.line + 1
        raise ConfigError(f"{path}:{line}: not a value: {_reason(error)}, found {node.value!r}.") from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "problem", None) or error).split())


def _kind(node: yaml.Node | None) -> str:
    if node is None:
        return "an empty file"
    return "a list" if isinstance(node, yaml.SequenceNode) else f"{node.value!r}"
