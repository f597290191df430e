"""How a training stage runs on this machine: every "auto" of the recipe resolved, once, before anything is loaded.

    execution.json: {"precision": "bf16", "micro_batch_tokens": 16384, "gradient_checkpointing": false, ...}

It is written when a stage begins, and again into every checkpoint: where memory ran out, passes are smaller from then
on. A resume reads it from the checkpoint it goes on from, so that the same rows go through the model together and a
resumed run is equal to the bit; the stage's own is for a start from the beginning, and for checkpoints without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jobs.common.console import say
from jobs.common.errors import ConfigError, DataError
from jobs.common.fitting import fit_to
from jobs.common.jsonl import read_json, write_json
from jobs.common.memory import GIB, Load
from jobs.common.model_shape import ModelShape
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.speed import Amount, compile_pays, peak_flops
from jobs.common.stage import OpenStage, RunContext
from jobs.train.checkpoints import newest_whole
from jobs.train.compiling import can_compile
from jobs.train.device import Device, choose_precision
from jobs.train.divided import compiled_line, dividing, parts, processes
from jobs.train.faults import in_four_bits
from jobs.train.room import memory_bytes
from jobs.train.together import is_first

FILE = "execution.json"
ASKED = ("precision", "micro_batch_tokens", "gradient_checkpointing")
"""Settings whose `auto` is resolved here."""


@dataclass(frozen=True)
class Execution:
    """How a stage runs."""

    precision: Literal["bf16", "fp32"]
    """Of frozen weights and matrix products."""
    micro_batch_tokens: int
    """Most positions in one forward pass."""
    gradient_checkpointing: bool
    attention: str
    """For `from_pretrained(attn_implementation=...)`."""
    compiled: bool
    """Whether decoder layers go through torch.compile."""
    device: str
    """The device's name."""

    @property
    def short(self) -> str:
        """For people, in a few words."""
        extras = [name for name in ("gradient_checkpointing", "compiled") if getattr(self, name)]
        return ", ".join([self.precision, f"{self.micro_batch_tokens} tokens at once", *extras]).replace("_", " ")

    @property
    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def choose_execution(
    stage: OpenStage, settings: SftSettings | DpoSettings, shape: ModelShape, device: Device, rows: Any
) -> Execution:
    """The execution of the checkpoint this stage goes on from, or the one it began with, or a new one, written down.

    Args:
        stage: its folder and its checkpoints hold execution.json.
        settings: the section's; what it names is taken, what is `auto` is chosen.
        shape: the student's.
        device: where training runs.
        rows: the stage's rows, measured (`Fitted`): a forward pass must hold the longest.

    Raises:
        ConfigError: the model does not fit the device's memory, or the stage began compiled where that is not possible.
        DataError: execution.json is damaged.
    """
    from jobs.train.engine.attention import choose_attention

    asked = asked_of(settings)
    for before, execution in _begun(stage):
        if before == asked and execution.device == device.name:
            choose_attention(device.kind, execution.precision)  # registers it
            return _runnable(stage, execution)
    begun = next(_begun(stage), None)
    precision = _kept(stage, begun[1], device) if begun else choose_precision(settings.precision, device)
    load = Load(shape, stage.context.recipe.sft.lora.rank, rows.longest, settings.quantization, precision)
    load = replace(load, device=device.kind, divided=parts())  # type: ignore[arg-type]
    amount, peak = Amount(len(rows.rows), rows.tokens), peak_flops(device.name, load)
    pays = compile_pays(stage.plan.name, settings, load, amount, peak and peak * processes())  # type: ignore[arg-type]
    load = replace(load, compiled=pays and can_compile() and not dividing())
    tokens, checkpointing = _passes(stage, settings, load)
    attention = choose_attention(device.kind, precision)
    execution = Execution(precision, tokens, checkpointing, attention, load.compiled, device.name)
    write_execution(stage.folder, execution, asked)
    return execution


def asked_of(settings: SftSettings | DpoSettings) -> dict[str, Any]:
    """What the recipe says of the settings that may be `auto`."""
    return {name: getattr(settings, name) for name in ASKED}


def _runnable(stage: OpenStage, execution: Execution) -> Execution:
    if execution.compiled and not can_compile():
        raise ConfigError(_no_compiler_line(stage))
    if execution.compiled and dividing():
        raise ConfigError(compiled_line(stage.context, stage.plan.name))
    return execution


def _kept(stage: OpenStage, begun: Execution, device: Device) -> Literal["bf16", "fp32"]:
    """The precision a stage began in; another device keeps it, and is named."""
    if begun.device != device.name:
        say(
            f"{stage.plan.name}: began on {begun.device}, goes on on {device.name}; "
            "the result differs from an undisturbed run by rounding"
        )
    return begun.precision


def write_execution(folder: Path, execution: Execution, asked: dict[str, Any]) -> None:
    """Write it down in a stage's folder or a checkpoint's, with what the recipe said (`asked_of`)."""
    write_json(folder / FILE, asdict(execution) | {"asked": asked})


def _passes(stage: OpenStage, settings: SftSettings | DpoSettings, load: Load) -> tuple[int, bool]:
    fixed, wanted = settings.micro_batch_tokens, settings.gradient_checkpointing
    if fixed != "auto" and wanted != "auto":
        return fixed, wanted
    room = memory_bytes(load.device)
    fitting = fit_to(load, room, (False, True) if wanted == "auto" else (wanted,))
    if fitting is None:
        section = stage.plan.name
        raise ConfigError(
            f"{section}: {load.shape.parameters / 1e9:.1f} billion parameters and a row of {load.micro_batch_tokens} "
            f"tokens do not fit the {room / GIB:.1f} GiB of this {load.device}. "
            f"Run: {_smaller(stage.context, section, settings)}"
        )
    tokens, checkpointing = fitting
    return (tokens if fixed == "auto" else fixed), (checkpointing if wanted == "auto" else wanted)


def _smaller(context: RunContext, section: str, settings: SftSettings | DpoSettings) -> str:
    """What to run to make the stage take less memory."""
    if settings.gradient_checkpointing is False:
        return context.command(section, f"--set {section}.gradient_checkpointing=auto")  # outside the fingerprint
    if settings.quantization == "none" and not dividing():
        return in_four_bits(context, section)
    return context.command(section, "--redo", f"--set {section}.max_length={max(1, settings.max_length // 2)}")


def _no_compiler_line(stage: OpenStage) -> str:
    section = stage.plan.name
    return (
        f"{stage.folder / FILE}: {section} began with compiled layers, and this machine has no Triton, C compiler or "
        f"Python headers. Run: apt-get install gcc libpython3-dev, then the same command; or begin anew: "
        f"{stage.context.command(section, '--redo')}"
    )


def _begun(stage: OpenStage) -> Iterator[tuple[dict[str, Any], Execution]]:
    """What was asked and what it came to: in the checkpoint to go on from, then in the stage's folder."""
    checkpoint = newest_whole(stage.folder) if is_first() else None  # the others are told
    for path in ([checkpoint / FILE] if checkpoint else []) + [stage.folder / FILE]:
        if not path.exists():
            continue
        found = read_json(path)
        try:
            yield found.pop("asked"), Execution(**found)
        except (KeyError, TypeError, AttributeError) as error:
            again = stage.context.command(stage.plan.name, "--redo")
            raise DataError(f"{path} is damaged ({error}). Run: {again}") from error
