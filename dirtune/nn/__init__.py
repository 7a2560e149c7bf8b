"""Losses, regularizer terms, feature smoothing and region metrics as torch modules, for training loops of one's own.

    loss = L1()(predictions, labels, weights) + 4 * ConR(omega=1.0)(embeddings, labels, predictions=predictions)

Every loss and term of dirtune, with the settings of studies as keywords (`dirtune list terms conr` explains them). No Ray is
imported. Plain PyTorch and Lightning loops: `docs/losses.md`.
"""

from typing import Any

from dirtune.nn.modules import (
    BMC,
    BNI,
    GAI,
    L1,
    MSE,
    ACCon,
    ACConR,
    AdaSupCon,
    ConR,
    FocalL1,
    FocalMSE,
    Huber,
    LossModule,
    MultiSimilarity,
    OrdinalEntropy,
    RankSim,
    RnC,
    SupCon,
    TermModule,
    Tukey,
)
from dirtune.nn.smoothing import FDS
from dirtune.reweighting.labels import LabelBins, weights
from dirtune.reweighting.lds import LDS

_METRICS = ("RegionMetric", "RegionMetrics")
"""Imported when first used: torchmetrics takes seconds."""

__all__ = [
    "BMC",
    "BNI",
    "FDS",
    "GAI",
    "L1",
    "LDS",
    "MSE",
    "ACCon",
    "ACConR",
    "AdaSupCon",
    "ConR",
    "FocalL1",
    "FocalMSE",
    "Huber",
    "LabelBins",
    "LossModule",
    "MultiSimilarity",
    "OrdinalEntropy",
    "RankSim",
    "RegionMetric",
    "RegionMetrics",
    "RnC",
    "SupCon",
    "TermModule",
    "Tukey",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _METRICS:
        from dirtune.nn import region_metrics

        return getattr(region_metrics, name)
    raise AttributeError(f"module 'dirtune.nn' has no attribute {name!r}")
