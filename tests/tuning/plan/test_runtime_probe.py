"""Run with `pytest tests/tuning/plan/test_runtime_probe.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.nested import merge
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.training import evaluation, loop, smoothing, state
from dirtune.tuning.plan import runtime_probe as probe
from dirtune.tuning.plan.runtime_probe import estimate_from_probe, get_probe_device
from tests.training.conftest import SETTINGS


def study(**changes: Any) -> ResolvedStudy:
    raw = {"name": "tiny", "question": "?", "reference": "a", "seeds": [0], "base": SETTINGS, "arms": {"a": {}}}
    return resolve(merge(raw, changes), where="test")


class Clock:
    """A second passes with every step and every look of an evaluation at a row."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Lets a step take 1 s, and an evaluation, diagnostics and a pass of smoothing 10 s, 100 s and 1000 s a row."""
    found = Clock()

    def taking(module: Any, name: str, seconds: Any) -> None:
        real = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            found.now += seconds(*arguments)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    def steps(training: Any) -> Any:
        for loss in real_steps(training):
            found.now += 1.0
            yield loss

    real_steps = loop.run_steps
    monkeypatch.setattr(loop, "run_steps", steps)
    taking(evaluation, "evaluate", lambda training, split: 10.0 * len(training.data.splits[split]))
    taking(evaluation, "evaluate_representations", lambda training, split: 100.0)
    taking(smoothing, "update_smoothing", lambda model, split, *_: 1000.0 * len(split))
    monkeypatch.setattr(probe, "STAGE_SECONDS", 1e9)
    monkeypatch.setattr("time.perf_counter", found)
    return found


def test_a_trial_is_extrapolated_from_its_steps_and_evaluations(toy: ResidentData, clock: Clock) -> None:
    arms = {"a": {}, "smoothed": {"reweighting": {"fds": {}}}}
    found = estimate_from_probe(study(arms=arms), toy)
    # 202 training rows in batches of 64, 30 of validation, 40 of test; 3 epochs.
    at_the_end = 2 * (30 + 40) * 10 + 100
    assert found["a"].seconds == pytest.approx(3 * (4 + 300) + at_the_end)
    assert found["smoothed"].seconds == pytest.approx(3 * (4 + 300 + 202_000) + at_the_end)
    assert found["a"].source == "from a probe of 10 steps of every arm"


def test_the_evaluation_of_a_large_split_is_extrapolated(
    toy: ResidentData, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "EVALUATED_ROWS", 8)
    found = estimate_from_probe(study(), toy)["a"]
    # Diagnostics look at pairs.
    at_the_end = 2 * (30 + 40) * 10 + 100 * (40 / 8) ** 2
    assert found.seconds == pytest.approx(3 * (4 + 300) + at_the_end)


def test_a_second_stage_has_its_own_steps_and_no_smoothing(toy: ResidentData, clock: Clock) -> None:
    both = {"scheme": {"name": "rrt", "epochs": 2}, "reweighting": {"fds": {}}}
    found = estimate_from_probe(study(arms={"a": both}), toy)["a"]
    at_the_end = 2 * (30 + 40) * 10 + 100
    assert found.seconds == pytest.approx(3 * (4 + 300 + 202_000) + 2 * (4 + 300) + at_the_end)


def test_workers_share_the_steps(toy: ResidentData, clock: Clock) -> None:
    alone, two = (estimate_from_probe(study(resources={"workers": workers}), toy)["a"].seconds for workers in (1, 2))
    assert two == pytest.approx(alone / 2)


def test_the_number_of_timed_steps_is_limited_by_their_time(
    toy: ResidentData, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "STAGE_SECONDS", 0.5)
    assert estimate_from_probe(study(), toy)["a"].source == "from a probe of 2 steps of every arm"


def test_a_data_set_of_one_batch_is_repeated(toy: ResidentData, clock: Clock) -> None:
    found = estimate_from_probe(study(base={"recipe": {"batch_size": 1000}}), toy)["a"]
    assert found.source == "from a probe of 10 steps of every arm"
    assert found.seconds == pytest.approx(3 * (1 + 300) + 2 * (30 + 40) * 10 + 100)


def test_a_probe_uses_the_threads_of_a_trial_and_restores_them(toy: ResidentData, clock: Clock) -> None:
    seen, before = [], torch.get_num_threads()
    real = state.begin_training

    def begin_training(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "begin_training", begin_training)
        estimate_from_probe(study(resources={"cpus": 2}), toy)
    assert (seen, torch.get_num_threads()) == ([2], before)


def test_a_probe_without_the_required_gpu_is_rejected() -> None:
    assert get_probe_device(study()) == torch.device("cpu")
    if torch.cuda.is_available():
        assert get_probe_device(study(resources={"gpus": 1})) == torch.device("cuda")
        return
    with pytest.raises(InputError, match=r"tiny: resources\.gpus: a probe needs a machine with"):
        get_probe_device(study(resources={"gpus": 1}))
