"""Losses, regularizer terms, feature smoothing and region metrics as torch modules, for training loops of one's own.

    loss = L1()(predictions, labels, weights) + 4 * ConR(omega=1.0)(embeddings, labels, predictions=predictions)

The losses and terms of dirtune, with the settings of studies as keywords (`dirtune list terms conr` explains them), but for losses of
a head with several outputs, and the terms PRIME and SRL, which are made for a model. No Ray is imported. Plain PyTorch and Lightning
loops: `docs/losses.md`.
"""

from typing import Any

from dirtune.nn.modules import (
    BMC,
    BNI,
    CCC,
    GAI,
    L1,
    MSE,
    ACCon,
    ACConR,
    AdaSupCon,
    ConR,
    DistLoss,
    FocalL1,
    FocalMSE,
    GroupRnC,
    Huber,
    LossModule,
    MultiSimilarity,
    OrdinalEntropy,
    PHReg,
    RankSim,
    RnC,
    ROTReg,
    SupCon,
    SupReMix,
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
    "CCC",
    "FDS",
    "GAI",
    "L1",
    "LDS",
    "MSE",
    "ACCon",
    "ACConR",
    "AdaSupCon",
    "ConR",
    "DistLoss",
    "FocalL1",
    "FocalMSE",
    "GroupRnC",
    "Huber",
    "LabelBins",
    "LossModule",
    "MultiSimilarity",
    "OrdinalEntropy",
    "PHReg",
    "ROTReg",
    "RankSim",
    "RegionMetric",
    "RegionMetrics",
    "RnC",
    "SupCon",
    "SupReMix",
    "TermModule",
    "Tukey",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _METRICS:
        from dirtune.nn import region_metrics

        return getattr(region_metrics, name)
    raise AttributeError(f"module 'dirtune.nn' has no attribute {name!r}")
