"""Run with `pytest tests/cluster/test_roots.py`."""

from __future__ import annotations

from pathlib import Path

from dirtune.cluster.roots import (
    NOT_RETURNED,
    NOT_SHARED,
    ProbeResult,
    RootProbe,
    check_data_root,
    check_results_root,
    run_probe,
    write_driver_file,
)
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST

NAMES = {"1": "a", "2": "b"}


def make_probe(results: Path | None = None, data: Path | None = None) -> RootProbe:
    return RootProbe.create(
        None if data is None else Storage.open(data), None if results is None else Storage.open(results)
    )


def write_data_sets(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / MANIFEST).write_text("{}")
    return root


def test_a_results_root_that_all_nodes_share_is_ok_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    probe = make_probe(tmp_path)
    with write_driver_file(probe) as fault:
        results = {node: run_probe(probe, node) for node in NAMES}
        found = check_results_root(probe, fault, results, names=NAMES)
    assert (found.state, found.value) == ("ok", f"{tmp_path}: written and read by every node")
    assert [each.name for each in tmp_path.iterdir()] == ["study"]


def test_a_new_results_root_is_removed_after_the_probe(tmp_path: Path) -> None:
    probe = make_probe(tmp_path / "results")
    with write_driver_file(probe) as fault:
        assert fault is None
        assert run_probe(probe, "1").fault is None
    assert not (tmp_path / "results").exists()


def test_a_node_that_does_not_share_the_root_is_named_and_writes_nothing(tmp_path: Path) -> None:
    probe = make_probe(tmp_path / "results")
    own = tmp_path / "results of b"
    own.mkdir()
    elsewhere = RootProbe(data=None, results=Storage.open(own), folder=probe.folder, content=probe.content)
    with write_driver_file(probe) as fault:
        results = {"1": run_probe(probe, "1"), "2": run_probe(elsewhere, "2")}
        found = check_results_root(probe, fault, results, names=NAMES)
    assert found.state == "problem"
    assert found.value == f"{tmp_path / 'results'}: b {NOT_SHARED}"
    assert "a path that every node mounts" in found.advice
    assert not list(own.iterdir())


def test_the_driver_must_find_the_file_of_every_node(tmp_path: Path) -> None:
    probe = make_probe(tmp_path)
    with write_driver_file(probe) as fault:
        # A result without a fault, although no file was written
        results = {"1": run_probe(probe, "1"), "2": ProbeResult()}
        found = check_results_root(probe, fault, results, names=NAMES)
    assert (found.state, found.value) == ("problem", f"{tmp_path}: b {NOT_RETURNED}")


def test_a_root_that_cannot_be_written_is_a_problem_with_the_error_of_the_system(tmp_path: Path) -> None:
    probe = make_probe(tmp_path / "file" / "root")
    (tmp_path / "file").write_text("no folder")
    with write_driver_file(probe) as fault:
        assert fault is not None
        found = check_results_root(probe, fault, {"1": run_probe(probe, "1")}, names=NAMES)
    assert found.state == "problem"
    assert fault in found.value
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_node_that_cannot_use_the_root_is_named_with_the_reason(tmp_path: Path) -> None:
    probe = make_probe(tmp_path)
    wrong = RootProbe(
        data=None, results=Storage.open(tmp_path / "file/root"), folder=probe.folder, content=probe.content
    )
    (tmp_path / "file").write_text("no folder")
    with write_driver_file(probe) as fault:
        results = {"1": run_probe(wrong, "1"), "2": run_probe(probe, "2")}
        found = check_results_root(probe, fault, results, names=NAMES)
    assert (found.state, found.value) == ("problem", f"{tmp_path}: a cannot use it: Not a directory")


def test_every_node_must_find_the_data_sets_that_the_driver_finds(tmp_path: Path) -> None:
    probe = make_probe(data=write_data_sets(tmp_path, "agedb", "digits"))
    own = run_probe(probe, "1")
    fine = check_data_root(probe, {"1": own}, names=NAMES)
    assert (fine.state, fine.value) == ("ok", f"{tmp_path}: agedb, digits")
    found = check_data_root(probe, {"1": own, "2": ProbeResult(data="no data set")}, names=NAMES)
    assert found.state == "problem"
    assert found.value == f"{tmp_path}: agedb, digits on the driver, a; no data set on b"


def test_a_root_without_data_sets_is_a_warning(tmp_path: Path) -> None:
    probe = make_probe(data=tmp_path)
    found = check_data_root(probe, {"1": run_probe(probe, "1")}, names=NAMES)
    assert (found.state, found.value) == ("warning", f"{tmp_path}: no data set")
    assert "dirtune ingest" in found.advice


def test_roots_that_are_not_given_are_not_probed() -> None:
    probe = make_probe()
    with write_driver_file(probe) as fault:
        assert fault is None
    assert run_probe(probe, "1") == ProbeResult()
