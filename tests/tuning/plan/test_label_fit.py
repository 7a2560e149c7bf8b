"""Run with `pytest tests/tuning/plan/test_label_fit.py`: label units that a training cannot bridge."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dirtune.cli.display import format_plan
from dirtune.data.cache import ResidentData
from dirtune.nested import merge
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.training.evaluation import predict
from dirtune.training.state import begin_training
from dirtune.tuning.plan import label_fit
from dirtune.tuning.plan.label_fit import LabelFit, measure_label_fits
from dirtune.tuning.plan.plan import plan
from tests.training.conftest import SETTINGS
from tests.training.runs import without_images


def study(**base: Any) -> ResolvedStudy:
    settings = merge(copy.deepcopy(SETTINGS), {"model": {"label_scale": 1.0, "label_offset": 0.0}})
    raw = {"name": "tiny", "question": "?", "reference": "a", "seeds": [0], "arms": {"a": {}}}
    return resolve({**raw, "base": merge(settings, base)}, where="test")


def fit(toy: ResidentData, **base: Any) -> LabelFit:
    (found,) = measure_label_fits(study(**base), toy)
    return found


def test_a_fit_compares_first_predictions_with_the_labels(toy: ResidentData) -> None:
    found, config = fit(toy), study().arms[0].config
    training = begin_training(config, toy)
    first = predict(training, "train")
    assert found.first == pytest.approx(np.median(first))
    assert found.first_spread == pytest.approx(first.std())
    # The histogram has bins of 2 m.
    assert found.center == pytest.approx(np.median(toy.splits["train"].exact_labels), abs=1.0)
    assert found.needed == pytest.approx(max(abs(found.center - found.first), found.spread))
    # Three epochs of four steps; Adam moves each of the predictor's weights by its learning rate.
    assert found.steps == 12
    inputs: list[torch.Tensor] = []
    training.model.predictor.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    predict(training, "train")
    assert found.reach == pytest.approx(12 * 0.01 * (1 + float(inputs[0].abs().sum(dim=1).mean())), rel=1e-5)


def test_few_probed_rows_need_no_rare_label(toy: ResidentData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_fit, "PROBED_ROWS", 4)
    data = without_images(toy)
    assert fit(data, synthesis={"name": "smoter"}).first == fit(data).first


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ({}, True),
        # Enough steps for the same distance
        ({"recipe": {"epochs": 300}}, False),
        ({"recipe": {"learning_rate": 1.0}}, False),
        ({"recipe": {"optimizer": "sgd"}}, False),
        ({"model": {"label_scale": 4.5, "label_offset": 4.0}}, False),
        # A short training in fitting units is short, and no fault of theirs.
        ({"model": {"label_scale": 4.5, "label_offset": 4.0}, "recipe": {"learning_rate": 1e-6}}, False),
        ({"model": {"label_scale": 900.0, "label_offset": 4.0}}, True),
    ],
    ids=["too small", "long", "fast", "sgd", "fitting", "fitting and slow", "too large"],
)
def test_units_are_far_off_if_the_steps_do_not_bridge_them(
    toy: ResidentData, base: dict[str, Any], expected: bool
) -> None:
    assert fit(toy, **base).is_far_off is expected


def test_a_sentence_says_what_to_do(toy: ResidentData) -> None:
    assert "has to move by" in str(fit(toy))
    large = str(fit(toy, model={"label_scale": 900.0, "label_offset": 4.0}))
    assert "first predictions spread over" in large
    assert all("model.label_scale: auto" in text for text in (str(fit(toy)), large))


def test_a_share_of_the_data_has_fewer_steps(toy: ResidentData) -> None:
    assert fit(toy, data={"fraction": 0.3}).steps == 3


def test_a_plan_reports_them_with_a_probe_alone(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(base=merge(copy.deepcopy(SETTINGS), {"model": {"label_scale": 0.01}}))
    made = plan(path, data=data_root, results=tmp_path, probe=True)
    assert [each.arm for each in made.label_fits] == ["vanilla", "conr"]
    assert "label units far off (vanilla" in str(format_plan(made).caption)
    assert plan(path, data=data_root, results=tmp_path).label_fits == ()
    units = {"model": {"label_scale": "auto", "label_offset": "auto"}}
    fitting = study_file(base=merge(copy.deepcopy(SETTINGS), units), name="fitting")
    assert plan(fitting, data=data_root, results=tmp_path, probe=True).label_fits == ()
