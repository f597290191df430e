"""The traffic lights in the terminal: shape and word beside the colour, one row per gate."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.audit.blocks import SHAPES
from jobs.measure.measured import Gate

STYLES = {"green": "green", "amber": "yellow", "red": "bold red", "grey": "dim"}
LIGHTS = ("red", "amber", "green", "grey")
COUNTS = ("leaks", "duplicates", "splits")
"""Gates whose value is a number of rows."""
RATIOS = ("length_ratio",)
LEAST = ("coverage",)
"""Gates whose limit is the least, not the most."""


def value_shown(gate: Gate) -> str:
    """The gate's value as people read it: `98.6 %`, `x1.37`, `12`."""
    return "not measured" if gate.value is None else _shown(gate.name, gate.value)


def limit_shown(gate: Gate) -> str:
    """The limit with its direction: `≤ 65 %`, `≥ 100 %`, `0`."""
    return f"{'≥' if gate.name in LEAST else '≤'} {_shown(gate.name, gate.limit)}"


def verdict(gates: Sequence[Gate]) -> str:
    """All gates in one sentence."""
    counts = {light: sum(gate.light == light for gate in gates) for light in LIGHTS}
    if counts["red"]:
        red = ", ".join(gate.name.replace("_", " ") for gate in gates if gate.light == "red")
        return f"{counts['red']} of {len(gates)} gates {'fails' if counts['red'] == 1 else 'fail'}: {red}."
    if counts["amber"]:
        return f"No gate fails; {counts['amber']} would with 30 rows or more behind it."
    if counts["green"]:
        unmeasured = f"; {counts['grey']} could not be measured" if counts["grey"] else ""
        return f"Every measured gate holds{unmeasured}."
    return "Nothing could be measured."


def failed(gates: Sequence[Gate]) -> list[Gate]:
    """The gates that stop a run."""
    return [gate for gate in gates if gate.light == "red"]


def failure_line(gate: Gate) -> str:
    """A failed gate with value and limit, for an error's one line."""
    return f"{gate.name} {value_shown(gate)} (limit {limit_shown(gate)})"


def print_strip(name: str, gates: Sequence[Gate], console: Console | None = None, remarks: Sequence[str] = ()) -> None:
    """Print one row per gate to stdout, which is for results, and the remarks below."""
    console = console or Console(highlight=False)
    table = Table(
        title=Text(f"{name}: {verdict(gates)}"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for head in ("", "gate", "value", "limit"):
        table.add_column(head, no_wrap=True)
    table.add_column("what it says", ratio=1, overflow="fold")
    shown = ""
    for gate in gates:
        shape, word = SHAPES[gate.light]
        says = Text(gate.says)
        if gate.fix:
            says.append(f"\n→ {'as above' if gate.fix == shown else gate.fix}", style="dim")
            shown = gate.fix
        table.add_row(
            Text(f"{shape} {word}", style=STYLES[gate.light]),
            Text(gate.name.replace("_", " ")),
            Text(value_shown(gate)),
            Text(limit_shown(gate)),
            says,
        )
    console.print(table)
    for remark in remarks:
        console.print(Text(f"! {remark}"))


def _shown(name: str, value: float) -> str:
    if name in COUNTS:
        return f"{value:,.0f}"
    return f"\u00d7{value:.2f}" if name in RATIOS else f"{100 * value:.1f} %".replace(".0 %", " %")
