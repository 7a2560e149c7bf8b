"""Run with `pytest tests/data/test_sources.py`: the same data from everywhere become the same data set."""

from __future__ import annotations

import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import dirtune
from dirtune.data.sources import find_source, open_source
from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, Manifest
from tests.data.s3server import s3_server

FEATURES = ["a", "b"]


def _frame(rows: int = 200) -> pd.DataFrame:
    drawn = np.random.default_rng(0)
    inputs = drawn.normal(size=(rows, 2))
    return pd.DataFrame(inputs, columns=FEATURES).assign(y=inputs[:, 0] * 3 + drawn.normal(size=rows))


def _ingest(data: Any, folder: Path, **given: Any) -> Manifest:
    return dirtune.ingest(data, **{"name": "mine", "label": "y", "root": folder, "report": str, **given})


def _read_rows(folder: Path, manifest: Manifest) -> dict[str, list[list[float]]]:
    """Return features and label of the rows of each split, in the order of their ids."""
    found = {}
    for split in SPLITS:
        columns = decode(read_split(Storage.open(folder), manifest, split), manifest)
        found[split] = np.column_stack([columns["features"], columns["label"]]).tolist()
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, frame = tmp_path_factory.mktemp("files"), _frame()
    frame.to_csv(folder / "mine.csv", index=False)
    frame.to_csv(folder / "mine.tsv", index=False, sep="\t")
    frame.to_parquet(folder / "mine.parquet")
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    np.savez(folder / "mine.npz", **{name: frame[name].to_numpy() for name in frame})
    np.savez(folder / "matrix.npz", x=frame[FEATURES].to_numpy(), y=frame["y"].to_numpy())
    return folder


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[str]:
    """Yield the address of an HTTP server with the files."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *given: Any) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(files))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


IN_MEMORY: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "arrow": lambda frame: pa.Table.from_pandas(frame),
    "mapping": lambda frame: {name: frame[name].to_numpy() for name in frame},
    "pair": lambda frame: (frame[FEATURES].to_numpy(), frame["y"].to_numpy()),
    "pair of frames": lambda frame: (frame[FEATURES], frame[["y"]]),
    "datasets": lambda frame: datasets.Dataset.from_pandas(frame),
    "selected": lambda frame: datasets.Dataset.from_pandas(pd.concat([frame, frame])).select(range(len(frame))),
}


def test_every_source_has_the_rows_of_the_csv_file(
    files: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _read_rows(tmp_path, _ingest(files / "mine.csv", tmp_path))
    assert sum(map(len, expected.values())) == 200
    with fsspec.open("memory://folder/mine.parquet", "wb") as stream:
        stream.write((files / "mine.parquet").read_bytes())
    sources: dict[str, Any] = {
        **{name: files / name for name in ("mine.tsv", "mine.parquet", "mine.jsonl", "mine.npz", "matrix.npz")},
        "http": f"http://{server}/mine.parquet",
        "fsspec": "memory://folder",
        "file": f"file://{files}/mine.parquet",
        **{name: make(_frame()) for name, make in IN_MEMORY.items()},
    }
    fingerprints = {}
    for name, data in sources.items():
        manifest = _ingest(data, tmp_path, name="other")
        rows = _read_rows(tmp_path, manifest)
        assert rows == expected, name
        fingerprints[name] = manifest.content_hash
        assert "unchanged" in (lines := [], _ingest(data, tmp_path, name="other", report=lines.append))[0][0], name
    # Rows of text files have other numbers: their headers are row 1.
    del fingerprints["mine.tsv"]
    assert len(set(fingerprints.values())) == 1, fingerprints


def test_secrets_of_a_url_are_in_no_record_and_no_message(files: Path, server: str, tmp_path: Path) -> None:
    url = f"http://user:planted@{server}/mine.parquet?token=planted"
    manifest = _ingest(url, tmp_path)
    assert manifest.source["raw"] == f"http://{server}/mine.parquet?token=***"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"planted" in path.read_bytes()]
    with pytest.raises(InputError) as caught:
        _ingest(url.replace("mine", "none"), tmp_path)
    assert str(caught.value) == f"http://{server}/none.parquet?token=***: no such file or folder"
    with pytest.raises(InputError) as caught:
        _ingest(url, tmp_path, label="z")
    assert "planted" not in str(caught.value)
    assert "no such column" in str(caught.value)


def test_a_folder_of_a_bucket_is_copied(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with s3_server() as (_, endpoint):
        client = boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        client.upload_file(str(files / "mine.parquet"), "bucket", "data/set/mine.parquet")
        where = f"region=us-east-1&scheme=http&endpoint_override={endpoint}"
        by_file = _ingest(f"s3://key:planted@bucket/data/set/mine.parquet?{where}", tmp_path)
        by_folder = _ingest(f"s3://bucket/data/set?{where}", tmp_path, name="other")
        with pytest.raises(InputError, match="no such file or folder") as caught:
            _ingest(f"s3://key:planted@bucket/none.csv?{where}", tmp_path)
    assert "planted" not in str(caught.value) + by_file.model_dump_json()
    assert by_file.content_hash == by_folder.content_hash == _ingest(_frame(), tmp_path, name="third").content_hash


def _image(number: int) -> Image.Image:
    return Image.fromarray(np.full((8, 9, 3), number, dtype=np.uint8))


def _png(number: int) -> bytes:
    stream = io.BytesIO()
    _image(number).save(stream, format="png")
    return stream.getvalue()


def test_folders_named_by_numbers_are_labels_and_those_above_are_splits(tmp_path: Path) -> None:
    for place, split in enumerate(("train", "valid")):
        for label in ("-2", "10.5"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            _image(place).save(tmp_path / "photos" / split / label / f"{place}.png")
    with open_source(tmp_path / "photos") as source:
        assert source.table is not None
        assert source.table.to_pylist() == [
            {"path": f"{split}/{label}/{place}.png", "label": float(label), "split": split}
            for place, split in enumerate(("train", "valid"))
            for label in ("-2", "10.5")
        ]
        assert source.folder == (tmp_path / "photos").resolve()
        assert source.first_image is not None
    with open_source(str(tmp_path / "photos" / "train")) as source:
        assert source.columns == ("path", "label")
    (tmp_path / "photos" / "train" / "old").mkdir()
    _image(0).save(tmp_path / "photos" / "train" / "old" / "0.png")
    with (
        pytest.raises(InputError, match="folders that are named by their label, a number"),
        open_source(tmp_path / "photos"),
    ):
        pass


def test_images_and_splits_of_a_dataset_are_kept(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "age": datasets.Value("int64")})
    parts = {
        split: datasets.Dataset.from_dict(
            {"image": [{"bytes": _png(number), "path": None} for number in numbers], "age": numbers}, features=features
        )
        for split, numbers in {"train": [1, 2, 3], "test": [4, 5]}.items()
    }
    with open_source(datasets.DatasetDict(parts), label="age") as source:
        assert source.table is not None
        assert source.table["split"].to_pylist() == ["train"] * 3 + ["test"] * 2
        pixels = [
            int(np.asarray(Image.open(source.folder / name)).mean()) for name in source.table["image"].to_pylist()
        ]
        assert pixels == source.table["age"].to_pylist() == [1, 2, 3, 4, 5]
        folder = source.folder
    # Copies are removed.
    assert not folder.exists()


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (3, "must be a path, a URL, a data frame"),
        ("nowhere://bucket/a.csv", r"cannot be copied \(ValueError: Protocol not known: nowhere"),
        ("abfs://bucket/a.csv", r"needs another package \(Install adlfs"),
        ((np.zeros((3, 2)), np.zeros(4)), "cannot be read"),
        ((np.zeros((3, 2, 2)), np.zeros(3)), r"one or two dimensions, got the shape \(3, 2, 2\)"),
        ({"x": np.zeros(3), "y": np.zeros(2)}, "cannot be read"),
        (pd.DataFrame({"x": [1, "a"], "y": [1.0, 2.0]}), "cannot be read"),
    ],
)
def test_other_data_are_refused_in_a_sentence(data: Any, rule: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rule):
        _ingest(data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_pickled_arrays_and_broken_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "c.jsonl").write_text('{"y": 1}\n{"y": "two"}\n')
    with (tmp_path / "d.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    for name in ("a.npz", "b.npz", "c.jsonl", "d.npz"):
        with pytest.raises(InputError, match=rf"{name}: cannot be read"):
            _ingest(tmp_path / name, tmp_path / "data")


def test_arrays_that_are_no_columns_are_named(tmp_path: Path) -> None:
    wrong = {
        "scalar": np.array(3),
        "cube": np.zeros((2, 2, 2)),
        "waves": np.zeros(2, complex),
        "none": np.array([None, 1]),
    }
    for name, array in wrong.items():
        np.savez(tmp_path / "a.npz", y=np.zeros(2), **{name: array})
        with pytest.raises(InputError, match=rf"cannot be read \(array '{name}': "):
            _ingest(tmp_path / "a.npz", tmp_path / "data")


def test_files_with_another_suffix_have_a_remedy(tmp_path: Path) -> None:
    remedies = {
        "a.csv.gz": "unpack it",
        "a.xlsx": "save its sheet as csv",
        "a.json": "one object per line",
        "a.npy": "savez",
    }
    for name, remedy in remedies.items():
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match=remedy):
            find_source(tmp_path / name)


def test_hidden_files_are_no_images_of_a_folder(tmp_path: Path) -> None:
    for name in ("20/a.png", "30/b.png", "20/._a.png", ".ipynb_checkpoints/c.png", "__MACOSX/._d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    table = find_source(tmp_path).table
    assert table is not None
    assert table.to_pydict() == {"path": ["20/a.png", "30/b.png"], "label": [20.0, 30.0]}


def test_faults_of_data_in_memory_name_their_rows(tmp_path: Path) -> None:
    frame = _frame(60).assign(y=[np.nan, *range(59)])
    with pytest.raises(InputError) as caught:
        _ingest(frame, tmp_path)
    assert str(caught.value.faults[0]) == "table in memory:1: y: the cell is empty"
    with pytest.raises(InputError, match="names the column of the label, and is needed"):
        dirtune.ingest(frame, name="mine", root=tmp_path)
    with pytest.raises(InputError, match="name: is missing"):
        dirtune.ingest(frame, label="y", root=tmp_path)


def test_the_calls_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (code,) = [block for part in text.split("```python\n")[1:] if "(X, y)" in (block := part.split("```")[0])]
    frame = _frame().rename(columns={"y": "strength"}).assign(kind="a")
    exec(code, {"frame": frame, "X": _frame()[FEATURES].to_numpy(), "y": _frame()["y"].to_numpy()})
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["arrays", "concrete"]


def test_masked_numbers_are_missing_and_rows_are_not_paired_across_indexes() -> None:
    frame = _frame(6)
    y = np.ma.masked_array(frame.y, mask=[True, *[False] * 5])
    with open_source((frame[FEATURES].to_numpy(), y), label="y") as source:
        assert source.table is not None
        assert source.table["y"].to_pylist() == [None, *frame.y[1:]]
    with (
        pytest.raises(InputError, match=r"X and y have different indexes"),
        open_source((frame[FEATURES], frame.y[::-1]), label="y"),
    ):
        pass


@pytest.mark.parametrize("kind", [">f8", np.longdouble, "f2", ">i4"])
def test_numbers_of_every_machine_are_read(kind: Any) -> None:
    numbers = np.arange(6).reshape(3, 2)
    with open_source((numbers.astype(kind), numbers[:, 0]), label="y") as source:
        assert source.table is not None
        assert source.table["x"].to_pylist() == numbers.tolist()
