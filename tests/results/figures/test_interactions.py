from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from scipy import stats

from dirtune.errors import InputError
from dirtune.results.figures.interactions import MAX_SQUARES, build_interactions, draw_interactions
from tests.results.figures.stores import BUILT, KEYS, make_request, write_composed_arms
from tests.results.record_factory import record, write_study

LDS, HEAD, CONR = "scheme=sqrt_inverse, lds", "projection_dim=128", "conr"
# By pair of parts: with both, the first, the second, neither
SQUARES = {
    (HEAD, LDS): ("weighted head", "head", "weighted", "plain"),
    (CONR, LDS): ("everything", "contrastive", "weighted head", "head"),
}


def test_every_pair_is_scipys_test_of_four_arms_corrected_over_all(tmp_path: Path) -> None:
    data = build_interactions(make_request(write_composed_arms(tmp_path)))

    assert {square.parts: square.arms for square in data.squares} == SQUARES
    assert {square.parts: square.given for square in data.squares} == {(HEAD, LDS): (), (CONR, LDS): (HEAD,)}
    ps = []
    for square, effect in zip(data.squares, data.effects, strict=True):
        both, first, second, neither = (np.array(BUILT[arm][1]) for arm in square.arms)
        test = stats.ttest_1samp(both - first - second + neither, 0.0)
        ends = test.confidence_interval()
        ps.append(test.pvalue)
        assert effect.mean == pytest.approx((both - first - second + neither).mean())
        assert (effect.low, effect.high) == pytest.approx((ends.low, ends.high))
        assert effect.good == (effect.mean < 0)
    smallest = min(ps) * 2
    assert any(effect.significant for effect in data.effects) == (smallest < 0.05)
    sizes = [abs(effect.mean) for effect in data.effects]
    assert sizes == sorted(sizes, reverse=True)


def test_the_square_nearest_to_the_reference_is_shown(tmp_path: Path) -> None:
    """All eight arms of three settings: every pair is there with and without the third."""
    arms = [f"{a}{b}{c}" for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    configs = {arm: {key: int(level) for key, level in zip("abc", arm, strict=True)} for arm in arms}
    records = [record(arm, seed, 5.0 + seed + int(arm)) for arm in arms for seed in range(2)]
    write_study(tmp_path, records, **(KEYS | {"arms": arms, "reference": "000", "configs": configs}))

    data = build_interactions(make_request(tmp_path))

    assert {square.parts: square.arms for square in data.squares} == {
        ("a=1", "b=1"): ("110", "100", "010", "000"),
        ("a=1", "c=1"): ("101", "100", "001", "000"),
        ("b=1", "c=1"): ("011", "010", "001", "000"),
    }
    only = build_interactions(make_request(tmp_path, arms=("111",)))
    assert {square.arms[0] for square in only.squares} == {"111"}
    assert {square.given for square in only.squares} == {("a=1",), ("b=1",), ("c=1",)}


def test_the_drawing_names_the_parts_and_what_all_four_arms_have(tmp_path: Path) -> None:
    data = build_interactions(make_request(write_composed_arms(tmp_path), region="few"))

    (axes,) = draw_interactions(data).axes

    names = [tick.get_text().replace("\n", " ") for tick in axes.get_yticklabels()]
    times = "\N{MULTIPLICATION SIGN}"
    assert set(names) == {f"{HEAD} {times} {LDS}", f"{CONR} {times} {LDS} given {HEAD}"}
    dots = [part for part in axes.collections if isinstance(part, PathCollection)]
    assert [part.get_offsets()[0][0] for part in dots] == pytest.approx([effect.mean for effect in data.effects])
    assert axes.get_xlabel() == "interaction, MAE [degrees], few"


def test_more_pairs_than_there_is_room_for_are_counted(tmp_path: Path) -> None:
    levels = range(8)
    configs = {f"{a}-{b}": {"a": a, "b": b} for a in levels for b in levels}
    records = [record(arm, 0, 5.0 + c["a"] * c["b"]) for arm, c in configs.items()]
    write_study(tmp_path, records, **(KEYS | {"arms": [*configs], "reference": "0-0", "configs": configs}))

    data = build_interactions(make_request(tmp_path))

    assert len(data.squares) == MAX_SQUARES
    assert data.squares[0].interaction.mean == 49.0
    assert data.caption.endswith(f"The {MAX_SQUARES} largest of 49.")


@pytest.mark.parametrize(
    ("without", "options", "message"),
    [
        ((), {"arms": ("head",)}, "has no four arms with a common seed"),
        (("weighted head",), {}, r"has no four arms .* \(`derive: pairs` makes them\)"),
        ((), {"region": "rare"}, "unknown region"),
        ((), {"arms": ("x*",)}, r"unknown arm, got 'x\*'"),
    ],
)
def test_missing_arms_are_an_error_with_the_reason(
    tmp_path: Path, without: tuple[str, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build_interactions(replace(make_request(write_composed_arms(tmp_path, without=without)), **options))
