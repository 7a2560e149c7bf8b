"""`pytest tests/losses/test_golden_newest.py`: losses and terms of the newest methods against their golden vectors, in float64.

The vectors and their sources are described in `tests/golden/newest/README.md`.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dirtune.batch import EvaluatedRows, TrainingLabels
from dirtune.losses.ccc import ccc
from dirtune.losses.dist_loss import (
    DistLoss,
    compute_counts,
    dist_loss,
    estimate_density,
    select_pseudo_labels,
    soft_sort,
)
from dirtune.losses.phreg import compare_dimensions, compare_trees
from dirtune.losses.prime import align, compare_proxies
from dirtune.losses.rotreg import compute_plans, rotreg
from dirtune.losses.srl import SRL, srl
from dirtune.losses.supremix import supremix
from dirtune.manifest import LabelSpec
from tests.golden.vectors import list_newest, read_newest

RTOL = 1e-9


@dataclass
class Comparison:
    """Values that were computed, and those of the reference."""

    found: torch.Tensor
    expected: torch.Tensor

    def assert_equal(self):
        scale = self.expected.abs().max().item()
        torch.testing.assert_close(self.found.double(), self.expected.double(), rtol=RTOL, atol=RTOL * scale + 1e-14)


def compare_loss(vector, leaf, loss, *, key="loss", gradient="grad"):
    """Compare a loss, and its gradient by a leaf, with those of the vector."""
    (found,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    Comparison(loss.detach(), vector[key]).assert_equal()
    Comparison(found, vector[gradient]).assert_equal()


@pytest.mark.parametrize("name", list_newest("ccc"))
def test_ccc(name):
    vector = read_newest(name)
    predictions = vector["predictions"].requires_grad_()
    moments = "sample" if vector.hyperparameters["ddof"] else "population"
    compare_loss(vector, predictions, ccc(predictions, vector["targets"], moments=moments))


@pytest.mark.parametrize("name", list_newest("distloss_loss"))
def test_dist_loss(name):
    vector, given = read_newest(name), read_newest(name).hyperparameters
    predictions = vector["predictions"].requires_grad_()
    settings = DistLoss(
        distance=given["loss_fn"],
        focal_beta=0.2,
        huber_beta=1.0,
        distribution_weight=given["loss_weight"],
        sorting=given["regularization_strength"],
    )
    weights = vector["weights"] if given["weighted"] else None
    loss = dist_loss(predictions, vector["targets"], vector["pseudo_labels"], weights, weights, settings=settings)
    Comparison(soft_sort(predictions, settings.sorting).detach(), vector["out_soft_sorted"]).assert_equal()
    if name == "distloss_loss_11_equal_preds_b6":
        # The gradient of equal predictions depends on their order; its sum does not.
        (found,) = torch.autograd.grad(loss, predictions)
        Comparison(loss.detach(), vector["loss"]).assert_equal()
        Comparison(found.sum(), vector["grad"].sum()).assert_equal()
    else:
        compare_loss(vector, predictions, loss)


@pytest.mark.parametrize("name", list_newest("distloss_pseudo") + list_newest("distloss_quantile"))
def test_pseudo_labels_of_dist_loss(name):
    vector, given = read_newest(name), read_newest(name).hyperparameters
    labels = vector["labels"].double().numpy()
    inside = labels[(labels >= given["min_label"]) & (labels <= given["max_label"])]
    grid, density = estimate_density(inside, vector["grid"].double().numpy(), bandwidth=given["bw_factor"])
    Comparison(torch.from_numpy(density), vector["out_density"]).assert_equal()
    form = "quantile" if "quantile" in name else "counts"
    chosen = select_pseudo_labels(torch.from_numpy(density), given["batch_size"], form=form)
    Comparison(torch.from_numpy(grid)[chosen], vector["out_pseudo_labels"]).assert_equal()
    if form == "counts":
        np.testing.assert_array_equal(compute_counts(density, given["batch_size"]), vector["out_counts"].numpy())


@pytest.mark.parametrize("name", list_newest("rotreg"))
def test_rotreg(name):
    vector = read_newest(name)
    features, given = vector["features"].requires_grad_(), vector.hyperparameters
    loss = rotreg(features, vector["labels"], vector["selected"], entropy=given["entropic_reg"])
    if name == "rotreg_04_equal_b6":
        # Without two distinct labels there is nothing to match; the reference then transports at random.
        (found,) = torch.autograd.grad(loss, features)
        assert loss.item() == 0.0
        assert found.abs().max() == 0
        return
    drawn = vector["labels"][vector["selected"]]
    gaps = (drawn[:, None] - drawn).abs().clamp(min=1e-6)
    (plan,) = compute_plans(gaps / gaps.max(), entropy=given["entropic_reg"])
    Comparison(plan, vector["out_plan_labels"]).assert_equal()
    if len(drawn) == 2:
        # Both plans are the swap: rounding is all there is.
        assert loss.item() == pytest.approx(0.0, abs=1e-14)
        return
    compare_loss(vector, features, loss)


@pytest.mark.parametrize("name", list_newest("phreg"))
def test_phreg(name):
    vector = read_newest(name)
    features, labels, given = vector["features"].requires_grad_(), vector["labels"], vector.hyperparameters
    # In the order of rows, the reference's ties are reproduced as well.
    if given["flag"] != 2:
        drawn = vector.values.get("subset", torch.arange(len(labels)))
        loss = compare_trees(features, labels, drawn, variant=given["variant"], ties="rows")
        compare_loss(vector, features, loss, key="loss_topology", gradient="grad_topology")
    if given["sizes"]:
        subsets = [vector[f"draw_{number}"] for number in range(len(given["sizes"]))]
        loss = compare_dimensions(features, labels, subsets, ties="rows")
        compare_loss(vector, features, loss, key="loss_dimension", gradient="grad_dimension")


@pytest.mark.parametrize("name", list_newest("srl_agedb") + list_newest("srl_imdb") + list_newest("srl_paper"))
def test_srl(name):
    vector, is_paper = read_newest(name), name.startswith("srl_paper")
    features, given = vector["features"].requires_grad_(), vector.hyperparameters
    bins = len(vector["surrogate"])
    form = "paper" if is_paper else "cosine" if given["alpha"] < 0 else "cosine_repelling"
    contrast, envelope, homogeneity = srl(
        features,
        vector["labels"].long(),
        surrogate=vector["surrogate"],
        points=vector["points"],
        bin_values=vector["bin_values"] if is_paper else torch.arange(bins).double(),
        tau=given["temperature"],
        form=form,
        label_factor=given.get("use_weight", False),
    )
    # The paper's envelope is without the constant of the code's.
    envelope = envelope - 1 if is_paper else envelope
    compare_loss(vector, features, contrast, key="loss_con", gradient="grad_con")
    compare_loss(vector, features, envelope, key="loss_env", gradient="grad_env")
    if name == "srl_agedb_08_k2":
        # The variance of one cosine: NaN in the reference
        assert vector["loss_homo"].isnan()
        assert homogeneity.isfinite()
        return
    compare_loss(vector, features, homogeneity, key="loss_homo", gradient="grad_homo")


def test_the_surrogate_of_srl():
    (name,) = list_newest("srl_surrogate")
    vector, bins = read_newest(name), read_newest(name).hyperparameters["bins"]
    spec = LabelSpec(name="age", unit="years", low=0, high=bins, bin_width=1, num_bins=bins)
    labels, dim = vector["labels_0"], vector["features_0"].shape[1]
    given = TrainingLabels(labels=labels.double(), label_bins=labels.long(), spec=spec, dims={"embedding": dim})
    fitted = SRL(surrogate="raw", reads="embedding", momentum=0.9, start=2).fit(given)
    for epoch in range(4):
        is_used = int(fitted.epochs) >= fitted.settings.start
        used = fitted.running if is_used else torch.zeros_like(fitted.running)
        Comparison(used, vector[f"out_surrogate_used_in_epoch_{epoch}"]).assert_equal()
        features, labels = vector[f"features_{epoch}"], vector[f"labels_{epoch}"]
        rows = EvaluatedRows(
            vectors=features,
            predictions=labels.double(),
            labels=labels.double(),
            label_bins=labels.long(),
            samples=torch.arange(len(labels)),
        )
        fitted.end_epoch(fitted.compute_statistics(rows))
    Comparison(fitted.running, vector["out_surrogate_final"]).assert_equal()


@pytest.mark.parametrize("name", list_newest("supremix"))
def test_supremix(name):
    """`loss_intended`: the reference's own loss has the faults that `dirtune.losses.supremix` names."""
    vector = read_newest(name)
    features, given = vector["features"].requires_grad_(), vector.hyperparameters
    labels = vector["labels"].double().repeat(2)
    shares = torch.zeros(len(labels), len(labels), dtype=torch.float64)
    shares[labels[:, None] != labels] = vector["beta_draws"]
    loss = supremix(
        features.transpose(0, 1).flatten(0, 1),
        labels,
        labels.long(),
        lambda anchors: shares[anchors],
        tau=given["temperature"],
        window=float(given["window"]),
        growth=float(given["use_weight"]),
        mixtures="both" if given["method"] == "supremix" else "negatives",
    )
    compare_loss(vector, features, loss, key="loss_intended", gradient="grad_intended")


@pytest.mark.parametrize("name", list_newest("prime"))
def test_prime_equals_the_rewrites(name):
    vector = read_newest(name)
    given, proxies = vector.hyperparameters, vector["proxies"].requires_grad_()
    features, scale = vector["features"].requires_grad_(), given["label_scale"]
    taus = {"tau_labels": given["tau_t"], "tau_features": given["tau_f"]}
    kl, repulsion = compare_proxies(proxies, vector["proxy_labels"] / scale, **taus)
    Comparison(kl.detach(), vector["loss_kl"]).assert_equal()
    own = kl - given["repulsion"] * repulsion
    compare_loss(vector, proxies, own, key="loss_proxy", gradient="grad_proxy_proxies")
    for kind in ("align", "balanced"):
        loss = align(
            features,
            vector["labels"] / scale,
            proxies,
            vector["proxy_labels"] / scale,
            **taus,
            balanced=kind == "balanced",
        )
        key = "loss_align" if kind == "align" else "loss_align_balanced"
        compare_loss(vector, features, loss, key=key, gradient=f"grad_{kind}_features")
        compare_loss(vector, proxies, loss, key=key, gradient=f"grad_{kind}_proxies")
