from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.grids import Column, Grid, make_grids
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import metric_rows, record, write_study

VANILLA, CONR = (5.0, 5.2, 5.4), (4.0, 4.3, 4.35)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fixed reference and a searched arm, and an arm that failed; a second study with two of the arms."""
    records = [record("vanilla", seed, value) for seed, value in enumerate(VANILLA)]
    records += [record("conr", seed, value) for seed, value in enumerate(CONR)]
    records += [record("conr", 0, 9.0, trial_id="worse", objective=99.0)]
    records += [record("conr", 0, trial_id="cut", status="pruned")]
    records += [record("[x]", 0, status="failed", error="not finite")]
    write_study(
        tmp_path,
        records,
        name="one",
        reference="vanilla",
        arms=["vanilla", "conr", "[x]"],
        seeds=[0, 1, 2],
        trials={"vanilla": 3, "conr": 20, "[x]": 3},
        data={"name": "agedb", "unit": "years"},
    )
    others = [
        record(
            arm,
            seed,
            0.4 + seed + (arm == "accon"),
            trial_id=f"two-{arm}-{seed}",
            fingerprint="data-b",
            metrics=metric_rows(0.4 + seed, metric="mse") + metric_rows(2.5, metric="mae"),
        )
        for arm in ("vanilla", "accon")
        for seed in (0, 1)
    ]
    write_study(
        tmp_path,
        others,
        name="two",
        reference="vanilla",
        arms=["vanilla", "accon"],
        seeds=[0, 1],
        objective={"metric": "mse"},
        data={"name": "sts_b", "unit": "score"},
    )
    return tmp_path


def grids(root: Path, *studies: str, **keys: object) -> list[Grid]:
    return make_grids(compare(root, TableRequest(studies=studies, **keys)))


def texts(grid: Grid) -> list[list[str]]:
    return [[*row.keys, *(cell.text for cell in row.cells)] for row in grid.rows]


def test_the_first_grid_has_means_with_their_named_spread(root: Path) -> None:
    grid = grids(root, "one")[0]

    assert "MAE [years] (lower is better), test split, mean ± sd over seeds" in grid.title
    assert "test split, last, mean" in grids(root, "one", selection="last")[0].title
    assert grid.header == ["arm", "all", "many", "medium", "few", "seeds", "configs"]
    rows = texts(grid)
    assert rows[0][:3] == ["vanilla", "5.20 ± 0.20", "4.20 ± 0.20"]
    assert rows[0][-2:] == ["3/3", "1"]
    assert rows[1][-2:] == ["3/3", "1..3"]
    assert rows[2] == ["[x]", "-", "-", "-", "-", "0/3", "1"]


def test_counts_that_all_arms_share_are_no_columns(tmp_path: Path) -> None:
    write_predicted_study(tmp_path)

    means, claim, others = grids(tmp_path, "study")

    assert means.header == ["arm", "all", "many", "medium", "few"]
    assert [heading.split(" (")[0] for heading in claim.header] == ["arm", "all", "word"]
    assert [heading.split(" (")[0] for heading in others.header] == ["arm", "many", "medium", "few"]


def test_the_second_grid_has_changes_in_percent_and_a_column_of_words(root: Path) -> None:
    grid, others = grids(root, "one")[1:]

    # Differences -1.0, -0.9, -1.05: mean -0.983, sd 0.0764, t(0.975, 2) = 4.303; the reference's mean is 5.2 in region all
    assert grid.title == "change against vanilla in % [95 % interval for new seeds on these test samples]"
    assert grid.header == ["arm", "all (10)", "word", "pairs"]
    assert texts(grid)[0][:3] == ["conr", "-18.9 [-22.6, -15.3]", "-"]
    assert texts(grid)[1] == ["[x]", "-", "-", "0"]
    assert others.title == "change against vanilla in %, other columns [95 % intervals, for orientation]"
    assert others.header == ["arm", "many (10)", "medium (10)", "few (10)", "pairs"]


def test_words_stand_behind_the_claims_column(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "medium", "margin": "10%"})
    table = compare(tmp_path, TableRequest(studies=("study",)))

    grid = make_grids(table)[1]

    assert grid.title.endswith("[95 % interval for new seeds and new test samples]")
    assert [name.split(" (")[0] for name in grid.header] == ["arm", "medium", "word"]
    words = {row.keys[0]: row.cells[1].text for row in grid.rows}
    assert words == {row.arm: str(row.cells["medium"].verdict) for row in table.parts[0].rows[1:]}
    assert "hurts" in words.values()


def test_a_column_that_was_chosen_after_the_study_says_so(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "all"})

    for options in ({"regions": ("few",)}, {"margin": "3%"}, {"metrics": ("rmse",)}, {"reference": "conr"}):
        headings = grids(tmp_path, "study", **options)[1].header
        assert "word, chosen after the study" in headings
    assert "word" in grids(tmp_path, "study", metrics=("mae", "rmse"))[1].header[2]


def test_regions_and_arms_are_shown_in_the_order_asked(root: Path) -> None:
    means, differences, others = grids(root, "one", regions=("few", "all"), arms=("conr", "vanilla"))

    assert means.header == ["arm", "few", "all", "configs"]
    assert [row[:3] for row in texts(means)] == [
        ["conr", "6.22 ± 0.19", "4.22 ± 0.19"],
        ["vanilla", "7.20 ± 0.20", "5.20 ± 0.20"],
    ]
    assert [row.keys for row in differences.rows] == [row.keys for row in others.rows] == [("conr",)]


def test_the_spread_is_the_one_asked_for(root: Path) -> None:
    # sd 0.2 of three seeds: se 0.2 / sqrt(3), half interval 4.303 times that
    for spread, label, size in (("se", "se", "0.12"), ("ci95", "95 % interval", "0.50")):
        grid = grids(root, "one", spread=spread)[0]
        assert texts(grid)[0][1] == f"5.20 ± {size}"
        assert f"mean ± {label} over seeds" in grid.title


def test_several_metrics_stand_in_groups_of_columns(root: Path) -> None:
    grid = grids(root, "two", metrics=("mse", "mae"), regions=("all", "few"))[0]

    assert grid.columns == (
        Column("MSE [score²]", "all"),
        Column("MSE [score²]", "few"),
        Column("MAE [score]", "all"),
        Column("MAE [score]", "few"),
    )
    assert grid.header[1:3] == ["MSE [score²] all", "MSE [score²] few"]
    assert texts(grid)[0][1:5] == ["0.900 ± 0.707", "2.90 ± 0.71", "2.50 ± 0.00", "4.50 ± 0.00"]


def test_studies_below_each_other_have_their_own_grids(root: Path) -> None:
    found = grids(root, "one", "two", regions=("all",))

    assert [grid.header[0] for grid in found] == [*["one: arm"] * 2, *["two: arm"] * 2]
    assert [row.keys for row in found[2].rows] == [("vanilla",), ("accon",)]


def test_studies_in_a_wide_layout_share_the_rows_of_equal_names(root: Path) -> None:
    means, differences = grids(root, "one", "two", regions=("all",), layout="wide")

    assert means.columns == (Column("one MAE [years]", "all"), Column("two MSE [score²]", "all"))
    assert texts(means) == [
        ["vanilla", "5.20 ± 0.20", "0.900 ± 0.707"],
        ["conr", "4.22 ± 0.19", "-"],
        ["[x]", "-", "-"],
        ["accon", "-", "0.900 ± 0.707"],
    ]
    assert [row.keys for row in differences.rows] == [("conr",), ("[x]",), ("accon",)]
    assert texts(differences)[2][1:] == ["-", "-", "+0.0 [+0.0, +0.0]", "-"]


def test_axes_name_rows(tmp_path: Path) -> None:
    records = [
        record(f"{arm} omega={omega}", 0, omega, cell=f'{{"terms.conr.omega": {omega}}}')
        for arm in ("conr", "both")
        for omega in (0.5, 2.0)
    ]
    arms = [one.trial["arm"] for one in records]
    write_study(tmp_path, records, arms=[*arms, "conr omega=9.0"], seeds=[0])

    grid = grids(tmp_path, "study", rows=("terms.conr.omega", "arm"), regions=("all",))[0]

    assert grid.keys == ("terms.conr.omega", "arm")
    assert [row.keys for row in grid.rows] == [
        ("0.5", "conr"),
        ("2.0", "conr"),
        ("0.5", "both"),
        ("2.0", "both"),
        ("-", "conr omega=9.0"),
    ]


def test_published_numbers_stand_below_the_arm_and_are_never_bold(root: Path) -> None:
    means, *differences = grids(root, "one", "two", published="dir", layout="wide", bold="best")

    rows = {row.keys[0]: row for row in means.rows}
    assert list(rows)[:2] == ["vanilla", "published Vanilla [1]"]
    assert [cell.text for cell in rows["published Vanilla [1]"].cells] == [
        "7.77",
        "6.62",
        "9.55",
        "13.67",
        "0.974",
        "0.851",
        "1.52",
        "0.984",
    ]
    assert [cell.text for cell in rows["published Vanilla+ACCon [1]"].cells][4] == "0.802"
    assert [cell.text for cell in rows["published Vanilla+ConR [1]"].cells][4:] == ["-"] * 4
    assert not any(cell.bold for key, row in rows.items() if "[1]" in key for cell in row.cells)
    assert not any("published" in row.keys[0] for each in differences for row in each.rows)


def test_published_numbers_change_none_of_ours(root: Path) -> None:
    plain, with_published = (grids(root, "one", published=published) for published in (None, "dir"))

    ours = [row for row in with_published[0].rows if "published" not in row.keys[0]]
    assert tuple(ours) == plain[0].rows
    assert with_published[1:] == plain[1:]


def test_a_cell_with_fewer_seeds_than_its_row_shows_their_number(tmp_path: Path) -> None:
    undefined = [row for row in metric_rows(5.0) if row["region"] != "few"]
    write_study(tmp_path, [record("a", 0), record("a", 1, metrics=undefined)])

    (row,) = texts(grids(tmp_path, "study")[0])

    assert row[4] == "7.00 (n=1)"


def test_decimals_are_those_of_three_digits_of_the_smallest_mean(tmp_path: Path) -> None:
    trial = record("a", 0, metrics=metric_rows(0.9736, metric="mse"))
    write_study(tmp_path, [trial], objective={"metric": "mse"})

    assert texts(grids(tmp_path, "study")[0])[0][1] == "0.974"
