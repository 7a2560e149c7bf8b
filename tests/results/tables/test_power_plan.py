from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.statistics.power import SEED_STEPS, Spread, compute_joint_power
from dirtune.results.tables.power_plan import plan_power
from dirtune.results.tables.table import make_arm_table
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import record, write_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_predicted_study(tmp_path, claim={"region": "all"})
    return tmp_path


def test_a_plan_is_the_first_step_with_the_power_of_the_claims_test(root: Path) -> None:
    plan = plan_power(root, "study", "5%")
    rows = make_arm_table(root, "study").rows[1:]

    assert [each.arm for each in plan.arms] == [row.arm for row in rows] == ["conr", "same", "ranksim"]
    assert (plan.samples, plan.comparisons) == (300, 3)
    for each, row in zip(plan.arms, rows, strict=True):
        difference = row.cells["all"].difference
        variance = difference.over_both.error**2 - difference.over_seeds.error**2
        needs = each.to_detect[0]
        assert needs.samples is not None
        spread = Spread(sd=difference.sd, sample_variance=variance / needs.samples)
        effect = 0.05 * row.cells["all"].reference_mean
        enough = [compute_joint_power(n, spread=spread, effect=effect, alpha=0.05 / 3) >= 0.8 for n in SEED_STEPS]
        assert needs.seeds == SEED_STEPS[enough.index(True)]
    assert plan.arms[1].to_detect[0].samples == 1


def test_a_smaller_effect_needs_more_and_the_range_is_around_the_estimate(root: Path) -> None:
    small, large = (plan_power(root, "study", effect).arms[1] for effect in ("1%", "10%"))

    middle, low, high = large.to_detect
    assert low.seeds <= middle.seeds <= high.seeds
    assert small.to_detect[0].seeds > middle.seeds


def test_the_text_names_seeds_and_samples_in_words(root: Path) -> None:
    lines = str(plan_power(root, "study", "3%")).split("\n")

    assert lines[0].startswith("to find that mae in region all changes by 3 % of the reference's mean, with 80 % power")
    assert all("seeds" in line for line in lines[1:])
    assert any("times as many test samples" in line for line in lines[1:])
    assert all(line.split(": ")[0] in ("conr", "same", "ranksim") for line in lines[1:])


def test_fewer_than_five_pairs_or_no_predictions_have_no_plan(tmp_path: Path) -> None:
    write_predicted_study(tmp_path / "three", trained=3)
    with pytest.raises(InputError, match=r"no arm that a plan can be made from .*conr: needs 5 pairs of seeds, has 3"):
        plan_power(tmp_path / "three", "study", "5%")
    bare = [record(arm, seed, 5.0 + seed / 7) for arm in ("a", "b") for seed in range(5)]
    write_study(tmp_path / "bare", bare, arms=["a", "b"], reference="a", seeds=[*range(5)])
    with pytest.raises(InputError, match="b: study study: has no stored predictions of split test"):
        plan_power(tmp_path / "bare", "study", "5%")
    write_study(tmp_path / "alone", bare, name="study")
    with pytest.raises(InputError, match="has no reference to compare with"):
        plan_power(tmp_path / "alone", "study", "5%")
    with pytest.raises(InputError, match="margin: must be a share"):
        plan_power(tmp_path / "bare", "study", "many")
