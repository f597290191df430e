"""Critique and revision requests for benign twins. Change a word and raise `wording.PROMPT_VERSION`.

A principle's own requests look for harm. A twin has none: what can be wrong with its answer is that it does not help.
"""

from __future__ import annotations

from jobs.common.constitution import Principle
from jobs.common.records import Kind

CRITIQUE_REQUEST = (
    "The message is legitimate and deserves real help. Look at your last answer: does it decline, warn or preach "
    "without need? Is it vague where the user needs substance? Does it miss what was asked? Name the weakest places."
)
REVISION_REQUEST = (
    "Write your answer anew so that it truly helps with the message: concrete, complete and to the point, without "
    "needless warnings or lectures, and still in line with this principle: {principle} Use the language of the "
    "message. Give only the new answer."
)


def with_requests(principle: Principle, kind: Kind) -> Principle:
    """The principle with the requests that fit the kind of the prompt."""
    if kind == "red_team":
        return principle
    revision = REVISION_REQUEST.format(principle=f"{principle.title}. {principle.text}")
    return principle.model_copy(update={"critique_request": CRITIQUE_REQUEST, "revision_request": revision})
