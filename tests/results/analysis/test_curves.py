from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.curves import Curve, read_curve
from dirtune.results.records.schema import TrialRecord
from tests.results.record_factory import OFFSETS, metric_rows, record, write_study

X = "terms.conr.omega"
# By omega, for seeds 0 and 1
ERRORS = {0.5: (4.4, 4.6), 1.0: (4.0, 4.2), 2.0: (4.1, 4.5)}


def on_axis(omega: float, seed: int, value: float, **options: Any) -> TrialRecord:
    """A cell of the arm conr crossed with the axis omega, named as the study names it."""
    level = json.dumps(omega)
    return record(
        f"conr omega={level}",
        seed,
        value,
        cell=json.dumps({X: omega}),
        config={"terms": {"conr": {"omega": omega}}},
        **options,
    )


def swept() -> list[TrialRecord]:
    return [on_axis(omega, seed, v) for omega, row in ERRORS.items() for seed, v in enumerate(row)]


def curve_of(root: Path, records: list[TrialRecord], x: str = X, **options: Any) -> Curve:
    write_study(root, records, reference="vanilla", data={"unit": "degrees"})
    return read_curve(root, "study", x, **options)


def test_arms_that_differ_only_on_the_axis_are_one_line(tmp_path: Path) -> None:
    (line,) = curve_of(tmp_path, swept()).lines

    assert (line.label, line.joined) == ("conr", True)
    assert line.x == (0.5, 0.5, 1.0, 1.0, 2.0, 2.0)
    assert line.seeds == (0, 1, 0, 1, 0, 1)
    assert line.values == (4.4, 4.6, 4.0, 4.2, 4.1, 4.5)
    assert line.levels == (0.5, 1.0, 2.0)
    assert line.means == pytest.approx((4.5, 4.1, 4.3))


def test_a_second_axis_gives_a_line_per_value(tmp_path: Path) -> None:
    records = [
        record(
            f"omega={omega} beta={beta}",
            0,
            omega + beta,
            cell=json.dumps({X: omega, "beta": beta}),
            config={"beta": beta, "terms": {"conr": {"omega": omega}}},
        )
        for omega in (1.0, 2.0)
        for beta in (0.1, 0.2)
    ]
    lines = curve_of(tmp_path, records).lines

    assert [(line.label, line.values) for line in lines] == [("beta=0.1", (1.1, 2.1)), ("beta=0.2", (1.2, 2.2))]
    assert all(line.joined for line in lines)


def test_named_arms_with_a_search_are_clouds(tmp_path: Path) -> None:
    records = [
        record(arm, 0, 5.0 + i, trial_id=f"{arm}{i}", config={"lr": 10.0**-i, "decay": i / 7})
        for arm in ("conr", "accon")
        for i in range(3)
    ]
    lines = curve_of(tmp_path, records, "lr").lines

    assert [(line.label, line.joined, len(line.x)) for line in lines] == [("accon", False, 3), ("conr", False, 3)]


def test_the_best_point_is_chosen_on_validation_data_and_not_on_what_is_shown(tmp_path: Path) -> None:
    records = [on_axis(1.0, 0, 3.0, objective=9.0), on_axis(2.0, 0, 7.0, objective=1.0)]

    (line,) = curve_of(tmp_path, records).lines

    assert line.levels[line.best or 0] == 2.0


def test_the_best_point_of_the_last_epoch_uses_the_validation_number_of_the_last_epoch(tmp_path: Path) -> None:
    def trial(omega: float, best: float, last: float) -> TrialRecord:
        rows = metric_rows(best, epochs=["best_val"]) + metric_rows(last, epochs=["last"])
        return on_axis(omega, 0, best, metrics=rows)

    records = [trial(1.0, 1.0, 8.0), trial(2.0, 2.0, 3.0)]

    (by_best,) = curve_of(tmp_path / "1", records).lines
    (by_last,) = curve_of(tmp_path / "2", records, epoch="last").lines
    assert (by_best.best, by_last.best) == (0, 1)
    assert (by_best.means, by_last.means) == ((1.0, 2.0), (8.0, 3.0))


def test_without_any_validation_objective_no_point_is_the_best(tmp_path: Path) -> None:
    one = on_axis(1.0, 0, 5.0)
    bare = TrialRecord(trial={**one.trial, "objective": None}, config=one.config, metrics=one.metrics)

    (line,) = curve_of(tmp_path, [bare]).lines

    assert line.best is None


def test_pruned_failed_and_undefined_trials_are_counted_and_left_out(tmp_path: Path) -> None:
    records = [
        *swept(),
        on_axis(1.0, 2, 1.0, status="pruned", metrics=metric_rows(1.0)),
        on_axis(2.0, 2, 1.0, status="pruned"),
        on_axis(2.0, 3, 1.0, status="failed"),
        on_axis(2.0, 4, 1.0, metrics=[]),
    ]
    curve = curve_of(tmp_path, records)

    assert curve.left_out == {"pruned": 2, "failed": 1, "undefined": 1}
    assert curve.lines[0].means == pytest.approx((4.5, 4.1, 4.3))


def test_the_reference_without_the_setting_is_a_level(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, [*swept(), record("vanilla", 0, 5.0), record("vanilla", 1, 6.0)])

    assert curve.reference == ("vanilla", 5.5)
    assert [line.label for line in curve.lines] == ["conr"]


def test_a_reference_that_has_the_setting_is_a_line_and_no_level(tmp_path: Path) -> None:
    config = {"terms": {"conr": {"omega": 1.0}}}
    curve = curve_of(tmp_path, [*swept(), record("vanilla", 0, 5.0, config=config)])

    assert curve.reference is None
    assert "vanilla" in [line.label for line in curve.lines]


def test_region_metric_and_split_are_looked_up(tmp_path: Path) -> None:
    curve = curve_of(tmp_path, swept(), "config." + X, region="few", split="val")

    assert curve.lines[0].values[0] == pytest.approx(4.4 + OFFSETS["few"])
    assert (curve.x, curve.metric, curve.unit, curve.region) == (X, "mae", "degrees", "few")


@pytest.mark.parametrize(
    ("levels", "logarithmic"),
    [((1.0, 2.0, 4.0), False), ((1e-4, 1e-2), True), ((0.0, 100.0), False), ((1.0, 20.0), True)],
)
def test_the_axis_is_logarithmic_where_a_positive_setting_spans_enough(
    tmp_path: Path, levels: tuple[float, ...], logarithmic: bool
) -> None:
    records = [on_axis(level, 0, 5.0) for level in levels]

    assert curve_of(tmp_path, records).logarithmic is logarithmic


def test_integers_and_floats_are_one_setting(tmp_path: Path) -> None:
    (line,) = curve_of(tmp_path, [on_axis(1, 0, 5.0), on_axis(0.5, 0, 4.0)]).lines

    assert line.levels == (0.5, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "terms.conr.omga"}, r"'terms.conr.omga'; known: terms.conr.omega \(did you mean"),
        ({"x": "loss.name"}, "must be a setting that is a number in some trial"),
        ({"region": "rare"}, "unknown region, got 'rare'; known: all, few, many, medium"),
        ({"split": "train"}, "unknown split"),
        ({"epoch": "oracle"}, "unknown selection, got 'oracle'; known: best_val, last"),
        ({"metric": "mea"}, "unknown metric, got 'mea'; known: mae"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path, options: dict[str, str], message: str) -> None:
    records = [*swept(), record("text", 0, config={"loss": {"name": "l1"}})]

    with pytest.raises(InputError, match=message):
        curve_of(tmp_path, records, **options)
