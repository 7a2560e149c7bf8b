from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.errors import InputError
from dirtune.results.tables.verdicts import DEFAULT_MARGIN, Margin, compare_arms

VANILLA = {0: 5.0, 1: 5.3, 2: 4.9, 3: 5.2, 4: 5.1}
ARMS = {
    "helps": {seed: value - 1.0 + 0.01 * seed for seed, value in VANILLA.items()},
    "hurts": {seed: value + 1.0 + 0.01 * seed for seed, value in VANILLA.items()},
    "same": {seed: value + (-1) ** seed * 0.005 for seed, value in VANILLA.items()},
    "noisy": {seed: value + (-1) ** seed * 0.8 for seed, value in VANILLA.items()},
    "alone": {0: 4.0},
    "absent": {9: 4.0},
}


def list_decisions(metric: str = "mae", margin: str = DEFAULT_MARGIN) -> dict[str, str | None]:
    found = compare_arms(ARMS, VANILLA, metric=metric, margin=Margin.parse(margin))
    return {arm: one.verdict and one.verdict.decision for arm, one in found.items()}


def test_every_arm_has_its_verdict() -> None:
    assert list_decisions() == {
        "helps": "helps",
        "hurts": "hurts",
        "same": "equivalent",
        "noisy": "undecided",
        "alone": "undecided",
        "absent": None,
    }


def test_a_larger_correlation_helps() -> None:
    found = list_decisions("pearson")

    assert (found["helps"], found["hurts"]) == ("hurts", "helps")


def test_p_is_holms_and_equivalence_bonferronis_over_the_arms_that_are_tested() -> None:
    found = compare_arms(ARMS, VANILLA, metric="mae", margin=Margin.parse("0.1"))

    # Four arms have a test; of one pair and of none there is no p.
    raw = {
        arm: stats.ttest_rel(list(ARMS[arm].values()), list(VANILLA.values())).pvalue
        for arm in ("helps", "hurts", "same", "noisy")
    }
    holm, largest = {}, 0.0
    for rank, arm in enumerate(sorted(raw, key=lambda arm: raw[arm])):
        largest = max(largest, min(1.0, raw[arm] * (4 - rank)))
        holm[arm] = largest
    assert {arm: found[arm].p_holm for arm in holm} == pytest.approx(holm)
    assert math.isnan(found["alone"].p_holm)
    differences = np.array(list(ARMS["same"].values())) - np.array(list(VANILLA.values()))
    sides = [
        stats.ttest_1samp(differences, -0.1, alternative="greater").pvalue,
        stats.ttest_1samp(differences, 0.1, alternative="less").pvalue,
    ]
    assert found["same"].verdict.p_equivalence == pytest.approx(4 * max(sides))


def test_the_margin_is_a_share_of_the_reference_over_the_seeds_of_the_pairs() -> None:
    short = {"short": {0: 5.0, 1: 5.4}}

    share = compare_arms(short, VANILLA, metric="mae", margin=Margin.parse("10%"))["short"].verdict
    size = compare_arms(short, VANILLA, metric="mae", margin=Margin.parse("0.25"))["short"].verdict

    assert share.margin == pytest.approx(0.1 * (5.0 + 5.3) / 2)
    assert size.margin == 0.25


def test_a_wider_margin_makes_the_noisy_arm_equivalent() -> None:
    assert list_decisions(margin="40%")["noisy"] == "equivalent"


@pytest.mark.parametrize(
    ("text", "number", "is_share", "description"),
    [
        ("2%", 0.02, True, "2 % of the reference's mean"),
        (" 1.5 %", 0.015, True, "1.5 % of the reference's mean"),
        ("0.5", 0.5, False, "0.5 in the metric's unit"),
        (".5", 0.5, False, "0.5 in the metric's unit"),
        ("0", 0.0, False, "0 in the metric's unit"),
    ],
)
def test_margins_are_read(text: str, number: float, is_share: bool, description: str) -> None:
    margin = Margin.parse(text)

    assert (margin.number, margin.is_share, str(margin)) == (pytest.approx(number), is_share, description)


@pytest.mark.parametrize("text", ["", "two", "-2%", "-0.5", "2%%", "nan", "1e999x", "inf"])
def test_what_is_no_margin_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="margin: must be a share of the reference's mean"):
        Margin.parse(text)
