from __future__ import annotations

import json
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.records.store import read_table
from dirtune.results.tables.comparison import Comparison, TableRequest, compare
from dirtune.results.tables.provenance import format_provenance, list_provenance
from tests.results.predicted import write_predicted_study
from tests.results.record_factory import metric_rows, record, write_study


@pytest.fixture
def table(tmp_path: Path) -> Comparison:
    records = [
        record(
            "a",
            seed,
            trial_id=f"t{seed}",
            metrics=metric_rows(5.0 + seed, epochs=["best_val"]) + metric_rows(3.0 + 4 * seed, epochs=["last"]),
        )
        for seed in (0, 1)
    ]
    records += [record("b", 0, status="failed")]
    write_study(tmp_path, records, data={"name": "agedb"}, arms=["a", "b"], seeds=[0, 1])
    request = TableRequest(
        studies=("study",), regions=("all", "few"), selection="oracle", published="dir", published_as={"a": "Vanilla"}
    )
    return compare(tmp_path, request)


def test_every_number_has_its_trials_at_the_epochs_chosen(table: Comparison) -> None:
    cells = list_provenance(table)

    assert [(cell.arm, cell.region) for cell in cells] == [("a", "all"), ("a", "few")]
    assert cells[0].trial_ids == ("t0", "t1")
    assert cells[0].epochs == ("last", "best_val")
    assert (cells[0].seeds, cells[0].values, cells[0].mean) == ((0, 1), (3.0, 6.0), 4.5)


def test_the_store_has_the_traced_values(table: Comparison, tmp_path: Path) -> None:
    stored = {
        (row["trial_id"], row["selection"], row["region"]): row["value"]
        for row in read_table(tmp_path, "metrics").to_pylist()
        if row["split"] == "test"
    }
    for cell in list_provenance(table):
        for trial, epoch, value in zip(cell.trial_ids, cell.epochs, cell.values, strict=True):
            assert stored[trial, epoch, cell.region] == value


def test_the_trace_is_a_table_or_a_list(table: Comparison) -> None:
    lines = format_provenance(table).split("\n")
    plain = json.loads(format_provenance(table, "json"))

    assert "| study | mae | a | all | 4.5 | - | 0: t0 at last = 3, 1: t1 at best_val = 6 |" in lines
    assert len(lines) == 2 + len(plain)
    assert plain[1]["trial_ids"] == ["t0", "t1"]


def test_an_unknown_form_is_refused(table: Comparison) -> None:
    with pytest.raises(InputError, match="'csv'; known: json, markdown"):
        format_provenance(table, "csv")


def test_the_trace_has_the_word_and_its_mark(tmp_path: Path) -> None:
    write_predicted_study(tmp_path / "judged")
    for regions, word in ((("all",), "helps"), (("few",), "helps, chosen after the study")):
        made = compare(tmp_path / "judged", TableRequest(studies=("study",), regions=regions))

        assert [cell.word for cell in list_provenance(made)][:2] == [None, word]
        assert f" | {word} |" in format_provenance(made)
