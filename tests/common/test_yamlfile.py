from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.errors import ConfigError
from jobs.common.yamlfile import load_yaml


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xef\xbb\xbfa: 1\n", r":1: starts with a byte-order mark"),
        ("a: 1\nb: caf\xe9\n".encode("latin-1"), r":2: not UTF-8: byte 0xE9 \(Latin-1\?\). Run: iconv"),
        (b"a: 1\na: 2\n", r":2: key 'a' is written twice"),
        (b"a: [1\n", r"not YAML"),
        (b"- a\n", r":1: expected a mapping of keys, found a list"),
        (b"", r":1: expected a mapping of keys, found an empty file"),
        (b"a: 1\ndated: 2025-02-30\n", r":2: not a value: .*found '2025-02-30'"),
        (b"a: 1\nb: !secret x\n", r":2: not a value: .*found 'x'"),
        (b"a: 1\nb: \x01\n", r"^[^\n]*:2: not YAML: [^\n]*$"),
    ],
    ids=["bom", "latin-1", "repeated key", "bad yaml", "list", "empty", "no date", "tag", "control character"],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        load_yaml(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)


def test_a_file_nobody_may_read_is_not_called_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load_yaml(tmp_path / "file.yaml")


def test_the_line_of_a_missing_key_is_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\nb:\n  - c: 2\n    d: 3\n")
    file = load_yaml(path)
    assert file.value == {"a": 1, "b": [{"c": 2, "d": 3}]}
    assert file.where(("b", 0, "d")) == f"{path}:4"
    assert file.where(("b", 0, "missing")) == f"{path}:3"
