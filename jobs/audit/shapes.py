"""One row of anybody's dataset as a prompt, a supervised row or a pair; a row that is none of them says why.

Known: prompt + chosen + rejected, prompt + completion, messages, a prompt alone; a text is a string or chat turns;
chosen and rejected as whole conversations (alignment-handbook, TRL's implicit prompt) or as one text with `Human:` and
`Assistant:` marks. Our own records are the first two with more fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jobs.measure.data import Example, Pair, Prompt

KNOWN = "prompt + chosen + rejected, prompt + completion, messages, chosen + rejected as chat turns, or a prompt alone"
MARK = "\n\nAssistant:"
"""Before the last answer of a conversation written as one text (the shape of Anthropic's hh-rlhf)."""

Want = Literal["", "examples", "pairs"]


class BadRowError(Exception):
    """A row that cannot be used; the text is the reason it is counted under."""


@dataclass(frozen=True)
class Place:
    """Where a row comes from."""

    id: str
    """Id for a row that has none: file and number."""
    split: str = ""
    """`held_out`, `train` or unknown, from the file's name."""
    want: Want = ""
    """What the file's name says its rows are, where a row could be both."""
    prefix: str = ""
    """Before ids that the row has itself: the file, where several files may use one id for different rows."""


def read_row(record: Any, place: Place) -> Prompt | Example | Pair:
    """A row in any known shape.

    Raises:
        BadRowError: it has none; the text is one word such as `no_prompt`.
    """
    if not isinstance(record, Mapping):
        raise BadRowError("not_an_object")
    if record.get("label") is False:
        raise BadRowError("labelled_bad")
    has_pair = record.get("chosen") is not None and record.get("rejected") is not None
    has_answer = record.get("completion") is not None or record.get("messages") is not None
    if has_answer and place.want == "examples":
        return _example(record, place)
    if has_pair:
        return _pair(record, place)
    if record.get("chosen") is not None or record.get("rejected") is not None:
        raise BadRowError("one_side_missing")
    if has_answer:
        return _example(record, place)
    if record.get("prompt") is not None:
        return _prompt(record, place)
    raise BadRowError("unknown_columns" if "prompt" not in record else "no_prompt")


def _pair(record: Mapping[str, Any], place: Place) -> Pair:
    first, chosen = _conversation(record["chosen"], "chosen")
    other, rejected = _conversation(record["rejected"], "rejected")
    prompt = _opener(record.get("prompt")) or first
    if first != other and first and other:
        raise BadRowError("different_prompts")
    if not prompt:
        raise BadRowError("no_prompt")
    probability = record.get("preference_probability")
    return Pair(
        id=_id(record.get("id"), place),
        principle_id=_text(record.get("principle_id")),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        split=_split(record, place, "dpo"),
        kind=_kind(record),
        language=_text(record.get("language")),
        probability=probability if isinstance(probability, float) else None,
    )


def _example(record: Mapping[str, Any], place: Place) -> Example:
    if record.get("messages") is not None:
        before, completion = _conversation(record["messages"], "messages")
    else:
        before, completion = "", _conversation(record["completion"], "completion")[1]
    prompt = before or _opener(record.get("prompt"))
    if not prompt:
        raise BadRowError("no_prompt")
    return Example(
        id=_id(record.get("id"), place),
        principle_id=_text(record.get("principle_id")),
        prompt=prompt,
        completion=completion,
        split=_split(record, place, "sft"),
        kind=_kind(record),
        language=_text(record.get("language")),
        source_prompt=_text(record.get("init_prompt")),
        initial=_text(record.get("init_response")),
        critique=_text(record.get("critic_response")),
    )


def _prompt(record: Mapping[str, Any], place: Place) -> Prompt:
    text = _opener(record["prompt"])
    if not text:
        raise BadRowError("no_prompt")
    return Prompt(
        id=_id(record.get("id"), place),
        principle_id=_text(record.get("principle_id")),
        text=text,
        split=_split(record, place, ""),
        kind=_kind(record),
        twin_of=_id(record.get("twin_of"), place) if record.get("twin_of") else "",
        language=_text(record.get("language")),
        cluster=_text(record.get("cluster")),
    )


def _conversation(value: Any, name: str) -> tuple[str, str]:
    """What comes before the last answer, and the answer."""
    if isinstance(value, str):
        before, mark, answer = _whole(value).rpartition(MARK)
        if mark and before.lstrip().startswith("Human:"):
            return before.strip().removeprefix("Human:").strip(), answer.strip()
        return "", _whole(value)
    turns = _turns(value, name)
    if not turns or turns[-1][0] != "assistant":
        raise BadRowError("no_answer")
    return "\n\n".join(text for role, text in turns[:-1] if role != "system"), turns[-1][1]


def _opener(value: Any) -> str:
    """A prompt as a text or as chat turns; system turns do not count."""
    if value is None or isinstance(value, str):
        return _whole(value or "")
    return "\n\n".join(text for role, text in _turns(value, "prompt") if role != "system")


def _turns(value: Any, name: str) -> list[tuple[str, str]]:
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise BadRowError(f"{name}_not_text")
    turns = [(turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))) for turn in value]
    if not all(isinstance(role, str) and isinstance(text, str) for role, text in turns):
        raise BadRowError(f"{name}_not_text")
    roles = {"human": "user", "gpt": "assistant", "model": "assistant"}
    return [(roles.get(role, role), _whole(text)) for role, text in turns]


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRowError("broken_unicode") from error
    return text


def _text(value: Any, other: str = "") -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return _whole(value) if isinstance(value, str) and value else other


def _id(value: Any, place: Place) -> str:
    own = _text(value)
    return place.prefix + own if own else place.id


def _kind(record: Mapping[str, Any]) -> str:
    return "benign_twin" if record.get("kind") == "benign_twin" else "red_team"


def _split(record: Mapping[str, Any], place: Place, trained: str) -> str:
    """`held_out`, or the training split this kind of row belongs to."""
    said = record.get("split")
    if said in ("held_out", "sft", "dpo"):  # a tuple: the field may hold anything, a list too
        return str(said)
    found = split_word(said) if isinstance(said, str) else place.split
    if found == "held_out":
        return "held_out"
    return trained


def split_word(name: str) -> str:
    """What a split's or file's name says: `held_out`, `train`, or nothing."""
    words = set(
        name.lower().replace("held_out", "heldout").replace("-", "_").replace("/", "_").replace(".", "_").split("_")
    )
    if words & {"test", "tests", "eval", "evaluation", "validation", "valid", "val", "dev", "heldout"}:
        return "held_out"
    return "train" if words & {"train", "training"} else ""
