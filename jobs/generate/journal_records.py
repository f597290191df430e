"""The records of the journal: replies, attempts, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Reply:
    """One reply of an endpoint, as it came; a field of the wrong type is a TypeError.

    No pydantic model, which takes four times as long: a redone stage reads all of them.
    """

    text: str
    """Content of the assistant message; JSON where a schema was asked for."""
    finish_reason: str
    """`stop`, `length`, `content_filter` or whatever else the endpoint said."""
    prompt_tokens: int
    """Tokens of the request, as the endpoint counts them."""
    reply_tokens: int
    """Tokens of the reply, as the endpoint counts them."""
    model: str
    """Model name the endpoint reports."""
    batch: bool = False
    """Whether it came from a batch, at the batch price."""
    choice: dict[str, float] | None = None
    """Probability of each of the request's choices, together 1; None where it had none or none could be read."""

    def __post_init__(self) -> None:
        fits = (
            type(self.text) is type(self.finish_reason) is type(self.model) is str
            and type(self.prompt_tokens) is type(self.reply_tokens) is int
            and type(self.batch) is bool
            and (self.choice is None or set(map(type, self.choice.values())) == {float})
        )
        if not fits:
            raise TypeError(f"not a reply: {self!r}")


@dataclass(frozen=True)
class Attempt:
    """What is about to be sent; it is in the journal before it is on the wire."""

    key: str
    """Key of the request: 64 lower-case hex digits."""
    run: str
    """Name of the run that pays; empty outside a run."""
    endpoint: str
    """Logical endpoint."""
    model: str
    """Model asked."""
    step: str
    """Step of the stage it belongs to."""
    prompt_tokens: int
    """Most tokens the request can have."""
    reply_tokens: int
    """Most tokens the reply can have."""
    batch: bool = False
    """Whether it is sent in a batch."""


class Payer(NamedTuple):
    """Whose money a reply cost, and at which price."""

    run: str
    endpoint: str
    model: str
    batch: bool


@dataclass(frozen=True)
class Spent:
    """What was paid for replies that came."""

    endpoint: str
    """Logical endpoint."""
    model: str
    """Model asked."""
    batch: bool
    """Whether at the batch price."""
    requests: int
    """Replies."""
    prompt_tokens: int
    """Tokens of their requests, as the endpoint counted them."""
    reply_tokens: int
    """Tokens of the replies, as the endpoint counted them."""


@dataclass(frozen=True)
class OpenAttempt:
    """An attempt without a reply that may have been charged, or that waits in a batch."""

    id: str
    """As `Journal.begin` gave it."""
    run: str
    """Run that pays."""
    key: str
    """Key of the request."""
    endpoint: str
    """Logical endpoint."""
    model: str
    """Model asked."""
    step: str
    """Step of the stage."""
    prompt_tokens: int
    """Most tokens the request can have."""
    reply_tokens: int
    """Most tokens the reply can have."""
    batch: bool
    """Whether it was to be sent in a batch."""
    at: float
    """When it was sent, in seconds since the epoch."""
    reason: str
    """Why its reply will not come; `in flight` where the process ended before it knew."""
    batch_id: str
    """The batch it waits in; empty where none."""


def payer_of(sent: Attempt | OpenAttempt) -> Payer:
    """Who pays for an attempt."""
    return Payer(sent.run, sent.endpoint, sent.model, sent.batch)
