"""`pytest tests/losses/test_uvote.py`: UVOTE's weights, losses and votes against loops and golden vectors."""

import numpy as np
import pytest
import torch
from scipy import stats

from dirtune.batch import TrainingLabels
from dirtune.losses import EpochAware
from dirtune.losses.uvote import (
    UVOTE,
    UVOTELoss,
    average_by_bin,
    combine_votes,
    compute_count_weights,
    compute_kernel_density,
    compute_laplace_losses,
)
from dirtune.manifest import LabelSpec
from dirtune.testing import make_head
from tests.golden.vectors import list_newest, read_newest


def _check(value, leaves, gradients, loss):
    torch.testing.assert_close(value, loss.reshape(()), rtol=1e-9, atol=0)
    for leaf, expected in zip(leaves, gradients, strict=True):
        (found,) = torch.autograd.grad(value, leaf, retain_graph=True)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", list_newest("uvote_nll"))
def test_the_loss_of_a_head_equals_the_official_code(name):
    vector = read_newest(name)
    leaves = [vector[key].clone().requires_grad_() for key in ("mu", "log_scale")]
    low, high = map(float, vector.hyperparameters["clamp"])
    rows = compute_laplace_losses(*leaves, vector["targets"], (low, high))
    weights = vector["weights"] if vector.hyperparameters["given_weights"] else torch.ones_like(rows)
    _check((rows * weights).mean(), leaves, [vector["grad_mu"], vector["grad_log_scale"]], vector["loss"])


@pytest.mark.parametrize("name", [*list_newest("uvote_total"), *list_newest("uvote_stsb_total")])
def test_the_annealed_sum_over_heads_equals_the_official_code(name):
    vector = read_newest(name)
    given, num = vector.hyperparameters, len(vector["mu"])
    epoch, epochs = given["epoch_zero_based"], given.get("epochs", given.get("max_epoch"))
    settings = UVOTE(
        heads=num,
        anneal=given["dynamic_loss"],
        # On AgeDB the first head is not annealed.
        anneal_first=given["dynamic_loss"] and given["factor_first"] != 1.0,
        max_log_scale=float(given.get("clamp", [-5, 5])[1]),
    )
    # A label bin for each row
    loss = UVOTELoss(settings, vector["weights"])
    assert isinstance(loss, EpochAware)
    loss.begin_epoch(epoch, epochs)
    assert loss.factors == pytest.approx((given["factor_first"], given["factor_other"]), rel=1e-12)
    leaves = [vector[key].clone().requires_grad_() for key in ("mu", "log_scale")]
    labels = vector["targets"] / given.get("label_scale", 1.0)
    found = loss(torch.cat([each.T for each in leaves], dim=1), labels, label_bins=torch.arange(len(labels)))
    _check(found, leaves, [vector["grad_mu"], vector["grad_log_scale"]], vector["loss"])


@pytest.mark.parametrize("name", list_newest("uvote_weights"))
def test_count_weights_equal_the_official_code(name):
    vector = read_newest(name)
    given = vector.hyperparameters
    bins = vector["labels"].long().clamp(max=given["top_bin"])
    found = compute_count_weights(
        bins, given["top_bin"] + 1, given["heads"], tuple(map(float, given["clip_if_exponent_one"]))
    )
    torch.testing.assert_close(found[:, bins], vector["out_weights"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", list_newest("uvote_kdeweights"))
def test_density_weights_equal_the_official_code(name):
    vector = read_newest(name)
    labels, bandwidth = vector["labels"], vector.hyperparameters["bandwidth"]
    density = compute_kernel_density(labels, bandwidth)
    expected = [stats.norm(labels.numpy(), bandwidth).pdf(float(label)).mean() for label in labels]
    np.testing.assert_allclose(density.numpy(), expected, rtol=1e-10)
    for key, power in (("inverse", 1.0), ("sqrt_inv", 0.5)):
        weights = density**-power
        torch.testing.assert_close(weights / weights.mean(), vector[f"out_weights_{key}"], rtol=1e-9, atol=0)
    # A bin for each distinct label has its weight.
    spec = LabelSpec(name="a", unit="b", low=0, high=1, bin_width=1, num_bins=len(labels.unique()))
    bins = labels.unique(return_inverse=True)[1]
    fitted = UVOTE(heads=3, density="kde", bandwidth=bandwidth).fit(
        TrainingLabels(labels=labels, label_bins=bins, spec=spec)
    )
    torch.testing.assert_close(fitted.bin_weights[2, bins], vector["out_weights_inverse"], rtol=1e-9, atol=0)
    torch.testing.assert_close(fitted.bin_weights[0], torch.ones(spec.num_bins, dtype=torch.float64))


@pytest.mark.parametrize("name", list_newest("uvote_vote"))
def test_votes_equal_the_official_code(name):
    vector = read_newest(name)
    locations, log_scales = vector["mu"].T, vector["log_scale"].T
    for vote in ("avg", "avgvar", "minvar"):
        location, log_scale = combine_votes(locations, log_scales, vote)
        torch.testing.assert_close(location, vector[f"out_mu_{vote}"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(log_scale, vector[f"out_log_scale_{vote}"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(2**0.5 * log_scale.exp(), vector[f"out_std_{vote}"], rtol=1e-9, atol=0)


def test_a_bin_without_training_rows_has_the_weight_of_the_nearest():
    bins = torch.tensor([1, 1, 4])
    values = torch.tensor([[1.0, 3.0, 8.0]])
    # Of two equally near bins the lower one
    assert average_by_bin(values, bins, 7).tolist() == [[2.0, 2.0, 2.0, 8.0, 8.0, 8.0, 8.0]]


def test_the_vote_limits_the_scales_as_the_loss_does():
    raw = torch.tensor([[1.0, 2.0, -5.5, -9.0]], dtype=torch.float64)
    assert float(make_head(UVOTE()).decode(raw)) == 1.0
    assert float(make_head(UVOTE(clamp_at_vote=False)).decode(raw)) == 2.0
    assert float(make_head(UVOTE()).decode_deviation(raw)) == pytest.approx(2**0.5 * np.exp(-5))
