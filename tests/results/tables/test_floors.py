"""Run with `pytest tests/results/tables/test_floors.py`: floors below the arms, and words of trainings that are not sound."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dirtune
from dirtune.metrics import compute_region_metrics
from dirtune.results.analysis import soundness
from dirtune.results.analysis.status import status
from dirtune.results.records.compaction import compact_study
from dirtune.results.records.schema import SplitPredictions, TrialRecord
from dirtune.results.records.store import write_record
from dirtune.results.records.studies import open_study
from dirtune.results.tables.check import check
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.floors import describe_caveats
from dirtune.results.tables.render.formats import STYLES, render
from dirtune.results.tables.table import make_arm_table
from dirtune.reweighting.density import label_bins, shot_regions
from tests.results.predicted import LABEL, RULES, make_crossed_predictions, make_manifest, make_trial
from tests.results.record_factory import write_study

FALLING = [4.0, 3.0, 2.0, 1.0]
FLAT = [4.0, 1.0, 1.1, 1.0]


def trial(arm: str, seed: int, shift: float, curve: list[float]) -> TrialRecord:
    """A trial with predictions, whose error is smaller with a smaller shift."""
    made = make_trial(arm, seed, "counts", make_crossed_predictions(arm, seed, shift))
    best = int(np.argmin(curve)) + 1
    row = {**made.trial, "epochs_run": len(curve), "best_epoch": best}
    return replace(made, trial=row, epochs=[{"val/all/mae": value} for value in curve])


def floor(name: str, constant: float | None) -> TrialRecord:
    """A constant prediction, whatever its name; None: a hundredth off the label, which no arm reaches."""
    per_bin = shot_regions(make_manifest().train_counts, RULES["counts"])
    predictions, metrics = {}, []
    for split, one in make_crossed_predictions("vanilla", 0, 0.0).items():
        values = one.labels + 0.01 if constant is None else np.full(len(one.labels), constant)
        predictions[split] = SplitPredictions(sample_ids=one.sample_ids, labels=one.labels, predictions=values)
        bins = label_bins(one.labels, LABEL)
        rows = compute_region_metrics(one.labels, values, per_bin[bins], bins=bins)
        metrics += [{"split": split, "selection": "best_val", **row} for row in rows]
    row = {
        "study": "study",
        "arm": name,
        "cell": "{}",
        "trial_id": f"floor-{name}",
        "role": "floor",
        "status": "complete",
        "data_fingerprint": make_manifest().fingerprint,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    config = {"data": {"shot_rule": "counts"}, "floor": {"rows": 300}}
    return TrialRecord(trial=row, config=config, metrics=metrics, predictions=predictions)


def write(
    root: Path, *, curve: list[float] = FLAT, floors: dict[str, float | None] | None = None, trained: int = 6
) -> Path:
    """A study in which conr helps, with floors by their constants."""
    shifts = {"vanilla": 0.0, "conr": -0.12}
    records = [trial(arm, seed, shift, curve) for arm, shift in shifts.items() for seed in range(trained)]
    keys: dict[str, Any] = {
        "arms": list(shifts),
        "reference": "vanilla",
        "claim": {"metric": "mae", "region": "all"},
        "seeds": list(range(6)),
        "configs": {arm: {"data": {"shot_rule": "counts"}} for arm in shifts},
    }
    study = write_study(root, records, **keys)
    study.write("manifest.json", make_manifest().model_dump_json().encode())
    for name, constant in (floors or {}).items():
        folder = study.get_folder("floors")
        folder.write("manifest.json", make_manifest().model_dump_json().encode())
        write_record(folder, floor(name, constant))
    return root


def word(root: Path) -> str:
    (row,) = (row for row in make_arm_table(root, "study").rows if row.arm == "conr")
    return str(row.cells["all"].verdict)


@pytest.fixture(scope="module")
def floored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both arms are better than the median, far from the labels, and neither is converged."""
    return write(tmp_path_factory.mktemp("floored"), curve=FALLING, floors={"median": 50.0, "ridge": 40.0})


# --- Words


def test_a_word_of_sound_trainings_is_bare(tmp_path: Path) -> None:
    assert word(write(tmp_path, floors={"median": 50.0})) == "helps"


def test_a_word_of_trainings_that_still_improve_says_so(floored: Path) -> None:
    assert word(floored) == "helps, but: not converged (12 of 12 trials)"


def test_a_word_of_trainings_of_three_epochs_says_that_nobody_can_judge_them(tmp_path: Path) -> None:
    root = write(tmp_path, curve=FALLING[:3], floors={"median": 50.0})
    assert word(root) == "helps, but: too few epochs to judge convergence (12 of 12 trials)"
    text = "Fewer than 4 epochs, too few to judge convergence: vanilla (6 of 6 trials), conr (6 of 6 trials)."
    assert make_arm_table(root, "study").cautions == (text,)


@pytest.mark.parametrize(
    ("arm", "reference", "late", "short", "expected"),
    [
        ([], [], 0, 0, ()),
        (["median", "ridge"], ["median", "ridge"], 0, 0, ("both worse than the median",)),
        (["ridge"], ["median", "ridge"], 0, 0, ("both worse than ridge",)),
        (["boosting_weighted"], [], 0, 0, ("worse than boosting weighted",)),
        ([], ["mean"], 2, 0, ("the reference is worse than the mean", "not converged (2 of 8 trials)")),
        ([], [], 0, 8, ("too few epochs to judge convergence (8 of 8 trials)",)),
    ],
)
def test_caveats_name_the_floor_that_is_the_least_to_beat(
    arm: list[str], reference: list[str], late: int, short: int, expected: tuple[str, ...]
) -> None:
    assert describe_caveats(arm, reference, late=late, short=short, trials=8) == expected


@pytest.mark.parametrize("style", STYLES)
def test_no_format_has_the_bare_word(tmp_path: Path, style: str) -> None:
    root = write(tmp_path, curve=FALLING, floors={"median": None})
    expected = "helps, but: both worse than the median; not converged (12 of 12 trials)"
    assert word(root) == expected
    text = render(compare(root, TableRequest(studies=("study",))), style)
    if style == "json":
        (table,) = json.loads(text)["tables"]
        (cell,) = (row["cells"]["all"] for row in table["rows"] if row["arm"] == "conr")
        assert cell["word"]["text"] == expected
        return
    # Without the notes, which explain the words
    body = text.split("Split: test")[0]
    assert re.findall(r"\bhelps\b[^|&<]*trials\)", body) == [expected]
    assert len(re.findall(r"\bhelps\b", body)) == 1
    # Neither is the mean bold.
    assert not re.search(r"\d\*|\*\*\d|<strong>|textbf", body)


def test_a_floor_that_the_reference_alone_does_not_reach_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, floors={"median": 50.0})
    floors = Path(open_study(root, "study").path("floors"))
    (file,) = (floors / "results/metrics").iterdir()
    means = {row.arm: row.cells["all"].mean for row in make_arm_table(root, "study").rows}
    between = (means["vanilla"] + means["conr"]) / 2
    made = floor("median", 50.0)
    write_record(
        open_study(root, "study").get_folder("floors"),
        replace(made, metrics=[{**row, "value": between} for row in made.metrics]),
    )
    assert file.exists()
    assert word(root) == "helps, but: the reference is worse than the median"


def test_a_table_is_checked_with_its_caveats(floored: Path) -> None:
    comparison = compare(floored, TableRequest(studies=("study",)))
    for style in ("markdown", "latex", "table", "csv"):
        text = render(comparison, style)
        request = TableRequest(studies=("study",))
        assert check(floored, text, request).findings == (), style
        changed = text.replace("helps, but: not converged (12 of 12 trials)", "helps")
        assert changed != text
        assert len(check(floored, changed, request).findings) == 1, style


# --- Floors


def test_floors_are_below_the_arms_in_every_format(floored: Path) -> None:
    comparison = compare(floored, TableRequest(studies=("study",)))
    for style in ("table", "markdown", "latex", "html"):
        text = render(comparison, style)
        assert text.index("conr") < text.index("median (floor)") < text.index("ridge (floor)")
    rows = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    (row,) = (row for row in rows if row["arm"] == "median (floor)" and row["region"] == "all")
    labels = make_crossed_predictions("vanilla", 0, 0.0)["test"].labels
    assert float(row["mean"]) == pytest.approx(np.abs(labels - 50.0).mean(), rel=1e-12)
    assert {row["n"], row["word"], row["difference"]} == {""}
    (table,) = json.loads(render(comparison, "json"))["tables"]
    assert [floor["name"] for floor in table["floors"]] == ["median", "ridge"]


def test_floors_have_digits_of_their_own_before_the_first_trial(tmp_path: Path) -> None:
    root = write(tmp_path, floors={"median": None}, trained=0)
    text = render(compare(root, TableRequest(studies=("study",))), "table")
    line = next(line for line in text.split("\n") if "median (floor)" in line)
    assert line.split()[2].rstrip("0") == "0.01"


def test_floors_follow_other_regions_and_metrics(floored: Path) -> None:
    request = TableRequest(studies=("study",), metrics=("rmse",), regions=("all", "few"), shots="20/18")
    (part,) = compare(floored, request).parts
    one = make_crossed_predictions("vanilla", 0, 0.0)["test"]
    counts = np.array(make_manifest().train_counts)[label_bins(one.labels, LABEL)]
    for region, rows in (("all", counts >= 0), ("few", counts < 18)):
        expected = np.sqrt(np.square(one.labels[rows] - 50.0).mean())
        assert part.floors[0].values[region] == pytest.approx(expected, rel=1e-12)


def test_floors_are_no_trials(floored: Path) -> None:
    assert sum(status("study", results=floored).recorded.values()) == 12
    assert compact_study("study", results=floored)["trials"] == 12
    for table in ("trials", "results"):
        assert dirtune.query(f"select count(*) as n from {table}", results=floored).to_dict("records") == [{"n": 12}]
    assert dirtune.query("select distinct arm from arms order by arm", results=floored)["arm"].tolist() == [
        "conr",
        "vanilla",
    ]
    assert {row.arm for row in make_arm_table(floored, "study").rows} == {"vanilla", "conr"}


def test_too_many_trials_are_not_judged_in_a_table(floored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "MAX_JUDGED", 11)
    assert word(floored) == "helps"
    assert "Convergence is not judged here: dirtune check study" in render(make_arm_table(floored, "study"))


def test_a_table_without_learning_curves_has_its_words(tmp_path: Path) -> None:
    root = write(tmp_path, curve=FALLING)
    for file in Path(open_study(root, "study").path("results/epochs")).iterdir():
        file.write_bytes(b"damaged")
    assert word(root) == "helps"
    assert "Convergence is not judged here: dirtune check study" in render(make_arm_table(root, "study"))


def test_floors_are_queried_by_tables_of_their_own(floored: Path) -> None:
    sql = "select floor, shot_rule, value from floors where split = 'test' and region = 'all' and metric = 'mae'"
    found = {
        (row["floor"], row["shot_rule"]): row["value"] for row in dirtune.query(sql, results=floored).to_dict("records")
    }
    labels = make_crossed_predictions("vanilla", 0, 0.0)["test"].labels
    assert found == pytest.approx(
        {("median", "counts"): np.abs(labels - 50.0).mean(), ("ridge", "counts"): np.abs(labels - 40.0).mean()}
    )
    sql = "select floor, avg(abs(prediction - label)) as mae from floor_predictions where split = 'test' group by all"
    by_sample = {row["floor"]: row["mae"] for row in dirtune.query(sql, results=floored).to_dict("records")}
    assert by_sample == pytest.approx({floor: value for (floor, _), value in found.items()})
    assert dirtune.query("select count(*) as n from floors", results=write_nothing(floored)).to_dict("records") == [
        {"n": 0}
    ]


def write_nothing(root: Path) -> Path:
    """Another root, with a study without floors."""
    return write(root / "deeper")
