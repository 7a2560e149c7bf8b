"""Sharpness-aware minimization: perturbations of the parameters at which a step's gradient is computed a second time.

A step has two passes over its batch. The first computes the gradient g at the parameters; the perturbation moves them uphill;
the second computes the gradient there. Then the parameters are restored, and the optimizer steps with the second gradient
(`dirtune.training.two_passes`). To add one: write its class, add its line here; from outside of the package, see
`dirtune.plugins`.

Sources: SAM: Foret et al., "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021. ASAM: Kwon et
al., ICML 2021. BSAM is SAM with re-weighting by inverse roots of counts: Liu et al., "Balanced Sharpness-Aware Minimization
for Imbalanced Regression", ICCV 2025 (manmanjun/BSAM_for_Imbalanced_Regression, `agedb/train.py`). Departures: 1. BSAM's
weights have mean one, where the code has `1 / sqrt(count)` as it is: the perturbation is the same, which depends on the
gradient's direction alone, and the learning rate is that of other arms; 2. parameters of losses and terms are not perturbed,
and their step has the gradient of the second pass.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from dirtune.frozen import Frozen
from dirtune.part_errors import make_part_error, name_part
from dirtune.registry import Registry
from dirtune.signatures import describe_value

# Of the official code: without it, a zero gradient would have no direction.
_LEAST_NORM = 1e-16


class Sharpness(Protocol):
    """Perturbation of the parameters before the second pass of a step."""

    @property
    def name(self) -> str: ...

    def compute_perturbations(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return what is added to each parameter; all have a gradient, which is that of the whole batch."""
        ...


def perturb(sharpness: Sharpness, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Move parameters by the perturbations of their gradients, in place.

    Raises:
        InputError: the sharpness of a plug-in raises, or returns something else.
    """
    with name_part("sharpness", sharpness.name, sharpness):
        steps = list(sharpness.compute_perturbations(parameters, gradients))
    got = ""
    if len(steps) != len(parameters):
        got = f"{len(steps)} for {len(parameters)} parameters"
    for parameter, step in zip(parameters, steps, strict=False):
        if not isinstance(step, Tensor):
            got = describe_value(step)
        elif step.shape != parameter.shape:
            got = f"a tensor of shape {tuple(step.shape)} for one of {tuple(parameter.shape)}"
    if got:
        rule = "must return a tensor of its shape for each parameter"
        raise make_part_error("sharpness", sharpness.name, sharpness, rule, got)
    for parameter, step in zip(parameters, steps, strict=True):
        parameter.add_(step)


class SAM(Frozen):
    """Move by `rho` in the direction of the gradient of all parameters: `rho * g / |g|`."""

    name: Literal["sam"] = "sam"
    rho: float = Field(default=0.05, ge=0)
    """Length of the perturbation. SAM: 0.05; BSAM's code: 0.2 on AgeDB, 0.05 on IMDB-WIKI."""
    weights: Literal["both", "ascent"] = "both"
    """Passes in which samples have the weights of `reweighting`. both: as in BSAM's code; ascent: the first one alone, as
    its paper is reported to say."""
    batch_norm: Literal["both", "first"] = "both"
    """Passes that move the running statistics of batch normalization. both: as in BSAM's code, the second one at perturbed
    parameters; first: the first one alone."""

    def compute_perturbations(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return what is added to each parameter."""
        factor = self.rho / (compute_norm(gradients) + _LEAST_NORM)
        return [factor.to(gradient) * gradient for gradient in gradients]


class ASAM(SAM):
    """SAM in units of each parameter's size: `rho * t^2 g / |t g|` with `t = |w| + eta`."""

    name: Literal["asam"] = "asam"  # type: ignore[assignment]
    rho: float = Field(default=0.5, ge=0)
    """Length of the perturbation in units of the parameters. The paper on CIFAR: 0.5."""
    eta: float = Field(default=0.01, ge=0)
    """Least size of a parameter. The paper: 0.01."""

    def compute_perturbations(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return what is added to each parameter."""
        sizes = [parameter.abs() + self.eta for parameter in parameters]
        scaled = [size * gradient for size, gradient in zip(sizes, gradients, strict=True)]
        return [
            size * step for size, step in zip(sizes, super().compute_perturbations(parameters, scaled), strict=True)
        ]


SHARPNESS = Registry("sharpness", {"asam": ASAM, "sam": SAM})


def compute_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients together."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in gradients]))
    return norm
