"""Arguments of `load`, `predict`, `module`, `export` and `train` that cannot be used: one sentence each, before anything is written.

Run with `pytest tests/prediction/test_options.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dirtune
from dirtune.errors import InputError
from dirtune.prediction.arm import TrainedArm
from tests.prediction.conftest import make_frame
from tests.training.conftest import SETTINGS

DEVICE = "device: not on this machine, got {!r}; known: cpu"
SEEDS = "dirtune.load: seeds: must be a list of whole numbers or None, got {}"
OF_LOAD: list[tuple[dict[str, Any], str]] = [
    *(({"device": name}, DEVICE.format(name)) for name in ("tpu", "cuda:99", "meta", "")),
    ({"device": None}, "dirtune.load: device: must be a text, got None"),
    ({"device": torch.device("cpu")}, "dirtune.load: device: must be a text, got a device"),
    ({"seeds": []}, "mine: seeds: needs a seed; None means all; known: 0, 1, 5"),
    ({"seeds": [9, 0]}, "mine: seeds: no complete trial of this seed, got 9; known: 0, 1, 5"),
    ({"seeds": 0}, SEEDS.format("0")),
    ({"seeds": "0"}, SEEDS.format("'0'")),
    ({"seeds": ["0"]}, SEEDS.format("a list")),
    ({"seeds": [0.0]}, SEEDS.format("a list")),
    ({"seeds": {True}}, SEEDS.format("a set")),
    ({"seeds": ["a", 9]}, SEEDS.format("a list")),
    ({"arm": None}, "mine: arm: an arm must be named; known: logarithms, plain, smooth"),
    ({"arm": "plan"}, "mine: arm: unknown arm, got 'plan'; known: logarithms, plain, smooth (did you mean 'plain'?)"),
    ({"arm": ["plain"]}, "dirtune.load: arm: must be a text or None, got a list"),
    ({"results": ""}, "dirtune.load: results: must not be empty"),
    ({"results": None}, "dirtune.load: results: must be a text or a path, got None"),
    ({"plugins": "a.py"}, "dirtune.load: plugins: must be a list of texts or paths, got 'a.py'"),
    ({"plugins": ["nowhere.py"]}, "nowhere.py: no such file"),
    ({"allow_plugins": "yes"}, "dirtune.load: allow_plugins: must be True or False, got 'yes'"),
]
OF_EXPORT: list[tuple[dict[str, Any], str]] = [
    ({"format": "tflite"}, "export: unknown format, got 'tflite'; known: onnx, pt2, safetensors"),
    ({"format": None}, "dirtune.export: format: must be a text, got None"),
    ({"output": ""}, "dirtune.export: output: must not be empty"),
    ({"output": 3}, "dirtune.export: output: must be a text or a path or None, got 3"),
    ({"output": "file.txt/below"}, "file.txt/below/README.md: cannot be written (a part of its path is a file)"),
    ({"seeds": []}, "mine: seeds: needs a seed; None means all; known: 0, 1, 5"),
    ({"seeds": ["0"]}, "dirtune.export: seeds: must be a list of whole numbers or None, got a list"),
    ({"allow_plugins": 1}, "dirtune.export: allow_plugins: must be True or False, got 1"),
]
OF_TRAIN: list[tuple[dict[str, Any], str]] = [
    ({"config": None}, "config: must be a TrialConfig or a Study or a mapping or a text or a path, got None"),
    ({"config": ""}, "dirtune.train: config: must not be empty"),
    ({"config": {}}, "configuration: data: is missing"),
    ({"config": SETTINGS, "where": "mine.yaml", "arm": 3}, "dirtune.train: arm: must be a text or None, got 3"),
    ({"data": ""}, "dirtune.train: data: must not be empty"),
    ({"data": "nowhere"}, "nowhere: data set is not ingested"),
    ({"data": "file.txt"}, "file.txt: must be a folder, but is a file"),
    ({"results": "file.txt"}, "file.txt: must be a folder, but is a file"),
    ({"threads": 0}, "train: threads: must be at least 1, got 0"),
    ({"threads": 10**12}, "train: threads: must be at most 1,024, got 1000000000000"),
    ({"threads": 1.0}, "dirtune.train: threads: must be a whole number, got 1.0"),
    ({"threads": True}, "dirtune.train: threads: must be a whole number, got True"),
    ({"representations": -1}, "train: representations: must be at least 0, got -1"),
    ({"representations": "all"}, "dirtune.train: representations: must be a whole number, got 'all'"),
    ({"keep_model": None}, "dirtune.train: keep_model: must be True or False, got None"),
    ({"device": "tpu"}, DEVICE.format("tpu")),
    ({"device": 0}, "dirtune.train: device: must be a text, got 0"),
    ({"on_epoch": 3}, "dirtune.train: on_epoch: must be a function or None, got 3"),
]
ARRAY = "new samples: cannot be read as an array ("
OF_PREDICT: list[tuple[Any, str]] = [
    (None, "new samples: must be a path, a table, a list, an array or a mapping from input to array, got None"),
    (3, "from input to array, got an int"),
    ({1}, "from input to array, got a set"),
    ({}, "new samples: features: missing input"),
    ([], "new rows: must be a table, a file, or arrays by input, got 'list'"),
    ("", "new samples: must not be empty"),
    ("nowhere.csv", "nowhere.csv: no such file or folder"),
    ("x" * 5000, ": no such file or folder"),
    (np.array(3.0), "an array must have the 3 columns width, height, kind; its shape, got ()"),
    (np.zeros((2, 3), complex), "new samples: must be numbers or texts, got 'complex128'"),
    (np.zeros((2, 4)), "an array must have the 3 columns width, height, kind; its shape, got (2, 4)"),
    (torch.zeros(2, 3, dtype=torch.bfloat16), f"{ARRAY}Got unsupported ScalarType BFloat16)"),
    ({"features": [[1], [2, 3]]}, "new samples: features: cannot be read as an array ("),
    ({"features": "abc"}, "new samples: features: must have the shape (samples, 5), got ()"),
    ({"features": np.zeros((2, 4), np.float32)}, "features: must have the shape (samples, 5), got (2, 4)"),
    ({"features": np.array([["1"] * 5])}, "features: must be of type float32, got 'str32'"),
    ({"features": np.full((2, 5), np.nan)}, "features: must be finite numbers"),
    ({"features": np.zeros((0, 5))}, "new samples: must have a row"),
    ({3: np.zeros((2, 5)), "features": np.zeros((2, 5))}, "new samples: unknown input, got 3; known: features"),
    (pd.DataFrame([[1, 2]], columns=["width", "width"]), "the data frame cannot be read (Duplicate column names found"),
    (make_frame()["width"], "an array must have the 3 columns width, height, kind; its shape, got (120,)"),
    (make_frame().rename(columns={"width": "length"}), "new rows: width: missing column, which the model reads"),
]
MODULE = "module: features: must be a float32 tensor of shape (batch, 5) on cpu, got "
OF_MODULE: list[tuple[tuple[Any, ...], str]] = [
    ((), "module: needs the tensors of 1 inputs in this order: features, got 0"),
    ((torch.zeros(2, 5), torch.zeros(2, 5)), "module: needs the tensors of 1 inputs in this order: features, got 2"),
    ((torch.zeros(2, 4),), f"{MODULE}the shape (2, 4)"),
    ((torch.zeros(5),), f"{MODULE}the shape (5,)"),
    ((torch.zeros(()),), f"{MODULE}the shape ()"),
    ((torch.zeros(2, 5).double(),), f"{MODULE}float64"),
    ((torch.zeros(2, 5).long(),), f"{MODULE}int64"),
    ((torch.zeros(2, 5, device="meta"),), f"{MODULE}meta"),
    ((np.zeros((2, 5), np.float32),), f"{MODULE}a ndarray"),
    ((None,), f"{MODULE}None"),
]


def assert_one_sentence(call: Callable[[], object], message: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(InputError) as caught:
        call()
    sentence = str(caught.value.faults[0])
    assert message in sentence
    assert "\n" not in sentence
    assert sorted(Path().rglob("*")) == before


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a file."""
    monkeypatch.chdir(tmp_path)
    Path("file.txt").write_text("no folder")
    return tmp_path


@pytest.fixture(scope="module")
def trained(results: Path) -> TrainedArm:
    return dirtune.load("mine", arm="plain", results=results)


@pytest.mark.parametrize(("changes", "message"), OF_LOAD, ids=str)
def test_load(changes: dict[str, Any], message: str, results: Path, folder: Path) -> None:
    options = {"arm": "plain", "results": results, **changes}
    assert_one_sentence(lambda: dirtune.load("mine", **options), message)


@pytest.mark.parametrize(("changes", "message"), OF_EXPORT, ids=str)
def test_export(changes: dict[str, Any], message: str, results: Path, folder: Path) -> None:
    options = {"arm": "plain", "results": results, **changes}
    assert_one_sentence(lambda: dirtune.export("mine", **options), message)


@pytest.mark.parametrize(("changes", "message"), OF_TRAIN, ids=str)
def test_train(changes: dict[str, Any], message: str, data_root: Path, folder: Path) -> None:
    options = {"config": SETTINGS, "data": data_root, **changes}
    assert_one_sentence(lambda: dirtune.train(**options), message)


@pytest.mark.parametrize(("data", "message"), OF_PREDICT, ids=range(len(OF_PREDICT)))
def test_predict(data: Any, message: str, trained: TrainedArm, folder: Path) -> None:
    for predict in (trained.predict, trained.predict_table):
        assert_one_sentence(lambda predict=predict: predict(data), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"each_seed": "yes"}, "predict: each_seed: must be True or False, got 'yes'"),
        ({"unknown_categories": "zero"}, "predict: unknown_categories: must be 'error' or 'zeros', got 'zero'"),
    ],
)
def test_options_of_predict(options: dict[str, Any], message: str, trained: TrainedArm, folder: Path) -> None:
    assert_one_sentence(lambda: trained.predict(make_frame(), **options), message)
    with pytest.raises(TypeError, match=r"predict\(\): .*'seeds'; known: self, data, each_seed, unknown_categories"):
        trained.predict(make_frame(), seeds=[0])
    assert_one_sentence(lambda: trained.predict_pixels(make_frame()), "the data set has one label per sample")


@pytest.mark.parametrize(("inputs", "message"), OF_MODULE, ids=range(len(OF_MODULE)))
def test_module(inputs: tuple[Any, ...], message: str, trained: TrainedArm, folder: Path) -> None:
    for module in (trained.module, trained.module.predict_each):
        assert_one_sentence(lambda module=module: module(*inputs), message)


def test_what_fits_is_accepted(results: Path, trained: TrainedArm) -> None:
    for seeds in (range(2), {0}, (0, 1), np.array([1, 5]).tolist(), None):
        assert dirtune.load("mine", arm="plain", results=results, seeds=seeds).models
    rows = torch.zeros(3, 5)
    in_double = dirtune.load("mine", arm="plain", results=results).module.double()
    torch.testing.assert_close(in_double(rows.double())[0].float(), trained.module(rows)[0])
    assert trained.module(rows[:0])[0].shape == (0,)
