"""Losses, regularizer terms, feature smoothing and region metrics as torch modules, for training loops of one's own.

    loss = L1()(predictions, labels, weights) + 4 * ConR(omega=1.0)(embeddings, labels, predictions=predictions)

Every loss and term of dirtune, with the settings of studies as keywords (`dirtune list terms conr` explains them). No Ray is
imported. Plain PyTorch and Lightning loops: `docs/losses.md`.
"""

from typing import Any

from dirtune.nn.modules import (
    BMC,
    BNI,
    CCC,
    GAI,
    HCA,
    L1,
    MSE,
    PRIME,
    SRL,
    UVOTE,
    ACCon,
    ACConR,
    AdaSupCon,
    BetaNLL,
    ConR,
    DistLoss,
    Evidential,
    FocalL1,
    FocalMSE,
    GaussianNLL,
    GroupDIR,
    GroupRnC,
    Huber,
    LaplaceNLL,
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
    VIRHead,
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
    "HCA",
    "L1",
    "LDS",
    "MSE",
    "PRIME",
    "SRL",
    "UVOTE",
    "ACCon",
    "ACConR",
    "AdaSupCon",
    "BetaNLL",
    "ConR",
    "DistLoss",
    "Evidential",
    "FocalL1",
    "FocalMSE",
    "GaussianNLL",
    "GroupDIR",
    "GroupRnC",
    "Huber",
    "LabelBins",
    "LaplaceNLL",
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
    "VIRHead",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _METRICS:
        from dirtune.nn import region_metrics

        return getattr(region_metrics, name)
    raise AttributeError(f"module 'dirtune.nn' has no attribute {name!r}")
