"""Run with `pytest tests/training/test_segments.py`: trainings in parts, each a trial of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dirtune.config import Segment, TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.training.trial import HANDOVERS, TrialRun
from tests.training.runs import TERMS, Configure, finish, job_of, lasting, tables, trained, weights_of


def part(config: TrialConfig, parent: str | None, start: int, end: int, **changes: Any) -> TrialConfig:
    changes["segment"] = Segment(parent=parent, start=start, end=end)
    return config.model_copy(update=changes)


@pytest.fixture
def segmented(configuration: Configure) -> TrialConfig:
    return configuration(
        terms=TERMS, recipe={"epochs": 5, "schedule": {"name": "cosine"}, "optimizer": "adamw", "weight_decay": 0.01}
    )


def test_segments_of_equal_settings_are_the_whole_training_bit_for_bit(
    segmented: TrialConfig, toy: ResidentData, study: Storage
) -> None:
    parent, last = None, None
    for start, end in ((0, 2), (2, 4), (4, 5)):
        job = job_of(part(segmented, parent, start, end), toy)
        last = finish(TrialRun(job, toy, study))
        assert last.status == "complete"
        assert last.training.epoch == end
        parent = job.trial_id
    assert last is not None
    whole = trained(segmented, toy)
    assert last.training.history == whole.history
    assert (last.training.best_epoch, last.training.order_digest) == (whole.best_epoch, whole.order_digest)
    expected = weights_of(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(last.training).items())


def test_a_segment_has_its_own_settings_on_its_parents_weights(
    segmented: TrialConfig, toy: ResidentData, study: Storage
) -> None:
    first = job_of(part(segmented, None, 0, 2), toy)
    finish(TrialRun(first, toy, study))
    recipe = segmented.recipe.model_copy(update={"learning_rate": 1e-9, "weight_decay": 0.0})
    trial = TrialRun(job_of(part(segmented, first.trial_id, 2, 4, recipe=recipe), toy), toy, study)
    before = weights_of(trial.training)
    trial.step()
    (group,) = [each for each in trial.training.optimizer.param_groups if each["scheduled"]]
    assert group["weight_decay"] == 0.0
    assert group["lr"] == pytest.approx(trial.training.stage.rate(3))
    after = weights_of(trial.training)
    assert all((after[name] - value).abs().max() < 1e-6 for name, value in before.items())


def test_an_interrupted_segment_continues_to_the_same_record(
    segmented: TrialConfig, toy: ResidentData, study: Storage, tmp_path: Any
) -> None:
    other = Storage.at(tmp_path / "other")
    first = job_of(part(segmented, None, 0, 1), toy)
    second = job_of(part(segmented, first.trial_id, 1, 5), toy)
    for folder in (study, other):
        finish(TrialRun(first, toy, folder))
    finish(TrialRun(second, toy, study))
    killed = TrialRun(second, toy, other)
    killed.step()
    again = TrialRun(second, toy, other)
    assert again.training.epoch == 2
    finish(again)
    assert lasting(tables(other)) == lasting(tables(study))
    assert study.folders(HANDOVERS) == sorted([first.trial_id, second.trial_id])


def test_a_segment_without_what_it_goes_on_from_says_so(
    segmented: TrialConfig, toy: ResidentData, study: Storage
) -> None:
    with pytest.raises(FileNotFoundError, match="trial abc has left nothing to go on from"):
        TrialRun(job_of(part(segmented, "abc", 2, 4), toy), toy, study)


def test_only_one_stage_can_be_trained_in_segments(segmented: TrialConfig) -> None:
    plain = part(segmented, None, 0, 2).plain() | {"scheme": {"name": "rrt"}}
    with pytest.raises(InputError, match="scheme 'rrt' cannot be trained in segments"):
        read(TrialConfig, plain, where="t")


def test_a_segment_is_part_of_a_trials_identity_and_no_segment_is_not(segmented: TrialConfig) -> None:
    ids = {
        each.trial_id("f")
        for each in (segmented, part(segmented, None, 0, 2), part(segmented, "a", 0, 2), part(segmented, "b", 0, 2))
    }
    assert len(ids) == 4
    assert segmented.model_copy(update={"segment": None}).trial_id("f") == segmented.trial_id("f")
