from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from dirtune.results.tables.comparison import Comparison, TableRequest, compare
from dirtune.results.tables.render.flat import as_csv, as_json
from dirtune.results.tables.render.footer import make_footer
from tests.results.record_factory import record, write_study


@pytest.fixture
def table(tmp_path: Path) -> Comparison:
    records = [record("vanilla", seed, value) for seed, value in enumerate((5.0, 5.2, 5.4))]
    records += [record("conr", seed, value) for seed, value in enumerate((4.0, 4.3, 4.35))]
    records += [record("conr", 0, 9.0, trial_id="worse", objective=99.0)]
    records += [record("[x]", 0, status="failed", error="not finite")]
    write_study(
        tmp_path,
        records,
        reference="vanilla",
        arms=["vanilla", "conr", "[x]"],
        seeds=[0, 1, 2],
        data={"name": "agedb", "unit": "years"},
    )
    request = TableRequest(studies=("study",), regions=("all", "few"), published="dir")
    return compare(tmp_path, request)


def test_csv_has_one_line_per_arm_and_region_at_full_precision(table: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))

    assert [(row["arm"], row["region"]) for row in rows] == [
        (arm, region) for arm in ("vanilla", "conr", "[x]") for region in ("all", "few")
    ]
    conr, cell = rows[3], table.parts[0].rows[1].cells["few"]
    assert float(conr["mean"]) == cell.mean
    assert [float(conr[name]) for name in ("low", "high", "p", "p_holm")] == [
        cell.difference.low,
        cell.difference.high,
        cell.difference.p,
        cell.p_holm,
    ]
    assert (conr["configurations"], conr["data_fingerprint"]) == ("2", "data-a")


def test_csv_has_nothing_where_something_is_undefined(table: Comparison) -> None:
    failed = list(csv.DictReader(io.StringIO(as_csv(table))))[-1]

    assert (failed["mean"], failed["sd"], failed["n"], failed["p"]) == ("", "", "0", "")
    assert failed["missing"] == "0: failed: not finite; 1: not recorded; 2: not recorded"


def test_json_has_every_cell_with_its_trials_by_seed(table: Comparison) -> None:
    plain = json.loads(as_json(table))

    (part,) = plain["tables"]
    conr = part["rows"][1]["cells"]["few"]
    assert conr["mean"] == table.parts[0].rows[1].cells["few"].mean
    assert conr["seeds"]["0"] == {"trial_id": "conr-0", "epoch": "best_val", "value": 6.0}
    assert conr["difference"]["n"] == 3
    assert part["rows"][2]["cells"]["all"]["mean"] is None
    assert part["rows"][2]["missing"][1] == {"arm": "[x]", "seed": 1, "reason": "not recorded"}
    assert plain["notes"] == make_footer(table)


def test_json_keeps_published_numbers_apart_with_their_source(table: Comparison) -> None:
    plain = json.loads(as_json(table))

    assert [row["origin"] for row in plain["published"]] == ["ACCon (AAAI 2025), Table 2"] * 2
    assert plain["published"][0]["values"]["few"] == 13.67
    assert "13.67" not in json.dumps(plain["tables"])


def test_json_has_the_request(table: Comparison) -> None:
    request = json.loads(as_json(table))["request"]

    assert TableRequest(**{k: tuple(v) if isinstance(v, list) else v for k, v in request.items()}) == table.request


def test_verdicts_are_columns_of_the_csv_and_part_of_the_json(table: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    verdict = table.parts[0].rows[1].cells["few"].verdict

    assert [row["verdict"] for row in rows] == ["", "", "helps", "helps", "", ""]
    assert (rows[3]["margin_requested"], float(rows[3]["margin"])) == ("2%", verdict.margin)
    assert (float(rows[3]["p_equivalence"]), rows[3]["further_seeds"]) == (verdict.p_equivalence, "0")
    (part,) = json.loads(as_json(table))["tables"]
    assert part["margin"] == {"text": "2%", "number": 0.02, "is_share": True}
    assert part["rows"][1]["cells"]["few"]["verdict"]["decision"] == "helps"
    assert part["rows"][2]["cells"]["few"]["verdict"] is None
