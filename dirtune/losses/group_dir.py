"""Group-DIR: a classifier of label groups routes each sample to the expert of its group.

The head has G group logits and G predictions. In training the expert of the true group has the squared error, and the
classifier a soft target that falls off with the distance of the groups; the prediction is that of the expert with the largest
logit. For a true group k, with `t_j = (G - step - |j - k|) / scale` for the others and `t_k = scale (G - 1)`, both limited to
0..G-1,

    loss = sigma mean_i (r_{i, k_i} - y_i)^2 - mean_i sum_j softmax(t)_j log softmax(a_i)_j

Source: Pu et al., AAAI 2025 (arXiv 2412.12327); code of its author, AllenPu/imbalanced-contrastive-ordinary-regression, `agedb/utils.py`,
`agedb/train.py`. Departures: 1. the second part is the mean over the batch, in the code the sum, whose weight grows with the
batch (`reduction: sum`); 2. every expert starts at the mean training label with weights of zero, so that one whose group is empty
predicts it; 3. groups may be quantiles of the training labels (`division: quantile`), where groups of equal width are tiny in the
tail; 4. the epoch is selected on validation data, in the code on the test set, as its loaders are exchanged.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.frozen import Frozen
from dirtune.losses.needs import Needs
from dirtune.losses.pointwise import compute_weighted_mean
from dirtune.losses.rnc import rnc
from dirtune.models.heads import Head, HeadLabels, Outputs


class _Grouped(Frozen):
    groups: int = Field(default=10, ge=1)
    """Number of label groups. Official: 10 (ages), 5 (STS-B)."""
    division: Literal["width", "quantile"] = "width"
    """width: groups of equal width, the last one open, as in the code; quantile: of equally many training labels."""
    width: float | None = Field(default=None, gt=0)
    """Width of a group in the label's unit, from the lower end of the label's range; null: the range divided by the groups. The
    code on ages: `floor(100 / groups)`."""

    def find_edges(self, labels: TrainingLabels) -> Float[Tensor, " edges"]:
        """Return the lower edges of all groups but the first, in the unit of training."""
        spec = labels.spec
        if self.division == "quantile":
            levels = torch.arange(1, self.groups, device=labels.labels.device, dtype=torch.float64) / self.groups
            # Equal edges leave a group empty, whose expert keeps its start.
            return torch.quantile(labels.labels.double(), levels).to(labels.labels.dtype)
        width = self.width or (spec.high - spec.low) / self.groups
        edges = [spec.low + group * width for group in range(1, self.groups)]
        return labels.labels.new_tensor(edges)


class GroupDIR(_Grouped):
    """A classifier of label groups with soft targets, and an expert for each group (Pu et al., AAAI 2025)."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True)

    name: Literal["group_dir"] = "group_dir"
    sigma: float = Field(default=1.0, ge=0)
    """Weight of the squared error. Official: 0.5 on AgeDB, else 1."""
    step: float = 1.0
    """Distance of the soft target's peak from its neighbors' line. Official: 1."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of the peak, and divisor of the others. Official: 1."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the classifier's part over the batch. Official: sum."""

    @property
    def head(self) -> str:
        """Name of the head."""
        return f"group_dir of {self.groups}"

    def build_head(self, read_dim: int, labels: HeadLabels) -> Head:
        """Return the classifier and the experts."""
        return RoutedHead(read_dim, labels, self.groups)

    def fit(self, labels: TrainingLabels) -> "GroupDIRLoss":
        """Return the loss with the edges of the groups, in the unit of its labels."""
        return GroupDIRLoss(self, self.find_edges(labels) / labels.label_scale)


class GroupRnC(_Grouped):
    """Rank-N-Contrast between label groups instead of labels, the contrastive part of Group-DIR (Pu et al., AAAI 2025)."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True, samples=2)

    weight: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss."""
    tau: float = Field(default=0.07, gt=0)
    """Temperature. Official: 0.07."""

    def fit(self, labels: TrainingLabels) -> "GroupRnCTerm":
        """Return the term with the edges of the groups."""
        return GroupRnCTerm(self, self.find_edges(labels))


class RoutedHead(Head):
    """Group logits and one expert per group."""

    def __init__(self, read_dim: int, labels: HeadLabels, groups: int) -> None:
        start = labels.mean - labels.offset
        super().__init__(
            read_dim,
            {
                "group": Outputs(size=groups),
                "expert": Outputs(size=groups, offset=labels.offset, bias=start, deviation=0.0),
            },
        )

    def decode(self, raw: Float[Tensor, "rows outputs"]) -> Float[Tensor, " rows"]:
        """Return the prediction of the expert with the largest logit, the first of equal ones."""
        logits, experts = raw.chunk(2, dim=-1)
        return experts.gather(-1, logits.argmax(dim=-1, keepdim=True)).squeeze(-1)


class GroupDIRLoss(nn.Module):
    """Loss of classifier and experts; the edges of the groups are a buffer."""

    edges: Tensor

    def __init__(self, settings: GroupDIR, edges: Float[Tensor, " edges"]) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("edges", edges)

    def forward(
        self,
        predictions: Float[Tensor, "rows outputs"],
        labels: Float[Tensor, " rows"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        raw = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
        logits, experts = raw.chunk(2, dim=-1)
        groups = find_groups(labels, self.edges)
        errors = experts.gather(-1, groups[:, None]).squeeze(-1) - labels
        soft = make_soft_targets(groups, logits.shape[1], step=self.settings.step, scale=self.settings.scale)
        entropies = -(soft.to(logits) * logits.log_softmax(dim=-1)).sum(dim=-1)
        classified = compute_weighted_mean(entropies, weights)
        if self.settings.reduction == "sum":
            classified = len(labels) * classified
        return self.settings.sigma * compute_weighted_mean(errors.square(), weights) + classified


class GroupRnCTerm(nn.Module):
    """Rank-N-Contrast of group numbers; the edges of the groups are a buffer."""

    edges: Tensor

    def __init__(self, settings: GroupRnC, edges: Float[Tensor, " edges"]) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("edges", edges)

    def forward(self, inputs: TermInputs) -> Float[Tensor, ""]:
        groups = find_groups(inputs.labels, self.edges)
        return rnc(inputs.representations, groups.to(inputs.labels), tau=self.settings.tau)


def find_groups(labels: Float[Tensor, " rows"], edges: Float[Tensor, " edges"]) -> Int[Tensor, " rows"]:
    """Return the group of each label: the number of edges that it reaches."""
    # Torch warns of others, as of a column of a table.
    return torch.bucketize(labels.contiguous(), edges.to(labels), right=True)


def make_soft_targets(
    groups: Int[Tensor, " rows"], count: int, *, step: float, scale: float
) -> Float[Tensor, "rows groups"]:
    """Return the classifier's target distribution for each true group, in float64."""
    distances = (torch.arange(count, device=groups.device) - groups[:, None]).abs().double()
    peaked = torch.where(distances == 0, scale * (count - 1), (count - step - distances) / scale)
    return peaked.clamp(0, count - 1).softmax(dim=-1)
