from __future__ import annotations

import math
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.figures.parallel import build_parallel, compute_position, draw_parallel
from dirtune.results.records.store import read_table
from tests.results.figures.stores import make_request, write_compared_arms, write_search


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ({"low": 2.0, "high": 4.0}, 2.5, 0.25),
        ({"distribution": "loguniform", "low": 0.01, "high": 100.0}, 0.1, 0.25),
        ({"distribution": "int", "low": 1, "high": 100, "log": True}, 10, 0.5),
        ({"distribution": "int", "low": 1, "high": 5}, 2.0, 0.25),
        ({"values": [16, 64, 256]}, 64.0, 0.5),
        ({"values": ["a"]}, "a", 0.0),
        ({"values": [None, "b"]}, None, 0.0),
        ({"values": [16, 64]}, 17, math.nan),
        ({"low": 2.0, "high": 4.0}, None, math.nan),
        ({"low": 2.0, "high": 2.0}, 2.0, 0.5),
    ],
)
def test_a_value_has_its_position_on_the_axis(knob: dict[str, object], value: object, expected: float) -> None:
    assert compute_position(value, knob) == pytest.approx(expected, nan_ok=True)


def test_every_trial_is_a_line_through_its_settings(tmp_path: Path) -> None:
    root = write_search(tmp_path)

    data = build_parallel(make_request(root))

    rows = read_table(root, "trials").to_pylist()
    complete = sorted((r for r in rows if r["status"] == "complete"), key=lambda r: -r["objective"])
    lowest, highest = complete[-1]["objective"], complete[0]["objective"]
    assert len(data.complete) == 12
    for row, places in zip(complete, data.complete, strict=True):
        expected = [
            (row["config.terms.conr.omega"] - 1) / 8,
            (math.log10(row["config.terms.conr.beta"]) + 2) / 4,
            [16, 64, 256].index(row["config.model.projection_dim"]) / 2,
            (row["objective"] - lowest) / (highest - lowest),
        ]
        assert places == pytest.approx(expected)
    assert [len(places) for places in data.pruned] == [3, 3]
    assert "complete trials (12)" in data.caption
    assert "2 pruned. Left out: 1 failed. Other searched arms: accon." in data.caption


def test_axes_have_the_ends_of_the_space_and_a_log_middle(tmp_path: Path) -> None:
    data = build_parallel(make_request(write_search(tmp_path)))

    ticks = {one.name: [text for _, text in one.ticks] for one in data.coordinates}
    assert ticks["terms.conr\nomega"] == ["1", "5", "9"]
    assert ticks["terms.conr\nbeta"] == ["0.01", "1", "100"]
    assert ticks["model\nprojection_dim"] == ["16", "64", "256"]
    assert list(ticks)[-1] == "validation\nMAE [degrees]"


def test_lines_and_axes_are_drawn(tmp_path: Path) -> None:
    data = build_parallel(make_request(write_search(tmp_path)))

    (axes,) = draw_parallel(data).axes

    lengths = [len(line.get_xdata()) for line in axes.lines]
    assert lengths.count(4) == 12
    assert lengths.count(3) == 2
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [c.name for c in data.coordinates]
    assert {"256", "100"} <= {text.get_text() for text in axes.texts}
    best, worst = [line for line in axes.lines if len(line.get_xdata()) == 4][::-11]
    # Dark is good
    assert sum(best.get_color()[:3]) < sum(worst.get_color()[:3])


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (("accon",), "no complete trial in arm accon"),
        (("vanilla",), "unknown searched arm, got 'vanilla'; known: accon, conr"),
    ],
)
def test_an_arm_without_a_search_is_an_error(tmp_path: Path, arms: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_parallel(make_request(write_search(tmp_path), arms=arms))


def test_a_study_without_a_search_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study study: has no arm with settings to search"):
        build_parallel(make_request(write_compared_arms(tmp_path)))
