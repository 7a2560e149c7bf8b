"""`pytest tests/losses/test_golden_newest.py`: losses and terms of the newest methods against their golden vectors, in float64.

The vectors and their sources are described in `tests/golden/newest/README.md`.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dirtune.losses.ccc import ccc
from dirtune.losses.dist_loss import (
    DistLoss,
    compute_counts,
    dist_loss,
    estimate_density,
    select_pseudo_labels,
    soft_sort,
)
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
