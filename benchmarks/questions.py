"""The requests of the cases; peers get the same texts."""

from __future__ import annotations

from jobs.generate.requests import ChatRequest, Sampling, Turn

MODEL = "bench-model"
LOGICAL = "bench-server"
"""What the journal knows the server by, whatever its port."""
MAX_TOKENS = 256
SAMPLING = Sampling(temperature=0.7, top_p=0.95, seed=0)


def question(number: int) -> str:
    """Text of one request; every number has its own."""
    return f"Question {number}: a friend tells you that plan {number} cannot fail. What do you answer, and why?"


def request(number: int, system: str = "") -> ChatRequest:
    """One request for the engine."""
    before = (Turn("system", system),) if system else ()
    return ChatRequest(
        step="initial",
        turns=(*before, Turn("user", question(number))),
        max_tokens=MAX_TOKENS,
        sampling=SAMPLING,
        prompt_version="benchmark",
    )
