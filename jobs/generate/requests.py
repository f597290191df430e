"""What is asked of an endpoint, and the key under which its reply is journalled."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

Step = Literal[
    "prompts", "twins", "initial", "critique", "revision", "judge", "grade", "rewrite", "edit", "draft", "lint"
]

CHOICES: dict[str, tuple[str, ...]] = {"judge": ("A", "B"), "grade": ("1", "2", "3", "4", "5")}
"""Step → what its reply chooses between; other steps write text."""


@dataclass(frozen=True)
class Turn:
    """One chat turn."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Sampling:
    """Everything that steers sampling; part of the journal's key."""

    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Schema:
    """A JSON schema for the reply: an object with one required field."""

    name: str
    of: Literal["text", "texts"]

    @property
    def json_schema(self) -> dict[str, Any]:
        """The schema itself."""
        text = {"type": "string"}
        value = text if self.of == "text" else {"type": "array", "items": text}
        return {
            "type": "object",
            "properties": {self.name: value},
            "required": [self.name],
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class ChatRequest:
    """One request, whole."""

    step: Step
    turns: tuple[Turn, ...]
    max_tokens: int
    sampling: Sampling
    prompt_version: str
    schema: Schema | None = None
    sample_index: int = 0
    """Repeat of the same request, from 0; a rejected reply is asked again under the next one."""
    choices: tuple[str, ...] = ()
    """What the reply chooses between, each one token such as `A`; asks for the probability of each."""
    lane: int = field(default=0, compare=False)
    """Worker that asks; its requests go to one embedded server, which has their prefix in memory. Not in the key."""

    @property
    def sent_seed(self) -> int:
        """Seed of this very request: repeats and other prompts must not draw the same numbers."""
        return zlib.crc32(f"{self.sampling.seed}:{self.sample_index}:{self.turns[-1].content}".encode()) >> 1

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as an endpoint takes them."""
        return [{"role": turn.role, "content": turn.content} for turn in self.turns]

    @cached_property
    def digest(self) -> str:
        """Hash of everything a reply depends on, beside endpoint and model.

        The token limit is no part of it: a reply that ended by itself is the same under any limit it fits.
        """
        parts = [_settings(self.sampling, self.schema, self.prompt_version), str(self.sample_index)]
        for turn in self.turns:
            parts += (turn.role, turn.content)
        parts += self.choices  # none, and the key is that of a request of an older version
        # Each part after its length: no two lists of parts run together into the same text.
        text = "".join([f"{len(part)}:{part}" for part in parts])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def key(self, endpoint: str, model: str) -> str:
        """Key of the reply to this request by this model at this logical endpoint."""
        return hashlib.sha256(f"{endpoint}\n{model}\n{self.digest}".encode()).hexdigest()

    def limited_key(self, key: str) -> str:
        """Key of a reply that holds for this token limit alone, because the limit cut it off."""
        return limited_key(key, self.max_tokens)


def limited_key(key: str, max_tokens: int) -> str:
    """Key of a reply to the request with this key that holds for this token limit alone."""
    return hashlib.sha256(f"{key}:{max_tokens}".encode()).hexdigest()


@lru_cache(maxsize=64)  # few settings and many requests
def _settings(sampling: Sampling, schema: Schema | None, prompt_version: str) -> str:
    parts = [repr(sampling.temperature), repr(sampling.top_p), str(sampling.seed)]
    parts += [schema.name, schema.of, prompt_version] if schema else ["", "", prompt_version]
    return "".join(f"{len(part)}:{part}" for part in parts)
