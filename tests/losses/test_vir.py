"""`pytest tests/losses/test_vir.py`: VIR's head against the official code, and its evidence by weight."""

import math

import pytest
import torch

from dirtune.losses.likelihood import Evidence
from dirtune.losses.vir import VIRHead
from dirtune.testing import make_head
from tests.golden.vectors import list_newest, read_newest


def _check_gradients(loss, vector, leaves):
    torch.testing.assert_close(loss.detach(), vector["loss"].reshape(()), rtol=1e-9, atol=0)
    for key, leaf in leaves.items():
        (found,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        expected = vector[f"grad_{key}"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", list_newest("vir_nll"))
def test_likelihood_and_regularizer_equal_the_official_code(name):
    vector = read_newest(name)
    leaves = {key: vector[key].clone().requires_grad_() for key in ("gamma", "v", "alpha", "beta")}
    evidence = Evidence(*leaves.values())
    nll, regularizer = evidence.compute_nll(vector["targets"]), evidence.compute_regularizer(vector["targets"])
    torch.testing.assert_close(nll.detach(), vector["out_nll"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(regularizer.detach(), vector["out_reg"], rtol=1e-9, atol=0)
    _check_gradients((nll + vector.hyperparameters["coefficient"] * regularizer).mean(), vector, leaves)


@pytest.mark.parametrize("name", list_newest("vir_head"))
def test_evidence_and_loss_equal_the_official_code(name):
    vector = read_newest(name)
    given = vector.hyperparameters
    leaves = {key: vector[key].clone().requires_grad_() for key in ("features", "weight", "bias")}
    raw = torch.nn.functional.linear(*leaves.values())
    settings = VIRHead(coefficient=given["coefficient"], prior_nu=given["v0"], prior_alpha=given["alpha0"])
    weights = vector["weights"] if given["training"] else None
    evidence = settings.make_evidence(raw, weights)
    for key, found in {"gamma": "location", "v": "nu", "alpha": "alpha", "beta": "beta"}.items():
        torch.testing.assert_close(getattr(evidence, found).detach(), vector[f"out_{key}"], rtol=1e-9, atol=0)
    # The variance of the mean; with little evidence, as only a training has it, it is negative.
    certain = vector["out_alpha"] > 1
    torch.testing.assert_close(evidence.epistemic[certain], vector["out_variance"][certain], rtol=1e-9, atol=0)
    _check_gradients(settings(raw, vector["targets"], weights), vector, leaves)


def test_a_larger_weight_is_more_evidence_and_predictions_have_weight_one():
    settings = VIRHead()
    raw = torch.tensor([[3.0, 1.0, 5.0]] * 2, dtype=torch.float64)
    evidence = settings.make_evidence(raw, torch.tensor([0.5, 2.0], dtype=torch.float64))
    count = 2 + 10 * math.log1p(math.exp(0.1))
    assert evidence.nu.tolist() == pytest.approx([0.5 * count, 2 * count])
    assert evidence.alpha.tolist() == pytest.approx([0.3 + count / 4, 0.3 + count])
    beta = 10 * math.log1p(math.exp(0.5))
    alpha = 0.3 + count / 2
    expected = math.sqrt(beta / (alpha - 1) * (1 + 1 / count))
    head = make_head(settings)
    assert head.decode_deviation(raw).tolist() == pytest.approx([expected] * 2)
    assert head.decode(raw).tolist() == [3.0, 3.0]


def test_the_first_deviation_is_that_of_the_labels():
    labels = torch.arange(40) % 10
    head = make_head(VIRHead(), labels)
    torch.nn.init.zeros_(head.layers["count"].weight)
    torch.nn.init.zeros_(head.layers["beta"].weight)
    found = head.decode_deviation(head(torch.randn(3, 4, dtype=torch.float64)).detach())
    assert found.tolist() == pytest.approx([float(labels.double().std(correction=0))] * 3)
