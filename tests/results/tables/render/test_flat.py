from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest

from dirtune.results.tables.check import check
from dirtune.results.tables.comparison import Comparison, TableRequest, compare
from dirtune.results.tables.render.flat import as_csv, as_json
from dirtune.results.tables.render.footer import make_footer
from tests.results.predicted import write_predicted_study
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
    assert [float(conr[name]) for name in ("low", "high", "p_seeds", "reference_mean")] == [
        cell.difference.low,
        cell.difference.high,
        cell.difference.over_seeds.p,
        cell.reference_mean,
    ]
    assert (conr["configurations"], conr["data_fingerprint"]) == ("2", "data-a")


def test_csv_has_nothing_where_something_is_undefined(table: Comparison) -> None:
    failed = list(csv.DictReader(io.StringIO(as_csv(table))))[-1]

    assert (failed["mean"], failed["sd"], failed["n"], failed["p_seeds"]) == ("", "", "0", "")
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

    origins = [row["origin"] for row in plain["published"]]
    assert origins.count("ACCon (AAAI 2025), Table 2") == 2
    # Another paper's numbers of the same method are rows of their own.
    assert "SRL (CVPR 2025), Table 2" in origins
    assert plain["published"][origins.index("ACCon (AAAI 2025), Table 2")]["values"]["few"] == 13.67
    assert "13.67" not in json.dumps(plain["tables"])


def test_infinite_values_are_texts_in_json_which_has_no_number_for_them(tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0, math.inf), record("b", 0, -math.inf), record("b", 1)], name="study")
    text = as_json(compare(tmp_path, TableRequest(studies=("study",), reference="b")))

    # JSON of other languages has neither
    assert not re.search("NaN|Infinity", text)
    first, second = (row["cells"]["all"] for row in json.loads(text)["tables"][0]["rows"])
    assert (first["mean"], first["sd"], first["seeds"]["0"]["value"]) == ("inf", None, "inf")
    assert second["mean"] == "-inf"


def test_json_has_the_request(table: Comparison) -> None:
    request = json.loads(as_json(table))["request"]

    assert TableRequest(**{k: tuple(v) if isinstance(v, list) else v for k, v in request.items()}) == table.request


def test_words_are_columns_of_the_csv_and_part_of_the_json(tmp_path: Path) -> None:
    write_predicted_study(tmp_path, claim={"region": "all", "margin": "5%"})
    table = compare(tmp_path, TableRequest(studies=("study",), regions=("all", "few"), margin="6%"))
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    cell = table.parts[0].rows[1].cells["all"]

    words = {(row["arm"], row["region"]): row["word"] for row in rows if row["word"]}
    assert words == {("conr", "all"): "helps", ("same", "all"): "same", ("ranksim", "all"): "hurts"}
    assert {row["chosen_after"] for row in rows if row["word"]} == {"margin 6%"}
    assert {row["chosen_after"] for row in rows if not row["word"]} == {""}
    conr = rows[2]
    assert (float(conr["p_corrected"]), float(conr["p_equivalence"])) == (cell.p_holm, cell.verdict.p_equivalence)
    assert (float(conr["p_seeds_and_samples"]), conr["units"]) == (cell.difference.over_both.p, "300")
    assert (conr["margin_requested"], conr["regions_requested"]) == ("6%", "all few")
    (part,) = json.loads(as_json(table))["tables"]
    assert part["claim"]["chosen_after"] == ["margin 6%"]
    assert part["claim"]["margin"] == {"text": "6%", "number": 0.06, "is_share": True}
    word = part["rows"][1]["cells"]["all"]["word"]
    assert (word["text"], word["decision"]) == ("helps", "helps")
    assert part["rows"][1]["cells"]["few"]["word"] is None
    assert part["rows"][1]["cells"]["all"]["difference"]["over_both"]["p"] == cell.difference.over_both.p


def test_the_reason_for_no_word_is_in_both(table: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))

    assert {row["word"] for row in rows} == {""}
    # The claim is about all, as no trial of this store has a hundred samples
    assert [row["no_word"] for row in rows] == [
        "",
        "",
        "another number of configurations than the reference",
        "",
        "no pair",
        "",
    ]
    (part,) = json.loads(as_json(table))["tables"]
    assert part["rows"][2]["cells"]["all"]["no_word"] == "no pair"


def test_names_that_spreadsheets_would_run_are_defused_in_csv_and_checked_as_they_are(tmp_path: Path) -> None:
    names = ["=1+1", "@sum", "+a", "-a", "'quoted", "plain"]
    records = [record(name, seed, 5.0 + seed) for name in names for seed in (0, 1)]
    write_study(tmp_path, records, reference="=1+1", arms=names, seeds=[0, 1])
    text = as_csv(compare(tmp_path, TableRequest(studies=("study",))))

    arms = dict.fromkeys(row["arm"] for row in csv.DictReader(io.StringIO(text)))

    assert list(arms) == ["'=1+1", "'@sum", "'+a", "'-a", "'quoted", "plain"]
    assert not any(cell.startswith(("=", "@")) for line in csv.reader(io.StringIO(text)) for cell in line)
    report = check(tmp_path, text)
    assert (report.findings, report.numbers > len(names)) == ((), True)
