"""Is a text in the language asked for? Only where more than English is asked for, and only for texts of some length."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from jobs.measure.data import Data

_LEAST_WORDS = 8
_LEAST_LEAD = 10.0
"""Lead in log-probability of the other language: below, the two are too close to call."""
_SIBLINGS = ({"zu", "xh", "ss", "nr"}, {"st", "tn", "nso"}, {"no", "nb", "nn", "da"}, {"hr", "sr", "bs"}, {"af", "nl"})
"""Languages that py3langid (Lui and Baldwin 2012) takes for one another."""


class Languages:
    """Texts weighed among the languages of a dataset and English, because nobody else's is to be expected."""

    def __init__(self, data: Data) -> None:
        rows = (data.prompts, data.examples, data.pairs)
        asked = {_base(row.language or data.language) for part in rows for row in part}
        self._default = _base(data.language)
        self._names = sorted(asked | {self._default, "en"})

    def fault(self, text: str, asked: str) -> Iterator[tuple[str, str]]:
        """(`language`, what was found) where a text is clearly in another language than asked for."""
        wanted = _base(asked) if asked else self._default
        if len(self._names) < 2 or len(text.split()) < _LEAST_WORDS or wanted not in self._known:
            return
        ranked = dict(self._identifier.rank(text))
        best = max(ranked, key=lambda name: ranked[name])
        if any({best, wanted} <= family for family in _SIBLINGS) or ranked[best] - ranked[wanted] < _LEAST_LEAD:
            return
        yield "language", f"{best}, not {wanted}"

    @cached_property
    def _known(self) -> list[str]:
        return [name for name in self._names if name in self._identifier.nb_classes]

    @cached_property
    def _identifier(self) -> Any:
        # Late: reading the model takes most of a second, and most data is in English alone.
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        known = set(identifier.nb_classes)
        identifier.set_languages([name for name in self._names if name in known])
        return identifier


def _base(code: str) -> str:
    return code.lower().partition("-")[0]
