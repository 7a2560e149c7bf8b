"""Tables whose regions are recomputed from the stored predictions."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dirtune.errors import InputError
from dirtune.results.tables.check import check
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from dirtune.results.tables.table import ArmTable, make_arm_table, make_arm_tables
from tests.results.predicted import TRAIN, make_manifest, make_predictions, make_trial
from tests.results.record_factory import record, write_study

SEEDS = (0, 1, 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two arms of the same rule; the predictions of b are those of later seeds."""
    records = [make_trial("a", seed, "counts") for seed in SEEDS]
    for seed in SEEDS:
        other = make_trial("b", 10 + seed, "counts")
        identity = {"trial_id": f"b-{seed}", "seed": seed, "replicate": seed}
        records.append(replace(other, trial={**other.trial, **identity}))
    storage = write_study(tmp_path, records, reference="a", arms=["a", "b"], seeds=[*SEEDS])
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return tmp_path


def make_table(root: Path, **keys: object) -> ArmTable:
    (table,) = make_arm_tables(root, "study", metrics=("mae",), **keys)
    return table


def compute_errors(seed: int, many: int, few: int, width: float = 1.0) -> dict[str, float]:
    """Mean absolute error by region, by a loop over the samples."""
    test = make_predictions(seed)["test"]
    found: dict[str, list[float]] = {"all": [], "many": [], "medium": [], "few": []}
    for label, prediction in zip(test.labels, test.predictions, strict=True):
        own = math.floor(label / width)
        n = sum(math.floor(other / width) == own for other in TRAIN)
        region = "many" if n > many else "few" if n < few else "medium"
        for name in ("all", region):
            found[name].append(abs(prediction - label))
    return {region: float(np.mean(values)) for region, values in found.items() if values}


@pytest.mark.parametrize(("many", "few", "width"), [(60, 30, None), (80, 20, 2.0), (40, 15, None)])
def test_values_and_differences_are_those_of_the_other_regions(
    root: Path, many: int, few: int, width: float | None
) -> None:
    table = make_table(root, shots=f"{many}/{few}", bin_width=width)

    own, other = ({seed: compute_errors(shift + seed, many, few, width or 1.0) for seed in SEEDS} for shift in (0, 10))
    first, second = table.rows
    for region in table.regions:
        ours = [own[seed].get(region, math.nan) for seed in SEEDS]
        theirs = [other[seed].get(region, math.nan) for seed in SEEDS]
        assert [first.cells[region].values.get(s, math.nan) for s in SEEDS] == pytest.approx(ours, nan_ok=True)
        assert [second.cells[region].values.get(s, math.nan) for s in SEEDS] == pytest.approx(theirs, nan_ok=True)
        difference = second.cells[region].difference
        if not any(map(math.isnan, ours + theirs)):
            assert difference.over_seeds.p == pytest.approx(stats.ttest_rel(theirs, ours).pvalue)


def test_the_recorded_limits_asked_for_are_the_recorded_table(root: Path) -> None:
    recorded = make_arm_table(root, "study", metric="mae")

    for shots in ("40/15", "counts"):
        again = make_table(root, shots=shots)
        for then, now in zip(recorded.rows, again.rows, strict=True):
            for region in recorded.regions:
                assert now.cells[region].mean == pytest.approx(then.cells[region].mean, rel=1e-12)
    assert recorded.region_note == ""


def test_a_trial_without_predictions_is_missing(root: Path) -> None:
    bare = record("b", 3, fingerprint=make_manifest().fingerprint)
    write_study(root, [bare], reference="a", arms=["a", "b"], seeds=[*SEEDS, 3])

    table = make_table(root, shots="60/30")

    assert table.rows[1].cells["all"].n == 3
    assert ("b", 3, "mae undefined in all") in [(gap.arm, gap.seed, gap.reason) for gap in table.rows[1].missing]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"shots": "60/30"},
            "many has more than 60 training samples in a label bin, few less than 30; bins of 1 degrees.",
        ),
        ({"shots": "published"}, "the data set's rule published; bins of 1 degrees."),
        ({"bin_width": 2.0}, "each trial's own limits; bins of 2 degrees."),
    ],
)
def test_the_footer_describes_the_regions(root: Path, keys: dict[str, object], message: str) -> None:
    made = compare(root, TableRequest(studies=("study",), metrics=("mae",), **keys))

    assert f"Regions recomputed from the stored predictions: {message}" in render(made, "table")


@pytest.mark.parametrize("form", ["table", "markdown", "latex", "csv"])
def test_a_written_table_is_checked_in_its_own_regions(root: Path, form: str) -> None:
    request = TableRequest(studies=("study",), metrics=("mae",), shots="60/30", bin_width=2.0)
    text = render(compare(root, request), form)

    found = check(root, text, request)
    assert found.numbers > 20
    assert not found.findings
    # Plain text does not say what it shows
    if form != "table":
        assert check(root, text) == found
        other = text.replace("60/30", "90/5")
        assert other != text
        assert check(root, other).findings


def test_a_csv_of_two_regroupings_is_checked_line_by_line(root: Path) -> None:
    recorded, other = (
        render(compare(root, TableRequest(studies=("study",), metrics=("mae",), shots=shots)), "csv")
        for shots in (None, "60/30")
    )
    both = "\n".join([recorded, *other.splitlines()[1:]])

    found = check(root, both)

    assert not found.findings
    lines = list(csv.DictReader(io.StringIO(both)))
    assert {line["shots"] for line in lines} == {"", "60/30"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"shots": "rare"},
            "must be the limits of many and few, such as 100/20, or a rule of the data set.*rare.*counts, published",
        ),
        ({"shots": "10/60"}, "no bin may be both many and few"),
        ({"bin_width": 1.5}, "must be a multiple of 1"),
        ({"bin_width": 0.0}, "must be positive"),
        ({"shots": "published", "bin_width": 2.0}, "the shot rule is a list of bins of width 1"),
        ({"shots": "60/30", "selection": "last"}, "the only one whose predictions are stored"),
        ({"shots": "60/30", "metrics": ("mea",)}, "unknown metric"),
    ],
)
def test_definitions_that_cannot_be_computed_are_errors(root: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_arm_tables(root, "study", **{"metrics": ("mae",), **keys})


def test_published_numbers_are_not_combined_with_other_regions() -> None:
    with pytest.raises(InputError, match="belong to the data set's own regions"):
        TableRequest(studies=("study",), published="dir", shots="60/30")
