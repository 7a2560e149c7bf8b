"""Negative log-likelihoods of a predicted distribution: Gaussian, Laplace, beta-NLL and evidential regression.

The head predicts a location and a scale for each sample (`dirtune.models.heads`); with label y and location m,

    Gaussian   1/2 (r + (y - m)^2 exp(-r) + log 2 pi)         r: logarithm of the variance
    Laplace    |y - m| exp(-l) + l + log 2                    l: logarithm of the scale, whose deviation is sqrt(2) exp(l)
    beta-NLL   the Gaussian one times variance^beta, detached
    evidential minus the logarithm of a Student t density, whose parameters are evidence for mean and variance

Sample weights multiply the whole likelihood of a row, its logarithm included. All numbers are in the unit of the loss, the
label's divided by `model.label_scale`: values at different scales are not comparable, those of the metric `nll` are.

Sources: Seitzer et al., "On the Pitfalls of Heteroscedastic Uncertainty Estimation with Probabilistic Neural Networks", ICLR
2022 (martius-lab/beta-nll, `src/models/utils.py`); Amini et al., "Deep Evidential Regression", NeurIPS 2020
(aamini/evidential-deep-learning, `losses/continuous.py`). Departures: 1. the scale starts at the deviation of the training
labels, so that the location is trained from the first step; 2. logarithms of scales are limited to a factor of
`exp(5)` around that start, beyond which they have no gradient.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses.needs import Needs
from dirtune.losses.pointwise import compute_weighted_mean
from dirtune.models.heads import Distribution, Head, HeadLabels, Outputs, invert_softplus

Rows = Float[Tensor, " rows"]

MAX_LOG_RATIO = 5.0
"""Limit of the logarithm of a predicted deviation over that of the training labels."""
MIN_VARIANCE = 1e-6
"""Added to a variance that is a softplus, as in the code of Seitzer et al."""


class LocationScaleHead(Head):
    """Head with a location and the parameter of a scale."""

    def __init__(
        self,
        read_dim: int,
        labels: HeadLabels,
        *,
        distribution: Distribution,
        form: Literal["log", "softplus"] = "log",
        learning_rate_factor: float = 1.0,
    ) -> None:
        # The parameter: log-variance or variance of a Gaussian, logarithm of the scale of a Laplace distribution
        self.power = 2.0 if distribution == "normal" else 1.0
        self.form = form
        deviation = math.sqrt(labels.variance / (1.0 if distribution == "normal" else 2.0))
        start = self.power * math.log(deviation) if form == "log" else invert_softplus(deviation**2)
        super().__init__(
            read_dim,
            {
                "location": Outputs(size=1, offset=labels.offset),
                "scale": Outputs(size=1, bias=start, learning_rate_factor=learning_rate_factor),
            },
        )
        self.distribution = distribution
        self.start = start

    def forward(self, read: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows 2"]:
        """Return location and parameter of the scale, the latter within its limits."""
        location, parameter = super().forward(read).split(1, dim=-1)
        if self.form == "log":
            limit = self.power * MAX_LOG_RATIO
            parameter = parameter.clamp(self.start - limit, self.start + limit)
        return torch.cat([location, parameter], dim=-1)

    def decode(self, raw: Float[Tensor, "rows 2"]) -> Rows:
        """Return the location."""
        return raw[:, 0]

    def decode_deviation(self, raw: Float[Tensor, "rows 2"]) -> Rows:
        """Return the standard deviation."""
        if self.form == "softplus":
            return compute_variance(raw[:, 1]).sqrt()
        factor = 1.0 if self.distribution == "normal" else math.sqrt(2.0)
        return factor * (raw[:, 1] / self.power).exp()


class _LocationScaleLoss(Frozen):
    scale_rate: float = Field(default=1.0, gt=0)
    """Factor of the learning rate of the layer that predicts the scale. A lower one keeps the scale from growing before the
    location is trained (UVOTE's code: 0.1)."""

    @property
    def head(self) -> str:
        """Name of the head."""
        raise NotImplementedError


class _Gaussian(_LocationScaleLoss):
    parameter: Literal["log_variance", "variance"] = "log_variance"
    """Meaning of the second output r. log_variance: the variance is `exp(r)`; variance: it is `softplus(r) + 1e-6`, as in the
    code of Seitzer et al."""

    @property
    def head(self) -> str:
        """Name of the head."""
        return f"gaussian {self.parameter}"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the head: a mean and a variance."""
        form: Literal["log", "softplus"] = "log" if self.parameter == "log_variance" else "softplus"
        return LocationScaleHead(
            read_dim, labels, distribution="normal", form=form, learning_rate_factor=self.scale_rate
        )

    def compute_rows(self, raw: Float[Tensor, "rows 2"], labels: Rows) -> tuple[Rows, Rows]:
        """Return the negative log-likelihood and the variance of each row."""
        mean, parameter = raw.to(torch.promote_types(raw.dtype, torch.float32)).unbind(dim=-1)
        if self.parameter == "log_variance":
            return gaussian_nll(mean, parameter, labels), parameter.exp()
        variance = compute_variance(parameter)
        return gaussian_nll(mean, variance.log(), labels), variance


class GaussianNLL(_Gaussian):
    """Negative log-likelihood of a Gaussian whose mean and variance are predicted; formula: `gaussian_nll`."""

    name: Literal["gaussian_nll"] = "gaussian_nll"

    def __call__(
        self, predictions: Float[Tensor, "rows 2"], labels: Rows, weights: Rows | None = None
    ) -> Float[Tensor, ""]:
        return compute_weighted_mean(self.compute_rows(predictions, labels)[0], weights)


class BetaNLL(_Gaussian):
    """Gaussian likelihood weighted by the predicted variance to a power, as a control of it (Seitzer et al., ICLR 2022).

    A row's gradient by the mean is `(m - y) / variance`, so that rows that are predicted as uncertain are trained less, and
    may remain so; the weight `variance^beta`, detached, makes up for it. 0 is `gaussian_nll`; with 1 the mean has the gradient
    of half a squared error.
    """

    name: Literal["beta_nll"] = "beta_nll"
    beta: float = Field(default=0.5, ge=0, le=1)
    """Power of the variance. Official: 0.5."""

    def __call__(
        self, predictions: Float[Tensor, "rows 2"], labels: Rows, weights: Rows | None = None
    ) -> Float[Tensor, ""]:
        likelihoods, variance = self.compute_rows(predictions, labels)
        return compute_weighted_mean(likelihoods * variance.detach() ** self.beta, weights)


class LaplaceNLL(_LocationScaleLoss):
    """Negative log-likelihood of a Laplace distribution, an absolute error with a predicted scale; formula: `laplace_nll`."""

    name: Literal["laplace_nll"] = "laplace_nll"

    @property
    def head(self) -> str:
        """Name of the head."""
        return "laplace"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the head: a median and the logarithm of a scale."""
        return LocationScaleHead(read_dim, labels, distribution="laplace", learning_rate_factor=self.scale_rate)

    def __call__(
        self, predictions: Float[Tensor, "rows 2"], labels: Rows, weights: Rows | None = None
    ) -> Float[Tensor, ""]:
        median, log_scale = predictions.to(torch.promote_types(predictions.dtype, torch.float32)).unbind(dim=-1)
        return compute_weighted_mean(laplace_nll(median, log_scale, labels), weights)


class EvidentialHead(Head):
    """Head of evidential regression: location, and evidence `nu > 0`, `alpha > 1`, `beta > 0` before their softplus."""

    distribution = "normal"

    def __init__(self, read_dim: int, labels: HeadLabels) -> None:
        # alpha - 1 = softplus(0) = log 2 at the start, with which the variance beta / (alpha - 1) is that of the labels.
        beta = invert_softplus(labels.variance * math.log(2.0))
        outputs = {"location": Outputs(size=1, offset=labels.offset)}
        outputs |= {name: Outputs(size=1, bias=0.0) for name in ("nu", "alpha")}
        super().__init__(read_dim, outputs | {"beta": Outputs(size=1, bias=beta)})

    def decode(self, raw: Float[Tensor, "rows 4"]) -> Rows:
        """Return the location."""
        return raw[:, 0]

    def decode_deviation(self, raw: Float[Tensor, "rows 4"]) -> Rows:
        """Return the root of the sum of both variances, the data's and that of the predicted mean.

        Metrics read it as the deviation of a normal distribution, as Amini et al. do in their calibration.
        """
        evidence = Evidence.from_raw(raw)
        return (evidence.aleatoric + evidence.epistemic).sqrt()


class Evidence:
    """Parameters of a normal-inverse-gamma distribution of mean and variance, one of each per row."""

    def __init__(self, location: Rows, nu: Rows, alpha: Rows, beta: Rows) -> None:
        self.location, self.nu, self.alpha, self.beta = location, nu, alpha, beta

    @classmethod
    def from_raw(cls, raw: Float[Tensor, "rows 4"]) -> "Evidence":
        """Return the parameters from the outputs of a head."""
        location, *rest = raw.to(torch.promote_types(raw.dtype, torch.float32)).unbind(dim=-1)
        # A softplus underflows to zero, whose logarithm is infinite.
        nu, alpha, beta = (F.softplus(each).clamp(min=torch.finfo(each.dtype).tiny) for each in rest)
        return cls(location, nu, alpha + 1, beta)

    @property
    def aleatoric(self) -> Rows:
        """Expected variance of the labels."""
        return self.beta / (self.alpha - 1).clamp(min=MIN_VARIANCE)

    @property
    def epistemic(self) -> Rows:
        """Variance of the mean."""
        return self.aleatoric / self.nu

    def compute_nll(self, labels: Rows) -> Rows:
        """Return the negative log-likelihood of each label: a Student t with `2 alpha` degrees of freedom."""
        omega = 2 * self.beta * (1 + self.nu)
        squares = (labels - self.location).square()
        return (
            0.5 * (math.pi / self.nu).log()
            - self.alpha * omega.log()
            + (self.alpha + 0.5) * (self.nu * squares + omega).log()
            + torch.lgamma(self.alpha)
            - torch.lgamma(self.alpha + 0.5)
        )

    def compute_regularizer(self, labels: Rows) -> Rows:
        """Return the error of each label times its total evidence, `2 nu + alpha`."""
        return (labels - self.location).abs() * (2 * self.nu + self.alpha)


class Evidential(Frozen):
    """Deep evidential regression: evidence for mean and variance of each label (Amini et al., NeurIPS 2020).

    Four outputs, a location m and, by softplus, nu, alpha and beta; the loss is the negative log-likelihood of the Student t
    distribution of the label plus `coefficient * |y - m| (2 nu + alpha)`, which takes evidence from wrong predictions.
    """

    name: Literal["evidential"] = "evidential"
    coefficient: float = Field(default=0.01, ge=0)
    """Weight of the second part. Paper: 0.01; the default argument of the code's loss: 1."""
    regularization: Literal["fixed", "adaptive"] = "fixed"
    """fixed: the second part has the weight `coefficient`, as in the paper. adaptive: as in the released trainer, the weight
    starts at 0 and grows in each step by 1e-4 times the distance of the second part from `coefficient`, which is
    subtracted from it."""

    @property
    def head(self) -> str:
        """Name of the head."""
        return "evidential"

    @property
    def needs(self) -> Needs:
        """Return the conditions: with an adaptive weight a call must be a step."""
        return Needs(scalar_labels=True, whole_batches=self.regularization == "adaptive")

    @property
    def counts_calls(self) -> bool:
        """True if each call changes the state of the loss."""
        return self.regularization == "adaptive"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the head: a location and the evidence."""
        return EvidentialHead(read_dim, labels)

    def fit(self, labels: TrainingLabels) -> nn.Module | None:
        """Return the loss with its growing weight, or None for a fixed one."""
        return AdaptiveEvidential(self.coefficient) if self.regularization == "adaptive" else None

    def __call__(
        self, predictions: Float[Tensor, "rows 4"], labels: Rows, weights: Rows | None = None
    ) -> Float[Tensor, ""]:
        evidence = Evidence.from_raw(predictions)
        rows = evidence.compute_nll(labels) + self.coefficient * evidence.compute_regularizer(labels)
        return compute_weighted_mean(rows, weights)


class AdaptiveEvidential(nn.Module):
    """Evidential loss whose weight of the second part grows while that part exceeds a target."""

    rate = 1e-4
    weight: Tensor

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("weight", torch.zeros(()))

    def values(self) -> dict[str, float]:
        """Return the weight, for the record of an epoch."""
        return {"evidence_weight": self.weight.item()}

    def forward(
        self, predictions: Float[Tensor, "rows 4"], labels: Rows, weights: Rows | None = None
    ) -> Float[Tensor, ""]:
        evidence = Evidence.from_raw(predictions)
        likelihood = compute_weighted_mean(evidence.compute_nll(labels), weights)
        excess = compute_weighted_mean(evidence.compute_regularizer(labels), weights) - self.target
        loss = likelihood + self.weight.to(excess) * excess
        if self.training:
            # Not in place: the graph has the weight of this step.
            self.weight = self.weight + self.rate * excess.detach().to(self.weight)
        return loss


def gaussian_nll(mean: Rows, log_variance: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of each label, `1/2 (r + (y - m)^2 exp(-r) + log 2 pi)`."""
    squares = (labels - mean).square()
    return 0.5 * (log_variance + squares * (-log_variance).exp() + math.log(2 * math.pi))


def laplace_nll(median: Rows, log_scale: Rows, labels: Rows) -> Rows:
    """Return the negative log-likelihood of each label, `|y - m| exp(-l) + l + log 2`."""
    return (labels - median).abs() * (-log_scale).exp() + log_scale + math.log(2.0)


def compute_variance(parameter: Rows) -> Rows:
    """Return the variance of a parameter without limits, its softplus plus a small number."""
    return F.softplus(parameter) + MIN_VARIANCE
