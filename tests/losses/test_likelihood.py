"""`pytest tests/losses/test_likelihood.py`: likelihoods against densities of SciPy and golden vectors, their heads, their limits."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from dirtune.losses import likelihood
from dirtune.losses.likelihood import BetaNLL, Evidence, Evidential, GaussianNLL, LaplaceNLL
from dirtune.testing import fit, make_head
from tests.golden.vectors import list_newest, read_newest

LABELS = torch.tensor([1.0, 2.5, -3.0, 7.0], dtype=torch.float64)
RAW = torch.tensor([[1.5, 0.2], [2.0, -1.0], [0.0, 1.3], [7.0, 0.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.5], dtype=torch.float64)


def test_gaussian_and_laplace_losses_are_weighted_log_densities():
    mean, log_scale = RAW.numpy().T
    gaussian = -stats.norm(mean, np.exp(log_scale / 2)).logpdf(LABELS.numpy())
    laplace = -stats.laplace(mean, np.exp(log_scale)).logpdf(LABELS.numpy())
    assert float(GaussianNLL()(RAW, LABELS, WEIGHTS)) == pytest.approx((WEIGHTS.numpy() * gaussian).mean(), rel=1e-12)
    assert float(LaplaceNLL()(RAW, LABELS, WEIGHTS)) == pytest.approx((WEIGHTS.numpy() * laplace).mean(), rel=1e-12)
    deviations = np.sqrt(np.log1p(np.exp(log_scale)) + 1e-6)
    softplus = -stats.norm(mean, deviations).logpdf(LABELS.numpy())
    assert float(GaussianNLL(parameter="variance")(RAW, LABELS)) == pytest.approx(softplus.mean(), rel=1e-12)


def test_the_evidential_loss_is_a_student_density_plus_wrong_evidence():
    raw = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(6.0, dtype=torch.float64)
    location, nu, alpha, beta = raw[:, 0].numpy(), *np.log1p(np.exp(raw[:, 1:].numpy().T))
    alpha = alpha + 1
    scale = np.sqrt(beta * (1 + nu) / (nu * alpha))
    rows = -stats.t(2 * alpha, location, scale).logpdf(labels.numpy())
    rows += 0.3 * np.abs(labels.numpy() - location) * (2 * nu + alpha)
    assert float(Evidential(coefficient=0.3)(raw, labels)) == pytest.approx(rows.mean(), rel=1e-12)
    # The variance of the label is the density's.
    found = make_head(Evidential()).decode_deviation(raw)
    np.testing.assert_allclose(found.numpy(), stats.t(2 * alpha, location, scale).std(), rtol=1e-10)


def test_the_adaptive_weight_follows_the_released_trainer():
    raw = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels, loss = torch.arange(5.0, dtype=torch.float64), fit(Evidential(regularization="adaptive"))
    evidence = Evidence.from_raw(raw)
    nll, part, weight = evidence.compute_nll(labels).mean(), evidence.compute_regularizer(labels).mean(), 0.0
    for _ in range(3):
        assert float(loss(raw, labels)) == pytest.approx(float(nll + weight * (part - 0.01)), rel=1e-6)
        weight += 1e-4 * float(part - 0.01)
    assert loss.values()["evidence_weight"] == pytest.approx(weight, rel=1e-5)


def _check(value, leaves, vector, keys):
    torch.testing.assert_close(value, vector["loss"], rtol=1e-9, atol=0)
    for leaf, key in zip(leaves, keys, strict=True):
        (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
        expected = vector[key].reshape(gradient.shape)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def _leaves(vector, *keys):
    return [vector[key].clone().requires_grad_() for key in keys]


@pytest.mark.parametrize("name", list_newest("nll_beta"))
def test_beta_nll_equals_the_official_code(name):
    vector = read_newest(name)
    mean, variance = _leaves(vector, "mu", "variance")
    beta = vector.hyperparameters["beta"]
    raw = torch.cat([mean, variance.log()], dim=1)
    loss = BetaNLL(beta=beta)(raw, vector["targets"][:, 0])
    _check(loss, [mean, variance], vector, ["grad_mu", "grad_variance"])


@pytest.mark.parametrize("name", list_newest("nll_gauss"))
def test_gaussian_nll_equals_torch(name):
    vector = read_newest(name)
    mean, variance = _leaves(vector, "mu", "variance")
    # torch leaves out the constant, and evaluates a smaller variance at a limit, its gradient included.
    limited = variance + (variance.detach().clamp(min=vector.hyperparameters["eps"]) - variance.detach())
    rows = likelihood.gaussian_nll(mean, limited.log(), vector["targets"]) - 0.5 * math.log(2 * math.pi)
    _check(rows.mean(), [mean, variance], vector, ["grad_mu", "grad_variance"])


@pytest.mark.parametrize("name", list_newest("nll_head"))
def test_losses_of_heads_equal_their_equations(name):
    vector = read_newest(name)
    losses = {"gauss_logvar": GaussianNLL(), "laplace_logscale": LaplaceNLL()}
    mean, raw = _leaves(vector, "mu", "raw")
    form = vector.hyperparameters["form"]
    loss = losses.get(form, GaussianNLL(parameter="variance"))(torch.stack([mean, raw], dim=1), vector["targets"])
    _check(loss, [mean, raw], vector, ["grad_mu", "grad_raw"])


@pytest.mark.parametrize("name", list_newest("nll_der"))
def test_evidential_regression_equals_its_equations(name):
    vector = read_newest(name)
    features, weight, bias = _leaves(vector, "features", "weight", "bias")
    raw = torch.nn.functional.linear(features, weight, bias)
    loss = Evidential(coefficient=vector.hyperparameters["coefficient"])(raw, vector["targets"])
    _check(loss, [features, weight, bias], vector, ["grad_features", "grad_weight", "grad_bias"])
    evidence = Evidence.from_raw(raw)
    for key in ("nu", "alpha", "beta", "aleatoric", "epistemic"):
        expected = vector[{"nu": "out_v"}.get(key, f"out_{key}")]
        torch.testing.assert_close(getattr(evidence, key), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "loss", [GaussianNLL(), GaussianNLL(parameter="variance"), LaplaceNLL(), Evidential()], ids=lambda loss: loss.head
)
def test_a_head_starts_at_the_deviation_of_the_training_labels(loss):
    # One label in each of the bins 0 to 9: a variance of 99 / 12 between the centers
    head = make_head(loss, torch.arange(10))
    raw = head(torch.zeros(1, 4, dtype=torch.float64)).detach()
    # The evidence for the mean is of the order of one at the start.
    factor = 1 + 1 / math.log(2) if isinstance(loss, Evidential) else 1.0
    expected = (100 - 1) / 12 * factor
    assert float(head.decode_deviation(raw)) == pytest.approx(math.sqrt(expected), rel=1e-4)
    # The location starts near `label_offset`, 4.
    assert abs(float(head.decode(raw)) - 4) < 0.6


def test_a_scale_beyond_its_limits_has_no_gradient_but_the_location_has():
    head = make_head(GaussianNLL())
    with torch.no_grad():
        head.layers["scale"].bias.fill_(-100.0)
    raw = head(torch.zeros(1, 4, dtype=torch.float64))
    start = 0.5 * head.start
    assert float(head.decode_deviation(raw).detach().log()) == pytest.approx(start - likelihood.MAX_LOG_RATIO)
    GaussianNLL()(raw, torch.tensor([5.0], dtype=torch.float64)).backward()
    assert float(head.layers["scale"].bias.grad) == 0
    assert float(head.layers["location"].bias.grad) != 0
