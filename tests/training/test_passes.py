"""Run with `pytest tests/training/test_passes.py`: epochs of so many steps, last batches, and stages that end early."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dirtune.data.cache import ResidentData, make_epoch_order
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.recipe import EarlyStopping
from dirtune.training.loop import run_epochs
from dirtune.training.passes import Passes
from dirtune.training.stages import list_stages
from dirtune.training.state import begin_training
from dirtune.training.trial import TrialRun
from tests.training.gloo import on_ranks
from tests.training.runs import TERMS, Configure, finish, in_float64, job_of, lasting, same, tables, trained, weights_of
from tests.training.test_on_ranks import outcome

SGD = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.0}
FOREVER = {"epochs": 40, "optimizer": "sgd", "learning_rate": 0.3, "batch_size": 16}
"""A recipe whose objective wanders."""


def iter_pass(number: int, size: int, *, drops: bool) -> Iterator[Tensor]:
    """Yield the rows of each batch of a pass over the 202 rows."""
    batches = make_epoch_order(0, number, 202).split(size)
    return iter(batches[:-1] if drops else batches)


def iter_passes(size: int, *, drops: bool) -> Iterator[Tensor]:
    for number in range(1, 1000):
        yield from iter_pass(number, size, drops=drops)


def descend(model: nn.Module, data: ResidentData, batches: Iterator[Tensor]) -> None:
    """Train on these batches in plain PyTorch: the absolute error, by gradient descent."""
    split, optimizer = data.splits["train"], torch.optim.SGD(model.parameters(), lr=0.02)
    for rows in batches:
        predictions = model({"vector": split.inputs["vector"][rows]}).predictions
        optimizer.zero_grad()
        (predictions - split.labels[rows].double()).abs().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("recipe", "steps", "drops"),
    [
        ({"batch_size": 50, "last_batch": "drop"}, 8, True),
        ({"batch_size": 50}, 10, False),
        # 202 rows are 3 batches of 67 and a single row; without terms it is kept.
        ({"batch_size": 67, "last_batch": "drop_single"}, 8, False),
        ({"batch_size": 64, "steps_per_epoch": 3}, 6, False),
        ({"batch_size": 64, "steps_per_epoch": 7}, 14, False),
        ({"batch_size": 50, "steps_per_epoch": 7, "last_batch": "drop"}, 14, True),
        ({"batch_size": 50, "steps_per_epoch": 7, "last_batch": "drop", "accumulation": 5}, 14, True),
        ({"batch_size": 202, "steps_per_epoch": 2, "last_batch": "drop"}, 4, False),
    ],
)
def test_the_steps_of_two_epochs_continue_over_passes_through_the_rows(
    configuration: Configure, toy: ResidentData, recipe: dict[str, Any], steps: int, drops: bool
) -> None:
    data = in_float64(toy)
    config = configuration(recipe={**SGD, "epochs": 2, **recipe})
    training, plain = begin_training(config, data), begin_training(config, data)
    training.model.double()
    plain.model.double()
    list(run_epochs(training))
    batches = [*islice(iter_passes(recipe["batch_size"], drops=drops), steps)]
    descend(plain.model, data, iter(batches))
    torch.testing.assert_close(weights_of(training), weights_of(plain), rtol=1e-12, atol=1e-14)
    assert training.samples == sum(len(rows) for rows in batches)
    assert (training.epoch, training.is_finished) == (2, True)


def test_a_single_last_row_is_left_out_where_terms_compare_rows(configuration: Configure, toy: ResidentData) -> None:
    recipe = {"batch_size": 67, "epochs": 1}
    kept, left_out, dropped = (
        trained(configuration(terms=TERMS, recipe={**recipe, "last_batch": rule}), toy)
        for rule in ("keep", "drop_single", "drop")
    )
    assert (kept.samples, left_out.samples) == (202, 201)
    assert same(weights_of(left_out), weights_of(dropped))
    assert not same(weights_of(left_out), weights_of(kept))
    # Two rows are a pair.
    pair = configuration(terms=TERMS, recipe={**recipe, "batch_size": 100, "last_batch": "drop_single"})
    assert trained(pair, toy).samples == 202
    # A stage without terms has no reason to leave a row out.
    scheme = {"name": "two_stage", "epochs": 1}
    staged = configuration(terms=TERMS, scheme=scheme, recipe={**recipe, "last_batch": "drop_single"})
    assert [Passes(stage, 202).used_rows for stage in list_stages(staged)] == [201, 202]


def test_passes_have_numbers_across_epochs(configuration: Configure) -> None:
    recipe = {"batch_size": 64, "steps_per_epoch": 6, "epochs": 3, "last_batch": "drop"}
    (stage,) = list_stages(configuration(recipe=recipe))
    passes = Passes(stage, 202)
    assert (passes.steps_per_pass, passes.steps_per_epoch, passes.per_epoch) == (3, 6, 2.0)
    parts = [[(part.number, part.steps, part.ends_pass) for part in passes.iter_parts(epoch)] for epoch in (1, 3)]
    assert parts[0] == [(1, range(3), True), (2, range(3), True)]
    assert parts[1] == [(5, range(3), True), (6, range(3), True)]
    exact = Passes(stage, 192)
    assert [(part.number, part.steps) for part in exact.iter_parts(2)] == [(3, range(3)), (4, range(3))]
    longer = Passes(list_stages(configuration(recipe={**recipe, "last_batch": "keep"}))[0], 202)
    assert [(part.number, part.steps, part.ends_pass) for part in longer.iter_parts(2)] == [
        (2, range(2, 4), True),
        (3, range(4), True),
    ]
    assert [longer.count_rows_of_step(2, step) for step in (1, 2, 3)] == [64, 10, 64]
    assert [longer.count_rows(epoch) for epoch in (1, 2)] == [202 + 128, 74 + 202]
    assert longer.count_begun(3) == 5


def test_feature_smoothing_counts_passes(configuration: Configure, toy: ResidentData) -> None:
    # Three epochs of two passes are six epochs of one.
    settings = {"reweighting": {"fds": {"size": 3}}}
    recipe = {**SGD, "batch_size": 101}
    whole = trained(configuration(**settings, recipe={**recipe, "epochs": 6}), toy)
    pairs = trained(configuration(**settings, recipe={**recipe, "epochs": 3, "steps_per_epoch": 4}), toy)
    # An epoch that ends within a pass updates nothing.
    odd = trained(configuration(**settings, recipe={**recipe, "epochs": 3, "steps_per_epoch": 3}), toy)
    assert same(weights_of(whole), weights_of(pairs))
    assert whole.order_digest == pairs.order_digest
    assert (pairs.model.smoothing.epochs, odd.model.smoothing.epochs) == (6, 4)


def test_dropout_of_an_epoch_is_drawn_once_for_all_its_passes(configuration: Configure, toy: ResidentData) -> None:
    model = {"encoder": {"dropout": 0.5}}
    recipe = {"batch_size": 202, "epochs": 1, "steps_per_epoch": 2}
    training = begin_training(configuration(model=model, recipe=recipe), toy)
    masks: list[Tensor] = []
    dropout = next(each for each in training.model.modules() if isinstance(each, nn.Dropout))
    dropout.register_forward_hook(lambda module, inputs, output: masks.append(output == 0) if module.training else None)
    list(run_epochs(training))
    assert len(masks) == 2
    assert not torch.equal(masks[0], masks[1])


def is_over(values: list[float], patience: int, rule: str) -> bool:
    return EarlyStopping(patience=patience, rule=rule).is_over(values, maximize=False)  # type: ignore[arg-type]


def out_of_patience(history: list[float], patience: int) -> bool:
    """The rule of the STS-B trainer, of a history that should decrease."""
    patience = patience + 1
    return len(history) > patience and max(history[-patience:]) <= history[-1]


def test_early_stopping_follows_its_rules() -> None:
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        history = random.integers(0, 5, size=random.integers(1, 9)).astype(float).tolist()
        for patience in (1, 2, 3):
            newest = out_of_patience(history, patience)
            assert is_over(history, patience, "newest_worst") == newest
            since_best = len(history) - 1 - int(np.argmin(history))
            assert is_over(history, patience, "plateau") == (since_best >= patience)
            seen.add((newest, since_best >= patience))
    assert len(seen) == 4
    # The trainer's patience of 10 needs twelve checks.
    growing = [float(value) for value in range(20)]
    assert next(n for n in range(1, 20) if is_over(growing[:n], 10, "newest_worst")) == 12
    rising = EarlyStopping(patience=2)
    assert rising.is_over([0.1, 0.3, 0.2, 0.3], maximize=True)
    assert not rising.is_over([0.1, 0.3, 0.2, 0.4], maximize=True)
    assert not rising.is_over([], maximize=False)
    assert is_over([1.0, math.nan, math.nan], 2, "plateau")
    assert not is_over([math.nan, 1.0], 1, "plateau")


@pytest.mark.parametrize("rule", ["plateau", "newest_worst"])
def test_a_trial_that_stops_early_is_the_beginning_of_one_that_does_not(
    configuration: Configure, toy: ResidentData, tmp_path: Path, rule: str
) -> None:
    whole = trained(configuration(recipe=FOREVER), toy)
    values = [epoch["val/all/mae"] for epoch in whole.history]
    expected = next(n for n in range(1, 41) if is_over(values[:n], 3, rule))
    assert 3 < expected < 40
    config = configuration(recipe={**FOREVER, "early_stopping": {"patience": 3, "rule": rule}})
    trial = finish(TrialRun(job_of(config, toy), toy, Storage.open(tmp_path)))
    assert trial.status == "complete"
    assert trial.training.history == whole.history[:expected]
    (row,) = tables(Storage.open(tmp_path))["trials"]
    assert (row["epochs_run"], row["epochs_planned"]) == (expected, 40)
    assert row["best_epoch"] == int(np.argmin(values[:expected])) + 1
    assert row["objective"] == min(values[:expected])


def test_the_second_stage_follows_a_first_that_ended_early(configuration: Configure, toy: ResidentData) -> None:
    settings = {**FOREVER, "early_stopping": {"patience": 3}}
    scheme = {"name": "rrt", "epochs": 30, "learning_rate": 0.5, "optimizer": "sgd"}
    joint = begin_training(configuration(recipe=settings), toy)
    alone = sum(1 for _ in run_epochs(joint))
    training = begin_training(configuration(scheme=scheme, recipe=settings), toy)
    list(run_epochs(training))
    assert training.history[:alone] == joint.history
    assert (training.stage.number, training.stage.start, training.stage.passes_before) == (1, alone, alone)
    assert training.best_epoch > alone
    second = [epoch["val/all/mae"] for epoch in training.history[alone:]]
    assert len(second) == next((n for n in range(1, 31) if is_over(second[:n], 3, "plateau")), 30)


RESUMED: dict[str, dict[str, Any]] = {
    "steps within passes": {"recipe": {"epochs": 4, "batch_size": 50, "steps_per_epoch": 3, "last_batch": "drop"}},
    "steps over passes, smoothed": {
        "model": {"encoder": {"dropout": 0.3}},
        "recipe": {"epochs": 4, "batch_size": 64, "steps_per_epoch": 7},
        "reweighting": {"fds": {"size": 3}},
    },
    "two stages that end early": {
        "recipe": {**FOREVER, "steps_per_epoch": 5, "early_stopping": {"patience": 1}},
        "scheme": {"name": "rrt", "epochs": 9, "learning_rate": 0.5},
    },
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_trial_interrupted_after_every_epoch_ends_bitwise_as_an_uninterrupted_one(
    configuration: Configure, toy: ResidentData, tmp_path: Path, name: str
) -> None:
    job = job_of(configuration(**RESUMED[name]), toy)
    whole = finish(TrialRun(job, toy, Storage.open(tmp_path / "whole")))
    parts, trial = Storage.open(tmp_path / "parts"), None
    while trial is None or trial.status is None:
        # A new process starts from another state.
        torch.manual_seed(1)
        trial = TrialRun(job, toy, parts, waits_for_checkpoints=True)
        trial.step()
    assert lasting(tables(parts)) == lasting(tables(whole.study))
    found, wanted = trial.training.get_state(), whole.training.get_state()
    assert found["history"] == wanted["history"]
    for part in ("model", "best_weights", "optimizer"):
        torch.testing.assert_close(found[part], wanted[part], rtol=0, atol=0)
    assert (found["stage"], found["samples"]) == (wanted["stage"], wanted["samples"])


def test_a_checkpoint_without_a_stage_is_resumed(configuration: Configure, toy: ResidentData) -> None:
    config = configuration(scheme={"name": "rrt", "epochs": 2}, recipe={"epochs": 2})
    whole = trained(config, toy)
    early = begin_training(config, toy)
    next(islice(run_epochs(early), 2, None))
    state = early.get_state()
    del state["stage"], state["samples"]
    resumed = begin_training(config, toy)
    resumed.load_state(state)
    list(run_epochs(resumed))
    assert same(weights_of(resumed), weights_of(whole))
    assert resumed.samples == whole.samples == 4 * 202


@pytest.mark.slow
def test_two_ranks_make_the_steps_of_one_process(configuration: Configure, toy: ResidentData) -> None:
    data = in_float64(toy)
    recipe = {**SGD, "batch_size": 67, "steps_per_epoch": 5, "last_batch": "drop_single"}
    stopping = {"epochs": 20, "early_stopping": {"patience": 1}}
    config = configuration(terms=TERMS, recipe={**recipe, **stopping, "learning_rate": 0.3})
    one = outcome(0, 1, data, config)
    assert 2 < len(one["history"]) < 20
    for each in on_ranks(2, outcome, data, config):
        assert len(each["history"]) == len(one["history"])
        assert each["digest"] == one["digest"]
        torch.testing.assert_close(each["weights"], one["weights"], rtol=1e-9, atol=1e-11)


def test_a_recipe_that_leaves_no_step_is_refused(configuration: Configure, toy: ResidentData) -> None:
    config = configuration(recipe={"batch_size": 256, "last_batch": "drop"})
    with pytest.raises(
        InputError, match=r"recipe\.last_batch: leaves no step: the only batch has 202 training rows of at most 256"
    ):
        begin_training(config, toy)


def test_defaults_leave_the_id_of_a_trial_and_settings_change_it(configuration: Configure, toy: ResidentData) -> None:
    settings = {"recipe": {"steps_per_epoch": None, "last_batch": "keep", "early_stopping": None}}
    plain, same_one = configuration(), configuration(**settings)
    assert plain.compute_trial_id("x") == same_one.compute_trial_id("x")
    for changed in ({"steps_per_epoch": 5}, {"last_batch": "drop"}, {"early_stopping": {"patience": 3}}):
        assert configuration(recipe=changed).compute_trial_id("x") != plain.compute_trial_id("x")
