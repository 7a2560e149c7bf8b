"""The command line, mostly in this process. Run with `pytest tests/test_cli.py`."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import typer
import yaml

from dirtune import cli
from dirtune.cli.app import ORDER
from dirtune.cli.cluster import follow_job
from dirtune.cluster.jobs import Job
from dirtune.data.store import read_manifest
from dirtune.io.storage import Storage
from dirtune.losses import TERMS
from dirtune.tuning.folder.layout import STOP_REQUEST
from dirtune.tuning.folder.lock import lock
from dirtune.tuning.interface import SweepSummary
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import record, write_study

ROOT = Path(__file__).resolve().parents[1]
VERBS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
TINY = [
    "--set",
    "data.name=digits",
    "--set",
    "model.encoder={name: cnn, channels: 4}",
    "--set",
    "recipe.epochs=1",
    "--set",
    "recipe.batch_size=512",
]
STUDY: dict[str, Any] = {
    "name": "tiny",
    "question": "Does [it] run?",
    "reference": "vanilla",
    "seeds": [0],
    "base": {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn", "channels": 4}},
        "recipe": {"epochs": 1, "batch_size": 512},
    },
    "arms": {"vanilla": {}},
}


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process, through the entry point of the installed script."""
    # The width of typer's own messages
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dirtune", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)

    return run


def run_process(*arguments: object) -> Outcome:
    """Run a command in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "dirtune.cli", *map(str, arguments)], capture_output=True, text=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


def assert_input_error(outcome: Outcome, *parts: str) -> None:
    """Assert exit code 2, one message on stderr with all of `parts`, and no other output."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.err.count("dirtune: ") == 1
    assert outcome.err.startswith("dirtune: ")
    for part in parts:
        assert part in outcome.err


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that replaces `@` in the commands below."""
    root = tmp_path_factory.mktemp("cli")
    records = [
        record(arm, seed, value + seed, config={"terms": {"conr": {"omega": value}}})
        for arm, value in (("vanilla", 5.0), ("conr", 4.0))
        for seed in (0, 1)
    ]
    write_study(
        root / "store",
        records,
        name="study",
        question="?",
        reference="vanilla",
        arms=["vanilla", "conr"],
        seeds=[0, 1, 2],
        trials={"vanilla": 3, "conr": 3},
    )
    # A single run, no sweep
    write_study(root / "store", [record("single", 0)], name="train")
    for name in ("empty", "glue", "raw"):
        (root / name).mkdir()
    (root / "glue/train.tsv").write_text("index\n")
    (root / "raw/train_new.tsv").write_text("index\n")
    (root / "file").write_text("no folder")
    (root / "run.yaml").write_text("data: {name: digits}\nmodel: {encoder: {name: cnn}}\n")
    (root / "broken.yaml").write_text("name: x\nquestion: why\nseeds: [0]]\n")
    (root / "list.yaml").write_text("- name\n")
    three = {
        **STUDY,
        "reference": "vanila",
        "arms": {"vanilla": {}, "conr": {"terms": {"comr": {}}}},
        "base": {**STUDY["base"], "recipe": {"epochs": "ten"}},
    }
    (root / "three.yaml").write_text(yaml.safe_dump(three, sort_keys=False))
    return root


# Commands, and parts of their messages
MISTAKES: list[tuple[list[str], list[str]]] = [
    (
        ["ingest", "digit", "--data", "@empty"],
        ["data set: unknown name, got 'digit'; known: agedb, digits, ", "did you mean 'digits'?"],
    ),
    (["ingest", "digits", "--data", "@empty", "--option", "seed"], ["--option: must be name=value, got 'seed'"]),
    (
        ["ingest", "digits", "--data", "@empty", "--option", "sed=1"],
        ["options of digits: sed: unknown key, got 'sed'; known: balance, "],
    ),
    (
        ["inspect", "digits", "--data", "@empty"],
        ["@empty: data set is not ingested (`dirtune ingest digits` does it), got 'digits'"],
    ),
    (["plan", "quickstart", "--data", "@empty"], ["@empty: data set is not ingested"]),
    (["sweep", "quickstart", "--data", "@empty", "--results", "@nowhere"], ["@empty: data set is not ingested"]),
    (
        ["plan", "quikstart"],
        ["study: unknown study (or no such file), got 'quikstart'; known: ", "did you mean 'quickstart'?"],
    ),
    (["sweep", "quikstart", "--results", "@nowhere"], ["did you mean 'quickstart'?"]),
    (["plan", "@missing.yaml"], ["@missing.yaml: no such file"]),
    (["plan", "@broken.yaml"], ["@broken.yaml:3: not readable as YAML"]),
    (["plan", "@list.yaml"], ["@list.yaml: a study must be a mapping, got 'list'"]),
    (["train", "@list.yaml"], ["@list.yaml: a configuration must be a mapping"]),
    (
        ["train", "--study", "quickstart", "--arm", "comr"],
        ["quickstart: arms: unknown arm, got 'comr'; known: accon, ", "did you mean 'conr'?"],
    ),
    (["train", "@run.yaml", "--study", "quickstart"], ["train: takes a file or --study, not both"]),
    (
        ["train", "--set", "recipe.epochs", "--set", "seed"],
        ["--set: must be name=value, got 'recipe.epochs'", "--set: must be name=value, got 'seed'"],
    ),
    (
        ["train", "@run.yaml", "--set", "recipe.epochs=ten"],
        ["@run.yaml: recipe.epochs: should be a valid integer, got 'ten'"],
    ),
    (["train", "@run.yaml", "--set", "recipe.epochs=[1"], ["--set recipe.epochs:1: not readable as YAML"]),
    (
        ["train", "@run.yaml", "--set", "terms.comr.beta=1", "--seed", "-1"],
        ["terms.comr: unknown key, got 'comr'; known: accon, ", "seed: should be greater than or"],
    ),
    (["train", "--data", "@empty"], ["--set: data: is missing", "--set: model: is missing"]),
    (["train", "@run.yaml", "--data", "@empty"], ["@empty: data set is not ingested"]),
    (["train", "@run.yaml", "--device", "tpu"], ["--device: not on this machine, got 'tpu'; known: cpu"]),
    (["table", "study", "--results", "@empty"], ["@empty: holds no study"]),
    (
        ["table", "stduy", "--results", "@store"],
        ["@store: unknown study, got 'stduy'; known: study, train (did you mean 'study'?)"],
    ),
    (
        ["table", "study", "--results", "@store", "--metric", "mea"],
        ["metric: unknown metric, got 'mea'; known: mae (did you mean 'mae'?)"],
    ),
    (
        ["table", "study", "--results", "@store", "--reference", "comr"],
        ["arm: unknown arm, got 'comr'; known: conr, vanilla (did you mean 'conr'?)"],
    ),
    (["table", "study", "--results", "@store", "--format", "tex"], ["format: unknown format, got 'tex'; known: csv, "]),
    (
        ["table", "study", "--results", "@store", "--margin", "0%"],
        ["margin: must be a share of the reference's mean"],
    ),
    (["table", "study", "--results", "@store", "--shots", "50/10"], ["manifest.json: is not there"]),
    (
        ["plan", "study", "--detect", "5%", "--results", "@store"],
        ["study study: has no arm that a plan can be made from"],
    ),
    (
        ["table", "study", "--results", "@store", "--selection", "best"],
        ["selection: unknown rule, got 'best'; known: best_val, last, oracle"],
    ),
    (
        ["table", "study", "--results", "@store", "--split", "train"],
        ["split: unknown split, got 'train'; known: test, val"],
    ),
    (
        ["plot", "study", "pie", "--results", "@store"],
        ["plot: unknown plot, got 'pie'; known: ablation_path, anchors, critical_difference, curve, data_efficiency, "],
    ),
    (["plot", "study", "heatmp", "--results", "@store"], ["did you mean 'heatmap'?"]),
    (["plot", "study", "parallel", "--results", "@store"], ["study study: has no arm with settings to search"]),
    (
        ["plot", "study", "heatmap", "--results", "@store", "--arm", "comr"],
        ["arms: unknown arm, got 'comr'; known: conr, vanilla (did you mean 'conr'?)"],
    ),
    (
        ["plot", "study", "--results", "@store", "--output", "figure.gif"],
        ["type of file: unknown type of file, got '.gif'; known: .pdf, .png, .svg"],
    ),
    (["plot", "study", "curve", "--results", "@store"], ["x: curve needs the setting of its x axis"]),
    (
        ["plot", "study", "curve", "--results", "@store", "--x", "terms.conr.omgea"],
        ["got 'terms.conr.omgea'; known: terms.conr.omega (did you mean"],
    ),
    (
        ["query", "select aarm from trials", "--results", "@store"],
        ['"aarm" not found', "arm is a column of trials, arms, curves"],
    ),
    (["query", "drop table trials", "--results", "@store"], ["query: must be one SELECT statement, but is DROP"]),
    (
        ["query", "select 1", "--results", "@store", "--format", "xml"],
        ["format: unknown format, got 'xml'; known: csv, json, markdown, parquet, table"],
    ),
    (["query", "select 1", "--results", "@nowhere"], ["@nowhere: holds no study"]),
    (
        ["query", "select nothing", "--results", "@store", "--output", "@nowhere/a.json", "--format", "csv"],
        ["output: the suffix .json is that of json, not of the format that is asked for, got 'csv'"],
    ),
    (["query", "select 1", "--results", "gopher://x"], ["gopher://x: no usable location"]),
    (
        ["status", "stduy", "--results", "@store"],
        ["@store: no sweep of this name, got 'stduy'; known: study (did you mean 'study'?)"],
    ),
    (["resume", "quickstart", "--results", "@empty"], ["@empty: no sweep of this study to resume, got 'quickstart'"]),
    (
        ["resume", "study", "--results", "@store", "--retry", "nans"],
        ["--retry: unknown error class, got 'nans'; known: code, failed, ", "did you mean 'nan'?"],
    ),
    (
        ["stop", "stduy", "--results", "@store"],
        ["@store: no sweep of this name, got 'stduy'; known: study (did you mean 'study'?)"],
    ),
    (
        ["stop", "study", "--results", "@store"],
        ["@store/study: is not being swept, so there is nothing to stop; running below @store: nothing"],
    ),
    (
        ["status", "study", "--address", "http://127.0.0.1:1"],
        ["--results: must be a URL or an absolute path that every node reaches", "got 'results'"],
    ),
    (
        ["stop", "study", "--results", "@store", "--address", "127.0.0.1:1"],
        ["--address: the address of a cluster's jobs begins with http:// or https://, got '127.0.0.1:1'"],
    ),
    (["doctor", "--address", "127.0.0.1:1"], ["127.0.0.1:1: not reachable (Connection refused)"]),
    (["doctor", "--address", "http://127.0.0.1:1"], ["http://127.0.0.1:1: not reachable"]),
    (["doctor", "--address", "somewhere"], ["somewhere: is not an address; a cluster's is host:port"]),
    (
        ["submit", "@three.yaml", "--address", "http://127.0.0.1:1", "--data", "data", "--results", "results"],
        [
            "--data: must be a URL or an absolute path",
            "--results: must be a URL",
            "@three.yaml: reference: ",
            "@three.yaml: base.recipe.epochs: ",
            "@three.yaml: arms.conr.terms.comr: unknown key",
        ],
    ),
    (
        ["submit", "quickstart", "--address", "http://127.0.0.1:1", "--data", "@empty", "--results", "@empty"],
        ["http://127.0.0.1:1: not reachable"],
    ),
    (["list", "loss"], ["list: unknown kind, got 'loss'; known: ", "did you mean 'losses'?"]),
    # A file instead of a folder
    (["table", "study", "--results", "@file"], ["@file", "must be a folder, but is a file"]),
    (["sweep", "quickstart", "--results", "@file/x"], ["@file is a file"]),
    (["sweep", "quickstart", "--results", ""], ["dirtune: --results: must not be empty"]),
    (["plan", "quickstart", "--data", ""], ["dirtune: --data: must not be empty"]),
    (["doctor", "--results", ""], ["dirtune: --results: must not be empty"]),
    (["inspect", "digits", "--data", "@file"], ["@file", "must be a folder, but is a file"]),
    (
        ["plot", "study", "--results", "@store", "--output", "@file/figure.png"],
        ["@file", "cannot be written (a part of its path is a file)"],
    ),
]


# Raised by the pipeline, inside a Ray session
RAW_MISTAKES: list[tuple[list[str], list[str]]] = [
    (
        ["ingest", "sts_b", "--data", "@empty"],
        ["sts_b: raw: needs the folder of train_new.tsv, dev_new.tsv, test_new.tsv", "--raw DIR"],
    ),
    (
        ["ingest", "sts_b", "--data", "@empty", "--raw", "@glue"],
        ["@glue: this is the GLUE layout", "train_new.tsv, dev_new.tsv, test_new.tsv"],
    ),
    (
        ["ingest", "sts_b", "--data", "@empty", "--raw", "@raw"],
        ["@raw/dev_new.tsv: no such file", "@raw/test_new.tsv: no such file"],
    ),
]


def join_commands(mistakes: list[tuple[list[str], list[str]]]) -> list[str]:
    return [" ".join(arguments) for arguments, _ in mistakes]


def fill_places(texts: list[str], places: Path) -> list[str]:
    return [text.replace("@", f"{places}/") for text in texts]


@pytest.mark.parametrize(("arguments", "parts"), MISTAKES, ids=join_commands(MISTAKES))
def test_an_invalid_input_ends_with_exit_code_2_and_one_message(
    call: Call, places: Path, arguments: list[str], parts: list[str]
) -> None:
    outcome = call(*fill_places(arguments, places))
    assert_input_error(outcome, *fill_places(parts, places))
    assert not (places / "nowhere").exists()


@pytest.mark.parametrize(("arguments", "parts"), RAW_MISTAKES, ids=join_commands(RAW_MISTAKES))
def test_unusable_raw_files_end_with_exit_code_2_and_one_message(
    ray_session: None, call: Call, places: Path, arguments: list[str], parts: list[str]
) -> None:
    outcome = call(*fill_places(arguments, places))
    assert_input_error(outcome, *fill_places(parts, places))
    assert not list((places / "empty").iterdir())


@pytest.mark.slow
def test_the_real_command_reports_every_fault_of_a_study_at_once(places: Path) -> None:
    file = places / "three.yaml"
    outcome = run_process("plan", file)
    assert_input_error(outcome)
    assert sorted(outcome.err.removeprefix("dirtune: ").splitlines()) == [
        f"{file}: arms.conr.terms.comr: unknown key, got 'comr'; known: {', '.join(sorted(TERMS))} "
        "(did you mean 'conr'?)",
        f"{file}: base.recipe.epochs: should be a valid integer, got 'ten'",
        f"{file}: reference: unknown arm, got 'vanila'; known: conr, vanilla (did you mean 'vanilla'?)",
    ]


def test_the_real_command_lists_tables_after_an_error_in_sql(places: Path) -> None:
    outcome = run_process("query", "select few from trials", "--results", places / "store")
    assert_input_error(outcome, 'Referenced column "few" not found', "`describe TABLE` has the columns of")
    tables = {"metrics", "epochs", "predictions", "representations", "trials"}
    known = outcome.err.partition("has the columns of ")[2].strip().split(", ")
    assert tables | {"results", "arms", "curves", "floors", "floor_predictions"} == set(known)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "quickstart", "--fast"], "No such option"),
        (["swep"], "No such command"),
        (["plan"], "Missing argument"),
        (["train", "--seed", "one"], "Invalid value"),
        (["train", "--threads", "0"], "Invalid value"),
    ],
)
def test_an_invalid_command_line_ends_with_exit_code_2(call: Call, arguments: list[str], message: str) -> None:
    outcome = call(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_option_of_the_real_command_ends_with_exit_code_2() -> None:
    outcome = run_process("plan", "quickstart", "--fast")
    assert (outcome.code, outcome.out) == (2, "")
    assert "No such option: --fast" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_internal_error_keeps_its_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("dirtune.tuning.plan.plan.plan", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        call("plan", "quickstart")


def list_commands() -> dict[str, Any]:
    return typer.main.get_command(cli.app).commands  # type: ignore[attr-defined, no-any-return]


def test_every_command_is_documented_and_has_a_place_in_the_help() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert [verb for verb in VERBS if f"dirtune {verb}" not in text] == []
    assert sorted(ORDER) == VERBS


def test_help_lists_every_command(call: Call) -> None:
    outcome = call("--help")
    assert (outcome.code, outcome.err) == (0, "")
    for verb in VERBS:
        assert re.search(rf"^\W*{verb}  ", outcome.out, re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_command_explains_every_argument_and_option(call: Call, verb: str) -> None:
    outcome = call(verb, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    # typer folds long texts inside of a frame
    text = " ".join(outcome.out.replace("│", " ").split())
    command = list_commands()[verb]
    assert " ".join(command.help.split()) in text
    for parameter in command.params:
        options = [option for option in parameter.opts if option.startswith("--")]
        assert all(option in text for option in options)
        assert parameter.help, f"{verb} {parameter.name} is not explained"
        assert " ".join(parameter.help.split()) in text


def test_a_table_is_formatted_for_a_terminal_markdown_and_csv(call: Call, places: Path) -> None:
    command = ["table", "study", "--results", places / "store", "--reference", "conr"]
    plain, markdown, sheet = (call(*command, "--format", style) for style in ("table", "markdown", "csv"))
    assert {outcome.code for outcome in (plain, markdown, sheet)} == {0}
    assert re.search(r"^ *vanilla +5\.50 ± 0\.71 +4\.50 ", plain.out, re.MULTILINE)
    assert "change against conr in %" in plain.out
    # Two seeds have no word, and another reference is a choice after the study
    assert "word, chosen after the study" in plain.out
    assert "| vanilla | 5.50 ± 0.71 | 4.50 ± 0.71 |" in markdown.out
    rows = {(row["arm"], row["region"]): row for row in csv.DictReader(io.StringIO(sheet.out))}
    assert len(rows) == 2 * 4
    assert float(rows["vanilla", "few"]["mean"]) == pytest.approx(5.5 + 2.0)
    assert float(rows["vanilla", "all"]["difference"]) == pytest.approx(1.0)


def test_a_plan_of_power_is_made_from_the_records_alone(call: Call, tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "all"})
    by_default, asked = (
        call("plan", "--power", "study", "--results", tmp_path, *more) for more in ((), ("--detect", "10%"))
    )
    assert {by_default.code, asked.code} == {0}
    assert "to find that mae in region all changes by 5 % of the reference's mean" in by_default.out
    assert re.search(r"^conr: about \d+ seeds", asked.out, re.MULTILINE)


def test_a_query_is_printed_in_every_format(call: Call, places: Path) -> None:
    sql = "select arm, avg(\"test.few.mae\") as few from results where arm <> 'single' group by arm order by arm"

    def answer(style: str) -> str:
        outcome = call("query", sql, "--results", places / "store", "--format", style)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    lines = [line.split() for line in answer("table").splitlines()]
    assert ["conr", "6.5"] in lines
    assert ["vanilla", "7.5"] in lines
    assert answer("csv") == "arm,few\nconr,6.5\nvanilla,7.5\n"
    assert json.loads(answer("json")) == [{"arm": "conr", "few": 6.5}, {"arm": "vanilla", "few": 7.5}]
    assert "| vanilla | 7.5 |" in answer("markdown")


def test_a_query_result_is_written_to_a_file_and_a_reached_limit_is_reported(
    call: Call, places: Path, tmp_path: Path
) -> None:
    file = tmp_path / "answer.parquet"
    command = ["query", "select arm from trials", "--results", places / "store"]
    saved = call(*command, "--output", file, "--limit", 2, "--timeout", 60)
    assert (saved.code, saved.out) == (0, f"answer: {file}\n")
    assert saved.err == "dirtune: stopped at 2 rows (--limit)\n"
    assert file.read_bytes().startswith(b"PAR1")
    assert_input_error(call(*command, "--format", "parquet"), "give a file (--output)")


def test_a_damaged_file_is_an_error_unless_skip_damaged_is_given(call: Call, tmp_path: Path) -> None:
    storage = write_study(tmp_path, [record("a", 0), record("a", 1)])
    storage.write("results/trials/a-1.parquet", b"damaged")
    command = ["query", "select trial_id from trials", "--results", tmp_path, "--format", "csv"]
    assert_input_error(call(*command), "a-1.parquet: damaged Parquet file")
    outcome = call(*command, "--skip-damaged")
    assert (outcome.code, outcome.out) == (0, "trial_id\na-0\n")
    assert re.fullmatch(r"dirtune: left out: .*a-1.parquet: damaged Parquet file.*\n", outcome.err)


def test_trials_are_written_to_a_tracker(call: Call, places: Path) -> None:
    to = f"tensorboard:{places / 'logs'}"
    outcome = call("log", "study", "--results", places / "store", "--to", to)
    assert outcome.code == 0
    number = re.fullmatch(r"tensorboard:.*: (\d+) trials written\n", outcome.out)
    assert number is not None
    assert len(list((places / "logs/study").glob("*/*"))) == int(number[1]) > 0
    assert_input_error(
        call("log", "study", "--results", places / "store", "--to", "tensorbord"), "did you mean 'tensorboard'"
    )


def test_a_study_is_compacted(call: Call, places: Path) -> None:
    outcome = call("compact", "study", "--results", places / "store")
    assert (outcome.code, outcome.err) == (0, "")
    assert re.fullmatch(r"compacted: \d+ rows of trials, \d+ rows of metrics\n", outcome.out)
    assert (places / "store/study/results/compacted/trials.parquet").is_file()


def test_findings_are_printed_and_fail_only_a_strict_check(call: Call, places: Path) -> None:
    command = ["check", "study", "--results", places / "store"]
    outcome = call(*command)
    assert (outcome.code, outcome.err) == (0, "")
    assert "study: no floors are recorded" in outcome.out
    assert call(*command, "--strict").code == 1
    assert_input_error(call("check", "other", "--results", places / "store"), "unknown study")


def test_report_prints_the_file_that_it_writes(call: Call, places: Path, tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "study.html"
    outcome = call("report", "study", "--results", places / "store", "--output", file)
    assert (outcome.code, outcome.out, outcome.err) == (0, f"report: {file}\n", "")
    assert file.read_text().startswith("<!DOCTYPE html>")


def test_the_status_of_a_sweep_is_neither_cut_nor_folded_in_a_pipe(
    call: Call, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    outcome = call("status", "study", "--results", places / "store")
    assert (outcome.code, outcome.err) == (0, "")
    assert "study: 4 of 6 trials recorded" in outcome.out
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["vanilla", "3", "2", "0", "0", "0"] in lines


@pytest.mark.parametrize("options", [["regions"], ["curve", "--x", "terms.conr.omega"], ["heatmap", "--relative"]])
def test_plot_prints_the_file_that_it_writes(call: Call, places: Path, tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "deeper" / "figure.png"
    outcome = call("plot", "study", *options, "--results", places / "store", "--output", file)
    assert (outcome.code, outcome.out) == (0, f"figure: {file}\n")
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_help_of_plot_lists_every_kind_of_figure(call: Call) -> None:
    from dirtune.results.figures import FIGURES

    # The help lists the kinds as text, because importing them imports matplotlib.
    words = re.findall(r"\w+", call("plot", "--help").out)
    assert set(FIGURES) <= set(words)


def test_a_plot_is_written_to_the_folder_figures_by_default(
    call: Call, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call("plot", "study", "--results", places / "store")
    assert outcome.out == "figure: figures/study-regions.png\n"
    assert (tmp_path / "figures" / "study-regions.png").is_file()


def test_list_shows_every_kind_or_one(call: Call) -> None:
    everything, terms = call("list"), call("list", "terms")
    assert (everything.code, terms.code) == (0, 0)
    for title in ("losses", "terms", "encoders", "augmentations", "metrics", "data", "studies"):
        assert re.search(rf"^{title} *$", everything.out, re.MULTILINE), title
    for name in ("huber", "resnet50", "digits", "Does a projection or a contrastive term help"):
        assert name in everything.out
    assert re.search("^ *conr  +ConR", terms.out, re.MULTILINE)
    assert "huber" not in terms.out


def test_plan_shows_every_arm_and_writes_nothing(digits: Path, tmp_path: Path, call: Call) -> None:
    outcome = call("plan", "quickstart", "--data", digits, "--results", tmp_path / "results")
    assert (outcome.code, outcome.err) == (0, "")
    arms = ("vanilla (reference)", "projection", "sqrt_inverse_lds", "conr", "accon", "accon_conr")
    for arm in arms:
        assert re.search(rf"^ *{re.escape(arm)} +5 +5 +\d+ ", outcome.out, re.MULTILINE), arm
    text = " ".join(outcome.out.split())
    assert "30 trials (0 recorded)" in text
    assert "samples: 4,809 train, 600 val, 1,200 test" in text
    assert not list(tmp_path.iterdir())


def test_inspect_shows_regions_and_an_unknown_shot_rule_is_an_error(digits: Path, call: Call) -> None:
    outcome = call("inspect", "digits", "--data", digits)
    assert outcome.code == 0
    lines = [line.split() for line in outcome.out.splitlines()]
    assert ["region", "bins", "train", "val", "test"] in lines
    assert ["few", "73", "363", "365", "730"] in lines
    refused = call("inspect", "digits", "--data", digits, "--shot-rule", "official")
    assert_input_error(refused, "digits: unknown shot rule, got 'official'; known: counts")


def test_a_recorded_trial_is_not_trained_again(digits: Path, tmp_path: Path, call: Call) -> None:
    command = ["train", *TINY, "--data", digits, "--results", tmp_path]
    first, second, other = call(*command), call(*command), call(*command, "--seed", 7)
    assert {outcome.code for outcome in (first, second, other)} == {0}
    line, end = first.out.splitlines()
    assert line.startswith("epoch 1/1  train/loss ")
    trial_id = end.split()[1]
    assert end == f"trial {trial_id} complete, best epoch 1"
    assert second.out == f"trial {trial_id} is recorded already (complete)\n"
    assert trial_id not in other.out
    recorded = {file.stem for file in (tmp_path / "train/results/trials").glob("*.parquet")}
    assert recorded == {trial_id, other.out.splitlines()[1].split()[1]}


def test_train_overrides_the_configuration_of_an_arm_with_settings(digits: Path, tmp_path: Path, call: Call) -> None:
    outcome = call(
        "train",
        "--study",
        "quickstart",
        "--arm",
        "conr",
        *TINY,
        "--set",
        "terms.conr.omega=2.5e0",
        "--data",
        digits,
        "--results",
        tmp_path,
    )
    assert outcome.code == 0
    sql = 'select arm, epochs_run, "config.terms.conr.omega", "config.recipe.name" from trials'
    answer = call("query", sql, "--results", tmp_path, "--format", "csv")
    assert answer.out.splitlines()[1] == "conr,1,2.5,digits"


def test_a_configuration_that_does_not_fit_the_data_is_an_error_before_training(
    digits: Path, tmp_path: Path, call: Call
) -> None:
    wrong = ["--set", "recipe.views.augmentation=flip", "--set", "data.shot_rule=official"]
    outcome = call("train", *TINY, *wrong, "--data", digits, "--results", tmp_path)
    assert_input_error(
        outcome,
        "--set: data.shot_rule: unknown shot rule, got 'official'; known: counts",
        "--set: recipe.views.augmentation: unknown augmentation, got 'flip'; known: light, none",
    )
    assert not list(tmp_path.iterdir())


def test_a_study_with_a_removed_option_is_refused_in_one_sentence(digits: Path, tmp_path: Path, call: Call) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "resources": {"fuse": 4}}))
    outcome = call("sweep", file, "--data", digits, "--results", tmp_path)
    assert_input_error(
        outcome, f"{file}: resources.fuse: was removed, since it made no study faster; leave it out, got 4"
    )


def test_a_sweep_is_run_shown_and_resumed(digits: Path, tmp_path: Path, call: Call) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    roots = ["--data", digits, "--results", tmp_path]
    swept = call("sweep", file, *roots)
    assert swept.code == 0
    lines = [line for line in swept.out.splitlines() if line]
    # Behind their dates
    lines = [line[21:] for line in lines[:5]] + lines[5:]
    assert lines[0] == "tiny: starting Ray"
    assert lines[1].startswith("tiny: 1 trial, 0 recorded, ")
    assert lines[2] == "reading the data and starting workers"
    assert lines[3] == "floors: predictions without a training run"
    assert re.fullmatch(r"\[1/1\] +\d+ s  vanilla, seed 0: complete val/all/mae [\d.]+", lines[4])
    assert lines[5] == f"1 complete; 0 reused. Parquet: {tmp_path}/tiny/results"
    assert lines[6].startswith("next: dirtune table tiny")
    assert "tiny: 1 of 1 trials recorded" in call("status", "tiny", "--results", tmp_path).out
    resumed = call("resume", "tiny", *roots)
    assert resumed.code == 0
    assert f"nothing to run; 1 reused. Parquet: {tmp_path}/tiny/results" in resumed.out


@pytest.mark.parametrize("verb", ["sweep", "resume"])
def test_a_sweep_that_lost_a_worker_ends_with_exit_code_1(
    call: Call, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    # The tests of the sweep lose real workers.
    lost = SweepSummary(folder="f", reused=0, orphaned=0, run={}, crashed={"abc": "out of memory"}, left=1)
    monkeypatch.setattr(f"dirtune.tuning.sweep.{verb}", lambda *_, **__: lost)
    outcome = call(verb, "quickstart")
    assert outcome.code == 1
    assert "left, `dirtune resume " in outcome.out


@pytest.mark.parametrize(
    ("stopped", "left", "code"), [("SIGINT", 2, 130), ("SIGTERM", 2, 143), ("`dirtune stop`", 2, 1), ("SIGINT", 0, 0)]
)
def test_a_stopped_sweep_names_the_source_and_ends_with_its_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, stopped: str, left: int, code: int
) -> None:
    summary = SweepSummary(folder="f", reused=0, orphaned=0, run={}, crashed={}, left=left, stopped=stopped)
    monkeypatch.setattr("dirtune.tuning.sweep.sweep", lambda *_, **__: summary)
    outcome = call("sweep", "quickstart")
    assert outcome.code == code
    assert f"Stopped by {stopped} when every running trial had finished its epoch." in outcome.out


def test_a_sweep_that_was_interrupted_twice_names_resume_without_a_traceback(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dirtune.tuning.sweep.resume", interrupted)
    outcome = call("resume", "quickstart")
    assert (outcome.code, outcome.err) == (130, "")
    assert "`dirtune resume` continues the sweep" in outcome.out


def test_ctrl_c_stops_only_the_following_of_a_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("dirtune.cluster.jobs.follow", interrupted)
    job = Job(cast("Any", None), "http://host:8265", "raysubmit_1")
    assert follow_job(job) == 130
    expected = (
        "job raysubmit_1 continues; follow it again by `ray job logs --follow --address http://host:8265 raysubmit_1`"
    )
    assert capsys.readouterr().out.strip() == expected


def test_stop_names_the_process_that_it_requested_to_stop(call: Call, tmp_path: Path) -> None:
    folder = write_study(tmp_path, [], reference="vanilla", arms=["vanilla"])
    with lock(folder):
        outcome = call("stop", "study", "--results", tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"requested process {os.getpid()} on ")
    assert "`dirtune resume study` continues the sweep" in outcome.out
    assert folder.exists(STOP_REQUEST)


@pytest.mark.slow
def test_a_console_that_cannot_write_a_letter_does_not_end_a_command(tmp_path: Path) -> None:
    write_study(tmp_path, [record("\u03b2=0.5 \u2264", seed) for seed in (0, 1)], arms=["\u03b2=0.5 \u2264"])
    script = """
import sys
from dirtune import cli
for command in (["table", "study"], ["status", "study"], ["query", "select arm, '\u00b1' from trials"]):
    sys.argv = ["dirtune", *command, "--results", "."]
    try:
        cli.main()
    except SystemExit as end:
        print(f"ended with {end.code}")
"""
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    *ended, rest = re.split(rb"ended with (?:0|None)\n", done.stdout)
    assert (len(ended), rest) == (3, b"")
    assert all(b"\\u03b2=0.5 \\u2264" in printed for printed in ended)


@pytest.mark.slow
@pytest.mark.parametrize(("to", "said"), [("| head -c 1", ""), ("> /dev/full", "No space left on device\n")])
def test_a_command_that_computes_outlives_its_output(tmp_path: Path, to: str, said: str) -> None:
    rows = "".join(f"{row},{row % 7}\n" for row in range(200))
    (tmp_path / "a.csv").write_text(f"y,a\n{rows}")
    command = ["ingest", "table", "--raw", "a.csv", "--option", "name=a", "--option", "label=y", "--data", "data"]
    text = f"({shlex.join([sys.executable, '-m', 'dirtune.cli', *command])}; echo $? >&2) {to}"
    done = subprocess.run(text, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr.removesuffix("0\n").removeprefix("dirtune: output is incomplete: ") == said
    assert read_manifest(Storage.open(tmp_path / "data"), "a").splits["train"].rows > 100


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command(closed: str, places: Path) -> None:
    command = [sys.executable, "-m", "dirtune.cli", "query", "select 1", "--results", str(places / "store")]
    done = subprocess.run(f"{shlex.join(command)} {closed}", shell=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_a_removed_folder_is_one_sentence_and_settings_of_matplotlib_do_not_matter(
    places: Path, tmp_path: Path
) -> None:
    (folder := tmp_path / "folder").mkdir()
    (folder / "matplotlibrc").write_text("text.usetex: True")
    environment = {**os.environ, "MPLBACKEND": "unknown"}
    plot = [sys.executable, "-m", "dirtune.cli", "plot", "study", "regions", "--results", str(places / "store")]
    command = f"{shlex.join(plot)} && rm -r figures matplotlibrc && rmdir $PWD && {shlex.join(plot)}"
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "figure: figures/study-regions.png\n")
    assert done.stderr == "dirtune: the current folder was removed: change to another one\n"


def test_sql_may_begin_with_a_comment_and_come_from_a_file(
    call: Call, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "-- mean by arm\nselect count(*) n from trials"
    expected = "n\n5\n"
    where = ["--results", places / "store", "--format", "csv"]
    assert call("query", sql, *where).out == expected
    assert call("query", *where, sql).out == expected
    assert call("query", *where, "--", sql).out == expected
    for name in ("mean.sql", "MEAN.SQL"):
        (tmp_path / name).write_text(sql)
        assert call("query", tmp_path / name, *where).out == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO(sql))
    assert call("query", "-", *where).out == expected
    assert call("query", "--strenght", "csv", "select 1").code == 2


@pytest.mark.slow
def test_a_study_is_named_by_its_file_and_an_unused_option_is_one_line(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "results", [record(arm, 0, 5.0) for arm in ("a", "b")], arms=("a", "b"), reference="a")
    (tmp_path / "mine.yaml").write_text("name: study\n")
    assert call("table", "mine.yaml").out == call("table", "study").out
    assert call("query", "select count(*) n from trials", "--study", "mine.yaml", "--format", "csv").out == "n\n2\n"
    assert_input_error(call("table", "study", "--answer", "--format", "csv"), "--format: is not used by --answer")
    assert call("table", "study", "--answer", "--results", "results").code == 0
    done = run_process("plot", "study", "--x", "few")
    assert (done.code, done.err) == (0, "dirtune: the figure regions does not use x\n")
    assert_input_error(call("report", "study", "--output", "mine.yaml/a.html"), "cannot be written")
