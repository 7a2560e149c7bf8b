"""Sweeps for real, on a local Ray: run with `pytest tests/tuning/test_sweep.py`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

import dirtune
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.kept import measure_models
from dirtune.study.resolve import load_study
from tests.tuning.sweeps import DIGITS, ONE_WORKER, STUDY, load_search, metrics, rows, sweep_without_ray

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def swept(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return the file of a study on digits and the results of its sweep, which tests must not change."""
    folder = tmp_path_factory.mktemp("swept")
    path, results = folder / "tiny.yaml", folder / "results"
    path.write_text(yaml.safe_dump(DIGITS, sort_keys=False))
    handler = signal.getsignal(signal.SIGINT)
    summary = dirtune.sweep(str(path), data=digits, results=results)
    assert signal.getsignal(signal.SIGINT) is handler
    assert (summary.run, summary.reused) == ({"complete": 4}, 0)
    return str(path), results


def test_a_sweep_records_every_trial_pairs_its_arms_and_runs_no_trial_twice(
    digits: Path, swept: tuple[str, Path]
) -> None:
    path, results = swept
    trials = rows("select * from trials order by arm, seed", results)
    assert trials[["arm", "seed", "replicate"]].values.tolist() == [
        ["conr", 0, 0],
        ["conr", 1, 1],
        ["vanilla", 0, 0],
        ["vanilla", 1, 1],
    ]
    # One seed, one order of samples, whatever the arm.
    digests = trials.set_index(["arm", "seed"])["sample_order_digest"]
    assert digests["conr", 0] == digests["vanilla", 0] != digests["conr", 1]
    assert (trials["epochs_run"] == 3).all()
    assert (trials["data_fingerprint"].nunique(), trials["code_version"].nunique()) == (1, 1)
    assert trials["config.terms.conr.omega"].tolist()[:2] == [3.0, 3.0]
    assert rows("select count(*) c from predictions", results)["c"][0] == 4 * (600 + 1200)

    second = dirtune.sweep(path, data=digits, results=results)
    assert (second.run, second.reused) == ({}, 4)
    assert sorted(p.name for p in (results / "tiny" / "trials").iterdir()) == sorted(trials["trial_id"])
    leftovers = {p.name for p in (results / "tiny" / "trials").glob("*/*")}
    assert leftovers == {"config.json"}


def test_a_sweep_and_a_single_run_agree_bit_for_bit(digits: Path, swept: tuple[str, Path], tmp_path: Path) -> None:
    path, results = swept
    arm = load_study(path).arms[1]
    dirtune.train(arm.with_seed(1), data=digits, results=tmp_path, arm="conr")
    of_sweep, single = metrics(results), metrics(tmp_path, "train")
    of_sweep = of_sweep[(of_sweep["arm"] == "conr") & (of_sweep["seed"] == 1)].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_sweep, single, check_exact=True)


def test_the_folder_of_another_study_is_refused_with_the_difference(
    digits: Path, swept: tuple[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**DIGITS, "objective": {"metric": "rmse"}}))
    with pytest.raises(InputError) as caught:
        dirtune.sweep(str(path), data=digits, results=swept[1])
    text = str(caught.value)
    assert "holds a study of this name with other data or another objective" in text
    assert "objective.metric: was 'mae', is now 'rmse'" in text


@pytest.mark.usefixtures("ray_session")
def test_a_resident_group_trains_the_same_trials(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    resources = {"workers": 2, "checkpoint_seconds": 0}
    sweep_without_ray(study_file(name="alone", seeds=[0]), data_root, tmp_path)
    dirtune.sweep(study_file(name="together", seeds=[0], resources=resources), data=data_root, results=tmp_path)
    trials = rows("select study, arm, workers, worker, sample_order_digest from trials order by all", tmp_path)
    assert trials.groupby("study")["workers"].unique().to_dict() == {"alone": [1], "together": [2]}
    assert trials["sample_order_digest"].nunique() == 1
    # One group ran both trials
    assert trials[trials["study"] == "together"]["worker"].nunique() == 1
    one, two = metrics(tmp_path, "alone"), metrics(tmp_path, "together")
    chosen = one["metric"].isin(["mae", "rmse"])
    pd.testing.assert_frame_equal(one[chosen], two[chosen], rtol=0.02)
    kept = {name: measure_models(Storage.open(tmp_path / name)) for name in ("alone", "together")}
    assert len(kept["alone"]) == 2
    assert kept["alone"].keys() == kept["together"].keys()


@pytest.mark.usefixtures("ray_session")
def test_a_search_prunes_reports_every_status_to_optuna_and_types_every_setting(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(
        seeds=[0],
        resources=ONE_WORKER,
        search={
            "trials": 8,
            "sampler": "random",
            "scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2},
        },
        space={
            "terms.conr.beta": {"distribution": "loguniform", "low": 1e-2, "high": 1e2},
            "model.projection_dim": {"distribution": "choice", "values": [2, 4, 8]},
        },
    )
    summary = dirtune.sweep(path, data=data_root, results=tmp_path)
    assert sum(summary.run.values()) == 1 + 8
    trials = rows("select * from trials where arm = 'conr'", tmp_path)
    # Tune starts no worker beside the one of this sweep, which all trials share.
    assert trials["worker"].nunique() == 1
    assert trials["config.terms.conr.beta"].dtype == "float64"
    complete = trials[trials["status"] == "complete"]
    best = complete.sort_values(["objective", "trial_id"])["trial_id"].iloc[0]
    assert set(trials["trial_id"]) & measure_models(Storage.open(tmp_path / "tiny")).keys() == {best}
    assert trials["config.model.projection_dim"].dtype.kind in "iIf"
    assert trials["config.terms.conr.beta"].nunique() == 8
    told = load_search(tmp_path / "tiny", "conr").trials
    by_state = pd.Series([trial.state for trial in told]).value_counts()
    assert by_state.get(TrialState.COMPLETE, 0) == (trials["status"] == "complete").sum()
    assert by_state.get(TrialState.PRUNED, 0) == (trials["status"] == "pruned").sum() > 0
    pruned = trials[trials["status"] == "pruned"]
    assert (pruned["epochs_run"] < 3).all()
    assert pruned["objective"].notna().all()
    epochs = rows("select trial_id, max(epoch) e from epochs group by trial_id", tmp_path).set_index("trial_id")["e"]
    assert (epochs[pruned["trial_id"]].values == pruned["epochs_run"].values).all()


@pytest.mark.usefixtures("ray_session")
def test_a_study_is_extended_and_changed_and_only_new_trials_run(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    def sweep(**changes: Any) -> tuple[int, int, dict[str, int]]:
        done = dirtune.sweep(study_file(resources=ONE_WORKER, **changes), data=data_root, results=tmp_path)
        assert done.left == 0
        return done.reused, done.orphaned, dict(done.run)

    assert sweep_without_ray(study_file(seeds=[0]), data_root, tmp_path) == 2
    assert sweep(seeds=[0, 1]) == (2, 0, {"complete": 2})
    before = metrics(tmp_path)
    changed = {**STUDY["arms"], "conr": {"terms": {"conr": {"beta": 0.2, "omega": 3.0}}}}
    plan = dirtune.plan(study_file(arms=changed), data=data_root, results=tmp_path)
    assert (plan.recorded_trials, plan.orphaned_trials, plan.total_trials) == (2, 2, 4)
    assert sweep(arms=changed) == (2, 2, {"complete": 2})
    betas = rows('select distinct "config.terms.conr.beta" beta from trials', tmp_path)["beta"]
    assert set(betas.dropna()) == {0.2}
    # Back: what was orphaned is there again
    assert sweep() == (4, 2, {})
    pd.testing.assert_frame_equal(metrics(tmp_path), before, check_exact=True)


def test_a_study_that_does_not_fit_is_refused_before_anything_runs(
    digits: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    arms = {
        "vanilla": {},
        "text": {"model": {"encoder": {"name": "bilstm"}}},
        "eyes": {"recipe": {"views": {"augmentation": "rotate"}}, "data": {"shot_rule": "official"}},
    }
    with pytest.raises(InputError) as caught:
        dirtune.sweep(study_file(base=DIGITS["base"], arms=arms), data=digits, results=tmp_path)
    text = str(caught.value)
    assert "arms.text.model.encoder: encoder 'bilstm' needs" in text
    assert "arms.eyes.recipe.views.augmentation: unknown augmentation, got 'rotate'; known: light, none, shift" in text
    assert "arms.eyes.data.shot_rule: unknown shot rule, got 'official'; known: counts" in text
    with pytest.raises(InputError, match="the cluster has 2 and 0"):
        dirtune.sweep(study_file(base=DIGITS["base"], resources={"workers": 3}), data=digits, results=tmp_path)
    assert not (tmp_path / "tiny" / "results").exists()


def test_resume_without_a_sweep_names_the_existing_ones(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no sweep of this study to resume, got 'tiny'"):
        dirtune.resume("tiny", data=digits, results=tmp_path)


@pytest.mark.usefixtures("ray_session")
def test_a_study_that_does_not_fit_the_cluster_leaves_nothing_behind(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(resources={"cpus": 64})
    with pytest.raises(InputError, match="one trial needs 64 CPUs"):
        dirtune.sweep(path, data=data_root, results=tmp_path / "results")
    assert not (tmp_path / "results").exists()
