"""Reads replies: a list of prompts or one text, from JSON or from plain text, whole or cut off.

A reply that hit the token limit is rejected and asked again under the next sample index. Only plain text of the
embedded model, and the student's answers from a file, are trimmed to the last complete sentence where at least
LEAST_WORDS words remain, and counted: such models would lose most of their rows otherwise.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from jobs.generate.journal import Reply
from jobs.generate.requests import Schema

LEAST_WORDS = 8
"""Words that must remain when a cut-off text is trimmed."""

_ITEM = re.compile(r"^\s*(?:[-*•\u2013]|\(?\d{1,3}[.):]|\d{1,3}\s+-)\s*(.*)$")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SENTENCE_END = re.compile(r"[.!?…][\"'”\u2019)\]]*(?=\s|$)")
_NO_END = re.compile(r"(?:(?:^|\n|[.!?:;])\s*[\"'(]?\d{1,3}|\b(?:e\.g|i\.e|vs|Dr|Mr|Mrs|Ms|Prof|St|Art|Sec))\.$")
_SPECIAL = re.compile(r"<\|[a-z_]+\|>")
_FENCE = re.compile(r"^```[a-z]*\n|\n?```$")


@dataclass(frozen=True)
class Text:
    """One usable text."""

    text: str
    trimmed: bool = False
    """Cut off at the token limit and trimmed to whole sentences."""
    sample_index: int = 0
    """Which repeat of the request gave it, from 0."""


@dataclass(frozen=True)
class Rejected:
    """A reply that cannot be used."""

    reason: str
    """`empty`, `truncated`, `garbage` or `content_policy`."""
    detail: str


def read_text(reply: Reply, schema: Schema | None, *, trim: bool) -> Text | Rejected:
    """The one text of a reply, or why there is none; `trim` keeps whole sentences of a cut-off one."""
    if reply.finish_reason == "content_filter":
        return Rejected("content_policy", "finish_reason content_filter")
    raw = _clean(reply.text)
    if schema and raw.startswith("{"):
        value = _json(raw)
        found = value.get(schema.name) if isinstance(value, dict) else None
        if isinstance(found, str):
            return _judge(_clean(found))
        return Rejected("truncated" if reply.finish_reason == "length" else "garbage", _excerpt(raw))
    if reply.finish_reason != "length":
        return _judge(raw)
    return _trimmed(raw) if trim and raw else Rejected("truncated" if raw else "empty", _excerpt(raw))


def read_answer(text: str, *, truncated: bool) -> Text | Rejected:
    """The student's own answer from a file; one that hit its token limit is trimmed to whole sentences."""
    raw = _clean(text)
    return _trimmed(raw) if truncated and raw else _judge(raw)


def read_prompts(reply: Reply, asked: int) -> list[str]:
    """The prompts of a reply in its order; an item the token limit cut off is left out.

    JSON is read by its strings, so that the whole items of a cut-off list survive. Plain text is read by its numbered
    or bulleted lines; where one prompt was asked for and no line has a number, the whole text is the prompt.
    """
    raw = _clean(reply.text)
    cut = reply.finish_reason == "length"
    if raw.startswith(("{", "[")):
        return _json_prompts(raw)
    lines = raw.splitlines()
    items: list[str] = []
    for line in lines:
        if match := _ITEM.match(line):
            items.append(match[1])
        elif items and line.strip() and line[0].isspace():
            items[-1] += " " + line.strip()
    if not items and asked == 1:
        items = [_whole_sentences(raw) if cut else raw]
    elif cut:
        items = items[:-1]
    return [text for item in items if (text := one_line(item))]


def _json_prompts(raw: str) -> list[str]:
    value = _json(raw)
    if isinstance(value, dict):
        value = next((part for part in value.values() if isinstance(part, list)), [])
    if value is None:
        bracket = raw.find("[")
        value = [_json(f'"{part}"') for part in _STRING.findall(raw[bracket + 1 :])] if bracket >= 0 else []
    if not isinstance(value, list):
        return []
    return [text for item in value if isinstance(item, str) and (text := one_line(item))]


def _trimmed(raw: str) -> Text | Rejected:
    kept = _whole_sentences(raw)
    if len(kept.split()) < LEAST_WORDS:
        return Rejected("truncated", _excerpt(raw))
    judged = _judge(kept)
    return judged if isinstance(judged, Rejected) else Text(judged.text, trimmed=True)


def _judge(text: str) -> Text | Rejected:
    words = text.lower().split()
    if not words:
        return Rejected("empty", "no text")
    letters = sum(character.isalpha() for character in text)
    if letters < 0.5 * len("".join(words)):
        return Rejected("garbage", _excerpt(text))
    if len(words) >= 30 and len(set(words)) < 0.25 * len(words):
        return Rejected("garbage", f"repeats itself: {_excerpt(text)}")
    return Text(text)


def sentence_ends(text: str) -> list[int]:
    """Where the sentences of a text end, as offsets; neither the number of a list item nor an abbreviation ends one."""
    return [match.end() for match in _SENTENCE_END.finditer(text) if not _NO_END.search(text, 0, match.start() + 1)]


def _whole_sentences(text: str) -> str:
    ends = sentence_ends(text)
    return text[: ends[-1]] if ends else ""


def _clean(text: str) -> str:
    text = _SPECIAL.sub("", text.replace("\r\n", "\n").replace("\x00", "")).strip()
    # A lone surrogate has no UTF-8 form and would break every file after this one.
    return _FENCE.sub("", text).strip().encode("utf-8", "replace").decode()


def one_line(text: str) -> str:
    """A message as one line, without quotation marks and emphasis around the whole of it."""
    text = " ".join(_clean(text).split()).strip("*_ ")
    if len(text) > 1 and text[0] + text[-1] in {'""', "''", "“”", "\u2018\u2019", "«»"}:
        text = text[1:-1].strip()
    return text


def _json(raw: str) -> Any:
    try:
        return json.loads(raw, strict=False)
    except (ValueError, RecursionError):
        return None


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."
