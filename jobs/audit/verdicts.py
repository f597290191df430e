"""The one sentence a section opens with: what its worst gate says, or that nothing is wrong."""

from __future__ import annotations

from jobs.audit.blocks import View


def first_sentence(view: View, names: tuple[str, ...], fine: str) -> str:
    """What the worst of these gates says where it is red or amber, else `fine`."""
    for light in ("red", "amber"):
        said = [sentence(gate.says) for gate in view.gates if gate.name in names and gate.light == light]
        if said:
            return " ".join(said)
    return fine


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip()
    if not text:
        return text
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?…" else ".")
