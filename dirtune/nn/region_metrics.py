"""Metrics by shot region with the interface of torchmetrics: `update`, `compute`, `reset`.

They are `torchmetrics.Metric` objects where torchmetrics is installed, so that they work in a `MetricCollection`, in Lightning's
`log`, and over several processes; elsewhere they have the same three methods. The numbers are those of dirtune's tables
(`dirtune.metrics`), computed from all samples in float64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dirtune.errors import Fault, InputError
from dirtune.metrics import HIGHER_IS_BETTER, METRICS, REGIONS, compute_metrics
from dirtune.results.records.names import check_known
from dirtune.reweighting.labels import BINS_RULE, LabelBins


class _PlainMetric(nn.Module):
    """The part of `torchmetrics.Metric` that is used here, for one process."""

    def __init__(self) -> None:
        super().__init__()
        self._states: list[str] = []

    def add_state(self, name: str, default: list[Tensor], dist_reduce_fx: str | None = None) -> None:
        """Declare a list of tensors."""
        self._states.append(name)
        setattr(self, name, list(default))

    def reset(self) -> None:
        """Forget all samples."""
        for name in self._states:
            setattr(self, name, [])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Update, and return the values of this batch alone."""
        kept = {name: getattr(self, name) for name in self._states}
        self.reset()
        self.update(*args, **kwargs)
        values = self.compute()
        for name, before in kept.items():
            setattr(self, name, before + getattr(self, name))
        return values

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch."""
        raise NotImplementedError

    def compute(self) -> Any:
        """Return the values of all samples so far."""
        raise NotImplementedError


try:
    from torchmetrics import Metric as _Metric
except ImportError:
    _Metric = _PlainMetric  # type: ignore[assignment, misc]


class _RegionBase(_Metric):
    is_differentiable = False
    full_state_update = False

    predictions: list[Tensor]
    labels: list[Tensor]

    def __init__(self, bins: LabelBins, metrics: str | Sequence[str], regions: str | Sequence[str]) -> None:
        super().__init__()
        if not isinstance(bins, LabelBins):
            raise InputError(Fault(where=type(self).__name__, key="bins", rule=BINS_RULE, got=type(bins).__name__))
        metrics, regions = ([each] if isinstance(each, str) else [*each] for each in (metrics, regions))
        if not metrics or not regions:
            rule = f"needs a {'region' if metrics else 'metric'}"
            raise InputError(Fault(where=type(self).__name__, rule=rule))
        for metric in metrics:
            check_known("metric", metric, tuple(METRICS))
        for region in regions:
            check_known("region", region, REGIONS)
        self.bins, self.names, self.regions = bins, tuple(metrics), tuple(regions)
        self.add_state("predictions", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of predictions and labels, both `(rows,)` and in the label's unit."""
        for name, value in {"preds": preds, "target": target}.items():
            if not isinstance(value, Tensor):
                raise ValueError(f"{name} must be a tensor, got a {type(value).__name__}")
        if preds.device != target.device:
            raise ValueError(f"preds and target must be on one device, got {preds.device} and {target.device}")
        if preds.shape != target.shape or preds.ndim != 1:
            raise ValueError(
                f"preds and target must have one shape (rows,), got {tuple(preds.shape)} and {tuple(target.shape)}"
            )
        # Copies: a loop may reuse its tensors
        self.predictions.append(preds.detach().clone())
        self.labels.append(target.detach().clone())

    def _compute_all(self) -> dict[str, Tensor]:
        device = self.predictions[0].device if len(self.predictions) else torch.device("cpu")
        predictions, labels = (_concatenate(each) for each in (self.predictions, self.labels))
        found = self.bins.find_regions(labels) if len(labels) else np.array([], dtype=np.str_)
        bins = self.bins.find_bins(labels) if len(labels) else np.array([], dtype=np.int64)
        values: dict[str, Tensor] = {}
        for region in self.regions:
            chosen = np.full(len(labels), True) if region == "all" else found == region
            computed = compute_metrics(self.names, labels[chosen], predictions[chosen], bins[chosen])
            values |= {f"{region}/{name}": torch.tensor(value, device=device) for name, value in computed.items()}
        return values


class RegionMetrics(_RegionBase):
    """Several metrics in several shot regions; `compute` returns a dict such as `{"few/mae": tensor(3.1)}`.

    Args:
        bins: label bins of the training set, whose counts decide on the regions.
        metrics: names of metrics, as in a results table, or one name.
        regions: names of regions, or one name.
    """

    def __init__(
        self, bins: LabelBins, metrics: str | Sequence[str] = ("mae",), regions: str | Sequence[str] = REGIONS
    ) -> None:
        super().__init__(bins, metrics, regions)

    def compute(self) -> dict[str, Tensor]:
        """Return the values by region and metric; NaN where undefined."""
        return self._compute_all()


class RegionMetric(_RegionBase):
    """One metric in one shot region, a scalar.

    Args:
        bins: label bins of the training set.
        metric: name of the metric.
        region: name of the region.
    """

    def __init__(self, bins: LabelBins, metric: str = "mae", region: str = "few") -> None:
        super().__init__(bins, (metric,), (region,))

    # A constant of the class in torchmetrics, which depends on the metric here
    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.names[0] in HIGHER_IS_BETTER

    def compute(self) -> Tensor:
        """Return the value; NaN where undefined."""
        (value,) = self._compute_all().values()
        return value


def _concatenate(parts: Any) -> np.typing.NDArray[np.float64]:
    # After a synchronization over processes, a state is one tensor.
    parts = [parts] if isinstance(parts, Tensor) else list(parts)
    return np.concatenate([np.empty(0), *(each.double().cpu().numpy() for each in parts)])
