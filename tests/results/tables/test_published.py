from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.metrics import REGIONS
from dirtune.presets import read_methods
from dirtune.results.tables.published import FILES, METHODS, SPLIT_KINDS, find_published, read_published

SHARED = Path(__file__).resolve().parents[3].parent / "shared/reference"


def test_the_file_is_read_line_by_line() -> None:
    lines = [line for path in FILES for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]

    assert len(read_published()) == len(lines) == 647
    assert [number._asdict() for number in read_published()] == [
        {**line, "value": float(line["value"])} for line in lines
    ]


def test_the_file_is_the_collected_one() -> None:
    if not SHARED.exists():
        pytest.skip("the collection of published numbers is not available")
    assert [path.read_bytes() for path in FILES] == [(SHARED / path.name).read_bytes() for path in FILES]


def test_no_number_appears_twice_and_all_have_a_source() -> None:
    keys = Counter(number[:7] for number in read_published())

    assert set(keys.values()) == {1}
    assert all(number.source and number.table for number in read_published())
    assert {number.split for number in read_published()} == set(SPLIT_KINDS)
    assert {number.region for number in read_published()} <= set(REGIONS)


def test_the_map_names_published_methods_only_and_each_for_one_arm() -> None:
    known = {number.method for number in read_published()}
    named = [method for names in METHODS.values() for method in names]

    assert len(named) == len(set(named))
    assert known - set(named) == {"BMSE", "Balanced MSE", "LDS+FDS", "VIR", "SQINV (ResNet-18 RnC recipe)"}
    assert set(named) <= known


def test_arms_of_one_preset_are_called_like_it() -> None:
    joined = {"sqrt_inverse", "inverse", "focal_r", "accon"}
    single = {arm for arm in METHODS if not any(arm.startswith(f"{name}_") for name in joined)}

    assert single - {"vanilla"} <= read_methods().keys()


def test_a_row_has_one_source_and_its_regions() -> None:
    rows = find_published(["accon", "mine"], dataset="agedb", split_kind="dir", metric="mae")

    (row,) = rows
    assert (row.arm, row.method, row.origin) == ("accon", "Vanilla+ACCon", "ACCon (AAAI 2025), Table 2")
    assert row.values == {"all": 6.81, "many": 6.26, "medium": 7.56, "few": 9.91}


def test_sources_of_one_method_are_rows_of_their_own() -> None:
    rows = find_published(["sqrt_inverse_lds"], dataset="imdb_wiki", split_kind="dir", metric="mae")

    assert [(row.origin[:5], row.values["all"]) for row in rows] == [("ACCon", 7.83), ("Yang ", 7.87)]


def test_the_kind_of_split_and_the_metric_decide() -> None:
    def value(**where: str) -> list[float]:
        return [row.values["all"] for row in find_published(["conr"], **where)]

    assert value(dataset="agedb", split_kind="dir", metric="mae") == [7.2, 7.2, 7.41]
    assert value(dataset="agedb", split_kind="natural", metric="mae") == [6.808]
    assert value(dataset="agedb", split_kind="natural", metric="r2") == [0.733]
    assert value(dataset="digits", split_kind="dir", metric="mae") == []


def test_splits_that_differ_are_never_in_one_table() -> None:
    found = {
        kind: [row.values["all"] for row in find_published(["srl"], dataset="sts_b", split_kind=kind, metric="mse")]
        for kind in SPLIT_KINDS
    }

    assert [kind for kind, values in found.items() if values] == ["ranksim-repository"]


def test_a_method_may_be_named_for_an_arm_and_nothing_is_guessed() -> None:
    def methods_of(arm: str, **names: str) -> list[str]:
        rows = find_published([arm], dataset="agedb", split_kind="natural", metric="mae", names=names)
        return [row.method for row in rows]

    assert methods_of("conr_2") == []
    assert methods_of("conr_2", conr_2="ConR") == ["ConR"]
    assert methods_of("bmc", bmc="BMSE") == ["BMSE"]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"published: a: unknown published method, got 'Conr'.*'ConR'"):
        find_published([], dataset="agedb", split_kind="dir", metric="mae", names={"a": "Conr"})
    with pytest.raises(InputError, match="'balanced'; known: dir, natural, ol-dir, ranksim-repository"):
        find_published([], dataset="agedb", split_kind="balanced", metric="mae")
