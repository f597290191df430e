"""Languages that prompts are asked for in: how they are named, and whether a prompt is in the one asked for."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from jobs.generate.filters import Drop

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

NAMES = {
    "af": "Afrikaans",
    "ar": "Arabic",
    "bg": "Bulgarian",
    "cs": "Czech",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "hu": "Hungarian",
    "it": "Italian",
    "nl": "Dutch",
    "nr": "Southern Ndebele",
    "nso": "Northern Sotho",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "ss": "Swati",
    "st": "Southern Sotho",
    "sw": "Swahili",
    "tn": "Tswana",
    "tr": "Turkish",
    "ts": "Tsonga",
    "uk": "Ukrainian",
    "ve": "Venda",
    "xh": "Xhosa",
    "zu": "Zulu",
}
"""English names by BCP 47 language code."""
LEAST_WORDS = 8
"""Words below which a language is not judged."""


def language_name(code: str) -> str:
    """The language's English name, as a teacher understands it; for an unknown one, a phrase with its code."""
    name = NAMES.get(_language(code))
    if name is None:
        return f"the language with the code {code}"
    return name if code.lower() == _language(code) else f"{name} ({code})"


def wrong_language(text: str, code: str) -> Drop | None:
    """Why a text is not in the language asked for.

    Only the language asked for and English are weighed, since a teacher that misses the one writes the other. Nothing
    is said of texts below LEAST_WORDS words and of languages the identifier (py3langid) does not know.

    Args:
        text: the text.
        code: BCP 47 code of the language asked for.
    """
    asked = _language(code)
    if asked == "en" or len(text.split()) < LEAST_WORDS:
        return None
    identifier = _identifier()
    try:
        identifier.set_languages([asked, "en"])
    except ValueError:
        return None  # a language it does not know
    found = identifier.classify(text)[0]
    return None if found == asked else ("wrong_language", f"{language_name(found)}, not {language_name(code)}")


def _language(code: str) -> str:
    return code.lower().split("-")[0]


@cache
def _identifier() -> LanguageIdentifier:
    # Late and once: reading its model takes most of a second, and most runs are in English.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
