"""Run with `pytest tests/cli/test_sweep_view.py`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.console import Console

from dirtune.cli.sweep_progress import SweepProgress
from dirtune.cli.sweep_view import SweepView, format_arms
from dirtune.tuning.folder.records import TrialOutcome
from tests.cli.test_display import (
    ODD,
    get_output,
    make_job,
    make_log,
    make_plan,
    make_recorded_trial,
    make_terminal,
    read_cells,
    render,
)

COMPLETE = TrialOutcome(status="complete", objective=4.56789)
FAILED = TrialOutcome(status="failed", objective=None)


def run_a_sweep(console: Console) -> None:
    with SweepView(console) as view:
        view.begin(make_plan(), [make_recorded_trial("vanilla", TrialOutcome(status="complete", objective=5.0))])
        view.report_epoch(make_job(), 1, 5.0)
        view.report_end(make_job(), COMPLETE)
        view.report_epoch(make_job(ODD, 4), 1, None)
        view.report_epoch(make_job(ODD, 4), 2, 6.54321)
        view.report_end(make_job(ODD, 4), FAILED)


def test_a_log_has_one_line_for_every_trial_that_ended() -> None:
    console = make_log()
    run_a_sweep(console)
    dated = [line for line in get_output(console).splitlines() if line]
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in dated)
    first, *lines = [line[21:] for line in dated]
    assert first == "tiny: 7 trials, 1 recorded, 3 at once"
    assert [line.split(" s  ")[1] for line in lines] == [
        "vanilla, seed 3: complete val/all/mae 4.568",
        f"{ODD}, seed 4: failed",
    ]
    assert [line.split()[0] for line in lines] == ["[2/7]", "[3/7]"]


def test_a_trial_that_lost_its_worker_is_reported_with_the_reason() -> None:
    console = make_log()
    with SweepView(console) as view:
        view.begin(make_plan())
        view.report_worker_loss(make_job(), "No space left on device")
    message = "vanilla, seed 3: No space left on device; resumes from its checkpoint on another worker"
    assert message in get_output(console)


def test_a_long_line_of_a_log_is_not_folded() -> None:
    console, arm = make_log(), "conr " + "x" * 90
    found = make_plan()
    with SweepView(console) as view:
        view.begin(replace(found, trials={arm: 1}))
        view.report_end(make_job(arm), TrialOutcome(status="complete", objective=1.0))
    assert f"{arm}, seed 3: complete val/all/mae 1\n" in get_output(console)


def test_a_terminal_shows_the_lines_a_table_of_arms_and_a_bar() -> None:
    console = make_terminal()
    run_a_sweep(console)
    text = get_output(console)
    assert "vanilla, seed 3: complete val/all/mae 4.568" in text
    assert f"{ODD}, seed 4: failed" in text
    assert read_cells(text, "vanilla")[:3] == ["vanilla", "2", "2"]
    assert "3/7" in text
    assert re.search(r"about [\d.]+ \w+ left", text)


def test_added_trials_are_reported_and_counted() -> None:
    console = make_log()
    with SweepView(console) as view:
        view.begin(make_plan())
        view.report_new_trials([make_job("vanilla", 2), make_job(ODD, 2), make_job("vanilla", 3)])
        view.report_end(make_job(), COMPLETE)
    text = get_output(console)
    assert f"still open, added trials: seed 2 of vanilla, {ODD}; seed 3 of vanilla\n" in text
    assert "[ 1/10]" in text


def test_a_stop_request_is_reported_with_its_source() -> None:
    console = make_log()
    with SweepView(console) as view:
        view.begin(make_plan())
        view.report_stop("SIGTERM")
    assert "SIGTERM: the sweep ends after the current epoch of every trial" in get_output(console)


def test_an_error_during_the_sweep_restores_the_terminal() -> None:
    console = make_terminal()
    with pytest.raises(KeyError), SweepView(console):
        raise KeyError("in between")
    text = get_output(console)
    # The cursor
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_running_arms_are_listed_first_and_arms_without_room_are_counted() -> None:
    arms = {"done": 1, "waits": 3, "trains": 2, ODD: 1}
    progress = SweepProgress(replace(make_plan(), trials=arms), [make_recorded_trial("done", COMPLETE)])
    progress.update_epoch(make_job("trains", 6), 3)
    text = render(format_arms(progress, most=4))
    order = [text.index(name) for name in ("trains", "waits", "done")]
    assert order == sorted(order)
    assert read_cells(text, "trains") == ["trains", "2", "0", "0", "0", "seed 6 3/10", "-"]
    assert read_cells(text, "done") == ["done", "1", "1", "0", "0", "4.568"]
    assert "and 2 more arms" in render(format_arms(progress, most=2))
