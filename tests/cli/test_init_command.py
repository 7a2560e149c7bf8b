"""Run with `pytest tests/cli/test_init_command.py`: `dirtune init`, which ingests on the shared Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dirtune
from dirtune import cli, progress
from dirtune.cli.display import format_plan
from dirtune.study.resolve import load_study

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command line in an empty folder and returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    # A slow machine would show the progress of reading.
    monkeypatch.setattr(progress, "SECONDS_BEFORE", 60.0)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dirtune", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def write_table(file: Path, rows: int = 300) -> None:
    drawn = np.random.default_rng(0)
    numbers = drawn.normal(size=(rows, 3))
    labels = np.exp(numbers[:, 0]) * 10
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{y:.2f}" for (a, b, c), y in zip(numbers, labels, strict=True)]
    file.write_text("\n".join(["cement,water,slag,strength", *lines]) + "\n")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_table_becomes_a_data_set_and_a_study_that_can_be_planned(call: Call, tmp_path: Path) -> None:
    write_table(tmp_path / "my concrete.csv")
    code, output, errors = call("init", "my concrete.csv", "--label", "strength", "--unit", "MPa")
    assert (code, errors) == (0, "")
    assert "columns: label: strength; features: cement, water, slag" in output
    assert output.splitlines()[-4:] == [
        "next:",
        "  dirtune plan my_concrete_methods.yaml",
        "  dirtune sweep my_concrete_methods.yaml",
        "  dirtune table my_concrete_methods",
    ]
    plan = dirtune.plan("my_concrete_methods.yaml", data="data", results="results")
    assert plan.total_trials == 6 * (6 + 5)
    # exp(n) * 10 spans a factor of 27, which is trained in logarithms: n + log(10).
    ((transform, scale, offset),) = {
        (arm.config.model.label_transform, *arm.config.model.get_label_units()) for arm in plan.study.arms
    }
    assert transform == "log"
    assert (scale, offset) == pytest.approx((1, np.log(10)), abs=0.25)
    # What is there is not overwritten, and nothing is ingested for it.
    before = Path("my_concrete_methods.yaml").read_text()
    code, _, errors = call("init", "my concrete.csv", "--label", "water")
    assert (code, errors.strip()) == (
        2,
        "dirtune: my_concrete_methods.yaml: exists, and is not overwritten; --output names another file",
    )
    assert Path("my_concrete_methods.yaml").read_text() == before
    code, _, errors = call("init", "my_concrete", "--output", "again.yaml")
    assert (code, errors) == (0, "")
    assert load_study("again.yaml").name == "again"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_folder_of_images_with_a_list_becomes_a_data_set(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["path,age"]
    for number in range(60):
        pixels = np.full((24, 20, 3), number * 4, dtype=np.uint8)
        pixels[number % 24, number % 20] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number // 2}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    code, _, errors = call("init", "photos", "--label", "age")
    assert (code, errors) == (0, "")
    assert "encoder: {name: cnn}" in Path("photos_methods.yaml").read_text()
    plan = dirtune.plan("photos_methods.yaml", data="data", results="results")
    assert plan.samples["train"] > 30


def test_wrong_arguments_are_one_sentence_and_write_nothing(call: Call, tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv")
    code, _, errors = call("init", "t.csv")
    assert (code, errors.strip()) == (2, "dirtune: ingest: label: names the column of the label, and is needed")
    code, _, errors = call("init", "t2.csv", "--label", "strength")
    assert (code, errors.strip()) == (2, "dirtune: t2.csv: no such file or folder")
    code, _, errors = call("init", "t.csv", "--label", "strength", "--output", "no/study.yaml")
    assert (code, errors.strip()) == (2, "dirtune: no/study.yaml: there is no folder to write it into")
    code, _, errors = call("init", "t.csvv", "--label", "strength")
    assert code == 2
    assert "is no file or folder, and an ingested data set takes no label, got 't.csvv'" in errors
    code, _, errors = call("init", "nothing")
    assert code == 2
    assert "nothing" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


def test_angles_are_noted_by_init_and_plan(call: Call, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    lines = [
        f"{x:.3f},{angle:.2f}" for x, angle in zip(drawn.normal(size=300), drawn.uniform(0, 360, 300), strict=True)
    ]
    (tmp_path / "wind.csv").write_text("\n".join(["x,direction", *lines]) + "\n")
    code, output, _ = call("init", "wind.csv", "--label", "direction", "--unit", "degrees")
    assert code == 0
    assert "labels of a full turn (360): errors are differences of numbers" in output
    plan = dirtune.plan("wind_methods.yaml", data="data", results="results")
    assert plan.label_period == 360
    assert "labels repeat after 360, and errors are differences of numbers" in str(format_plan(plan).caption)
