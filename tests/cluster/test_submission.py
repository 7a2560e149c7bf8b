"""Run with `pytest tests/cluster/test_submission.py`. Submitting to a real cluster is in `test_token_cluster.py`."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from dirtune.cluster.submission import (
    Destination,
    build_command,
    build_entrypoint,
    find_root_faults,
    submit,
    submit_command,
)
from dirtune.errors import InputError
from tests.tuning.sweeps import STUDY

NOWHERE = "http://127.0.0.1:1"
ROOTS = {"data": "s3://bucket/my data", "results": "/shared/results"}


def write_study_file(folder: Path, **changes: object) -> str:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}))
    return str(file)


def test_the_job_checks_the_roots_on_every_node_and_then_sweeps() -> None:
    destination = Destination(address=NOWHERE, python="~/venv/bin/python")
    doctor, sweep = build_entrypoint(destination, **ROOTS).split(" && ")
    roots = ["--data", "s3://bucket/my data", "--results", "/shared/results"]
    start = ["~/venv/bin/python", "-m", "dirtune.cli"]
    assert shlex.split(doctor) == [*start, "doctor", *roots]
    assert shlex.split(sweep) == [*start, "sweep", "study.yaml", *roots]


def test_an_installed_dirtune_must_have_the_version_of_this_one() -> None:
    text = build_entrypoint(Destination(address=NOWHERE, installed=True), **ROOTS)
    assert f"--dirtune {version('dirtune')} &&" in text


def test_arguments_are_quoted_for_the_shell_of_the_cluster() -> None:
    text = build_command(Destination(address=NOWHERE), "status", "$(rm -rf ~)")
    assert text == "python -m dirtune.cli status '$(rm -rf ~)'"


@pytest.mark.parametrize("root", ["s3://bucket/results?region=eu-west-1", "/shared/results"])
def test_a_url_and_an_absolute_path_are_valid_roots(root: str) -> None:
    assert not list(find_root_faults("--results", root))


def test_a_relative_path_and_a_url_with_keys_are_errors() -> None:
    (relative,) = find_root_faults("--results", "results")
    assert "a job's own folder is temporary, got 'results'" in str(relative)
    (keys,) = find_root_faults("--data", "s3://name:secret@bucket/data")
    assert "must not hold keys" in str(keys)
    assert "secret" not in str(keys)


def test_faults_of_a_study_and_the_roots_are_reported_together_before_the_connection(tmp_path: Path) -> None:
    study = write_study_file(tmp_path, reference="vanila")
    with pytest.raises(InputError) as caught:
        submit(study, address=NOWHERE, data="data", results="results")
    places = [fault.key or fault.where for fault in caught.value.faults]
    assert places == ["--data", "--results", "reference"]


def test_a_study_is_validated_against_data_that_this_machine_reaches(tmp_path: Path, data_root: Path) -> None:
    base = {**STUDY["base"], "data": {"name": "toy", "shot_rule": "official"}}
    study = write_study_file(tmp_path, base=base)
    with pytest.raises(InputError, match="unknown shot rule, got 'official'"):
        submit(study, address=NOWHERE, data=str(data_root), results="/shared/results")


def test_settings_that_are_taken_from_the_data_are_no_fault(tmp_path: Path, data_root: Path) -> None:
    base = {**STUDY["base"], "model": {"encoder": {"name": "mlp", "hidden": [8]}}}
    with pytest.raises(InputError, match="not reachable"):
        submit(write_study_file(tmp_path, base=base), address=NOWHERE, data=str(data_root), results="/shared/results")


def test_data_that_this_machine_does_not_reach_are_validated_on_the_cluster(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not reachable"):
        submit(write_study_file(tmp_path), address=NOWHERE, data=str(tmp_path / "mnt"), results="/shared")


def test_relative_roots_of_other_commands_are_errors() -> None:
    with pytest.raises(InputError, match="--results: must be a URL or an absolute path"):
        submit_command(Destination(address=NOWHERE), "status", "tiny", roots={"--results": "results"})
