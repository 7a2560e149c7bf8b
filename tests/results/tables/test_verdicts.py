from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.analysis.claims import Claim
from dirtune.results.statistics.margin import Margin
from dirtune.results.tables.verdicts import ArmVerdict, ColumnArm, compare_arms, judge_arms

VANILLA = {0: 5.0, 1: 5.3, 2: 4.9, 3: 5.2, 4: 5.1}
ARMS = {
    "helps": {seed: value - 1.0 + 0.01 * seed for seed, value in VANILLA.items()},
    "hurts": {seed: value + 1.0 + 0.01 * seed for seed, value in VANILLA.items()},
    "same": {seed: value + (-1) ** seed * 0.005 for seed, value in VANILLA.items()},
    "noisy": {seed: value + (-1) ** seed * 0.8 for seed, value in VANILLA.items()},
    "two": {0: 4.0, 1: 4.3},
    "absent": {9: 4.0},
}


def make_column(values: dict[int, float], *, known: bool = True, configurations: int = 1) -> ColumnArm:
    """An arm with sample parts that add nothing to the uncertainty: every sample has the difference of its seed."""
    seeds = sorted(values.keys() & VANILLA.keys())
    noise = np.random.default_rng(len(seeds)).normal(size=(len(seeds), 30))
    parts = np.array([values[seed] - VANILLA[seed] for seed in seeds])[:, None] + noise
    return ColumnArm(values=values, parts=parts if known else None, configurations=configurations)


REFERENCE = make_column(VANILLA)


def judge(metric: str = "mae", margin: str | None = "2%", **columns: ColumnArm) -> dict[str, ArmVerdict]:
    arms = {name: make_column(values) for name, values in ARMS.items()} | columns
    parsed = None if margin is None else Margin.parse(margin)
    return judge_arms(arms, REFERENCE, claim=Claim(metric=metric, region="all", margin=parsed))


def list_words(**options) -> dict[str, str]:
    return {arm: found.no_word or str(found.verdict).split(" (")[0] for arm, found in judge(**options).items()}


def test_every_arm_has_its_word_or_the_reason_for_none() -> None:
    assert list_words() == {
        "helps": "helps",
        "hurts": "hurts",
        "same": "same",
        "noisy": "open",
        "two": "fewer than 3 pairs",
        "absent": "no pair",
    }


def test_a_larger_correlation_helps() -> None:
    found = list_words(metric="pearson", margin="0.1")

    assert (found["helps"], found["hurts"]) == ("hurts", "helps")


def test_without_a_margin_nothing_is_the_same() -> None:
    assert list_words(margin=None)["same"] == "open"


def test_arms_without_predictions_or_with_another_search_have_no_word() -> None:
    found = list_words(
        bare=make_column(ARMS["helps"], known=False), searched=make_column(ARMS["helps"], configurations=8)
    )

    assert found["bare"] == "no stored predictions to count test samples by"
    assert found["searched"] == "another number of configurations than the reference"


def test_p_is_holms_and_equivalence_bonferronis_over_the_arms_that_have_a_word() -> None:
    found = judge(margin="0.1")

    raw = {arm: found[arm].difference.p for arm in ("helps", "hurts", "same", "noisy")}
    by_seed = {arm: stats.ttest_rel(list(ARMS[arm].values()), list(VANILLA.values())).pvalue for arm in raw}
    assert all(p >= by_seed[arm] * (1 - 1e-9) for arm, p in raw.items())
    holm, largest = {}, 0.0
    for rank, arm in enumerate(sorted(raw, key=lambda arm: raw[arm])):
        largest = max(largest, min(1.0, raw[arm] * (4 - rank)))
        holm[arm] = largest
    assert {arm: found[arm].p_holm for arm in holm} == pytest.approx(holm)
    assert math.isnan(found["two"].p_holm)
    both = found["same"].difference.over_both
    sides = [stats.t.sf((both.mean + 0.1) / both.error, both.df), stats.t.cdf((both.mean - 0.1) / both.error, both.df)]
    differences = np.array(list(ARMS["same"].values())) - np.array(list(VANILLA.values()))
    sides += [
        stats.ttest_1samp(differences, -0.1, alternative="greater").pvalue,
        stats.ttest_1samp(differences, 0.1, alternative="less").pvalue,
    ]
    assert found["same"].verdict.p_equivalence == pytest.approx(4 * max(sides))


def test_the_margin_is_a_share_of_the_reference_over_the_seeds_of_the_pairs() -> None:
    short = make_column({0: 5.0, 1: 5.4, 2: 5.0})

    assert judge(margin="10%", short=short)["short"].verdict.margin == pytest.approx(0.1 * (5.0 + 5.3 + 4.9) / 3)
    assert judge(margin="0.25", short=short)["short"].verdict.margin == 0.25


def test_a_column_that_is_not_the_claims_has_no_words() -> None:
    found = compare_arms({"helps": make_column(ARMS["helps"])}, REFERENCE)["helps"]

    assert found.verdict is None
    assert math.isnan(found.p_holm)
    assert found.difference == judge()["helps"].difference
