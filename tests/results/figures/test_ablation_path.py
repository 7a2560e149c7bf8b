from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from scipy import stats

from dirtune.errors import InputError
from dirtune.results.figures.ablation_path import build_ablation_path, draw_ablation_path
from tests.results.figures.stores import BUILT, KEYS, make_configuration, make_request, write_composed_arms
from tests.results.record_factory import OFFSETS, metric_rows, record, write_study

LDS, HEAD, CONR = "scheme=sqrt_inverse, lds", "projection_dim=128", "conr"


def test_parts_are_added_best_first_with_the_paired_intervals_of_scipy(tmp_path: Path) -> None:
    data = build_ablation_path(make_request(write_composed_arms(tmp_path), region="few"))

    labels = [stage.label for stage in data.stages]
    assert labels == ["plain", f"+ {LDS}", f"+ {HEAD}", f"+ {CONR}"]
    arms = ["plain", "weighted", "weighted head", "everything"]
    for stage, arm in zip(data.stages, arms, strict=True):
        # The first seed has selected the path.
        expected = [value + OFFSETS["few"] for value in BUILT[arm][1][1:]]
        assert list(stage.values.values()) == pytest.approx(expected)
    pairs = [*itertools.pairwise(arms), ("plain", "everything")]
    for effect, (before, after) in zip([s.effect for s in data.stages[1:]] + [data.whole], pairs, strict=True):
        test = stats.ttest_rel(BUILT[after][1][1:], BUILT[before][1][1:])
        ends = test.confidence_interval()
        assert (effect.low, effect.high) == pytest.approx((ends.low, ends.high))
        assert effect.mean == pytest.approx(np.mean(BUILT[after][1][1:]) - np.mean(BUILT[before][1][1:]))
        assert effect.good == (effect.mean < 0)
    assert math.isnan(data.stages[0].effect.mean)
    steps = [stage.effect.mean for stage in data.stages[1:]]
    assert sum(steps) == pytest.approx(data.whole.mean)


def test_parts_are_removed_best_first_in_their_own_order(tmp_path: Path) -> None:
    data = build_ablation_path(make_request(write_composed_arms(tmp_path), each="remove"))

    minus = "\N{MINUS SIGN}"
    labels = [stage.label for stage in data.stages]
    assert labels == ["everything", f"{minus} {LDS}", f"{minus} {CONR}", f"{minus} {HEAD}"]
    assert data.whole.mean > 0
    assert not data.whole.good


def test_arms_that_were_not_trained_are_named(tmp_path: Path) -> None:
    data = build_ablation_path(make_request(write_composed_arms(tmp_path, without=["weighted head"])))

    assert [stage.label for stage in data.stages] == ["plain", f"+ {LDS}", f"+ {HEAD}, + {CONR}"]
    assert data.untrained == (f"plain + {CONR}", f"plain + {CONR} + {LDS}", f"plain + {HEAD} + {LDS}")
    assert "Not compared, because not trained: plain + conr; plain + conr + scheme=" in data.caption


def test_the_order_is_selected_on_validation_data(tmp_path: Path) -> None:
    """Validation prefers the projection, test the weights."""
    errors = {"plain": (9.0, 9.0), "weighted": (8.5, 5.0), "head": (8.0, 8.5), "weighted head": (7.0, 6.0)}
    records = [
        record(
            arm,
            seed,
            trial_id=f"{arm}-{seed}",
            metrics=[*metric_rows(val + seed, splits=["val"]), *metric_rows(test + seed, splits=["test"])],
        )
        for arm, (val, test) in errors.items()
        for seed in range(2)
    ]
    configs = {arm: make_configuration(BUILT[arm][0]) for arm in errors}
    write_study(tmp_path, records, **(KEYS | {"arms": [*errors], "reference": "plain", "configs": configs}))

    data = build_ablation_path(make_request(tmp_path))

    assert [stage.label for stage in data.stages] == ["plain", f"+ {HEAD}", f"+ {LDS}"]
    assert data.whole.mean == pytest.approx(-3.0)
    assert "on validation data of seeds 0; shown are the other seeds." in data.caption


def test_the_seeds_that_select_the_path_are_not_shown(tmp_path: Path) -> None:
    """The first half of the seeds prefers the weights, by validation and test; the other half the projection."""
    errors = {"plain": (9.0, 9.0), "weighted": (5.0, 8.9), "head": (8.0, 6.0), "weighted head": (4.0, 6.0)}
    records = [
        record(arm, seed, values[seed >= 2] + seed / 10, trial_id=f"{arm}-{seed}")
        for arm, values in errors.items()
        for seed in range(5)
    ]
    configs = {arm: make_configuration(BUILT[arm][0]) for arm in errors}
    keys = {"arms": [*errors], "reference": "plain", "configs": configs, "seeds": [*range(5)]}
    write_study(tmp_path, records, **(KEYS | keys))

    data = build_ablation_path(make_request(tmp_path))

    assert [stage.label for stage in data.stages] == ["plain", f"+ {LDS}", f"+ {HEAD}"]
    assert data.stages[1].effect.mean == pytest.approx(-0.1)
    assert [sorted(stage.values) for stage in data.stages] == [[2, 3, 4]] * 3


def test_a_single_seed_cannot_select_and_be_shown(tmp_path: Path) -> None:
    records = [record(arm, 0, BUILT[arm][1][0]) for arm in BUILT]
    root = write_composed_arms(tmp_path, without=BUILT)
    configs = {arm: make_configuration(BUILT[arm][0]) for arm in BUILT}
    write_study(root, records, **(KEYS | {"arms": [*BUILT], "reference": "plain", "configs": configs}))
    with pytest.raises(InputError, match="needs two common seeds of arms on the path to everything"):
        build_ablation_path(make_request(root))


def test_the_target_can_be_given_and_larger_can_be_better(tmp_path: Path) -> None:
    data = build_ablation_path(make_request(write_composed_arms(tmp_path), arms=("contrastive",)))
    assert [stage.label for stage in data.stages] == ["plain", f"+ {HEAD}", f"+ {CONR}"]
    assert data.title == "all: from plain to contrastive"

    records = [
        record(arm, seed, metrics=metric_rows(1 - value / 10, metric="pearson"))
        for arm, (_, values) in BUILT.items()
        for seed, value in enumerate(values)
    ]
    root = write_composed_arms(
        tmp_path / "r",
        without=BUILT,
        arms=[*BUILT],
        configs={arm: make_configuration(p) for arm, (p, _) in BUILT.items()},
    )
    write_study(root, records)
    found = build_ablation_path(make_request(root, metric="pearson"))
    assert found.stages[1].label == f"+ {LDS}"
    assert found.whole.mean > 0
    assert found.whole.good


def test_the_drawing_has_a_row_per_arm_and_one_for_all_steps(tmp_path: Path) -> None:
    data = build_ablation_path(make_request(write_composed_arms(tmp_path)))

    left, right = draw_ablation_path(data).axes

    names = [tick.get_text().replace("\n", " ") for tick in left.get_yticklabels()]
    assert names == [*(stage.label for stage in data.stages), "all steps"]
    (path,) = left.lines
    assert list(path.get_xdata()) == pytest.approx([np.mean([*s.values.values()]) for s in data.stages])
    shown = {row: stage.effect.mean for row, stage in enumerate(data.stages) if row}
    assert _markers(right) == pytest.approx({**shown, len(data.stages): data.whole.mean})


def test_a_path_that_stops_early_is_noted_in_the_caption(tmp_path: Path) -> None:
    root = write_composed_arms(tmp_path, without=["everything", "contrastive"])
    configs = {arm: make_configuration(BUILT[arm][0]) for arm in BUILT if arm != "contrastive"}
    write_study(
        root,
        [record("everything", 9)],
        **(KEYS | {"arms": [*configs], "reference": "plain", "configs": configs, "seeds": [0, 1, 2, 9]}),
    )

    data = build_ablation_path(make_request(root))

    assert [stage.label for stage in data.stages] == ["plain", f"+ {LDS}", f"+ {HEAD}"]
    assert data.caption.endswith("Stops before everything: no common seed.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"each": "both"}, "unknown each, got 'both'; known: add, remove"),
        ({"arms": ("all",)}, "unknown arm, got 'all'; known: contrastive, everything, head"),
        ({"arms": ("plain",)}, "has the same settings in plain and plain"),
        ({"arms": ("head", "plain")}, "this figure shows one arm"),
        ({"region": "rare"}, "unknown region, got 'rare'"),
    ],
)
def test_invalid_options_are_errors(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_ablation_path(replace(make_request(write_composed_arms(tmp_path)), **options))


def test_studies_without_parts_are_errors_with_the_reason(tmp_path: Path) -> None:
    only = write_composed_arms(tmp_path / "a", without=["weighted", "weighted head", "contrastive", "everything"])
    with pytest.raises(InputError, match="has no arm of two parts of which another arm has one"):
        build_ablation_path(make_request(only))
    unknown = write_composed_arms(tmp_path / "b", configs={})
    with pytest.raises(InputError, match="has no recorded configuration of its reference, plain"):
        build_ablation_path(make_request(unknown))
    alone = write_composed_arms(tmp_path / "c", reference=None)
    with pytest.raises(InputError, match="has no reference; give one"):
        build_ablation_path(make_request(alone))


def _markers(axes: Axes) -> dict[int, float]:
    dots = [part.get_offsets()[0] for part in axes.collections if isinstance(part, PathCollection)]
    return {int(row): float(x) for x, row in dots}
