"""Pictures of a stage's curves."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jobs.train.curves import Story, draw_curves, smoothed

PRINCIPLES = {"dignity": 0.9, "ubuntu": 0.5, "a_principle_whose_name_is_longer_than_its_place": 0.7}


def sft_line(step: int, loss: float | None = None) -> dict[str, float]:
    return {"step": step, "loss": 2 - step / 100 if loss is None else loss, "learning_rate": 1e-4}


def dpo_line(step: int) -> dict[str, float]:
    return {
        "step": step, "loss": 0.7, "rewards/margins": step / 10, "rewards/accuracies": 0.5,
        "logps/chosen": -200.0 - step, "logps/rejected": -210.0 - step,
    }  # fmt: skip


def held_out(step: int) -> dict[str, float]:
    found = {f"held_out/{name}": value for name, value in dpo_line(step).items() if name != "step"}
    for principle, accuracy in PRINCIPLES.items():
        found |= {f"held_out/accuracy/{principle}": accuracy, f"held_out/margin/{principle}": step / 20}
    return {"step": step} | found


def stage(run: Path, name: str, lines: list[dict[str, float]]) -> Path:
    (run / name).mkdir(parents=True, exist_ok=True)
    (run / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run / name


def texts(svg: Path) -> list[str]:
    found = ElementTree.parse(svg).getroot().iter("{http://www.w3.org/2000/svg}text")
    return ["".join(one.itertext()).strip() for one in found]


def width_of(png: Path) -> int:
    head = png.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return int(struct.unpack(">I", head[16:20])[0])


def test_sft_curves_say_whose_they_are_and_what_their_axes_mean(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [sft_line(step) for step in range(1, 101)] + [{"step": 100, "held_out/loss": 1.5}]

    svg, png = draw_curves(stage(tmp_path, "sft", lines), "demo · sft · Tiny")

    assert [svg.name, png.name, svg.parent] == ["sft-curves.svg", "sft-curves.png", tmp_path]
    found = texts(svg)
    for text in ("demo · sft · Tiny", "optimizer step", "nats per scored token", "training", "held out"):
        assert text in found
    assert "thick lines: mean of 5 steps" in found
    assert width_of(png) >= 900
    assert capfd.readouterr() == ("", "")


def test_dpo_curves_show_every_principle_beside_what_length_gets_right(tmp_path: Path) -> None:
    lines = [dpo_line(1), dpo_line(2), held_out(2), dpo_line(3), held_out(3)]

    svg, png = draw_curves(stage(tmp_path, "dpo", lines), "demo · dpo · Tiny", length_only=0.6)

    found = texts(svg)
    for text in ("Loss", "Reward margin", "Accuracy", "Log-probability of the answers", "length alone, held out"):
        assert text in found
    assert [text for text in found if text in PRINCIPLES] == ["ubuntu", "dignity"], "the worst is named first"
    assert "a_principle_whose_name_is_lon…" in found
    assert {"chosen, training", "chosen, held out", "rejected, training", "rejected, held out"} <= set(found)
    assert width_of(png) >= 900


def test_dpo_without_held_out_pairs_has_no_principles(tmp_path: Path) -> None:
    svg, _ = draw_curves(stage(tmp_path, "dpo", [dpo_line(1), dpo_line(2)]), "demo · dpo · Tiny")

    assert "Accuracy by principle, held out" not in texts(svg)
    assert "length alone, held out" not in texts(svg)


def test_steps_of_a_killed_process_that_were_taken_again_are_not_drawn(tmp_path: Path) -> None:
    killed = [sft_line(1), sft_line(2), sft_line(3, 99.0), sft_line(2), sft_line(3), sft_line(4)]
    undisturbed = [sft_line(step) for step in range(1, 5)]

    first, _ = draw_curves(stage(tmp_path / "killed", "sft", killed), "demo")
    second, _ = draw_curves(stage(tmp_path / "undisturbed", "sft", undisturbed), "demo")

    assert first.read_bytes() == second.read_bytes()


def test_the_policy_that_is_still_the_reference_has_no_accuracy() -> None:
    story = Story([held_out(0), dpo_line(1), held_out(1)])

    assert story.points("held_out/rewards/accuracies") == ([1], [0.5])
    assert story.points("held_out/accuracy/ubuntu") == ([1], [0.5])
    assert story.points("held_out/loss")[0] == [0, 1]


def test_nothing_logged_is_nothing_drawn(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()

    assert draw_curves(tmp_path / "sft", "demo") == []
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]


def test_one_step_and_a_loss_that_is_no_number_are_drawn(tmp_path: Path) -> None:
    for number, lines in enumerate([[sft_line(1)], [sft_line(1), sft_line(2, float("nan"))]]):
        assert len(draw_curves(stage(tmp_path / str(number), "sft", lines), "demo")) == 2


def test_a_thick_line_is_a_mean_around_each_step() -> None:
    assert smoothed([0.0, 3.0, 6.0, 9.0], 1) == [1.5, 3.0, 6.0, 7.5]
    assert smoothed([0.0, 3.0], 0) == [0.0, 3.0]
