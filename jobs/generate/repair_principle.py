"""The principle a row is asked about, also where its source named none."""

from __future__ import annotations

from jobs.common.constitution import Constitution, Principle

STAND_IN = "imported"


def principle_of(constitution: Constitution, principle_id: str) -> Principle:
    """The principle; the constitution as a whole stands in for one it does not have, such as an import's."""
    known = next((one for one in constitution.principles if one.id == principle_id), None)
    return known or Principle(
        id=STAND_IN,
        title=constitution.title,
        text=constitution.description,
        category=STAND_IN,
        source=constitution.name,
    )
