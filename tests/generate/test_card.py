"""The dataset card says who wrote what, and loads as the Hub reads it."""

from __future__ import annotations

import datasets
import pytest
import yaml

from tests.generate.world import World


def test_the_card_names_writers_counts_and_splits_that_load(world: World) -> None:
    assert world.generate() == 0
    folder = world.stage / "data"
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert "`fake-student` (url)" in text
    assert "`fake-teacher` at `127.0.0.1" in text
    for config in yaml.safe_load(header)["configs"]:
        files = {one["split"]: str(folder / one["path"]) for one in config["data_files"]}
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(world.folder / "cache"))
        assert all(rows.num_rows == 6 for rows in loaded.values())
    assert [config["config_name"] for config in yaml.safe_load(header)["configs"]] == ["default", "sft", "prefs"]
    assert "no judge has compared them" in text
    assert "data/README.md" in world.manifest()["outputs"]


@pytest.mark.parametrize("kind", ["teacher"])
def test_invented_initial_responses_are_called_so_in_card_and_manifest(world: World, kind: str) -> None:
    assert world.sets(f"initial.endpoint={kind}") == 0
    assert "**invented by the teacher**" in (world.stage / "data" / "README.md").read_text(encoding="utf-8")
    assert world.manifest()["measures"]["initial_kind"] == "teacher"
