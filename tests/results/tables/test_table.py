from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import dirtune
from dirtune.errors import InputError
from dirtune.results.statistics.paired import compare_by_seed
from dirtune.results.tables.table import make_arm_table, make_arm_tables
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


def test_failed_seeds_are_holes_and_not_averaged(root: Path) -> None:
    table = make_arm_table(root, "study")

    (gap,) = table.rows[2].missing
    assert (gap.seed, gap.reason) == (3, "failed: loss term 'accon' is not finite")
    assert table.rows[2].cells["all"].n == 3


def test_everything_that_the_footer_says_is_data(root: Path) -> None:
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


def test_a_region_where_the_metric_is_undefined_is_a_hole(tmp_path: Path) -> None:
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


def test_a_region_that_is_not_shown_leaves_no_hole(tmp_path: Path) -> None:
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


def test_a_study_that_has_recorded_nothing_is_a_table_of_holes(tmp_path: Path) -> None:
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
