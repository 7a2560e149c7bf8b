"""Run with `pytest tests/data/test_ingest.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dirtune.data.ingest import ingest, load_pipeline, wrap_single_values
from dirtune.errors import InputError
from dirtune.frozen import Frozen
from dirtune.pipelines import PIPELINES


@pytest.mark.parametrize("name", sorted(PIPELINES))
def test_every_listed_pipeline_loads_and_has_options(name: str) -> None:
    module = load_pipeline(name)
    assert issubclass(module.Options, Frozen)
    assert callable(module.ingest)


def test_an_unknown_data_set_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown name, got 'digit'; known: agedb, digits, "):
        ingest("digit", root=tmp_path)


def test_a_download_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sts_b: raw: a download needs the folder to fill"):
        ingest("sts_b", root=tmp_path, download=True)


def test_only_listed_pipelines_are_loaded() -> None:
    with pytest.raises(InputError, match="unknown name"):
        load_pipeline("sentence_features")


def test_an_unknown_option_lists_the_known_ones_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ingest("digits", root=tmp_path, options={"sead": 1, "seed": "one"})
    unknown, wrong = sorted(caught.value.faults, key=lambda fault: fault.rule != "unknown key")
    assert str(unknown).startswith("options of digits: sead: unknown key, got 'sead'; known: ")
    assert {"seed", "fraction", "profile"} <= set(unknown.known)
    assert (wrong.key, wrong.got) == ("seed", "one")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"one_hot": "kind"}, {"one_hot": ["kind"]}),
        ({"features": ["a", "b"], "label": "y"}, {"features": ["a", "b"], "label": "y"}),
        ({"peaks": 3, "features": None}, {"peaks": [3], "features": None}),
        ({"bands": [1, 2]}, {"bands": [[1, 2]]}),
        ({"bands": [[1, 2], [3, 4]]}, {"bands": [[1, 2], [3, 4]]}),
        ({"bands": [], "unknown": 1}, {"bands": [], "unknown": 1}),
    ],
)
def test_a_single_value_is_a_list_of_one(given: dict[str, object], expected: dict[str, object]) -> None:
    assert wrap_single_values(load_pipeline("table").Options, given) == expected


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("no folder")
    with pytest.raises(InputError, match="root: must be a folder, but is a file"):
        ingest("digits", root=tmp_path / "root")


@pytest.mark.usefixtures("ray_session")
def test_a_root_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=f"root: must be a folder, but {tmp_path}/file is a file"):
        ingest("digits", root=tmp_path / "file" / "root")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_repeated_ingest_changes_and_reports_nothing_new(tmp_path: Path) -> None:
    import ray

    said: list[str] = []
    first = ingest("digits", root=tmp_path, report=said.append)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    times = [path.stat().st_mtime_ns for path in files]
    assert ingest("digits", root=tmp_path, report=said.append) == first
    assert [path.stat().st_mtime_ns for path in files] == times
    assert said == [
        f"digits: ingested; 6,609 samples, content {first.fingerprint}",
        f"digits: unchanged, already ingested from the same request; 6,609 samples, content {first.fingerprint}",
    ]
    # The session was here before, so it stays
    assert ray.is_initialized()


SCRIPT = (
    "import sys, ray; from dirtune.data.ingest import ingest, load_pipeline, wrap_single_values; "
    "ingest('digits', root=sys.argv[1]); sys.exit(ray.is_initialized())"
)


@pytest.mark.ray
def test_ray_is_started_and_ended_for_an_ingest_but_not_for_an_unchanged_set(tmp_path: Path) -> None:
    def run() -> tuple[str, bool]:
        # A short path, because sockets lie below it; a Ray that starts leaves its logs there.
        with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
            environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, str(tmp_path)],
                capture_output=True,
                text=True,
                check=False,
                env={**environment, "RAY_TMPDIR": folder},
            )
            assert done.returncode == 0, done.stderr
            return done.stdout, any(Path(folder).iterdir())

    said, started = run()
    assert said.startswith("digits: ingested; 6,609 samples, content ")
    assert started
    said, started = run()
    assert said.startswith("digits: unchanged, already ingested from the same request; 6,609")
    assert not started
