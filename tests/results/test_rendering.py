from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from dirtune.errors import InputError
from dirtune.results.rendering import STYLES, as_rich, footer, grids_of, metric_label, render
from dirtune.results.tables import ArmTable, arm_table
from tests.results.records import metric_rows, record, write_study

VANILLA, CONR = (5.0, 5.2, 5.4), (4.0, 4.3, 4.35)


@pytest.fixture
def table(tmp_path: Path) -> ArmTable:
    """A fixed reference and a searched arm, which failed with one seed and was pruned once."""
    records = [record("vanilla", seed, value) for seed, value in enumerate(VANILLA)]
    records += [record("conr", seed, value) for seed, value in enumerate(CONR)]
    records += [record("conr", 0, 9.0, trial_id="worse", objective=99.0)]
    records += [record("conr", 0, trial_id="cut", status="pruned")]
    records += [record("[x]", 0, status="failed", error="not finite")]
    write_study(
        tmp_path, records, question="?", reference="vanilla", arms=["vanilla", "conr", "[x]"],
        seeds=[0, 1, 2], trials={"vanilla": 3, "conr": 20, "[x]": 3},
        data={"name": "digits", "unit": "degrees"},
    )  # fmt: skip
    return arm_table(tmp_path, "study")


def test_the_first_grid_has_means_with_their_named_spread(table: ArmTable) -> None:
    grid = grids_of(table)[0]

    assert (
        "MAE [degrees] (lower is better), test split, best_val, mean ± sd over seeds" in grid.title
    )
    assert grid.header == ["arm", "all", "many", "medium", "few", "seeds", "configs"]
    assert grid.rows[0][:3] == ["vanilla", "5.20 ± 0.20", "4.20 ± 0.20"]
    assert grid.rows[0][-2:] == ["3/3", "1"]
    assert grid.rows[1][-2:] == ["3/3", "1..3"]
    assert grid.rows[2] == ["[x]", "-", "-", "-", "-", "0/3", "1"]


def test_the_second_grid_has_differences_with_intervals(table: ArmTable) -> None:
    grid = grids_of(table)[1]

    # differences -1.0, -0.9, -1.05: mean -0.983, sd 0.0764, t(0.975, 2) = 4.303
    assert "difference to vanilla, paired by seed" in grid.title
    assert grid.rows[0] == ["conr", *["-0.98 [-1.17, -0.79]*"] * 4, "3"]
    assert grid.rows[1] == ["[x]", "-", "-", "-", "-", "0"]


def test_the_footer_says_what_one_must_know(table: ArmTable) -> None:
    text = "\n".join(footer(table))

    assert "Split: test. Selection best_val: best epoch and configuration" in text
    assert "(objective: mae in region all)" in text
    assert "Seeds (3): 0, 1, 2." in text
    assert (
        "vanilla 1; conr 1..3 (1 pruned, 15 not recorded); [x] 1 (1 failed, 2 not recorded)" in text
    )
    assert "Holes: [x] seed 0: failed: not finite; [x] seeds 1, 2: not recorded." in text
    assert "Data: digits data-a." in text
    assert "Holm-corrected over the arms of a column (at most 2)" in text


def test_the_oracle_is_called_so(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0)])

    assert "ORACLE" in render(arm_table(tmp_path, "study", selection="oracle"))


def test_orphans_are_mentioned(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0), record("gone", 0)], arms=["a"])

    assert "Left out: 1 recorded trials" in render(arm_table(tmp_path, "study"))


def test_the_terminal_shows_everything_and_takes_no_name_for_markup(table: ArmTable) -> None:
    text = render(table, "table")

    assert "5.20 ± 0.20" in text
    assert "[x]" in text
    assert all(line in text for line in footer(table))


def test_a_narrow_console_folds_and_does_not_fail(table: ArmTable) -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(as_rich(table))

    assert "vanilla" in console.file.getvalue()


def test_markdown_has_two_tables_and_a_list(table: ArmTable) -> None:
    lines = render(table, "markdown").split("\n")

    assert lines.count("") == 4
    assert "| vanilla | 5.20 ± 0.20 | 4.20 ± 0.20 | 6.20 ± 0.20 | 7.20 ± 0.20 | 3/3 | 1 |" in lines
    assert [line for line in lines if line.startswith("* ")] == [
        f"* {line}" for line in footer(table)
    ]


def test_csv_has_one_line_per_arm_and_region_at_full_precision(table: ArmTable) -> None:
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))

    assert len(rows) == 3 * 4
    conr = next(row for row in rows if (row["arm"], row["region"]) == ("conr", "few"))
    cell = table.rows[1].cells["few"]
    assert float(conr["mean"]) == cell.mean
    assert [float(conr[name]) for name in ("low", "high", "p", "p_holm")] == [
        cell.difference.low, cell.difference.high, cell.difference.p, cell.p_holm,
    ]  # fmt: skip
    assert (conr["configurations"], conr["data_fingerprint"]) == ("3", "data-a")
    failed = next(row for row in rows if row["arm"] == "[x]")
    assert (failed["mean"], failed["sd"], failed["n"]) == ("", "", "0")
    assert failed["holes"] == "0: failed: not finite; 1: not recorded; 2: not recorded"


def test_a_cell_with_fewer_seeds_than_its_row_says_so(tmp_path: Path) -> None:
    undefined = [row for row in metric_rows(5.0) if row["region"] != "few"]
    write_study(tmp_path, [record("a", 0), record("a", 1, metrics=undefined)])

    (row,) = grids_of(arm_table(tmp_path, "study"))[0].rows

    assert row[4] == "7.00 (n=1)"


def test_small_numbers_have_three_decimals(tmp_path: Path) -> None:
    write_study(
        tmp_path,
        [record("a", 0, metrics=metric_rows(0.9736, metric="mse"))],
        objective={"metric": "mse"},
    )

    assert grids_of(arm_table(tmp_path, "study"))[0].rows[0][1] == "0.974"


@pytest.mark.parametrize(
    ("metric", "unit", "label"),
    [
        ("mae", "years", "MAE [years]"),
        ("mse", "years", "MSE [years²]"),
        ("pearson", "years", "Pearson r"),
        ("mae", "", "MAE"),
        ("delta1", "m", "delta1"),
    ],
)  # fmt: skip
def test_metrics_are_labelled_with_their_unit(metric: str, unit: str, label: str) -> None:
    assert metric_label(metric, unit) == label


def test_every_style_renders_a_table_of_holes(tmp_path: Path) -> None:
    write_study(tmp_path, [], arms=["a", "b"], reference="a", seeds=[0])

    for style in STYLES:
        assert "not recorded" in render(arm_table(tmp_path, "study"), style)


def test_an_unknown_style_is_refused(table: ArmTable) -> None:
    with pytest.raises(
        InputError, match="unknown format, got 'latex'; known: csv, markdown, table"
    ):
        render(table, "latex")
