"""Run with `pytest tests/pipelines/test_uci.py`: small files in the formats of UCI; nothing is downloaded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.ingest import ingest
from dirtune.data.store import decode, read_manifest, read_side_file, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.pipelines.uci import TABLES, fit_class_rule, read_rows

# The first rows of UCI's files
FIRST = {
    "abalone": "M,0.455,0.365,0.095,0.514,0.2245,0.101,0.15,15",
    "airfoil": "800\t0\t0.3048\t71.3\t0.00266337\t126.201",
    "concrete": "540,0,0,162,2.5,1040,676,28,79.98611076",
    "real_estate": "1,2012.916667,32,84.87882,10,24.98298,121.54024,37.9",
}
NAMES = {
    "concrete": "Cement (component 1)(kg in a m^3 mixture),Blast Furnace Slag (component 2)(kg in a m^3 mixture),"
    "Fly Ash (component 3)(kg in a m^3 mixture),Water  (component 4)(kg in a m^3 mixture),"
    "Superplasticizer (component 5)(kg in a m^3 mixture),Coarse Aggregate  (component 6)(kg in a m^3 mixture),"
    'Fine Aggregate (component 7)(kg in a m^3 mixture),Age (day),"Concrete compressive strength(MPa, megapascals) "',
    "real_estate": "No,X1 transaction date,X2 house age,X3 distance to the nearest MRT station,"
    "X4 number of convenience stores,X5 latitude,X6 longitude,Y house price of unit area",
}
ROWS = 200


def _write(folder: Path, table: str) -> Path:
    """The first row of UCI and others like it, with labels that are rarer the farther they are from 20."""
    layout, drawn = TABLES[table], np.random.default_rng(0)
    delimiter = "\t" if layout.file.endswith(".dat") else ","
    lines = [NAMES[table]] if table in NAMES else []
    lines.append(FIRST[table])
    for row in range(2, ROWS + 1):
        cells = [f"{value:.4f}" for value in drawn.random(len(layout.columns) - 1)]
        label = abs(drawn.normal(20, 5))
        cells.append(f"{label:.0f}" if table == "abalone" else f"{label:.2f}")
        if layout.texts:
            cells[0] = str(drawn.choice(layout.texts))
        if layout.counts_rows:
            cells[0] = str(row)
        lines.append(delimiter.join(cells))
    path = folder / layout.file
    path.write_bytes("\r\n".join([*lines, ""]).encode())
    return path


@pytest.mark.parametrize("table", TABLES)
def test_the_files_of_uci_become_balanced_sets(tmp_path: Path, table: str) -> None:
    _write(tmp_path, table)
    manifest = ingest("uci", raw=tmp_path, root=tmp_path / "data", options={"table": table})
    storage = Storage.open(tmp_path / "data")
    assert manifest == read_manifest(storage, f"uci_{table}")
    label = manifest.label
    assert (label.name, label.unit, label.bin_width) == (TABLES[table].columns[-1], TABLES[table].unit, 1.0)
    assert label.low == np.floor(label.low)
    rows = {name: split.rows for name, split in manifest.splits.items()}
    assert sum(rows.values()) == ROWS
    assert rows["val"] == rows["test"] <= ROWS / 5
    # Of the labels around 20, the test rows have a smaller share.
    shares = [np.array(manifest.splits[name].bin_counts).max() / rows[name] for name in ("test", "train")]
    assert shares[0] < shares[1]
    assert manifest.default_shot_rule == "classes"
    assert any(note.startswith("no split of UCI-DIR is published") for note in manifest.notes)
    features = [each["name"] for each in json.loads(read_side_file(storage, manifest, "features.json"))]
    sexes = ["sex"] * 3 if table == "abalone" else []
    assert features == [*(name for name in TABLES[table].columns[:-1] if name not in {"sex", "number"}), *sexes]


def test_the_first_row_is_that_of_the_file(tmp_path: Path) -> None:
    _write(tmp_path, "concrete")
    manifest = ingest("uci", raw=tmp_path, root=tmp_path / "data", options={"table": "concrete"})
    storage = Storage.open(tmp_path / "data")
    found = {}
    for split in manifest.splits:
        columns = decode(read_split(storage, manifest, split), manifest)
        found |= dict(zip(columns["sample_id"].tolist(), columns["label"].tolist(), strict=True))
    assert found["row-0000001"] == pytest.approx(79.98611076)


def test_data_csv_under_the_name_of_the_table_has_the_same_rows(tmp_path: Path) -> None:
    layout = TABLES["airfoil"]
    original = _write(tmp_path, "airfoil")
    names = (
        "frequency,attack-angle,chord-length,free-stream-velocity,suction-side-displacement-thickness,"
        "scaled-sound-pressure"
    )
    downloaded = tmp_path / "airfoil.csv"
    downloaded.write_text("\n".join([names, original.read_text().replace("\t", ",")]))
    assert read_rows(downloaded, layout).equals(read_rows(original, layout))


def test_regions_are_thirds_of_the_classes_by_their_training_rows() -> None:
    labels = np.repeat(np.arange(9), [1, 2, 3, 10, 20, 30, 40, 50, 60])
    counts = np.bincount(labels, minlength=12)
    rule = fit_class_rule(counts)
    ranked = Counter(labels.tolist()).most_common()
    # As in the source
    assert rule.many_above == ranked[9 // 3][1] == 30
    assert rule.few_below == ranked[-9 // 3][1] == 3


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("abalone", "0.455", "?", r"abalone.data:1: length: must be a finite number, got '\?'"),
        ("abalone", "M,", "X,", "abalone.data:1: sex: must be one of M, F, I, got 'X'"),
        ("airfoil", "\t71.3", "", "airfoil_self_noise.dat:1: must have 6 cells, got 5"),
        ("concrete", "540,", "nan,", "Concrete_Data.csv:2: cement: must be a finite number, got 'nan'"),
        ("concrete", "Concrete compressive strength", "Cement", "the last column must be the label .strength."),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, table: str, old: str, new: str, message: str) -> None:
    path = _write(tmp_path, table)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        ingest("uci", raw=tmp_path, root=tmp_path / "data", options={"table": table})


def test_a_missing_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs the folder of abalone.data or abalone.csv"):
        ingest("uci", root=tmp_path, options={"table": "abalone"})
    with pytest.raises(InputError, match=r"has no file Concrete_Data.csv or concrete.csv$"):
        ingest("uci", raw=tmp_path, root=tmp_path / "data", options={"table": "concrete"})
    (tmp_path / "Concrete_Data.xls").write_bytes(b"")
    with pytest.raises(InputError, match=r"concrete.csv; save the sheet of Concrete_Data.xls as csv"):
        ingest("uci", raw=tmp_path, root=tmp_path / "data", options={"table": "concrete"})
    with pytest.raises(InputError, match=r"`dirtune ingest uci --raw DIR --option table=abalone` does it"):
        read_manifest(Storage.open(tmp_path / "data"), "uci_abalone")
