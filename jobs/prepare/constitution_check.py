"""Check a constitution before a token is paid: `cai constitution check FILE`.

Every finding is one line: file, line, field, what is wrong, value found. The first read error (encoding, unknown key,
duplicate id) stops at once; the checks below are collected so that one run shows them all. Remarks (texts that are
alike, negative framing) are matters of judgement: they are printed and change no exit code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from jobs.common.console import say
from jobs.common.constitution import Constitution, Principle, constitution_path, read_constitution
from jobs.common.errors import ConfigError
from jobs.common.yamlfile import YamlFile
from jobs.measure.constitution import Remark, text_remarks

NEAR_DUPLICATE = 0.6
"""Jaccard similarity of word 3-grams from which two texts count as the same (Broder 1997, resemblance)."""

CHANGE_WORDS = re.compile(
    r"\b(rewrit|revis|chang|replac|remov|add|writ|correct|amend|rephras|rework|improv|turn|adjust)\w*", re.IGNORECASE
)
STEM_LETTERS = 5
TEXT_FIELDS = ("text", "critique_request", "revision_request")


def find_constitution(name: Path) -> Path:
    """A file, or the shipped constitution of that name."""
    shipped = constitution_path(str(name))
    return shipped if not name.exists() and shipped.is_file() else name


def check_constitution(path: Path, *, remarks: bool = True) -> None:
    """Check one file and print what was found.

    Args:
        path: the file.
        remarks: also print what its texts make one remark; `False` where the teacher is asked next and tells more.

    Raises:
        ConfigError: something is wrong; the last line counts the findings, each is printed before it.
    """
    constitution, file = read_constitution(path)
    findings = list(find_faults(constitution, file))
    for finding in findings:
        say(finding)
    if findings:
        plural = "fault" if len(findings) == 1 else "faults"
        raise ConfigError(f"{path}: {len(findings)} {plural}. Guide: docs/write-a-constitution.md.")
    told = text_remarks(constitution) if remarks else []
    for remark in told:
        say(_remark_line(remark, constitution, file))
    demonstrations = f", {len(constitution.few_shot)} demonstrations" if constitution.few_shot else ""
    count = f", {len(told)} {'remark' if len(told) == 1 else 'remarks'}" if told else ""
    say(f"{path}: {len(constitution.principles)} principles{demonstrations}, no faults{count}.")


def find_faults(constitution: Constitution, file: YamlFile) -> Iterator[str]:
    """Yield one line per fault."""
    if constitution.name != file.path.stem:
        yield f"{file.where(('name',))}: name: found {constitution.name!r}, but the file is called {file.path.stem!r}."
    for index, principle in enumerate(constitution.principles):
        yield from _request_faults(index, principle, file)
    for field in TEXT_FIELDS:
        yield from _near_duplicates(constitution, field, file)


def _request_faults(index: int, principle: Principle, file: YamlFile) -> Iterator[str]:
    topic = _stems(f"{principle.title} {principle.text}")
    for field in ("critique_request", "revision_request"):
        where = f"{file.where(('principles', index, field))}: principle {principle.id!r}: {field}"
        request = getattr(principle, field)
        if not request:
            yield f"{where}: empty. Run: cai constitution draft {file.path}"
        elif not _stems(request) & topic:
            yield f"{where}: names nothing from the principle's title or text, found {_excerpt(request)}."
        elif field == "revision_request" and not CHANGE_WORDS.search(request):
            yield f"{where}: does not say what to change (rewrite, remove, add, ...), found {_excerpt(request)}."


def _near_duplicates(constitution: Constitution, field: str, file: YamlFile) -> Iterator[str]:
    shingles = [_shingles(getattr(principle, field)) for principle in constitution.principles]
    for (first, left), (second, right) in combinations(enumerate(shingles), 2):
        if left and right and len(left & right) / len(left | right) >= NEAR_DUPLICATE:
            one, two = constitution.principles[first], constitution.principles[second]
            where = file.where(("principles", second, field))
            yield (
                f"{where}: principle {two.id!r}: {field} is nearly the same as {one.id!r}'s, "
                f"found {_excerpt(getattr(two, field))}."
            )


def _remark_line(remark: Remark, constitution: Constitution, file: YamlFile) -> str:
    index = constitution.principles.index(constitution.principle(remark.principle_id))
    where = file.where(("principles", index, "text"))
    return f"{where}: principle {remark.principle_id!r}: remark: {remark.finding}, {remark.evidence}. {remark.advice}"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def _stems(text: str) -> set[str]:
    return {word[:STEM_LETTERS] for word in _words(text) if len(word) >= STEM_LETTERS}


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    if len(words) < 3:
        return {tuple(words)} if words else set()
    return set(zip(words, words[1:], words[2:], strict=False))


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= 70 else text[:67] + "...")
