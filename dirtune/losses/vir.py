"""VIR's head: evidential regression whose evidence for a label grows with the sample's weight, a pseudo-count.

Three outputs: a location m and, by softplus, a count n > 2 and beta > 0. With the weight w of a row, which
re-weighting gives rare labels,

    nu = nu_0 + n w,  alpha = alpha_0 + n w / 2
    loss = mean_i ( -log p(y_i | m, nu, alpha, beta) + coefficient |y_i - m| (2 nu + alpha) )

where p is the Student t density of evidential regression (`dirtune.losses.likelihood`). A prediction has w = 1.

Source: Wang and Wang, "Variational Imbalanced Regression: Fair Uncertainty Quantification via Probabilistic Smoothing", NeurIPS 2023
(Wang-ML-Lab/variational-imbalanced-regression, `loss.py`, `evidential_deep_learning.py`). THIS IS A PART OF VIR: its encoder, which
predicts a variance of each feature and draws from it, the smoothing of these statistics, and the reconstruction of images are not
here. The released code is a preview for one network on AgeDB, on a split of its own, and its log does not have the paper's
numbers, so that a whole VIR could not be compared with anything. Departures: 1. beta starts so that the predicted variance is
that of the training labels; 2. beta is at least 1e-6, where it may underflow to zero; 3. intervals have the variances of data and mean together,
in the code that of the mean.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.frozen import Frozen
from dirtune.losses.likelihood import Evidence
from dirtune.losses.needs import Needs
from dirtune.losses.pointwise import compute_weighted_mean
from dirtune.models.heads import Head, HeadLabels, Outputs, invert_softplus

_SHARPNESS = 0.1
"""Of the softplus, `log(1 + exp(0.1 x)) / 0.1`."""
_LEAST_COUNT = 2.0
_LEAST_BETA = 1e-6


class VIRHead(Frozen):
    """Evidential regression whose evidence grows with the sample's weight, the head of VIR (Wang and Wang, NeurIPS 2023)."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True)

    name: Literal["vir_head"] = "vir_head"
    coefficient: float = Field(default=0.01, ge=0)
    """Weight of the second part. Official: 0.01."""
    prior_nu: float = Field(default=0.0, ge=0)
    """nu_0, evidence for the mean before any sample. Official: 0."""
    prior_alpha: float = Field(default=0.3, gt=0)
    """alpha_0, evidence for the variance before any sample. Official: 0.3."""

    @property
    def head(self) -> str:
        """Name of the head, with all that its decoder depends on."""
        return f"vir from {self.prior_nu:g} and {self.prior_alpha:g}"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the head: a location, a count and beta."""
        return PseudoCountHead(read_dim, labels, self)

    def __call__(
        self,
        predictions: Float[Tensor, "rows 3"],
        labels: Float[Tensor, " rows"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch; None for the weights means all are one."""
        evidence = self.make_evidence(predictions, weights)
        rows = evidence.compute_nll(labels) + self.coefficient * evidence.compute_regularizer(labels)
        return compute_weighted_mean(rows, None)

    def make_evidence(self, raw: Float[Tensor, "rows 3"], weights: Float[Tensor, " rows"] | None = None) -> Evidence:
        """Return the evidence of each row with these pseudo-counts per sample; None means all are one."""
        location, count, beta = raw.to(torch.promote_types(raw.dtype, torch.float32)).unbind(dim=-1)
        counts = _LEAST_COUNT + F.softplus(count, beta=_SHARPNESS)
        if weights is not None:
            counts = counts * weights.to(counts)
        limited = F.softplus(beta, beta=_SHARPNESS).clamp(min=_LEAST_BETA)
        return Evidence(location, self.prior_nu + counts, self.prior_alpha + counts / 2, limited)


class PseudoCountHead(Head):
    """Location, count and beta of each row, before the softplus."""

    distribution = "normal"

    def __init__(self, read_dim: int, labels: HeadLabels, settings: VIRHead) -> None:
        self.settings = settings
        # A head may be built without storage, on the meta device
        first = settings.make_evidence(torch.zeros(1, 3, dtype=torch.float64, device="cpu"))
        # At a beta of one
        variance = float(1 / (first.alpha - 1) * (1 + 1 / first.nu))
        beta = invert_softplus(_SHARPNESS * labels.variance / variance) / _SHARPNESS
        super().__init__(
            read_dim,
            {
                "location": Outputs(size=1, offset=labels.offset),
                "count": Outputs(size=1, bias=0.0),
                "beta": Outputs(size=1, bias=beta),
            },
        )

    def decode(self, raw: Float[Tensor, "rows 3"]) -> Float[Tensor, " rows"]:
        """Return the location."""
        return raw[:, 0]

    def decode_deviation(self, raw: Float[Tensor, "rows 3"]) -> Float[Tensor, " rows"]:
        """Return the root of the sum of both variances, the data's and that of the predicted mean, of a sample of weight one."""
        evidence = self.settings.make_evidence(raw)
        return (evidence.aleatoric + evidence.epistemic).sqrt()
