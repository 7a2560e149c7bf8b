"""Run with `pytest tests/training/test_mixed_batches.py`: mixtures of samples, drawn and trained on by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dirtune.batch import Batch
from dirtune.data import cache
from dirtune.data.cache import ResidentData, make_epoch_order
from dirtune.errors import InputError
from dirtune.mixing import MIXING, KernelPartners, Mixup
from dirtune.nested import merge
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins
from dirtune.training import loop, mixed_batches
from dirtune.training.state import begin_training
from tests.golden.vectors import list_newest, read_newest
from tests.training.runs import Configure, in_float64, same, trained, weights_of
from tests.training.toy_inputs import make_case_config, make_data

SGD = {"optimizer": "sgd", "learning_rate": 0.02, "momentum": 0.0, "epochs": 2, "batch_size": 66}


def draw_by_brute_force(
    labels: np.typing.NDArray[np.float64], rows: np.typing.NDArray[np.int64], bandwidth: float, step: tuple[int, int]
) -> tuple[np.typing.NDArray[np.int64], torch.Tensor]:
    """Return partners by the whole table of probabilities, in the order of the labels, and the share of the batch."""
    generator = np.random.default_rng(derive_seed(0, "mixing", *step))
    share = torch.from_numpy(generator.beta(2.0, 2.0, size=1))
    by_label = np.argsort(labels, kind="stable")
    kernel = np.exp(-np.square(labels[rows][:, None] - labels[by_label][None]) / (2 * bandwidth**2))
    cumulative = np.cumsum(kernel, axis=1)
    masses = generator.random(len(rows)) * cumulative[:, -1]
    return by_label[(cumulative <= masses[:, None]).sum(axis=1)], share


@pytest.mark.parametrize(("place", "accumulation"), [("input", 1), ("input", 3), ("embedding", 3)])
def test_training_on_mixtures_equals_a_plain_loop(
    configuration: Configure, toy: ResidentData, place: str, accumulation: int
) -> None:
    data = in_float64(toy)
    config = configuration(
        mixing={"name": "c_mixup", "bandwidth": 1.5, "place": place},
        reweighting={"scheme": "inverse"},
        recipe={**SGD, "accumulation": accumulation},
    )
    training, plain = begin_training(config, data), begin_training(config, data)
    training.model.double()
    model = plain.model.double()
    list(loop.run_epochs(training))
    split, optimizer = data.splits["train"], torch.optim.SGD(model.parameters(), lr=0.02)
    counts = np.bincount(split.label_bins)[split.label_bins]
    weights = torch.from_numpy((1 / counts) / (1 / counts).mean()).float()
    labels, vectors = torch.from_numpy(split.exact_labels), split.inputs["vector"]
    for number in (1, 2):
        for step, rows in enumerate(make_epoch_order(0, number, 202).split(66)):
            partners, share = draw_by_brute_force(split.exact_labels, rows.numpy(), 1.5, (number, step))
            own, other, share_of_row = vectors[rows], vectors[partners], share[:, None]
            if place == "input":
                embeddings = model.encoder({"vector": share_of_row * own + (1 - share_of_row) * other})
            else:
                by_row = [model.encoder({"vector": each}) for each in (own, other)]
                embeddings = share_of_row * by_row[0] + (1 - share_of_row) * by_row[1]
            # The toy settings have an offset of 4 and a scale of 1.
            predictions = 4 + model.predictor(embeddings).squeeze(1)
            label = (share * labels[rows] + (1 - share) * labels[partners]).float()
            weight = share.float() * weights[rows] + (1 - share.float()) * weights[partners]
            optimizer.zero_grad()
            (weight * (predictions - label).abs()).mean().backward()
            optimizer.step()
    torch.testing.assert_close(weights_of(training), weights_of(plain), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", list_newest("cmixup"))
def test_probabilities_partners_and_mixtures_are_those_of_the_official_code(name: str) -> None:
    golden = read_newest(name)
    labels, bandwidth = golden["labels"].numpy(), golden.hyperparameters["bandwidth"]
    # Here candidates are in the order of their labels, there in that of the rows.
    order = np.lexsort(labels.T[::-1])
    place = np.argsort(order)
    partners = KernelPartners(labels, bandwidth=bandwidth)
    kernel = partners.compute_kernel(partners.value_of_row)[:, partners.value_of_row]
    expected = golden["out_probabilities"].numpy()
    np.testing.assert_allclose(
        kernel / kernel.sum(axis=1, keepdims=True), expected / expected.sum(axis=1, keepdims=True), rtol=1e-9, atol=0
    )
    rows, uniform = np.arange(len(labels)).repeat(20), np.tile(np.linspace(0.01, 0.99, 20), len(labels))
    in_order = np.cumsum(expected[:, order], axis=1)[rows]
    found = partners(rows, uniform)
    assert place[found].tolist() == (in_order <= uniform[:, None] * in_order[:, -1:]).sum(axis=1).tolist()
    first, second, share = (
        golden["first"],
        golden["second"],
        torch.tensor(golden.hyperparameters["lam"], dtype=torch.float64),
    )
    for values, mixed in (("inputs", "out_mixed_inputs"), ("labels", "out_mixed_labels")):
        shares = share.expand(len(first))
        combined = mixed_batches.combine(golden[values][first], golden[values][second], shares)
        torch.testing.assert_close(combined, golden[mixed], rtol=1e-9, atol=0)


def test_a_batch_has_mixed_images_labels_bins_and_one_partner_for_all_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = make_data("image", torch.device("cpu"))
    settings = {"mixing": {"name": "mixup", "share_per": "row"}, "recipe": {"views": {"count": 2}}}
    plain = make_case_config("image", {"recipe": {"views": {"count": 2}}})
    seen = [_list_batches(make_case_config("image", settings), data, monkeypatch)]
    seen.append(_list_batches(plain, data, monkeypatch))
    for mixed, own in zip(*seen, strict=True):
        images, labels = (own.views[0]["image"], own.labels)
        assert torch.equal(mixed.views[0]["image"], mixed.views[1]["image"])
        assert torch.equal(mixed.rows, own.rows)
        every = data.splits["train"]
        for row in range(len(labels)):
            # The partner is the sample on the line through the row's own sample and the mixture.
            candidates = every.inputs["image"] / 255
            directions = (candidates - images[row]).flatten(1)
            step = (mixed.views[0]["image"][row] - images[row]).flatten()
            rest = (directions @ step) / directions.square().sum(dim=1).clamp(min=1e-9)
            far = (rest[:, None] * directions - step).abs().amax(dim=1)
            partner = int(far.argmin())
            assert far[partner] < 1e-5
            expected = (1 - rest[partner]) * labels[row] + rest[partner] * every.labels[partner]
            assert float(mixed.labels[row]) == pytest.approx(float(expected), abs=1e-3)
        assert mixed.label_bins.tolist() == label_bins(mixed.labels.double().numpy(), data.manifest.label).tolist()


def _list_batches(config: Any, data: ResidentData, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    training, found = begin_training(config, data), list[Batch]()
    evaluate = training.loss.forward

    def collect(output: Any, batch: Batch, ranks: Any) -> Any:
        found.append(batch)
        return evaluate(output, batch, ranks)

    monkeypatch.setattr(training.loss, "forward", collect)
    list(loop.run_epochs(training))
    return found


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("partners", ["split", "batch"])
def test_every_mixing_draws_rows_of_the_split_and_shares_and_one_row_mixes_with_itself(
    name: str, partners: str
) -> None:
    mixing: Mixup = MIXING[name](partners=partners)
    for labels in (np.array([3.0]), np.full(5, 2.0), np.arange(40.0), np.arange(40.0).reshape(20, 2)):
        rows = np.arange(len(labels))[::-1].copy()
        drawn = [mixing.fit(labels)(rows, np.random.default_rng(seed)) for seed in (1, 1, 2)]
        assert drawn[0].partners.tolist() == drawn[1].partners.tolist()
        assert all(set(each.partners.tolist()) <= set(rows.tolist()) for each in drawn)
        assert all((each.shares >= 0).all() and (each.shares <= 1).all() for each in drawn)
        assert len(labels) < 20 or drawn[0].partners.tolist() != drawn[2].partners.tolist()
    far = MIXING[name](partners=partners).fit(np.repeat([0.0, 1e6], 10))
    partner = far(np.arange(20), np.random.default_rng(0)).partners
    assert (name == "c_mixup") == ((partner < 10) == (np.arange(20) < 10)).all()


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (
            "tokens",
            {},
            "mixing: has no form for tokens .*'first'.*place: embedding, or .*frozen encoder, got 'c_mixup'",
        ),
        ("dense", {}, "mixing: is not defined for per-pixel labels; leave it out, got 'c_mixup'"),
        ("vector", {"terms": {"conr": {"temperature": "individual"}}}, "no sample of its own to terms.conr.*learnable"),
    ],
)
def test_where_it_has_no_form_it_is_refused_in_a_sentence(inputs: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        begin_training(
            make_case_config(inputs, {"mixing": {"name": "c_mixup"}, **settings}),
            make_data(inputs, torch.device("cpu")),
        )


def test_partners_of_a_set_that_is_read_in_windows_are_those_of_the_batch(
    configuration: Configure, toy: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.Split, "is_windowed", True)
    with pytest.raises(InputError, match=r"mixing: draws partners from all .*read in windows; use partners: batch"):
        begin_training(configuration(mixing={"name": "mixup"}), toy)
    assert begin_training(configuration(mixing={"name": "mixup", "partners": "batch"}), toy).epoch == 0


def test_embeddings_of_tokens_and_of_views_in_passes_apart_are_mixed() -> None:
    mixing = {"name": "c_mixup", "place": "embedding", "share_per": "row"}
    apart = {"views": {"count": 3, "regression": "first", "passes": "apart"}}
    for inputs, settings in (("tokens", {}), ("image", {"recipe": apart, "terms": {"conr": {}}})):
        data = make_data(inputs, torch.device("cpu"))
        seen = [
            weights_of(trained(make_case_config(inputs, merge(settings, each)), data))
            for each in ({}, {"mixing": mixing})
        ]
        assert not same(*seen)
    # With one view and one pass, or views in one pass, the mixtures are the same.
    data = make_data("image", torch.device("cpu"))
    views = {"count": 3, "regression": "first", "augmentation": "none"}
    seen = [
        weights_of(
            trained(
                make_case_config(
                    "image", {"mixing": mixing, "recipe": {"views": views | {"passes": passes}}, "terms": {"conr": {}}}
                ),
                data,
            )
        )
        for passes in ("apart", "joint")
    ]
    torch.testing.assert_close(*seen)


def test_labels_in_logarithms_are_mixed_in_logarithms(configuration: Configure, toy: ResidentData) -> None:
    config = configuration(mixing={"name": "c_mixup"}, model={"label_transform": "log1p"}, recipe=SGD)
    assert np.isfinite(trained(config, toy).history[-1]["train/loss"])
