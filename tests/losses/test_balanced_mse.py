"""`pytest tests/losses/test_balanced_mse.py`: GAI, BNI and BMC against integrals, loops and the published vectors."""

from functools import partial
from math import exp, log, pi, sqrt

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from dirtune.batch import TrainingLabels
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.losses import Fittable
from dirtune.losses.balanced_mse import BMC, BNI, GAI, bmc, bni, gai
from dirtune.manifest import LabelSpec
from tests.golden.vectors import load_reweighting

AGE = LabelSpec(name="age", unit="years", low=0.0, high=120.0, bin_width=1.0, num_bins=121)


def _to_exact_keys(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


MIXTURE = _to_exact_keys(
    shares=[0.2, 0.5, 0.3], means=[[20.0], [35.0], [60.0]], covariances=[[[9.0]], [[25.0]], [[100.0]]]
)
PLANE = _to_exact_keys(
    shares=[0.4, 0.6],
    means=[[0.1, -0.2], [0.5, 0.3]],
    covariances=[[[0.2, 0.05], [0.05, 0.1]], [[0.3, -0.1], [-0.1, 0.2]]],
)
HISTOGRAM = _to_exact_keys(centers=[20.0, 21.0, 40.0, 70.0], probabilities=[0.5, 0.3, 0.15, 0.05])

every_form = pytest.mark.parametrize(
    "loss",
    [
        pytest.param(partial(gai, **MIXTURE), id="gai"),
        pytest.param(partial(bni, **HISTOGRAM), id="bni"),
        pytest.param(bmc, id="bmc"),
    ],
)

every_kind = pytest.mark.parametrize("kind", [GAI, BNI, BMC])


def _rows(num=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    labels = 20 + 50 * torch.rand(num, generator=generator, dtype=torch.float64)
    predictions = labels + 6 * torch.randn(num, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(num, generator=generator, dtype=torch.float64)
    return predictions.to(dtype), labels.to(dtype), weights.to(dtype)


def _sigma(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def _training_labels(labels):
    labels = torch.as_tensor(labels)
    return TrainingLabels(labels=labels, label_bins=labels.long(), spec=AGE)


def _ages():
    return np.random.default_rng(0).normal(40, 15, size=300).clip(1, 100).round()


def _normal(distance, variance):
    return exp(-(distance**2) / (2 * variance)) / sqrt(2 * pi * variance)


def _negative_log_balanced(prediction, label, sigma, density, grid):
    """`-log N(y; p, s^2) + log integral of N(y'; p, s^2) p_train(y') dy'`, the integral as a sum over a fine grid."""
    step = grid[1] - grid[0]
    integral = sum(_normal(prediction - y, sigma**2) * density(y) * step for y in grid)
    return -log(_normal(prediction - label, sigma**2)) + log(integral)


@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_gai_is_the_integral_over_the_mixture(sigma):
    def density(y):
        parts = zip(*(values.flatten().tolist() for values in MIXTURE.values()), strict=True)
        return sum(share * _normal(y - mean, variance) for share, mean, variance in parts)

    predictions, labels, weights = _rows(3)
    grid = np.arange(-120, 220, 0.05).tolist()
    losses = [
        w * _negative_log_balanced(p, y, sigma, density, grid)
        for p, y, w in zip(predictions.tolist(), labels.tolist(), weights.tolist(), strict=True)
    ]
    loss = gai(predictions, labels, weights, sigma=_sigma(sigma), **MIXTURE)
    assert loss.item() == pytest.approx(2 * sigma**2 * sum(losses) / 3, rel=1e-9)


def test_gai_in_the_plane_is_the_formula_with_the_normal_densities_of_scipy():
    sigma = 0.4
    predictions, labels, weights = (values / 50 for values in _rows(8))
    p, y = predictions.reshape(4, 2), labels.reshape(4, 2)
    losses = []
    for prediction, label, weight in zip(p.numpy(), y.numpy(), weights[:4].tolist(), strict=True):
        noise = sigma**2 * np.eye(2)
        z = sum(
            share * multivariate_normal.pdf(prediction, mean, covariance + noise)
            for share, mean, covariance in zip(*(v.numpy() for v in PLANE.values()), strict=True)
        )
        losses.append(weight * (log(z) - multivariate_normal.logpdf(label, prediction, noise)))
    loss = gai(p, y, weights[:4], sigma=_sigma(sigma), **PLANE)
    assert loss.item() == pytest.approx(2 * sigma**2 * sum(losses) / 4, rel=1e-12)


def _log_sum(distances_and_shares, sigma):
    return log(sum(q * exp(-(d**2) / (2 * sigma**2)) for d, q in distances_and_shares))


def test_bni_is_its_formula_written_as_loops():
    sigma, total = 5.0, 0.0
    predictions, labels, weights = (values.tolist() for values in _rows())
    bins = list(zip(*(values.tolist() for values in HISTOGRAM.values()), strict=True))
    for p, y, w in zip(predictions, labels, weights, strict=True):
        log_z = _log_sum([(p - center, share) for center, share in bins], sigma)
        total += w * ((p - y) ** 2 / (2 * sigma**2) + log_z)
    loss = bni(*_rows(), sigma=_sigma(sigma), **HISTOGRAM)
    assert loss.item() == pytest.approx(2 * sigma**2 * total / 6, rel=1e-12)


def test_bmc_is_its_formula_written_as_loops():
    sigma, total = 5.0, 0.0
    predictions, labels, weights = (values.tolist() for values in _rows())
    for p, y, w in zip(predictions, labels, weights, strict=True):
        log_z = _log_sum([(p - other, 1.0) for other in labels], sigma)
        total += w * ((p - y) ** 2 / (2 * sigma**2) + log_z)
    loss = bmc(*_rows(), sigma=_sigma(sigma))
    assert loss.item() == pytest.approx(2 * sigma**2 * total / 6, rel=1e-12)


def test_turning_the_plane_changes_nothing():
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    turned = {
        "shares": PLANE["shares"],
        "means": PLANE["means"] @ turn,
        "covariances": turn.T @ PLANE["covariances"] @ turn,
    }
    p, y = (values.reshape(3, 2) / 50 for values in _rows()[:2])
    for before, after in ((partial(gai, **PLANE), partial(gai, **turned)), (bmc, bmc)):
        expected = before(p, y, sigma=_sigma(0.7))
        torch.testing.assert_close(after(p @ turn, y @ turn, sigma=_sigma(0.7)), expected)


def test_bmc_in_the_plane_measures_distances_in_it():
    p, y = (values.reshape(3, 2) for values in _rows()[:2])
    distances = torch.cdist(p, y, compute_mode="donot_use_mm_for_euclid_dist")
    expected = torch.nn.functional.cross_entropy(-distances.square() / 50, torch.arange(3))
    torch.testing.assert_close(bmc(p, y, sigma=_sigma(5.0)), 50 * expected)


@every_form
def test_a_column_of_labels_is_a_vector_of_labels(loss):
    predictions, labels, weights = _rows()
    column = loss(predictions[:, None], labels[:, None], weights, sigma=_sigma(3.0))
    assert column == loss(predictions, labels, weights, sigma=_sigma(3.0))


@every_form
def test_the_gradients_of_predictions_and_noise_are_the_slopes(loss):
    predictions, labels, weights = _rows()

    # Without the factor 2 sigma^2, which is a constant for the gradient
    def undone(p, sigma):
        return loss(p, labels, weights, sigma=sigma) / (2 * sigma.detach().square())

    sigma = _sigma(6.0)
    gradient = torch.autograd.grad(undone(predictions, sigma), sigma)[0]
    around = [undone(predictions, torch.tensor(s, dtype=torch.float64)) for s in (6.001, 5.999)]
    assert gradient.item() == pytest.approx((around[0] - around[1]).item() / 0.002, rel=1e-5)
    assert torch.autograd.gradcheck(
        lambda p: loss(p, labels, weights, sigma=sigma.detach()), (predictions.requires_grad_(),)
    )


@every_form
def test_weights_multiply_each_sample_and_are_not_normalized(loss):
    predictions, labels, weights = _rows()
    sigma = _sigma(3.0)
    doubled = loss(predictions, labels, 2 * weights, sigma=sigma)
    torch.testing.assert_close(doubled, 2 * loss(predictions, labels, weights, sigma=sigma))
    plain = loss(predictions, labels, torch.ones(6, dtype=torch.float64), sigma=sigma)
    torch.testing.assert_close(loss(predictions, labels, sigma=sigma), plain)


@every_form
def test_permuting_the_samples_changes_nothing(loss):
    order = torch.tensor([4, 2, 5, 0, 1, 3])
    permuted = loss(*(values[order] for values in _rows()), sigma=_sigma(3.0))
    torch.testing.assert_close(permuted, loss(*_rows(), sigma=_sigma(3.0)))


@every_form
@pytest.mark.parametrize("sigma", [1e-2, 1.0, 100.0])
def test_far_predictions_have_a_finite_loss_and_gradient(loss, sigma):
    predictions = torch.tensor([-500.0, 0.0, 40.0, 2000.0], requires_grad=True)
    labels = torch.tensor([30.0, 0.0, 40.0, 41.0])
    noise = torch.tensor(sigma, requires_grad=True)
    value = loss(predictions, labels, sigma=noise)
    value.backward()
    assert value.dtype == torch.float32
    assert all(t.isfinite().all() for t in (value, predictions.grad, noise.grad))


@every_form
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_computed_in_float32(loss, dtype):
    rows = _rows(dtype=dtype)
    expected = loss(*(values.float() for values in rows), sigma=torch.tensor(3.0))
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(*rows, sigma=torch.tensor(3.0)) == expected


def test_bmc_of_one_row_is_zero_without_gradient():
    predictions = torch.tensor([5.0], requires_grad=True)
    sigma = torch.tensor(2.0, requires_grad=True)
    loss = bmc(predictions, torch.tensor([3.0]), sigma=sigma)
    loss.backward()
    assert loss == 0
    assert predictions.grad == 0
    assert sigma.grad == 0


def test_bmc_of_one_label_in_all_rows_has_the_floor_of_their_number():
    labels = torch.full((7,), 3.0, dtype=torch.float64)
    loss = bmc(labels, labels, sigma=_sigma(1.0))
    assert loss.item() == pytest.approx(2 * log(7), rel=1e-12)


@every_kind
def test_the_fitted_loss_starts_at_the_given_noise_and_can_train_it(kind):
    settings = kind(sigma=7.0, sigma_learning_rate=0.05)
    fitted = settings.fit(_training_labels(_ages()))
    assert isinstance(settings, Fittable)
    assert fitted.learning_rate == 0.05
    assert fitted.sigma.item() == pytest.approx(7.0, rel=1e-6)
    assert [name for name, _ in fitted.named_parameters()] == ["log_sigma"]
    fitted(*_rows(dtype=torch.float32)).backward()
    assert fitted.log_sigma.grad.isfinite()
    assert fitted.log_sigma.grad != 0


@every_kind
def test_a_plain_noise_is_trained_by_itself(kind):
    labels, rows = _training_labels(_ages()), _rows(dtype=torch.float32)
    plain = kind(sigma=7.0, sigma_parameter="plain").fit(labels)
    logarithm = kind(sigma=7.0).fit(labels)
    losses = [fitted(*rows) for fitted in (plain, logarithm)]
    for loss in losses:
        loss.backward()
    assert [name for name, _ in plain.named_parameters()] == ["plain_sigma"]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    # The chain rule: d/d log sigma = sigma d/d sigma.
    assert 7.0 * plain.plain_sigma.grad.item() == pytest.approx(logarithm.log_sigma.grad.item(), rel=1e-4)
    sign = plain.plain_sigma.grad.sign().item()
    torch.optim.Adam(plain.parameters(), lr=0.01).step()
    assert plain.sigma.item() == pytest.approx(7.0 - 0.01 * sign, rel=1e-5)
    assert plain.values() == {"sigma": plain.sigma.item()}


@every_kind
def test_a_fixed_noise_has_no_gradient(kind):
    fitted = kind(learn_sigma=False).fit(_training_labels(_ages()))
    predictions, labels, weights = _rows(dtype=torch.float32)
    fitted(predictions.requires_grad_(), labels, weights).backward()
    assert fitted.log_sigma.grad is None


@every_kind
def test_the_noise_stays_positive_however_long_it_is_pushed_down(kind):
    fitted = kind().fit(_training_labels(_ages()))
    optimizer = torch.optim.SGD(fitted.parameters(), lr=1.0)
    fitted.log_sigma.grad = torch.tensor(20.0)
    for _ in range(3):
        optimizer.step()
    assert fitted.sigma > 0


@every_kind
def test_a_saved_state_gives_the_same_loss_again_and_leaves_later_fits_alone(kind):
    labels = _training_labels(_ages())
    trained, other = kind(sigma=3.0).fit(labels), kind().fit(labels)
    before = other(*_rows())
    state = {name: 2 * values for name, values in trained.state_dict().items()}
    trained.load_state_dict(state)
    other.load_state_dict(trained.state_dict())
    assert other(*_rows()) == trained(*_rows())
    assert kind().fit(labels)(*_rows()) == before


def test_the_fitted_losses_are_the_functions():
    labels, rows = _training_labels(_ages()), _rows()
    for settings, function in ((GAI(components=3, sigma=4.0), gai), (BNI(sigma=4.0), bni)):
        fitted = settings.fit(labels)
        assert fitted(*rows) == function(*rows, sigma=fitted.sigma, **dict(fitted.named_buffers()))
    fitted = BMC(sigma=4.0).fit(labels)
    assert fitted(*rows) == bmc(*rows, sigma=fitted.sigma)


@pytest.mark.parametrize(
    ("kind", "raw", "key"),
    [
        (GAI, {"sigma": 0}, "sigma"),
        (BMC, {"sigma_learning_rate": -1.0}, "sigma_learning_rate"),
        (GAI, {"components": 0}, "components"),
        (BNI, {"lds": {"size": 4}}, "lds.size"),
        (BMC, {"components": 8}, "components"),
    ],
)
def test_impossible_settings_are_refused_with_their_key(kind, raw, key):
    with pytest.raises(InputError) as refusal:
        read(kind, raw, where="study.yaml")
    assert [fault.key for fault in refusal.value.faults] == [key]


def _golden():
    return load_reweighting("balanced_mse")


def _golden_mixture(golden, name):
    keys = (f"{name}_weights", f"{name}_means", f"{name}_variances")
    values = (torch.from_numpy(golden[key]).double() for key in keys)
    return dict(zip(("shares", "means", "covariances"), values, strict=True))


def _golden_histogram(golden, name):
    values = (torch.from_numpy(golden[f"{name}_{part}"]).double() for part in ("centers", "weights"))
    return dict(zip(("centers", "probabilities"), values, strict=True))


def _golden_form(golden, name):
    if name.startswith("bmc"):
        return bmc
    if name.startswith("bni"):
        histogram = "bni_agedb_lds" if name == "bni_lds" else "bni_agedb"
        return partial(bni, **_golden_histogram(golden, histogram))
    mixtures = {"gai_agedb": "agedb_gmm", "gai_md": "md_gmm"}
    return partial(gai, **_golden_mixture(golden, mixtures.get(name, "gmm")))


@pytest.mark.parametrize(
    ("name", "sigmas"),
    [
        *((name, (1.0, 5.0, 10.0)) for name in ("gai", "bmc", "bni", "bni_lds", "gai_agedb")),
        *((name, (0.1, 0.5, 1.0)) for name in ("gai_md", "bmc_md")),
        *((name, (5.0,)) for name in ("gai_md_on_1d", "bmc_md_on_1d")),
    ],
)
def test_values_and_gradients_are_the_published_ones(name, sigmas):
    golden = _golden()
    form, prefix = _golden_form(golden, name), "md_" if name.endswith("_md") else ""
    for sigma in sigmas:
        predictions = torch.from_numpy(golden[f"{prefix}pred"]).requires_grad_()
        noise = _sigma(sigma)
        loss = form(predictions, torch.from_numpy(golden[f"{prefix}target"]), sigma=noise)
        loss.backward()
        key = f"{name}__sigma{sigma}"
        assert loss.item() == pytest.approx(float(golden[f"{key}__loss"]), rel=1e-12)
        assert noise.grad.item() == pytest.approx(float(golden[f"{key}__grad_sigma"]), rel=1e-9)
        expected = golden[f"{key}__grad_pred"]
        floor = 1e-13 * np.abs(expected).max()
        np.testing.assert_allclose(predictions.grad.numpy(), expected, rtol=1e-9, atol=floor)
