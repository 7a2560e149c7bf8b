"""`pytest tests/models/encoders/test_libraries.py`: networks of timm, torchvision and transformers, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dirtune.batch import TrainingLabels
from dirtune.config import TrialConfig
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import InputSpec, LabelSpec
from dirtune.models.build import build_regressor
from dirtune.models.encoders import ENCODERS, backbone
from dirtune.models.encoders.pair_mlp import compare_pair
from dirtune.models.regressor import ModelSpec
from dirtune.testing import check_encoder, make_inputs
from dirtune.training.objective import TrainingLoss
from dirtune.training.stages import build_optimizer

IMAGE = {"image": InputSpec(kind="image", shape=(3, 24, 20))}
GRAY = {"image": InputSpec(kind="image", shape=(1, 24, 20))}
WORDS = ["", "[unk]", "a", "dog", "runs", "running", "blue"]
TEXTS = {name: InputSpec(kind="tokens", shape=(4,), vocabulary=len(WORDS)) for name in ("first", "second")}
IMAGENET = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def make_spec(**settings: Any) -> Any:
    return read(ENCODERS[settings["name"]], settings, where="model.encoder")


def standardize(images: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    return (images - mean[:, None, None]) / deviation[:, None, None]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny BERT with a tokenizer of words and suffixes, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s", "##ning", "blue"]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokens), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("model", "size"), [("resnet18", 64), ("vit_tiny_patch16_224", 32)])
def test_timm_reads_images_at_its_size_and_standardized(model: str, size: int) -> None:
    timm = pytest.importorskip("timm")
    spec = make_spec(name="timm", model=model, image_size=size)
    check_encoder(spec, IMAGE)
    torch.manual_seed(0)
    encoder = spec.build(GRAY).eval()
    assert spec.hash_weights() is None
    images = make_inputs(GRAY, 2)
    about = timm.get_pretrained_cfg(model)
    resized = torch.nn.functional.interpolate(images["image"], (size, size), mode="bilinear", antialias=True)
    expected = encoder.network(
        standardize(resized.expand(-1, 3, -1, -1), torch.tensor(about.mean), torch.tensor(about.std))
    )
    torch.testing.assert_close(encoder(images), expected)


def test_torchvision_reads_images_at_its_size_and_standardized() -> None:
    spec = make_spec(name="torchvision", model="mobilenet_v3_small", image_size=32)
    torch.manual_seed(0)
    encoder = spec.build(IMAGE).eval()
    images = make_inputs(IMAGE, 2)
    resized = torch.nn.functional.interpolate(images["image"], (32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(encoder(images), encoder.network(standardize(resized, *IMAGENET)))
    assert encoder(images).shape == (2, encoder.embedding_dim) == (2, 1024)
    with pytest.raises(InputError, match=r"torchvision has no such network, got 'resnet81'.*did you mean"):
        make_spec(name="torchvision", model="resnet81").build(IMAGE)


def test_transformers_reads_pairs_of_texts_as_its_tokenizer_cuts_them(bert: Path) -> None:
    transformers = pytest.importorskip("transformers")
    spec = make_spec(name="transformers", model=str(bert), pretrained=True)
    torch.manual_seed(0)
    encoder = spec.build(TEXTS, WORDS).eval()
    inputs = {
        "first": torch.tensor([[2, 3, 4, 0], [6, 0, 0, 0]], dtype=torch.int32),
        "second": torch.tensor([[2, 5, 3, 0], [0, 0, 0, 0]], dtype=torch.int32),
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    network = transformers.AutoModel.from_pretrained(bert, add_pooling_layer=False).eval()

    def embed(text: str) -> torch.Tensor:
        states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state
        return states.mean(dim=1)

    with torch.no_grad():
        first = torch.cat([embed("a dog runs"), embed("blue")])
        second = torch.cat([embed("a running dog"), embed("")])
        torch.testing.assert_close(encoder(inputs), compare_pair(first, second), rtol=1e-4, atol=1e-5)
    assert encoder.embedding_dim == 32
    with pytest.raises(InputError, match="needs the data set's vocabulary of 7 tokens"):
        spec.build(TEXTS)
    with torch.device("meta"):
        assert all(each.is_meta for each in spec.build(TEXTS).parameters())


def test_transformers_reads_images(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    spec = make_spec(name="transformers", model=str(tmp_path), pretrained=True, pooling="first")
    check_encoder(spec, IMAGE)
    encoder = spec.build(IMAGE).eval()
    images = make_inputs(IMAGE, 2)
    resized = torch.nn.functional.interpolate(images["image"], (16, 16), mode="bilinear", antialias=True)
    network = transformers.ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    expected = network((resized - 0.5) / 0.25).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(images), expected)


def test_incomplete_weights_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    name = min(each for each in weights if each.startswith("encoder."))
    save_file({each: values for each, values in weights.items() if each != name}, folder / "other", {"format": "pt"})
    (folder / "other").replace(folder / "model.safetensors")
    with pytest.raises(InputError, match=f"its file of weights lacks 1 of the network's, such as {name}"):
        make_spec(name="transformers", model=str(folder), pretrained=True).build(TEXTS, WORDS)


def test_a_frozen_network_starts_equal_and_stays(bert: Path) -> None:
    frozen, tuned = (
        build_regressor(
            read(
                ModelSpec,
                {
                    "encoder": {"name": "transformers", "model": str(bert), "pretrained": True, "freeze": freeze},
                    "label_scale": 1.0,
                    "label_offset": 0.0,
                },
                where="model",
            ),
            TEXTS,
            0,
            WORDS,
        )
        for freeze in (True, False)
    )
    assert all(torch.equal(one, other) for one, other in zip(frozen.parameters(), tuned.parameters(), strict=True))
    assert not any(each.requires_grad for each in frozen.encoder.parameters())
    assert all(each.requires_grad for each in tuned.encoder.parameters())
    assert not any(each.training for each in frozen.train().encoder.network.modules())


def test_the_network_may_learn_more_slowly_than_the_rest(bert: Path) -> None:
    encoder = {"name": "transformers", "model": str(bert), "pretrained": True, "learning_rate_factor": 0.1}
    model = {"encoder": encoder, "label_scale": 1.0, "label_offset": 0.0}
    plain = {"data": {"name": "pairs"}, "model": model, "recipe": {"learning_rate": 0.02}}
    config = read(TrialConfig, plain, where="test")
    labels = TrainingLabels(
        labels=torch.arange(4.0),
        label_bins=torch.arange(4),
        spec=LabelSpec(name="score", unit="", low=0, high=4, bin_width=1, num_bins=4),
    )
    regressor = build_regressor(config.model, TEXTS, 0, WORDS)
    optimizer = build_optimizer(config.recipe, regressor, TrainingLoss(config, labels))
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert {rates.pop(id(each)) for each in regressor.encoder.parameters()} == {0.1 * 0.02}
    assert set(rates.values()) == {0.02}
    assert len(rates) == len([*regressor.predictor.parameters()])


def test_the_weights_are_part_of_the_identity(bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(bert, folder)

    def compute_id() -> str:
        encoder = {"name": "transformers", "model": str(folder), "pretrained": True}
        plain = {"data": {"name": "pairs"}, "model": {"encoder": encoder}}
        return read(TrialConfig, plain, where="test").compute_trial_id("data")

    before = compute_id()
    assert compute_id() == before
    weights = load_file(folder / "model.safetensors")
    save_file({name: each + 1 for name, each in weights.items()}, folder / "other.safetensors", {"format": "pt"})
    (folder / "other.safetensors").replace(folder / "model.safetensors")
    backbone.hash_files.cache_clear()
    assert compute_id() != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "timm", "model": "resnet18", "pretrained": True},
            r"not in the cache of the hub; fetch them once by `hf download timm/resnet18",
        ),
        ({"name": "timm", "model": "resnet81"}, "timm has no such network, got 'resnet81'"),
        ({"name": "timm", "model": "resnet18", "weights_file": "none.pt"}, "weights_file: no such file, got 'none.pt'"),
        (
            {"name": "torchvision", "model": "resnet18", "pretrained": True},
            r"not in torch's cache; fetch https://\S+ once",
        ),
        (
            {"name": "torchvision", "model": "resnet18", "weights": "V9"},
            "resnet18 has no such weights, got 'V9'; known: DEFAULT",
        ),
        ({"name": "torchvision", "model": "squeezenet1_0"}, "has no last linear layer"),
        (
            {"name": "module", "factory": "os:system"},
            "must be of an installed package with entry points of dirtune, got 'os:system'",
        ),
        (
            {"name": "transformers", "model": "no/such-model"},
            "not in the cache of the hub; fetch it once by `hf download",
        ),
    ],
)
def test_what_is_missing_is_a_sentence(
    settings: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings["name"] in {"timm", "transformers"}:
        pytest.importorskip(settings["name"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=message):
        make_spec(**settings).build(IMAGE)
