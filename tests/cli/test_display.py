"""Run with `pytest tests/cli/test_display.py`."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from dirtune.cli.display import (
    format_catalog,
    format_checks,
    format_duration,
    format_plan,
    format_setting_effects,
    format_status,
    format_summary,
    format_train_result,
    show_epochs,
)
from dirtune.cluster.checks import Check
from dirtune.config import TrialConfig
from dirtune.results.analysis.status import StartedTrial, SweepStatus
from dirtune.study.resolve import resolve
from dirtune.training.train import TrainResult
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.records import RecordedTrial, TrialOutcome
from dirtune.tuning.interface import SweepSummary
from dirtune.tuning.plan.inert_settings import SettingEffect, TrainingChange
from dirtune.tuning.plan.plan import Plan
from dirtune.tuning.plan.runtime import RuntimeForecast, TimeEstimate

# What rich would take for markup, a closing tag and an emoji
ODD = "conr [omega 2] [/b] :x:"
OMEGA = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}}


def make_plan(**changes: Any) -> Plan:
    raw = {
        "name": "tiny",
        "question": "Does [bold]it[/i] help?",
        "reference": "vanilla",
        "seeds": [0, 1],
        "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}, "recipe": {"epochs": 7}},
        "arms": {"vanilla": {}, ODD: {"terms": {"conr": {}}}},
        "space": OMEGA,
        "search": {"trials": 5},
        "resources": {"workers": 2, "gpus": 1},
    }
    study = resolve({**raw, **changes}, where="test")
    return Plan(
        study=study,
        samples={"train": 4809, "test": 1200},
        trials={"vanilla": 2, ODD: 5},
        recorded_trials=1,
        concurrency=3,
        parameters={"vanilla": 67073, ODD: 177057},
    )


def make_job(arm: str = "vanilla", seed: int = 3) -> TrialJob:
    plain = {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}, "seed": seed}
    config = TrialConfig.model_validate(plain)
    return TrialJob(study="tiny", arm=arm, trial_id="abc", config=config)


def make_recorded_trial(arm: str, outcome: TrialOutcome) -> RecordedTrial:
    return RecordedTrial(trial_id="abc", arm=arm, role="evaluation", seed=0, outcome=outcome)


def make_terminal(*, width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def make_log() -> Console:
    """A console without a terminal, which thinks that it is 80 characters wide."""
    return Console(file=io.StringIO(), width=80)


def get_output(console: Console) -> str:
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def render(thing: RenderableType, *, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(thing)
    return get_output(console)


def read_cells(text: str, first: str) -> list[str]:
    """The cells, but for empty ones, of the table's line that begins with `first`."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    (found,) = [line for line in lines if line[0] == first]
    return found


def test_a_plan_shows_every_arm_with_its_budget_and_tuned_settings() -> None:
    text = render(format_plan(make_plan()))
    assert read_cells(text, "vanilla (reference)") == ["vanilla (reference)", "2", "2", "7", "-", "67,073", "-"]
    assert read_cells(text, ODD) == [ODD, "5", "1", "7", "terms.conr.omega", "177,057", "-"]
    caption = "7 trials (1 recorded), 3 at once; each 2 x 1 CPU, 2 GPU; samples: 4,809 train, 1,200"
    assert caption in " ".join(text.split())
    assert "Less with bf16" in render(format_plan(replace(make_plan(), precision_note="Less with bf16")))


def make_timed_plan(trials: dict[str, TimeEstimate | None], **changes: Any) -> Plan:
    """The plan with a forecast of a hundred seconds."""
    found = RuntimeForecast(trials=trials, left={"vanilla": 1, ODD: 5}, seconds=100.0, gpu_hours=0.25, is_bound=False)
    return replace(make_plan(), forecast=replace(found, **changes))


def test_a_plan_without_recorded_speeds_recommends_probe() -> None:
    text = render(format_plan(make_timed_plan({"vanilla": None, ODD: None}, seconds=None, gpu_hours=None)))
    assert read_cells(text, "vanilla (reference)")[-1] == "-"
    assert "time: no recorded speed; --probe measures one" in text
    known = {"vanilla": TimeEstimate(12.3, "from x"), ODD: None}
    text = render(format_plan(make_timed_plan(known, seconds=None, gpu_hours=None)))
    assert read_cells(text, "vanilla (reference)")[-1] == "12 s"
    assert f"time: no recorded speed of {ODD}; --probe measures one" in text
    same = replace(make_plan(), study=replace(make_plan().study, merged_arms={"[b]": ODD}))
    assert f"[b] is the same as {ODD}" in render(format_plan(same))


def test_a_plan_shows_its_run_time_and_the_source_of_the_estimate() -> None:
    trials = {
        "vanilla": TimeEstimate(5.25, "from 3 recorded trials"),
        ODD: TimeEstimate(75.0, "from 3 recorded trials"),
    }
    text = render(format_plan(make_timed_plan(trials)))
    assert read_cells(text, ODD)[-1] == "1 min 15 s"
    assert "time: about 1 min 40 s for the 6 trials left, 0.25 GPU hours; from 3 recorded trials\n" in re.sub(
        r" +\n", "\n", text
    )
    bound = render(format_plan(make_timed_plan({**trials, ODD: TimeEstimate(1.0, "from y")}, is_bound=True)))
    assert (
        "time: at most 1 min 40 s for the 6 trials left (trials that are stopped early take less), "
        "0.25 GPU hours; from 3 recorded trials; from y" in " ".join(bound.split())
    )


def test_a_complete_study_has_no_time_left() -> None:
    done = make_timed_plan({"vanilla": None, ODD: None}, left={"vanilla": 0, ODD: 0}, seconds=0.0)
    assert "time: nothing is left to run" in render(format_plan(done))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.26, "0.3 s"),
        (9.7, "9.7 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (100, "1 min 40 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (5400, "1 h 30 min"),
        (47.5 * 3600, "47 h 30 min"),
        (49 * 3600, "2 d 1 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_setting_effects_show_the_share_of_the_gradient_or_another_change() -> None:
    found = [
        SettingEffect(arm=ODD, compared="against vanilla", change=TrainingChange(kind="gradient", size=0.123)),
        SettingEffect(
            arm="b",
            setting="recipe.epochs",
            compared="1 against 9",
            change=TrainingChange(kind="later", later=("epochs", "learning rate")),
        ),
        SettingEffect(arm="c", setting="[x]", compared="1 against 2", change=TrainingChange(kind="nothing")),
    ]
    text = render(format_setting_effects(found))
    assert read_cells(text, ODD) == [ODD, "-", "against vanilla", "1.2e-01"]
    assert read_cells(text, "b")[1:] == [
        "recipe.epochs",
        "1 against 9",
        "-",
        "changes nothing at first, but later: epochs, learning rate",
    ]
    assert read_cells(text, "c")[1:] == ["[x]", "1 against 2", "-", "changes neither loss nor gradient"]


def test_a_check_shows_its_state_its_value_and_its_advice_below() -> None:
    fine = Check(subject="Ray", value="2.60.0")
    odd = Check(subject="results root", value=ODD, state="problem", advice="use [another]")
    text = render(format_checks([fine, odd]))
    assert read_cells(text, "ok") == ["ok", "Ray", "2.60.0"]
    assert read_cells(text, "problem") == ["problem", "results root", ODD]
    assert read_cells(text, "-> use [another]") == ["-> use [another]"]


def test_names_given_by_users_are_never_read_as_markup() -> None:
    assert "tiny: Does [bold]it[/i] help?" in render(format_plan(make_plan()))
    state = SweepStatus(study="tiny", planned={ODD: 1}, recorded={}, started=())
    assert read_cells(render(format_status(state)), ODD)[1] == "1"
    assert "a [b] :x: [/c]" in render(format_catalog("terms", {"conr": "a [b] :x: [/c]"}))


def test_a_narrow_terminal_folds_a_long_name_without_loss() -> None:
    name = "projection_dim=128_epochs=90_temperature=0.07"
    state = SweepStatus(study="tiny", planned={name: 1}, recorded={}, started=())
    text = render(format_status(state), width=80)
    below_the_header = text.rsplit("─", 1)[1].strip().splitlines()
    pieces = [re.split(r"\s{2,}", line.strip())[0] for line in below_the_header]
    assert len(pieces) > 1
    assert "".join(pieces) == name
    assert "…" not in text


def test_status_shows_counts_by_arm_and_the_last_epoch_of_started_trials() -> None:
    started = [
        StartedTrial(
            trial_id=f"t{epochs}",
            arm="conr",
            seed=0,
            epochs_run=epochs,
            epochs_planned=10,
            objective=objective,
            seconds_since_progress=seconds,
        )
        for epochs, objective, seconds in ((3, 4.56789, 12.4), (1, None, 3600.0))
    ]
    recorded = {("vanilla", "complete"): 2, ("vanilla", "failed"): 1, ("conr", "pruned"): 4}
    state = SweepStatus(study="tiny", planned={"vanilla": 3, "conr": 8}, recorded=recorded, started=tuple(started))
    text = render(format_status(state))
    assert "tiny: 7 of 11 trials recorded" in text
    assert read_cells(text, "vanilla") == ["vanilla", "3", "2", "0", "1", "0"]
    assert read_cells(text, "conr") == ["conr", "8", "0", "4", "0", "2", "3/10", "4.568", "12 s ago"]
    assert read_cells(text, "1/10") == ["1/10", "-", "3600 s ago"]


def test_status_counts_failures_by_class_and_names_the_retry_command() -> None:
    state = SweepStatus(
        study="tiny", planned={"a": 4}, recorded={("a", "failed"): 3}, started=(), failures={"nan": 1, "code": 2}
    )
    last = render(format_status(state)).strip().splitlines()[-1]
    assert last == "failed: 2 code, 1 nan; `dirtune resume --retry CLASS` runs them again"


def test_a_catalog_shows_its_kind_and_every_entry() -> None:
    text = render(format_catalog("losses", {"l1": "Absolute error.", "mse": "Squared error."}))
    assert text.splitlines()[0].strip() == "losses"
    assert read_cells(text, "l1") == ["l1", "Absolute error."]
    assert read_cells(text, "mse") == ["mse", "Squared error."]


def make_summary(**changes: Any) -> SweepSummary:
    usual: dict[str, Any] = {"folder": "/r/tiny", "reused": 2, "orphaned": 0, "run": {}, "crashed": {}, "left": 0}
    return SweepSummary(**{**usual, **changes})


def test_a_summary_counts_trials_by_status_and_names_the_folder() -> None:
    text = format_summary(make_summary(run={"complete": 3, "pruned": 1}))
    first, second = text.splitlines()
    assert first == "3 complete, 1 pruned; 2 reused. Parquet: /r/tiny/results"
    assert second == "next: dirtune table tiny; dirtune check tiny; dirtune report tiny"
    assert format_summary(make_summary()).startswith("nothing to run; 2 reused.")
    elsewhere = format_summary(make_summary(), data="d", results="s3://key:secret@b/my results").splitlines()[-1]
    assert elsewhere.startswith("next: dirtune table tiny --results 's3://b/my results'; dirtune check tiny --results")
    left = format_summary(make_summary(left=1), data="d", results="r")
    assert left.endswith("1 trial left, `dirtune resume tiny --results r --data d` continues.")


def test_a_summary_of_exceptions_shows_the_reason_and_the_resume_command() -> None:
    crashed = {"a1": "the worker died (out of memory)", "b2": "the worker died (out of memory)"}
    first, second, third = format_summary(make_summary(crashed=crashed, left=5)).splitlines()
    assert first.startswith("nothing to run")
    assert second == "2 trials failed with an exception: the worker died (out of memory)."
    assert third == "5 trials left, `dirtune resume tiny` continues."


def test_a_summary_of_a_stopped_sweep_names_the_source_of_the_stop() -> None:
    _, second, third = format_summary(make_summary(stopped="SIGTERM", left=1)).splitlines()
    assert second == "Stopped by SIGTERM when every running trial had finished its epoch."
    assert "1 trial left" in third


def test_the_result_of_a_single_trial_is_one_line() -> None:
    result = TrainResult(trial_id="abc", status="complete", best_epoch=4, values={}, reused=False)
    again = TrainResult(trial_id="abc", status="complete", best_epoch=4, values={}, reused=True)
    assert format_train_result(result) == "trial abc complete, best epoch 4"
    assert format_train_result(again) == "trial abc is recorded already (complete)"
    failed = TrainResult(trial_id="abc", status="failed", best_epoch=0, values={}, reused=False, error="no luck")
    assert format_train_result(failed) == "trial abc failed: no luck"


def train_two_epochs(console: Console) -> str:
    with show_epochs(console) as on_epoch:
        on_epoch(1, 2, {"train/loss": 9.11649, "val/all/mae": 30.0, "learning_rate": 0.1})
        on_epoch(2, 2, {"train/loss": 8.0, "val/all/mae": 29.5, "val/few/mae": 41.7})
    return get_output(console)


def test_a_log_of_a_trial_has_a_line_per_epoch() -> None:
    assert [line.rstrip() for line in train_two_epochs(make_log()).splitlines() if line] == [
        "epoch 1/2  train/loss 9.116  val/all/mae 30",
        "epoch 2/2  train/loss 8  val/all/mae 29.5  val/few/mae 41.7",
    ]


def test_a_terminal_shows_a_trial_as_a_bar_over_epochs() -> None:
    text = train_two_epochs(make_terminal())
    assert "2/2" in text
    assert "val/few/mae 41.7" in text
    assert "epoch 1/2" not in text


def test_columns_are_aligned_where_names_have_control_characters() -> None:
    lines = render(format_catalog("\x1b[1mkind", {"\x1b[31mred\x07": "x", "long enough to be last": "x"})).splitlines()
    assert lines[0].startswith(r"\x1b[1mkind")
    first, second = [line.strip() for line in lines[1:] if line.strip()]
    assert first.startswith(r"\x1b[31mred\x07 ")
    assert first.rindex("x") == second.rindex("x")
