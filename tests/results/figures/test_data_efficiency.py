from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.figures.data_efficiency import build_data_efficiency, draw_data_efficiency
from tests.results.figures.stores import make_request, write_compared_arms, write_fractions


def test_every_arm_is_a_line_over_the_shares(tmp_path: Path) -> None:
    data = build_data_efficiency(make_request(write_fractions(tmp_path)))

    vanilla, conr = data.bands
    assert (vanilla.label, conr.label, data.reference) == ("vanilla", "conr", "vanilla")
    assert vanilla.x == conr.x == data.ticks == (0.1, 0.5, 1.0)
    for band, start in ((vanilla, 9.0), (conr, 7.0)):
        for share, mean, sd, n in zip(band.x, band.means, band.sds, band.n, strict=True):
            seeds = [start - share + seed / 10 for seed in range(3)][:n]
            assert mean == pytest.approx(np.mean(seeds))
            assert sd == pytest.approx(np.std(seeds, ddof=1))
    assert conr.n == (3, 3, 2)
    assert "Left out: 1 failed." in data.caption


def test_lines_are_drawn_on_a_logarithmic_axis_with_the_shares_as_ticks(tmp_path: Path) -> None:
    (axes,) = draw_data_efficiency(build_data_efficiency(make_request(write_fractions(tmp_path)))).axes

    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.1", "0.5", "1"]
    assert [line.get_label() for line in axes.lines] == ["vanilla", "conr"]
    assert len(axes.collections) == 2
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("share of the training data", "MAE [degrees], all")


def test_another_setting_can_be_the_axis_and_arms_can_be_picked(tmp_path: Path) -> None:
    data = build_data_efficiency(make_request(write_fractions(tmp_path), x="config.data.fraction", arms=("c*",)))

    assert [band.label for band in data.bands] == ["conr"]
    with pytest.raises(InputError, match="unknown arm, got 'x'; known: conr, vanilla"):
        build_data_efficiency(make_request(tmp_path, arms=("x",)))


def test_a_study_without_shares_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a number in some trial, got 'data\.fraction'"):
        build_data_efficiency(make_request(write_compared_arms(tmp_path)))
