"""Run with `pytest tests/cluster/test_roots.py`."""

from __future__ import annotations

from pathlib import Path

from dirtune.cluster.roots import MISSING, UNSEEN, Answer, Probe, answer, data_root, probing, results_root
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST

NAMES = {"1": "a", "2": "b"}


def probe(results: Path | None = None, data: Path | None = None) -> Probe:
    return Probe.of(None if data is None else Storage.at(data), None if results is None else Storage.at(results))


def ingested(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / MANIFEST).write_text("{}")
    return root


def test_a_results_root_that_all_nodes_share_is_fine_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    asked = probe(tmp_path)
    with probing(asked) as fault:
        answers = {node: answer(asked, node) for node in NAMES}
        found = results_root(asked, fault, answers, names=NAMES)
    assert (found.state, found.value) == ("ok", f"{tmp_path}: written and read by every node")
    assert [each.name for each in tmp_path.iterdir()] == ["study"]


def test_a_root_that_was_not_there_is_not_there_afterwards(tmp_path: Path) -> None:
    asked = probe(tmp_path / "results")
    with probing(asked) as fault:
        assert fault is None
        assert answer(asked, "1").fault is None
    assert not (tmp_path / "results").exists()


def test_a_node_with_a_folder_of_its_own_is_named_and_nothing_is_written_there(tmp_path: Path) -> None:
    asked = probe(tmp_path / "results")
    own = tmp_path / "results of b"
    own.mkdir()
    elsewhere = Probe(data=None, results=Storage.at(own), folder=asked.folder, secret=asked.secret)
    with probing(asked) as fault:
        answers = {"1": answer(asked, "1"), "2": answer(elsewhere, "2")}
        found = results_root(asked, fault, answers, names=NAMES)
    assert found.state == "problem"
    assert found.value == f"{tmp_path / 'results'}: b {UNSEEN}"
    assert "a path that every node mounts" in found.advice
    assert not list(own.iterdir())


def test_what_a_node_has_written_must_come_back_to_the_driver(tmp_path: Path) -> None:
    asked = probe(tmp_path)
    with probing(asked) as fault:
        # Says that it has written, and has not
        answers = {"1": answer(asked, "1"), "2": Answer()}
        found = results_root(asked, fault, answers, names=NAMES)
    assert (found.state, found.value) == ("problem", f"{tmp_path}: b {MISSING}")


def test_a_root_that_cannot_be_written_is_a_problem_in_the_words_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    asked = probe(tmp_path / "file")
    with probing(asked) as fault:
        assert fault is not None
        found = results_root(asked, fault, {"1": answer(asked, "1")}, names=NAMES)
    assert found.state == "problem"
    assert fault in found.value
    assert (tmp_path / "file").read_text() == "no folder"


def test_a_node_that_cannot_use_the_root_is_named_with_the_reason(tmp_path: Path) -> None:
    asked = probe(tmp_path)
    (tmp_path / "file").write_text("no folder")
    wrong = Probe(data=None, results=Storage.at(tmp_path / "file"), folder=asked.folder, secret=asked.secret)
    with probing(asked) as fault:
        answers = {"1": answer(wrong, "1"), "2": answer(asked, "2")}
        found = results_root(asked, fault, answers, names=NAMES)
    assert (found.state, found.value) == ("problem", f"{tmp_path}: a cannot use it: Not a directory")


def test_every_node_must_see_the_data_sets_that_the_driver_sees(tmp_path: Path) -> None:
    asked = probe(data=ingested(tmp_path, "agedb", "digits"))
    own = answer(asked, "1")
    fine = data_root(asked, {"1": own}, names=NAMES)
    assert (fine.state, fine.value) == ("ok", f"{tmp_path}: agedb, digits")
    found = data_root(asked, {"1": own, "2": Answer(data="no data set")}, names=NAMES)
    assert found.state == "problem"
    assert found.value == f"{tmp_path}: agedb, digits on the driver, a; no data set on b"


def test_a_root_without_data_sets_is_a_warning(tmp_path: Path) -> None:
    asked = probe(data=tmp_path)
    found = data_root(asked, {"1": answer(asked, "1")}, names=NAMES)
    assert (found.state, found.value) == ("warning", f"{tmp_path}: no data set")
    assert "dirtune ingest" in found.advice


def test_what_is_not_named_is_not_tried() -> None:
    asked = probe()
    with probing(asked) as fault:
        assert fault is None
    assert answer(asked, "1") == Answer()
