"""Rows of other people's datasets, validated one by one: chats of alignment-handbook, and plain prompts with answers.

    SFT row    messages, or prompt and completion
    pair       chosen and rejected, each a text or a chat; prompt where they are no whole chats
    both       principle_id (else `imported`); id for messages

A text is a string or a list of {role, content}. Whatever a record of ours cannot hold whole is dropped with its reason;
white space around an answer is no part of it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from jobs.common.table_files import NotJson
from jobs.prepare.import_files import SourceFile, checked_records
from jobs.prepare.import_found import BROKEN, IMPORTED_PRINCIPLE, Found, FoundPrompt, Use, broken, differs

CHAIN_COLUMNS = {
    "initial_response": "init_response",
    "critique_request": "critic_prompt",
    "critique": "critic_response",
    "revision_request": "revision_prompt",
    "revision": "revision_response",
}
"""Our name → the column of the Hub's constitutional-AI datasets; the prompt is in `init_prompt`."""
ROLES = {"system", "user", "assistant"}


class _BadRowError(Exception):  # the row is dropped
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_file(found: Found, file: SourceFile, principles: Collection[str]) -> None:
    """Add the rows of one file.

    Args:
        found: what was read so far.
        file: the file, with what its name says.
        principles: ids of the constitution; a row of another is dropped.

    Raises:
        DataError: the file is damaged.
    """
    for number, record in checked_records(file.path):
        where = f"{file.name}:{number}"
        if not isinstance(record, dict):
            _drop_strange(found, where, record)
            continue
        if record.get("id"):
            where += f" ({record['id']})"
        try:
            principle_id, uses = _principle(record, principles), _uses(record, file.use)
        except _BadRowError as error:
            found.drop(where, error.reason, f"{where}: {error}", record)
            continue
        for use in uses:
            try:
                _take(found, record, use, (principle_id, file.held_out))
            except _BadRowError as error:
                found.drop(where, error.reason, f"{where}: {error}", record, principle_id)


def _drop_strange(found: Found, where: str, record: Any) -> None:
    if isinstance(record, NotJson):
        found.drop(where, "not_json", f"{where}: not JSON ({record.why})", {"line": record.text})
    else:
        found.drop(where, "bad_shape", f"{where}: expected an object, found {type(record).__name__}", {})


def _take(found: Found, record: dict[str, Any], use: Use, place: tuple[str, bool]) -> None:
    names = ("completion",) if use == "sft" else ("chosen", "rejected")
    prompt, answers = _sft(record) if use == "sft" else _pair(record)
    if not prompt.strip():
        raise _BadRowError("no_prompt", "empty prompt")
    if empty := [name for name, answer in zip(names, answers, strict=True) if not answer]:
        raise _BadRowError("empty", f"empty {', '.join(empty)}")
    if broken([prompt, *answers]):
        raise _BadRowError("bad_shape", BROKEN)
    if use == "dpo" and answers[0] == answers[1]:
        raise _BadRowError("same_sides", "chosen and rejected are the same")
    principle_id, held_out = place
    noted = found.prompt(principle_id, prompt, (use,), held_out)
    if not found.is_new(use, noted.id, *answers):
        raise _BadRowError("duplicate", "the same row came before")
    if use == "sft":
        found.add_example(noted, answers[0])
    else:
        found.add_pair(noted, answers[0], answers[1])
    _take_chain(found, noted, record)


def _take_chain(found: Found, prompt: FoundPrompt, record: dict[str, Any]) -> None:
    texts = {ours: record.get(theirs) for ours, theirs in CHAIN_COLUMNS.items()}
    whole = {name: text for name, text in texts.items() if isinstance(text, str) and text.strip()}
    if (
        record.get("init_prompt") == prompt.text
        and len(whole) == len(texts)
        and found.is_new(prompt.id, *whole.values())
    ):
        found.add_chain(prompt, whole)


def _principle(record: dict[str, Any], principles: Collection[str]) -> str:
    given = record.get("principle_id")
    if given in (None, "", IMPORTED_PRINCIPLE):
        return IMPORTED_PRINCIPLE
    if not isinstance(given, str) or given not in principles:
        raise _BadRowError("unknown_principle", f"principle_id {str(given)[:80]!r} is not in the constitution")
    return given


def _uses(record: dict[str, Any], wanted: Use | None) -> tuple[Use, ...]:
    has: dict[Use, bool] = {
        "sft": record.get("messages") is not None or record.get("completion") is not None,
        "dpo": record.get("chosen") is not None and record.get("rejected") is not None,
    }
    uses = tuple(use for use, there in has.items() if there and wanted in (None, use))
    if uses:
        return uses
    shapes = {"sft": "messages, or prompt and completion", "dpo": "prompt, chosen and rejected"}
    needed = shapes[wanted] if wanted else "; or ".join(shapes.values())
    raise _BadRowError("bad_shape", f"needs {needed}; found {', '.join(sorted(map(str, record))) or 'nothing'}")


def _sft(record: dict[str, Any]) -> tuple[str, list[str]]:
    if record.get("messages") is None:
        return _prompt(record), [_answer(record["completion"], "completion")]
    prompt, answer = _exchange(record["messages"], "messages")
    _require_same(record, prompt)
    return prompt, [answer]


def _pair(record: dict[str, Any]) -> tuple[str, list[str]]:
    names = "chosen", "rejected"
    if not all(isinstance(record[name], list) and len(record[name]) > 1 for name in names):
        return _prompt(record), [_answer(record[name], name) for name in names]
    (prompt, chosen), (other, rejected) = (_exchange(record[name], name) for name in names)
    if prompt != other:
        raise _BadRowError(differs(prompt, other), f"chosen answers {prompt[:80]!r}, rejected {other[:80]!r}")
    _require_same(record, prompt)
    return prompt, [chosen, rejected]


def _require_same(record: dict[str, Any], prompt: str) -> None:
    if record.get("prompt") is not None and (given := _prompt(record)) != prompt:
        raise _BadRowError(differs(given, prompt), f"prompt {given[:80]!r} is not the chat's {prompt[:80]!r}")


def _prompt(record: dict[str, Any]) -> str:
    value = record.get("prompt")
    if value is None:
        raise _BadRowError("no_prompt", "no prompt")
    if isinstance(value, str):
        return value
    return _only(_chat(value, "prompt"), "user", "prompt")


def _answer(value: Any, name: str) -> str:
    text = value if isinstance(value, str) else _only(_chat(value, name), "assistant", name)
    return text.strip()


def _only(chat: list[tuple[str, str]], role: str, name: str) -> str:
    if len(chat) > 1:
        raise _BadRowError("many_turns", f"{name} has {len(chat)} messages; one prompt and one answer are kept")
    if not chat or chat[0][0] != role:
        raise _BadRowError("not_a_chat", f"{name} is no message of the {role}")
    return chat[0][1]


def _exchange(value: Any, name: str) -> tuple[str, str]:
    """Prompt and answer of a chat of two messages."""
    chat = _chat(value, name)
    roles = [role for role, _ in chat]
    if not roles or roles[-1] != "assistant":
        raise _BadRowError("not_a_chat", f"{name} does not end with the assistant's message")
    if "user" not in roles[:-1]:
        raise _BadRowError("no_prompt", f"{name} has no message of the user")
    if len(chat) > 2:
        raise _BadRowError("many_turns", f"{name} has {len(chat)} messages; one prompt and one answer are kept")
    return chat[0][1], chat[1][1].strip()


def _chat(value: Any, name: str) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise _BadRowError("bad_shape", f"{name} is neither a text nor a list of messages: {str(value)[:80]!r}")
    chat: list[tuple[str, str]] = []
    for message in value:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
            raise _BadRowError("not_a_chat", f"{name}: a message has no known role or no text: {str(message)[:80]!r}")
        if role == "system":  # a record keeps one prompt text, and without its system turn an answer answers another
            raise _BadRowError("system_turn", f"{name} has a message of the system; one prompt and one answer are kept")
        chat.append((role, content))
    return chat
