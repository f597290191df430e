"""Rows with something in them that does not belong. Every test is narrow: a sound row must not be named."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jobs.measure.data import Data, Example, Pair, Prompt
from jobs.measure.findings import Malformed, Part
from jobs.measure.language import Languages
from jobs.measure.near import plain
from jobs.measure.phrases import INVISIBLE, META_ANSWER, META_PROMPT, USER_VOICE
from jobs.measure.texts import bare_words, template_in

_RUN = 8
"""Words in a row that a text has from a demonstration."""
_ECHOED = 6
"""Fewest words of a prompt whose repetition is an echo."""
_MARGIN = 10
"""Words an answer may say before it repeats the prompt."""
_PREFIX = 5
"""Most words before a source prompt that still count as a prefix."""
_LAST_LINE = 9
"""Fewest words of a last line that should end in a full stop: shorter ones are headings, names, hashtags."""
_SHOWN = 80


def malformed(data: Data) -> list[Malformed]:
    """All findings, by part and row; a row may have several, a reason once."""
    runs = {run for text in data.demonstrations for run in _runs(text)}
    languages = Languages(data)
    found: list[Malformed] = []

    def note(part: Part, row: int, findings: Iterator[tuple[str, str]]) -> None:
        first = dict(reversed(list(findings)))
        found.extend(Malformed(part, row, reason, detail) for reason, detail in reversed(first.items()))

    for row, prompt in enumerate(data.prompts):
        note("prompts", row, _prompt(prompt, runs, languages))
    for row, example in enumerate(data.examples):
        note("examples", row, _example(example, runs, languages))
    for row, pair in enumerate(data.pairs):
        note("pairs", row, _pair(pair, runs, languages))
    return found


def _prompt(prompt: Prompt, runs: set[str], languages: Languages) -> Iterator[tuple[str, str]]:
    yield from _texts({"prompt": prompt.text}, runs)
    yield from _asked(prompt.text)
    yield from languages.fault(prompt.text, prompt.language)


def _example(row: Example, runs: set[str], languages: Languages) -> Iterator[tuple[str, str]]:
    drift = prompt_drift(row.prompt, row.source_prompt)
    if drift:
        yield "prompt_drift", drift
    else:
        yield from _texts({"prompt": row.prompt}, runs)
        yield from _asked(row.prompt)
    yield from _texts({"completion": row.completion}, runs)
    yield from _answer(row.prompt, row.completion)
    if row.critique and plain(row.critique) == plain(row.completion):
        yield "echo", _clip(row.critique)
    yield from languages.fault(row.completion, row.language)


def _pair(pair: Pair, runs: set[str], languages: Languages) -> Iterator[tuple[str, str]]:
    yield from _texts({"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}, runs)
    yield from _asked(pair.prompt)
    yield from _answer(pair.prompt, pair.chosen)
    if pair.chosen.strip() and plain(pair.chosen) == plain(pair.rejected):
        yield "same_sides", _clip(pair.chosen)
    yield from languages.fault(pair.chosen, pair.language)


def _texts(texts: dict[str, str], runs: set[str]) -> Iterator[tuple[str, str]]:
    """What no text may hold, whichever field it is in."""
    for name, text in texts.items():
        if not text.strip():
            yield "empty", name
        if string := template_in(text):
            yield "template", string
        if not text.isascii() and (hidden := INVISIBLE.search(text)):
            yield "zero_width", text[max(0, hidden.start() - 15) : hidden.end() + 15]
        if runs and (run := next((run for run in _runs(text) if run in runs), None)):
            yield "demonstration", run


def _asked(prompt: str) -> Iterator[tuple[str, str]]:
    if match := META_PROMPT.search(prompt):
        yield "meta_talk", match[0]


def _answer(prompt: str, answer: str) -> Iterator[tuple[str, str]]:
    """What an answer to learn may not be. The rejected side may: it is there to be bad."""
    if match := META_ANSWER.search(answer):
        yield "meta_talk", match[0]
    if match := USER_VOICE.search(answer):
        yield "role_confusion", match[0].strip()
    if end := cut_off(answer):
        yield "truncated", end
    asked = bare_words(prompt)
    start = bare_words(answer[: 2 * len(prompt) + 100])[: len(asked) + _MARGIN]
    if len(asked) >= _ECHOED and f" {' '.join(asked)} " in f" {' '.join(start)} ":
        yield "echo", _clip(prompt)


def prompt_drift(prompt: str, source: str) -> str | None:
    """How a row's prompt differs from the prompt it was made from; None where it does not or there is no source.

    Begins with `prefix` (a few words more than the source), `meta-prompt` (the words of a request to a model),
    `punctuation` or `other words`; ends with `user prompt gone` where the source is no longer in it.
    """
    if not source or prompt == source:
        return None
    ours, theirs = bare_words(prompt), bare_words(source)
    if ours == theirs:
        return f"punctuation: {_clip(prompt)}"
    before, found, _ = f" {' '.join(ours)} ".partition(f" {' '.join(theirs)} ")
    if not found:
        return f"{'meta-prompt' if template_in(prompt) else 'other words'}: {_clip(prompt)}; user prompt gone"
    return f"{'prefix' if len(before.split()) <= _PREFIX else 'meta-prompt'}: {_clip(prompt)}"


def cut_off(answer: str) -> str | None:
    """The last words of an answer that stops within a sentence."""
    line = answer.rstrip().rpartition("\n")[2]
    if not line or not (line[-1].isalpha() or line[-1] in ",-\u2013") or re.match(r"\s*([-*\u2022#>|]|\d+[.)])", line):
        return None
    found = line.split()
    # A headline has most words in capitals, and hashtags end what needs no full stop.
    is_prose = sum(word[0].islower() for word in found) > len(found) / 2 and "#" not in line
    return " ".join(found[-6:]) if is_prose and len(found) >= _LAST_LINE else None


def _runs(text: str) -> Iterator[str]:
    found = bare_words(text)
    return (" ".join(found[at : at + _RUN]) for at in range(len(found) - _RUN + 1))


def _clip(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _SHOWN else flat[: _SHOWN - 3] + "..."
