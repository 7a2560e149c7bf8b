"""Balanced MSE: a squared error that compensates the effect of imbalanced training labels on a regressor.

A regressor trained on the label distribution p_train learns `p_train(y | x)`, proportional to `p_bal(y | x) p_train(y)`.
If its prediction is to be the mean of the *balanced* one, `N(y; prediction, sigma^2)`, the loss is the negative
log-likelihood of that plus

    log Z(prediction) = log integral of N(y; prediction, sigma^2) p_train(y) dy,

which pushes predictions out of the dense part of the labels. The three losses differ in their estimate of p_train: a fitted
Gaussian mixture (`gai`), a histogram (`bni`), the labels of the batch (`bmc`).

Source: Ren et al., "Balanced MSE for Imbalanced Visual Regression", CVPR 2022; official code
github.com/jiawei-ren/BalancedMSE, `imdb-wiki-dir/balanaced_mse.py`, `nyud2-dir`, `synthetic_benchmark/loss.py` (labels of
several dimensions). As there, each is multiplied by `2 sigma^2`, detached, which gives it the scale of a squared error;
values at different sigma are then not comparable, and may be negative. Departures: 1. the noise sigma is `exp` of the
trained parameter, so that it stays positive: a step of Adam changes it by 1 %, officially by 0.01 (`sigma_parameter: plain`
is the code's); 2. sample weights w: the loss is the mean over samples of `w_i l_i`; 3. everything is computed in float32
or float64.

Labels of L dimensions are points: `|.|^2` sums over dimensions, where `mse` takes their mean.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TrainingLabels
from dirtune.frozen import Added, Frozen
from dirtune.losses import label_prior, pairs, pointwise
from dirtune.losses.needs import Needs
from dirtune.reweighting.lds import LDS


class _Noisy(Frozen):
    sigma: float = Field(default=1.0, gt=0)
    """Noise of the labels at the start, in the unit of the labels that the loss is given. Official: 10 (IMDB-WIKI), 1
    (NYUD2)."""
    learn_sigma: bool = True
    """True: sigma is trained; officially true on ages, false on NYUD2."""
    sigma_learning_rate: float = Field(default=1e-2, gt=0)
    """Constant learning rate of the parameter of sigma, which has no weight decay. Official: 1e-2."""
    sigma_parameter: Annotated[Literal["logarithm", "plain"], Added()] = "logarithm"
    """Parameter that is trained. logarithm: that of sigma, so that no step makes sigma zero; plain: sigma itself, as in the
    official code, of which only the square enters the loss."""


class GAI(_Noisy):
    """Balanced MSE with a Gaussian mixture as the label distribution (Ren et al., CVPR 2022); formula: `gai`."""

    name: Literal["gai"] = "gai"
    components: int = Field(default=8, ge=1)
    """Components of the mixture. Official: 8 (IMDB-WIKI), 16 (NYUD2)."""

    def fit(self, labels: TrainingLabels) -> "BalancedMSE":
        """Return the loss with a mixture fitted to the training labels, divided by their scale.

        Raises:
            InputError: there are fewer distinct labels than components.
        """
        return BalancedMSE(self, gai, label_prior.fit_mixture(labels, self.components))


class BNI(_Noisy):
    """Balanced MSE with the histogram as the label distribution (Ren et al., CVPR 2022); formula: `bni`."""

    name: Literal["bni"] = "bni"
    lds: LDS | None = None
    """Smoothing of the histogram; null: none. Official for NYUD2, whose bins below 0.7 m take the count of the first above:
    `boundary: reflect, first_bin: 7`, with `size: 1` for no smoothing."""

    def fit(self, labels: TrainingLabels) -> "BalancedMSE":
        """Return the loss with the histogram of the training labels, divided by their scale.

        Raises:
            InputError: labels of several dimensions, or an lds that does not fit the bins.
        """
        return BalancedMSE(self, bni, label_prior.build_histogram(labels, self.lds))


class BMC(_Noisy):
    """Balanced MSE with the batch as the label distribution (Ren et al., CVPR 2022); formula: `bmc`."""

    name: Literal["bmc"] = "bmc"
    # Most micro-batches lack the rare labels that this label distribution is for; of one row the loss is constant.
    needs: ClassVar[Needs] = Needs(samples=2, whole_batches=True)

    def fit(self, labels: TrainingLabels) -> "BalancedMSE":
        """Return the loss with its noise; its label distribution is that of the rows of each call."""
        return BalancedMSE(self, bmc, prior={})


class BalancedMSE(nn.Module):
    """Loss with a trained noise; the label distribution is in buffers, named as the keywords of the formula."""

    def __init__(self, settings: _Noisy, formula: Callable[..., Tensor], prior: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.learning_rate = settings.sigma_learning_rate
        self.formula = formula
        self.is_logarithm = settings.sigma_parameter == "logarithm"
        # A name of its own for each form, so that no saved state is read as the other one.
        self.parameter_name = "log_sigma" if self.is_logarithm else "plain_sigma"
        start = torch.tensor(math.log(settings.sigma) if self.is_logarithm else settings.sigma)
        self.register_parameter(self.parameter_name, nn.Parameter(start, requires_grad=settings.learn_sigma))
        for name, values in prior.items():
            self.register_buffer(name, values)

    @property
    def sigma(self) -> Float[Tensor, ""]:
        parameter: Tensor = self.get_parameter(self.parameter_name)
        return parameter.exp() if self.is_logarithm else parameter

    def values(self) -> dict[str, float]:
        """Return the noise, for the record of an epoch."""
        return {"sigma": self.sigma.item()}

    def forward(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        prior = dict(self.named_buffers())
        return self.formula(predictions, labels, weights, sigma=self.sigma, **prior)


def gai(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
    *,
    sigma: Float[Tensor, ""],
    shares: Float[Tensor, " components"],
    means: Float[Tensor, "components dims"],
    covariances: Float[Tensor, "components dims dims"],
) -> Float[Tensor, ""]:
    """Compute `2 sigma^2 mean_i w_i l_i` by Gaussian-mixture analytical integration, with prediction p and label y,

        l = |p - y|^2 / (2 sigma^2) + L/2 log sigma^2 + log sum_k pi_k |C_k|^(-1/2) exp(-1/2 d_k^T C_k^(-1) d_k)

    where `d_k = p - mu_k` and `C_k = S_k + sigma^2 I`: the mixture's component k, widened by the noise.

    Args:
        predictions: in the unit of the labels.
        labels: of one or L dimensions.
        weights: of the samples; None means all are one.
        sigma: the noise, in the unit of the labels; it gets a gradient.
        shares: pi, of the components of the mixture; their sum is one.
        means: mu, in the unit of the labels.
        covariances: S, in the unit of the labels squared.
    """
    with pairs.full_precision(_as_matrix(predictions)) as p:
        shares, means, covariances = shares.to(p), means.to(p), covariances.to(p)
        variance = sigma.to(p).square()
        widened = covariances + variance * torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
        # Without a check for errors, which would wait for the device
        factors = torch.linalg.cholesky_ex(widened).L
        # Shape (components, dims, rows)
        from_means = (p - means[:, None]).mT
        whitened = torch.linalg.solve_triangular(factors, from_means, upper=False)
        log_norms = factors.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        log_parts = (shares.log() - log_norms)[:, None] - 0.5 * whitened.square().sum(dim=1)
        log_z = log_parts.logsumexp(dim=0) + 0.5 * p.shape[1] * variance.log()
        return _scale_losses(p, labels, weights, variance, log_z)


def bni(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
    *,
    sigma: Float[Tensor, ""],
    centers: Float[Tensor, " bins"],
    probabilities: Float[Tensor, " bins"],
) -> Float[Tensor, ""]:
    """Compute `2 sigma^2 mean_i w_i l_i` by bin-based numerical integration, with prediction p and label y,

        l = (p - y)^2 / (2 sigma^2) + log sum_b P_b exp(-(p - c_b)^2 / (2 sigma^2))

    Args:
        predictions: as in `gai`.
        labels: of one dimension, as a vector or a column.
        weights: as in `gai`.
        sigma: as in `gai`.
        centers: c, in the unit of the labels.
        probabilities: P, positive, of the training labels; their sum is one.
    """
    with pairs.full_precision(_as_matrix(predictions)) as p:
        variance = sigma.to(p).square()
        squares = _compute_squared_distances(p, centers[:, None].to(p))
        log_z = pairs.logsumexp(probabilities.to(p).log() - squares / (2 * variance))
        return _scale_losses(p, labels, weights, variance, log_z)


def bmc(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
    *,
    sigma: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Compute `2 sigma^2 mean_i w_i l_i` by batch-based Monte Carlo, with the predictions p and the labels y of the batch,

        l_i = |p_i - y_i|^2 / (2 sigma^2) + log sum_j exp(-|p_i - y_j|^2 / (2 sigma^2))

    It is a cross-entropy whose classes are the rows, and 0 for one row; a label that m rows have costs `log m` at best.
    The rows are those of the global batch. Memory is quadratic in them.

    Arguments as in `gai`.
    """
    with pairs.full_precision(_as_matrix(predictions)) as p:
        variance = sigma.to(p).square()
        squares = _compute_squared_distances(p, _as_matrix(labels).to(p))
        log_z = pairs.logsumexp(-squares / (2 * variance))
        return _scale_losses(p, labels, weights, variance, log_z)


def _scale_losses(
    predictions: Float[Tensor, "rows dims"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None,
    variance: Float[Tensor, ""],
    log_z: Float[Tensor, " rows"],
) -> Float[Tensor, ""]:
    squares = (predictions - _as_matrix(labels).to(predictions)).square().sum(dim=1)
    losses = squares / (2 * variance) + log_z
    # Detached: the scale must not pull sigma towards zero.
    return 2 * variance.detach() * pointwise.compute_weighted_mean(losses, weights)


def _as_matrix(values: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows dims"]:
    return values[:, None] if values.ndim == 1 else values


def _compute_squared_distances(
    rows: Float[Tensor, "rows dims"], columns: Float[Tensor, "columns dims"]
) -> Float[Tensor, "rows columns"]:
    # One dimension at a time needs no buffer of rows x columns x dims, and has no cancellation as a matrix product has.
    total = (rows[:, :1] - columns[:, 0]).square()
    for dim in range(1, rows.shape[1]):
        total = total + (rows[:, dim, None] - columns[:, dim]).square()
    return total
