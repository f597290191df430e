"""Records of what is generated and trained, in the order a run writes them.

RedTeamPrompt → Revision → kept or Dropped → SftExample | PreferencePair, or HeldOutPrompt (jobs/common/held_out.py).
prompts.jsonl holds every prompt with its split and is the split ledger: no row of another split may be trained.
Each carries its own id, its principle's id, the model that wrote it and the version of our prompts.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Split = Literal["held_out", "sft", "dpo"]
Kind = Literal["red_team", "benign_twin"]
"""`red_team`: the user wants what goes against the principle. `benign_twin`: nearly the same words, no harm in it."""


class Record(BaseModel):
    """What every record has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """Stable id: the principle's id and the first 10 hex digits of the prompt's SHA-256."""
    principle_id: str
    """Id of the principle in the constitution, such as `ubuntu`."""


class RedTeamPrompt(Record):
    """A user message that strains one principle, with the split it was frozen into."""

    prompt: str
    """The user message."""
    split: Split
    """`held_out` (no training stage may see it), `sft` or `dpo`."""
    model: str
    """Model that wrote the prompt."""
    prompt_version: str
    """Version of the wording that asked for it."""
    sample_index: int
    """Which repeat of the same request produced it, from 0."""
    kind: Kind = "red_team"
    """Red-team prompt or benign twin."""
    twin_of: str = ""
    """Id of the red-team prompt a benign twin belongs to; empty for others."""
    language: str = ""
    """BCP 47 code of the language asked for; empty where none was."""
    brief: dict[str, str] = {}
    """What was asked for: topic, task, length, register, format, direction, context; empty where nothing was."""
    cluster: str = ""
    """Near-duplicate cluster: id of its first prompt. A cluster is never divided between splits."""


class Revision(Record):
    """One whole chain: initial response, critique and revision of it."""

    prompt: str
    """The red-team prompt."""
    split: Split
    """Split of the red-team prompt."""
    initial_response: str
    """First answer, written by `initial_model`."""
    critique_request: str
    """What the teacher was asked for the critique."""
    critique: str
    """The teacher's critique of the initial response."""
    revision_request: str
    """What the teacher was asked for the revision."""
    revision: str
    """The rewritten answer."""
    initial_model: str
    """Model that wrote the initial response."""
    model: str
    """Teacher that wrote critique and revision."""
    prompt_version: str
    """Version of the wording around the requests."""
    kind: Kind = "red_team"
    """Kind of the prompt."""
    language: str = ""
    """Language of the prompt."""
    rounds: int = 1
    """Rounds of critique and revision behind the revision."""
    preference_probability: float | None = None
    """The judge's probability that the revision is better than the initial response; None where no judge looked."""


class Comparison(Record):
    """What the judge said about two answers to one prompt, each shown first once."""

    first: str
    """Name of one answer, such as `revision-1`."""
    second: str
    """Name of the other, such as `initial-0`."""
    first_probability: float | None
    """Probability that `first` is better, mean of both orders in log-odds; None where no verdict could be read."""
    shown_first: float | None
    """The same, from the request that showed `first` first."""
    shown_second: float | None
    """The same, from the request that showed `first` second."""
    verdict: Literal["first", "second", "tie", "flipped", "unreadable"]
    """Which one won in both orders; `flipped` where the orders contradict each other."""
    method: Literal["both_orders", "alone"] = "both_orders"
    """`alone`: each answer was graded by itself, so that no order could matter."""
    model: str
    """Judge."""
    prompt_version: str
    """Version of the judge's wording."""


class Dropped(Record):
    """A record a filter removed, whole, with the reason."""

    drop_reason: str
    """One word from the stage's list, such as `unchanged` or `meta_talk`."""
    detail: str
    """What the filter saw."""
    record: dict[str, Any]
    """The removed record as it was."""


class Failure(Record):
    """A request that never gave a usable reply."""

    step: str
    """Step of the request, such as `critique`."""
    reason: str
    """One word, such as `content_policy` or `empty`."""
    detail: str
    """What went wrong, in one line."""
    request: dict[str, Any] = {}
    """What was asked, as it was sent: messages, model, limits; never a key or a header."""
    status: int | None = None
    """HTTP status of the last answer, None where there was none."""
    body: str = ""
    """What the endpoint said: at most 2,000 characters, without keys."""
    advice: str = ""
    """What can be done about it, in one line."""


class SftExample(Record):
    """One supervised example: the prompt is context, only the completion is trained."""

    prompt: str
    """User message."""
    completion: str
    """Assistant message to learn: the revision."""
    model: str
    """Model that wrote the completion."""
    prompt_version: str
    """Version of the wording that led to it."""
    kind: Kind = "red_team"
    """Kind of the prompt."""
    language: str = ""
    """Language of the prompt."""


class PreferencePair(Record):
    """One preference pair: two answers to one prompt, of which the chosen one follows the principle better."""

    prompt: str
    """User message."""
    chosen: str
    """Preferred answer."""
    rejected: str
    """The other side."""
    model: str
    """Model that wrote the chosen side."""
    rejected_model: str
    """Model that wrote the rejected side."""
    prompt_version: str
    """Version of the wording that led to it."""
    kind: Kind = "red_team"
    """Kind of the prompt."""
    language: str = ""
    """Language of the prompt."""
    preference_probability: float | None = None
    """The judge's probability that chosen is better than rejected; None where no judge looked."""
    chosen_by: Literal["revision", "rewrite", "imported"] = "revision"
    """`rewrite`: the revision, rewritten for length or opening."""
    rejected_by: Literal["student", "minimal_edit", "imported"] = "student"
    """`minimal_edit`: the chosen side with as little changed as makes it break the principle."""


def record_id(principle_id: str, prompt: str) -> str:
    """Id of everything that descends from one prompt; the same prompt always has the same id."""
    return f"{principle_id}-{hashlib.sha256(prompt.encode()).hexdigest()[:10]}"
