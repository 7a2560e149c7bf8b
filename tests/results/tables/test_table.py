from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import dirtune
from dirtune.errors import InputError
from dirtune.results.records.schema import SplitPredictions
from dirtune.results.statistics.paired import compare_by_seed
from dirtune.results.tables.check import check
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from dirtune.results.tables.table import make_arm_table, make_arm_tables
from tests.results.predicted import TRAIN, make_manifest, make_predictions, make_trial
from tests.results.record_factory import OFFSETS, metric_rows, record, write_study

ERRORS = {
    "vanilla": {0: 5.0, 1: 5.3, 2: 4.9, 3: 5.2},
    "conr": {0: 4.0, 1: 4.6, 2: 4.1, 3: 4.3},
    "accon": {0: 4.9, 1: 5.4, 2: 4.7},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three arms and four seeds; accon's last seed failed."""
    records = [record(arm, seed, value) for arm, row in ERRORS.items() for seed, value in row.items()]
    records.append(record("accon", 3, status="failed", error="loss term 'accon' is not finite"))
    write_study(
        tmp_path,
        records,
        name="study",
        question="Does it help?",
        reference="vanilla",
        arms=list(ERRORS),
        seeds=[0, 1, 2, 3],
        objective={"metric": "mae", "region": "all"},
        data={"name": "digits", "label": {"unit": "degrees"}},
    )
    return tmp_path


def test_cells_are_mean_and_spread_over_seeds(root: Path) -> None:
    table = make_arm_table(root, "study")

    assert [row.arm for row in table.rows] == list(ERRORS)
    for row in table.rows:
        values = np.array(list(ERRORS[row.arm].values()))
        for region, offset in OFFSETS.items():
            cell = row.cells[region]
            assert cell.mean == pytest.approx(values.mean() + offset)
            assert cell.sd == pytest.approx(values.std(ddof=1))
            assert (cell.n, list(cell.values)) == (len(values), list(ERRORS[row.arm]))


def test_differences_are_paired_by_seed_and_the_reference_has_none(root: Path) -> None:
    table = make_arm_table(root, "study")

    assert all(cell.difference is None for cell in table.rows[0].cells.values())
    conr, accon = (row.cells["few"] for row in table.rows[1:])
    judge = stats.ttest_rel(list(ERRORS["conr"].values()), list(ERRORS["vanilla"].values()))
    assert conr.difference.mean == pytest.approx(-0.85)
    assert conr.difference.low == pytest.approx(judge.confidence_interval(0.95).low)
    assert (accon.difference.n, accon.difference.unpaired_seeds) == (3, (3,))
    assert accon.difference.mean == pytest.approx(np.mean([-0.1, 0.1, -0.2]))


def test_p_values_are_corrected_over_the_arms_of_a_region(root: Path) -> None:
    rows = make_arm_table(root, "study").rows[1:]
    p = [compare_by_seed(ERRORS[row.arm], ERRORS["vanilla"]).p for row in rows]

    assert rows[0].cells["all"].p_holm == pytest.approx(2 * p[0])
    assert rows[1].cells["all"].p_holm == pytest.approx(max(2 * p[0], p[1]))


def test_failed_seeds_are_missing_and_not_averaged(root: Path) -> None:
    table = make_arm_table(root, "study")

    (gap,) = table.rows[2].missing
    assert (gap.seed, gap.reason) == (3, "failed: loss term 'accon' is not finite")
    assert table.rows[2].cells["all"].n == 3


def test_everything_in_the_footer_is_data(root: Path) -> None:
    table = make_arm_table(root, "study")

    assert (table.question, table.unit, table.data) == ("Does it help?", "degrees", "digits")
    assert (table.metric, table.split, table.selection) == ("mae", "test", "best_val")
    assert (table.reference, table.seeds) == ("vanilla", (0, 1, 2, 3))
    assert (table.fingerprints, table.orphans) == (("data-a",), 0)


def test_split_metric_and_selection_are_looked_up_apart(tmp_path: Path) -> None:
    numbers = {("val", "best_val"): 1.0, ("val", "last"): 2.0, ("test", "best_val"): 3.0, ("test", "last"): 4.0}
    rows = [
        row
        for (split, epoch), value in numbers.items()
        for metric, factor in (("mae", 1.0), ("mse", 10.0))
        for row in metric_rows(value * factor, metric=metric, splits=[split], epochs=[epoch])
    ]
    write_study(tmp_path, [record("a", 0, metrics=rows)])

    for (split, selection), value in numbers.items():
        for metric, factor in (("mae", 1.0), ("mse", 10.0)):
            table = make_arm_table(tmp_path, "study", split=split, selection=selection, metric=metric)
            assert table.rows[0].cells["all"].mean == value * factor


def test_the_default_metric_is_the_studys_objective(tmp_path: Path) -> None:
    rows = metric_rows(0.5, metric="pearson") + metric_rows(7.0)
    write_study(tmp_path, [record("a", 0, metrics=rows)], objective={"metric": "pearson"})

    table = make_arm_table(tmp_path, "study")

    assert (table.metric, table.rows[0].cells["all"].mean) == ("pearson", 0.5)


def test_an_undefined_metric_is_a_missing_value(tmp_path: Path) -> None:
    rows = [{**row, "value": math.nan if row["region"] == "few" else row["value"]} for row in metric_rows(5.0)]
    write_study(tmp_path, [record("a", 0, metrics=rows), record("a", 1)])

    (row,) = make_arm_table(tmp_path, "study").rows

    assert [(gap.seed, gap.reason) for gap in row.missing] == [(0, "mae undefined in few")]
    assert (row.cells["few"].n, row.cells["all"].n) == (1, 2)


def test_one_seed_has_no_spread_and_no_interval(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0, 5.0), record("b", 0, 4.0)], reference="a")

    cell = make_arm_table(tmp_path, "study").rows[1].cells["all"]

    assert (cell.mean, cell.n, cell.difference.mean) == (4.0, 1, -1.0)
    assert math.isnan(cell.sd)
    assert math.isnan(cell.difference.low)


def test_without_a_study_file_there_is_a_table_without_differences(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("b", 1)])

    table = make_arm_table(tmp_path, "study")

    assert (table.reference, table.seeds, table.metric) == (None, (0, 1), "mae")
    assert all(cell.difference is None for row in table.rows for cell in row.cells.values())


def test_another_reference_can_be_asked_for(root: Path) -> None:
    table = make_arm_table(root, "study", reference="conr")

    assert table.rows[0].cells["all"].difference.mean == pytest.approx(0.85)


def test_metrics_and_regions_are_chosen_by_name(root: Path) -> None:
    first, second = make_arm_tables(root, "study", metrics=("mae", "mae"), regions=("few", "all"))

    assert first == second
    assert first.regions == ("few", "all")
    assert list(first.rows[0].cells) == ["few", "all"]
    whole = make_arm_table(root, "study").rows
    for row, same in zip(first.rows, whole, strict=True):
        assert row.cells == {region: same.cells[region] for region in ("few", "all")}


def test_a_region_that_is_not_shown_has_no_missing_values(tmp_path: Path) -> None:
    rows = [{"split": "test", "selection": "best_val", "region": "all", "metric": "alignment", "value": 0.5, "n": 9}]
    write_study(tmp_path, [record("a", 0, metrics=rows)])

    (table,) = make_arm_tables(tmp_path, "study", metrics=("alignment",), regions=("all",))

    assert (table.rows[0].missing, table.rows[0].cells["all"].mean) == ((), 0.5)


def test_the_trials_behind_the_values_are_part_of_the_table(root: Path) -> None:
    accon = make_arm_table(root, "study").rows[2]

    assert {seed: chosen.trial_id for seed, chosen in accon.chosen.items()} == {
        0: "accon-0",
        1: "accon-1",
        2: "accon-2",
    }


def test_without_records_every_value_is_missing(tmp_path: Path) -> None:
    write_study(tmp_path, [], arms=["a", "b"], seeds=[0, 1], reference="a")

    table = make_arm_table(tmp_path, "study")

    assert [len(row.missing) for row in table.rows] == [2, 2]
    assert all(math.isnan(cell.mean) for row in table.rows for cell in row.cells.values())


def test_different_data_are_mixed_only_when_asked(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("a", 1, fingerprint="data-b")])

    with pytest.raises(InputError, match=r"study study: .*data fingerprints: data-a, data-b"):
        make_arm_table(tmp_path, "study")
    assert make_arm_table(tmp_path, "study", mix_data=True).fingerprints == ("data-a", "data-b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "mea"}, "unknown metric, got 'mea'; known: mae"),
        ({"split": "train"}, "unknown split, got 'train'; known: test, val"),
        ({"selection": "best"}, "unknown rule, got 'best'; known: best_val, last, oracle"),
        ({"reference": "connr"}, r"unknown arm, got 'connr'; known: accon, conr, vanilla \(did you mean 'conr'"),
        ({"study": "sudy"}, "unknown study, got 'sudy'; known: study"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(root: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_arm_table(root, **{"study": "study", **options})


def test_the_verb_is_a_call(root: Path) -> None:
    assert dirtune.table(root, "study") == make_arm_table(root, "study")


def test_a_table_needs_none_of_the_heavy_libraries(root: Path) -> None:
    script = (
        "import sys\n"
        "from dirtune.results.tables.check import check\n"
        "from dirtune.results.tables.comparison import TableRequest, compare\n"
        "from dirtune.results.tables.render.formats import STYLES, render\n"
        "from dirtune.results.tables.provenance import format_provenance\n"
        f"table = compare({str(root)!r}, TableRequest(studies=('study',), published='dir'))\n"
        f"check({str(root)!r}, [render(table, style) for style in STYLES][1])\n"
        "format_provenance(table)\n"
        "heavy = {'torch', 'torchvision', 'ray', 'optuna', 'matplotlib', 'scipy.stats', 'duckdb'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SAMPLED_SEEDS = (0, 1, 2)


def make_sampled(arm: str, seed: int) -> dict[str, SplitPredictions]:
    """Predictions of an arm on common samples, some of which suit it at every seed."""
    found = make_predictions(100 * ord(arm) + seed, labels_seed=7)
    suits = {split: np.random.default_rng(ord(arm)).normal(0.0, 1.0, len(one.labels)) for split, one in found.items()}
    return {split: replace(one, predictions=one.predictions + suits[split]) for split, one in found.items()}


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    """Three arms that predict the same test samples; arm c lacks a seed."""
    records = [
        make_trial(arm, seed, "counts", make_sampled(arm, seed))
        for arm in "abc"
        for seed in SAMPLED_SEEDS
        if (arm, seed) != ("c", 2)
    ]
    storage = write_study(tmp_path, records, reference="a", arms=["a", "b", "c"], seeds=[*SAMPLED_SEEDS])
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return tmp_path


def get_absolute_errors(arm: str, seed: int, region: str) -> np.ndarray:
    """Errors on the test samples of a region, by a loop over the training labels."""
    test = make_sampled(arm, seed)["test"]
    counts = [sum(math.floor(other) == math.floor(label) for other in TRAIN) for label in test.labels]
    names = ["many" if n > 40 else "few" if n < 15 else "medium" for n in counts]
    rows = [region in ("all", name) for name in names]
    return np.abs(test.predictions - test.labels)[rows]


@pytest.mark.parametrize("region", ["all", "many", "few"])
def test_over_samples_differences_are_paired_by_test_sample(sampled: Path, region: str) -> None:
    table = make_arm_table(sampled, "study", metric="mae", over="samples")

    for row, seeds in zip(table.rows[1:], (SAMPLED_SEEDS, (0, 1)), strict=True):
        ours, theirs = (np.mean([get_absolute_errors(arm, s, region) for s in seeds], axis=0) for arm in (row.arm, "a"))
        judge = stats.ttest_rel(ours, theirs)
        found = row.cells[region].difference
        interval = judge.confidence_interval(0.95)
        assert (found.mean, found.low, found.high) == pytest.approx(
            ((ours - theirs).mean(), interval.low, interval.high)
        )
        assert (found.p, found.n, found.over) == (pytest.approx(judge.pvalue), len(seeds), "samples")


@pytest.mark.parametrize("metric", ["mae", "rmse", "gmean"])
def test_every_population_has_the_same_means_and_its_own_interval(sampled: Path, metric: str) -> None:
    seeds, samples, both = (
        make_arm_table(sampled, "study", metric=metric, over=over) for over in ("seeds", "samples", "both")
    )

    for by_seed, by_sample, by_both in zip(seeds.rows, samples.rows, both.rows, strict=True):
        for region, cell in by_seed.cells.items():
            assert (by_sample.cells[region].mean, by_sample.cells[region].sd) == (cell.mean, cell.sd)
            if cell.difference is None:
                continue
            found = [each.cells[region].difference for each in (by_seed, by_sample, by_both)]
            assert [one.mean for one in found] == pytest.approx([found[0].mean] * 3)
            assert [one.sd for one in found] == pytest.approx([found[0].sd] * 3)
            widths = [one.high - one.low for one in found]
            assert widths[1] != pytest.approx(widths[0], rel=1e-3)
            assert widths[1] != pytest.approx(widths[2], rel=1e-3)
            assert [one.unpaired_seeds for one in found] == [found[0].unpaired_seeds] * 3


def test_verdicts_and_corrected_p_values_follow_the_population(sampled: Path) -> None:
    table = make_arm_table(sampled, "study", metric="mae", over="both", margin="1000%")

    p = {row.arm: row.cells["all"].difference.p for row in table.rows[1:]}
    for row in table.rows[1:]:
        cell = row.cells["all"]
        other = next(value for arm, value in p.items() if arm != row.arm)
        assert cell.p_holm == pytest.approx(2 * p[row.arm] if p[row.arm] <= other else max(p[row.arm], 2 * other))
        assert cell.verdict.is_negligible
    undecided = make_arm_table(sampled, "study", metric="mae", over="both", margin="0.001").rows[1].cells["few"].verdict
    assert (undecided.decision, undecided.further_seeds) == ("undecided", None)


def test_intervals_over_samples_are_of_the_regions_asked_for(sampled: Path) -> None:
    (table,) = make_arm_tables(sampled, "study", metrics=("mae",), over="samples", shots="60/30")

    test = make_sampled("a", 0)["test"]
    counts = np.array([sum(math.floor(other) == math.floor(label) for other in TRAIN) for label in test.labels])
    errors = {
        arm: np.mean([get_absolute_errors(arm, seed, "all")[counts > 60] for seed in SAMPLED_SEEDS], axis=0)
        for arm in "ab"
    }
    found = table.rows[1].cells["many"].difference
    assert found.p == pytest.approx(stats.ttest_rel(errors["b"], errors["a"]).pvalue)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over": "runs"}, "unknown over, got 'runs'; known: both, samples, seeds"),
        (
            {"over": "both", "metric": "pearson"},
            "metric pearson: has no interval over both: it is no function of a mean over samples; use seeds; "
            "known: gmean, mae, mse, rmse",
        ),
        ({"over": "samples", "metric": "balanced_mae"}, "metric balanced_mae: has no interval over samples"),
        ({"over": "samples", "metric": "mae", "selection": "last"}, "the only one whose predictions are stored"),
    ],
)
def test_intervals_that_do_not_exist_are_refused(sampled: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_arm_table(sampled, "study", **{"metric": "mae", **options})


def test_predictions_that_are_not_stored_are_no_reason_to_fall_back_on_seeds(sampled: Path) -> None:
    (sampled / "study/results/predictions/b-1.parquet").unlink()

    make_arm_table(sampled, "study", metric="mae")
    with pytest.raises(InputError, match=r"no stored predictions of split test for 1 of 8 trials \(b-1\)"):
        make_arm_table(sampled, "study", metric="mae", over="both")


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "csv"])
@pytest.mark.parametrize("over", ["samples", "both"])
def test_a_written_table_is_checked_over_its_own_population(sampled: Path, style: str, over: str) -> None:
    request = TableRequest(studies=("study",), metrics=("mae",), over=over)
    text = render(compare(sampled, request), style)

    found = check(sampled, text, request)

    assert found.numbers > 20
    assert not found.findings
    if style != "table":
        assert check(sampled, text) == found
        assert check(
            sampled, text.replace(f'"over": "{over}"', '"over": "seeds"').replace(f",{over},", ",seeds,")
        ).findings


def test_the_population_is_part_of_csv_json_and_footer(sampled: Path) -> None:
    table = compare(sampled, TableRequest(studies=("study",), metrics=("mae",), over="both"))

    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert {line["over"] for line in lines} == {"both"}
    plain = json.loads(render(table, "json"))
    assert (plain["request"]["over"], plain["tables"][0]["over"]) == ("both", "both")
    assert plain["tables"][0]["rows"][1]["cells"]["all"]["difference"]["over"] == "both"
    text = render(table, "table")
    assert "difference to a, paired by seed and test sample, mean [95 % interval]" in text
    assert "two-way t over seeds and test samples, for new seeds on new test samples, 95 %" in text
    assert "95 to 96 %), of the mean difference" in text
    assert "more seeds" not in text
