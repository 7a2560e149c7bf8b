from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

import dirtune
from dirtune.errors import InputError
from dirtune.results.records.parquetfile import encode_table
from dirtune.results.records.store import write_record
from dirtune.results.tables.check import check
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from dirtune.results.tables.table import ArmTable, make_arm_table, make_arm_tables
from tests.results.predicted import SHIFTS, TRAIN, make_crossed_predictions, make_manifest, write_predicted_study
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
    assert dirtune.table("study", results=root).comparison.parts[0] == make_arm_table(root, "study")


@pytest.mark.slow
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


def sum_squares(parts: np.ndarray) -> tuple[float, float, float]:
    """Standard errors over seeds and over both, and degrees of freedom of the second."""
    seeds, samples = parts.shape
    a = samples * parts.mean(axis=1).var(ddof=1)
    b = seeds * parts.mean(axis=0).var(ddof=1)
    residual = parts - parts.mean(axis=1, keepdims=True) - parts.mean(axis=0) + parts.mean()
    e = (residual**2).sum() / ((seeds - 1) * (samples - 1))
    total = a + max(b - e, 0)
    return math.sqrt(a / parts.size), math.sqrt(total / parts.size), (seeds - 1) * (total / a) ** 2


def get_absolute_errors(arm: str, region: str) -> np.ndarray:
    """Errors on the test samples of a region, by seed, with a loop over the training labels."""
    rows = []
    for seed in range(5):
        test = make_crossed_predictions(arm, seed, SHIFTS[arm])["test"]
        counts = [sum(math.floor(other) == math.floor(label) for other in TRAIN) for label in test.labels]
        names = ["many" if n > 40 else "few" if n < 15 else "medium" for n in counts]
        kept = [region in ("all", name) for name in names]
        rows.append(np.abs(test.predictions - test.labels)[kept])
    return np.array(rows)


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    write_predicted_study(tmp_path, claim={"metric": "mae", "region": "all", "margin": "5%"})
    return tmp_path


@pytest.mark.parametrize("region", ["all", "few"])
def test_differences_are_tested_over_seeds_and_over_samples(predicted: Path, region: str) -> None:
    table = make_arm_table(predicted, "study")
    reference = get_absolute_errors("vanilla", region)

    for row in table.rows[1:]:
        parts = get_absolute_errors(row.arm, region) - reference
        own, both, df = sum_squares(parts)
        p_seeds = 2 * stats.t.sf(abs(parts.mean() / own), 4)
        p_both = 2 * stats.t.sf(abs(parts.mean() / both), df)
        half = max(stats.t.ppf(0.975, 4) * own, stats.t.ppf(0.975, df) * both)
        found = row.cells[region].difference
        assert (found.mean, found.p) == pytest.approx((parts.mean(), max(p_seeds, p_both)))
        assert (found.low, found.high) == pytest.approx((parts.mean() - half, parts.mean() + half))
        assert (found.n, found.units) == (5, parts.shape[1])
        assert row.cells[region].reference_mean == pytest.approx(reference.mean())


def get_words(table: ArmTable) -> dict[tuple[str, str], str]:
    return {
        (row.arm, region): str(cell.verdict)
        for row in table.rows
        for region, cell in row.cells.items()
        if cell.verdict is not None
    }


def test_words_are_in_the_column_of_the_claim_alone(predicted: Path) -> None:
    table = make_arm_table(predicted, "study")

    assert get_words(table) == {("conr", "all"): "helps", ("same", "all"): "same", ("ranksim", "all"): "hurts"}
    assert table.claim.chosen_after == ()
    assert [math.isnan(row.cells["few"].p_holm) for row in table.rows] == [True] * 4
    p = {row.arm: row.cells["all"].difference.p for row in table.rows[1:]}
    first, second = sorted(p, key=lambda arm: p[arm])[:2]
    corrected = {row.arm: row.cells["all"].p_holm for row in table.rows[1:]}
    assert corrected[first] == pytest.approx(3 * p[first])
    assert corrected[second] == pytest.approx(max(3 * p[first], 2 * p[second]))


def test_without_a_margin_in_the_claim_nothing_is_the_same(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "all"})

    assert get_words(make_arm_table(tmp_path, "study"))["same", "all"].startswith("open (")
    table = make_arm_table(tmp_path, "study", margin="5%")
    assert get_words(table)["same", "all"] == "same"
    assert table.claim.chosen_after == ("margin 5%",)


@pytest.mark.parametrize(("samples", "region"), [(300, "all"), (330, "few")])
def test_the_default_claim_is_few_where_it_has_a_hundred_samples(tmp_path: Path, samples: int, region: str) -> None:
    write_predicted_study(tmp_path, trained=3, samples=samples)

    table = make_arm_table(tmp_path, "study")

    assert (table.samples["few"] >= 100) == (region == "few")
    assert (table.claim.region, table.claim.chosen_after) == (region, ())


@pytest.mark.parametrize(
    ("options", "after", "column"),
    [
        ({"regions": ("few",)}, ("region few",), ("mae", "few")),
        ({"regions": ("few", "all")}, (), ("mae", "all")),
        ({"metrics": ("rmse", "gmean")}, ("metric rmse",), ("rmse", "all")),
        ({"metrics": ("rmse", "mae")}, (), ("mae", "all")),
        ({"reference": "conr"}, ("reference conr",), ("mae", "all")),
        ({"reference": "vanilla"}, (), ("mae", "all")),
        ({"margin": "5%"}, (), ("mae", "all")),
        ({"margin": "0.3"}, ("margin 0.3",), ("mae", "all")),
        ({"shots": "60/30"}, ("shots 60/30",), ("mae", "all")),
    ],
)
def test_what_is_chosen_after_the_study_is_part_of_the_table(
    predicted: Path, options: dict[str, object], after: tuple[str, ...], column: tuple[str, str]
) -> None:
    tables = make_arm_tables(predicted, "study", **options)

    assert {table.claim.chosen_after for table in tables} == {after}
    words = [(table.metric, region) for table in tables for _, region in get_words(table)]
    assert set(words) == {column}


@pytest.mark.parametrize(("option", "reason"), [("split", "these data"), ("selection", "the test data")])
def test_data_that_the_models_were_chosen_on_have_no_word(predicted: Path, option: str, reason: str) -> None:
    table = make_arm_table(predicted, "study", **{option: {"split": "val", "selection": "oracle"}[option]})

    assert get_words(table) == {}
    assert f"the models were chosen on {reason}" in table.rows[1].cells["all"].no_word


def test_a_claim_that_was_changed_in_the_study_file_is_chosen_after_it(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"metric": "mae", "region": "few", "margin": None, "is_changed": True})

    assert make_arm_table(tmp_path, "study").claim.chosen_after == ("the claim in the study file",)


def test_two_seeds_have_differences_and_no_word(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, trained=2)

    table = make_arm_table(tmp_path, "study")

    assert get_words(table) == {}
    assert {row.cells["all"].no_word for row in table.rows[1:]} == {"fewer than 3 pairs"}
    assert not math.isnan(table.rows[1].cells["all"].difference.low)


def test_without_predictions_there_is_no_word(predicted: Path) -> None:
    for file in (predicted / "study/results/predictions").glob("conr-*"):
        file.unlink()

    table = make_arm_table(predicted, "study")

    assert table.rows[1].cells["all"].no_word == "no stored predictions to count test samples by"
    assert {arm for arm, _ in get_words(table)} == {"same", "ranksim"}
    for file in (predicted / "study/results/predictions").iterdir():
        file.unlink()
    table = make_arm_table(predicted, "study")
    assert get_words(table) == {}
    assert "has no stored predictions of split test" in table.no_predictions


def test_a_metric_without_parts_of_samples_has_no_word_and_says_so(predicted: Path) -> None:
    table = make_arm_table(predicted, "study", metric="zero_errors")

    reason = "the part of each test sample in zero_errors is not known"
    assert get_words(table) == {}
    assert {row.cells["all"].no_word for row in table.rows[1:]} == {table.no_predictions} == {reason}


def test_three_seeds_with_predictions_are_enough_for_the_samples(predicted: Path) -> None:
    whole = make_arm_table(predicted, "study").rows[1].cells["all"]
    for seed in (1, 3):
        (predicted / f"study/results/predictions/conr-{seed}.parquet").unlink()

    some = make_arm_table(predicted, "study").rows[1].cells["all"]

    assert some.difference.over_seeds == whole.difference.over_seeds
    assert some.difference.over_both.error == pytest.approx(whole.difference.over_both.error, rel=0.3)
    assert str(some.verdict) == "helps"


@pytest.mark.parametrize("selection", ["last"])
def test_an_epoch_without_predictions_has_no_word(predicted: Path, selection: str) -> None:
    table = make_arm_table(predicted, "study", selection=selection)

    assert get_words(table) == {}
    assert table.rows[0].cells["all"].n == 0 or "the only one whose predictions are stored" in table.no_predictions


def test_samples_of_one_group_count_as_one(predicted: Path) -> None:
    units = make_arm_table(predicted, "study").rows[1].cells["all"].difference.units
    manifest = make_manifest().model_copy(update={"group": "person"})
    (predicted / "study/manifest.json").write_text(manifest.model_dump_json())
    rows = [(split, f"{split}{i}", f"p{i % 60}") for split in ("val", "test") for i in range(300)]
    names = ("split", "sample_id", "group")
    groups = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    (predicted / "study/groups.parquet").write_bytes(encode_table(groups))

    table = make_arm_table(predicted, "study")

    parts = get_absolute_errors("conr", "all") - get_absolute_errors("vanilla", "all")
    by_group = np.stack([parts[:, person::60].mean(axis=1) for person in range(60)], axis=1)
    found = table.rows[1].cells["all"].difference
    assert (units, found.units, table.group) == (300, 60, "person")
    assert found.over_both.error == pytest.approx(sum_squares(by_group)[1])


def test_arms_with_searches_of_another_size_have_no_word(tmp_path: Path) -> None:
    storage = write_predicted_study(tmp_path, claim={"region": "all"}, transfers={"same": ["x"]})
    write_record(storage, record("conr", 0, 99.0, trial_id="worse", fingerprint=make_manifest().fingerprint))
    write_record(storage, record("vanilla", 0, 99.0, trial_id="other", fingerprint=make_manifest().fingerprint))

    table = make_arm_table(tmp_path, "study")

    assert table.rows[3].cells["all"].no_word == "another number of configurations than the reference"
    # The transfer variant has the settings of the reference's search
    assert {arm for arm, _ in get_words(table)} == {"conr", "same"}


SEQUENTIAL = {
    "claim": {"metric": "mae", "region": "all", "margin": "5%"},
    "seeds": [0, 1],
    "sequential": {"seeds": [*range(8)], "step": 1, "metric": "mae", "region": "all", "margin": "5%"},
}


def test_a_sequential_study_has_the_word_of_its_last_look(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, trained=8, **SEQUENTIAL)

    table = make_arm_table(tmp_path, "study")

    for row in table.rows[1:]:
        state, cell = table.sequential.states[row.arm], row.cells["all"]
        looks = table.sequential.rule.looks
        used = {seed: row.cells["all"].values[seed] for seed in range(state.seeds)}
        differences = [value - table.rows[0].cells["all"].values[seed] for seed, value in used.items()]
        level = looks.get_levels(state.seeds).difference
        p = max(stats.ttest_1samp(differences, 0.0).pvalue, cell.difference.over_both.p)
        assert cell.p_holm == pytest.approx(min(1.0, 0.05 * p / level))
        assert (cell.verdict.decision in ("helps", "hurts")) == (p < level)
        assert cell.is_early == (state.seeds < 8)
        assert cell.difference.n == state.seeds
        confidence = 1 - looks.get_levels(state.seeds, comparisons=1).difference
        ends = stats.ttest_1samp(differences, 0.0).confidence_interval(confidence)
        over_seeds = cell.difference.over_seeds
        assert (over_seeds.low, over_seeds.high) == pytest.approx((ends.low, ends.high))
    assert get_words(table)["ranksim", "all"] == "hurts"
    assert table.rows[3].cells["all"].is_early


def test_another_column_of_a_sequential_study_has_no_word(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, trained=8, **SEQUENTIAL)

    (table,) = make_arm_tables(tmp_path, "study", regions=("few",))

    assert get_words(table) == {}
    assert table.rows[1].cells["few"].no_word == "seeds were added by looks at the study's claim"


@pytest.mark.parametrize("metric", ["rmse", "gmean", "pearson", "spearman", "r2", "balanced_mae"])
def test_every_metric_has_a_word_over_seeds_and_samples(predicted: Path, metric: str) -> None:
    table = make_arm_table(predicted, "study", metric=metric)

    assert get_words(table)["ranksim", "all"] == "hurts"
    assert table.rows[3].cells["all"].difference.over_both.error > 0


@pytest.mark.parametrize("style", ["table", "markdown", "latex", "csv"])
@pytest.mark.parametrize("options", [{}, {"regions": ("few",)}, {"margin": "1%"}])
def test_a_written_table_is_supported_and_its_words_are_checked(
    predicted: Path, style: str, options: dict[str, object]
) -> None:
    request = TableRequest(studies=("study",), **options)
    text = render(compare(predicted, request), style)

    found = check(predicted, text, request)

    assert found.numbers >= 20
    assert not found.findings
    assert check(predicted, text.replace("hurts", "helps"), request).findings
    marked = "chosen after the study" in text or "region few" in text or "margin 1%" in text
    assert marked == bool(options)
    if options:
        lost = text.replace(", chosen after the study", "").replace("region few,", ",").replace("margin 1%,", ",")
        assert check(predicted, lost, request).findings
