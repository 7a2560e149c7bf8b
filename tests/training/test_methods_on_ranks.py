"""Run with `pytest tests/training/test_methods_on_ranks.py`: all methods train on 2 and 4 ranks as in one process.

With the plain steps of sgd, to 1e-12 in float64. Steps of Adam follow the sign of gradients that are almost zero, so that rounding
in their sums grows; `tests/training/test_on_ranks.py` has them to 1e-9.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dirtune.data.cache import ResidentData
from dirtune.losses import LOSSES, TERMS
from dirtune.nested import merge
from tests.training.gloo import on_ranks
from tests.training.runs import Configure, in_float64, without_images
from tests.training.test_exact_hooks import outcomes

pytestmark = pytest.mark.soak

# The surrogate of srl begins with the second epoch.
RECIPE = {"epochs": 2, "batch_size": 67, "optimizer": "sgd", "learning_rate": 1e-3, "gradient_clip": 0.5}
SETTINGS = {"recipe": RECIPE, "model": {"projection_dim": 4}, "reweighting": {"scheme": "sqrt_inverse"}}
METHODS: dict[str, dict[str, Any]] = {
    **{f"loss {name}": {"loss": {"name": name}} for name in LOSSES},
    **{f"term {name}": {"terms": {name: {}}} for name in TERMS},
    "loss uvote of three heads": {"loss": {"name": "uvote", "heads": 3, "density": "kde"}},
    "loss hca distilled": {"loss": {"name": "hca", "distill": True, "balanced": True, "predict": "mean"}},
    "loss evidential adaptive": {"loss": {"name": "evidential", "regularization": "adaptive"}},
    "loss uvote, mean of votes": {"loss": {"name": "uvote", "heads": 3, "vote": "avgvar"}},
    "loss group_dir by quantiles": {"loss": {"name": "group_dir", "division": "quantile", "groups": 4}},
    "loss dist as published": {"loss": {"name": "dist", "pseudo_labels": "counts", "weights": "position"}},
    "term phreg as published": {"terms": {"phreg": {"ties": "rows", "dimension_of": "features"}}},
    "term rotreg with the plan constant": {"terms": {"rotreg": {"plan_gradient": "envelope"}}},
    "term srl with points of each step": {"terms": {"srl": {"points": 20, "points_per": "step"}}},
    **{
        f"terms of {kind} temperature": {"terms": {name: {"temperature": kind} for name in ("conr", "accon", "supcon")}}
        for kind in ("learnable", "individual")
    },
    "copies of the label": {"model": {"target_copies": 3}},
    "labels in logarithms": {"model": {"label_transform": "log1p", "label_offset": 2.0}},
    "weights by density": {"reweighting": {"scheme": "dense"}},
    "smoothed features as published": {"reweighting": {"fds": {"size": 3, "published_aliasing": True}}},
    "sharpness with weights in both passes": {"sharpness": {"name": "sam", "rho": 0.2, "weights": "both"}},
    "mixing within the batch": {"mixing": {"name": "mixup", "partners": "batch"}},
    "mixed samples in terms": {"mixing": {"name": "c_mixup"}, "terms": {"conr": {}, "accon": {}}},
    "stratified batches": {"sampling": {"name": "stratified"}},
    "synthetic rows": {"synthesis": {"name": "smoter"}},
}


@pytest.fixture(scope="module", params=[2, 4], ids=["two ranks", "four ranks"])
def by_rank(request: pytest.FixtureRequest, configuration: Configure, toy: ResidentData) -> list[list[dict[str, Any]]]:
    """Outcome of every method on each rank, after that of one process."""
    data = in_float64(without_images(toy))
    runs = [(data, configuration(**merge(SETTINGS, method))) for method in METHODS.values()]
    return [outcomes(0, 1, runs), *on_ranks(request.param, outcomes, runs)]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_on_ranks_as_in_one_process(by_rank: list[list[dict[str, Any]]], method: str) -> None:
    number = list(METHODS).index(method)
    expected, *found = (outcomes[number] for outcomes in by_rank)
    for each in found:
        for part in ("weights", "predictions", "learned"):
            torch.testing.assert_close(each[part], expected[part], rtol=1e-12, atol=1e-12)
