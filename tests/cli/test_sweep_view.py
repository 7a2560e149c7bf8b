"""Run with `pytest tests/cli/test_sweep_view.py`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from rich.console import Console

from dirtune.cli.sweep_progress import Tally
from dirtune.cli.sweep_view import SweepView, arms_table
from dirtune.tuning.search.queue import Ending
from tests.cli.test_display import ODD, cells, job, log, plan, shown, terminal, written

COMPLETE = Ending(status="complete", objective=4.56789)
FAILED = Ending(status="failed", objective=None)


def run_a_sweep(console: Console) -> None:
    with SweepView(console) as view:
        view.begin(replace(plan(), earlier=(("vanilla", Ending(status="complete", objective=5.0)),)))
        view.epoch(job(), 1, 5.0)
        view.ended(job(), COMPLETE)
        view.epoch(job(ODD, 4), 1, None)
        view.epoch(job(ODD, 4), 2, 6.54321)
        view.ended(job(ODD, 4), FAILED)


def test_without_a_terminal_there_is_one_line_for_every_trial_that_ended() -> None:
    console = log()
    run_a_sweep(console)
    first, *lines = [line for line in written(console).splitlines() if line]
    assert first == "tiny: 7 trials, 1 recorded, 3 at once"
    assert [line.split(" s  ")[1] for line in lines] == [
        "vanilla, seed 3: complete val/all/mae 4.568",
        f"{ODD}, seed 4: failed",
    ]
    assert [line.split()[0] for line in lines] == ["[2/7]", "[3/7]"]


def test_a_trial_that_starts_again_at_half_is_said() -> None:
    console = log()
    with SweepView(console) as view:
        view.begin(plan())
        halved = replace(job(), accumulation=2)
        view.halved(halved, "out of memory at epoch 1, step 1: a batch")
    rows = halved.config.recipe.batch_size // 2
    said = f"vanilla, seed 3: out of memory at epoch 1, step 1: a batch; again, {rows} rows at a time"
    assert said in written(console)


def test_a_trial_that_has_lost_its_worker_is_said_with_the_reason() -> None:
    console = log()
    with SweepView(console) as view:
        view.begin(plan())
        view.recovering(job(), "No space left on device")
    said = "vanilla, seed 3: No space left on device; on another worker it goes on from its checkpoint"
    assert said in written(console)


def test_a_long_line_of_a_log_is_not_folded() -> None:
    console, arm = log(), "conr " + "x" * 90
    found = plan()
    with SweepView(console) as view:
        view.begin(replace(found, trials={arm: 1}))
        view.ended(job(arm), Ending(status="complete", objective=1.0))
    assert f"{arm}, seed 3: complete val/all/mae 1\n" in written(console)


def test_a_terminal_has_the_lines_and_below_them_the_arms_and_a_bar() -> None:
    console = terminal()
    run_a_sweep(console)
    text = written(console)
    assert "vanilla, seed 3: complete val/all/mae 4.568" in text
    assert f"{ODD}, seed 4: failed" in text
    assert cells(text, "vanilla")[:3] == ["vanilla", "2", "2"]
    assert "3/7" in text
    assert re.search(r"about [\d.]+ \w+ left", text)


def test_further_seeds_are_said_and_counted() -> None:
    console = log()
    with SweepView(console) as view:
        view.begin(plan())
        view.further([job("vanilla", 2), job(ODD, 2), job("vanilla", 3)])
        view.ended(job(), COMPLETE)
    text = written(console)
    assert f"undecided, further trials: seed 2 of vanilla, {ODD}; seed 3 of vanilla\n" in text
    assert "[ 1/10]" in text


def test_a_sweep_that_is_asked_to_end_says_by_what() -> None:
    console = log()
    with SweepView(console) as view:
        view.begin(plan())
        view.stopping("SIGTERM")
    assert "SIGTERM: every running trial finishes its epoch" in written(console)


def test_an_error_in_between_leaves_the_terminal_as_it_was() -> None:
    console = terminal()
    with pytest.raises(KeyError), SweepView(console):
        raise KeyError("in between")
    text = written(console)
    # The cursor
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_the_arms_that_train_stand_first_and_what_has_no_room_is_a_number() -> None:
    arms = {"done": 1, "waits": 3, "trains": 2, ODD: 1}
    tally = Tally(replace(plan(), trials=arms, earlier=(("done", COMPLETE),)))
    tally.epoch(job("trains", 6), 3)
    text = shown(arms_table(tally, most=4))
    order = [text.index(name) for name in ("trains", "waits", "done")]
    assert order == sorted(order)
    assert cells(text, "trains") == ["trains", "2", "0", "0", "0", "seed 6 3/10", "-"]
    assert cells(text, "done") == ["done", "1", "1", "0", "0", "4.568"]
    assert "and 2 more arms" in shown(arms_table(tally, most=2))
