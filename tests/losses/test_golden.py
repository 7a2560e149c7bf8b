"""`pytest tests/losses/test_golden.py`: the terms against outputs of the official implementations.

The vectors and their sources are described in `tests/golden/regularizers/README.md`. Where a vector holds un-normalised
features and `grad_raw`, the gradient is compared there, behind the normalisation: at a cosine of one, the part of the
gradient along the representation itself depends on the last bit of the reference's matrix product.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from dirtune.losses.accon import accon
from dirtune.losses.conr import conr
from dirtune.losses.supcon import supcon

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "regularizers"
ELSEWHERE = ("acconr_", "adasupcon_", "conr_nyu_", "conr_paper_md_", "ordinal_", "ranksim_", "rnc_")
FILES = sorted(path.stem for path in FOLDER.glob("*.npz") if not path.stem.startswith(ELSEWHERE))

# Anchors without positives: 0 / 0
REFERENCE_IS_NAN = "conr_imdb_90_singleview_nopos_nan"
# C = 1 +- 1e-7 moves a slope of 1000 by 10 percent in float32
SLOPES_OF_A_THOUSAND = "accon_ref_80_collinear"

IN_FLOAT64 = [name for name in FILES if name != REFERENCE_IS_NAN]
IN_FLOAT32 = [name for name in IN_FLOAT64 if name != SLOPES_OF_A_THOUSAND]


def _read(name, dtype):
    with np.load(FOLDER / f"{name}.npz") as vector:
        arrays = {key: torch.from_numpy(vector[key]) for key in vector.files if vector[key].ndim}
        hyperparameters = json.loads(str(vector["hparams"]))
        loss = float(vector["loss"])
    return {key: array.to(dtype) for key, array in arrays.items()}, hyperparameters, loss


def _leaf_and_gradient(arrays):
    if "grad_raw" in arrays:
        return arrays["features_raw"].clone().requires_grad_(), arrays["grad_raw"]
    return arrays["features"].clone().requires_grad_(), arrays["grad"]


def _loss(name, leaf, arrays, hyperparameters):
    method, source = name.split("_")[:2]
    if method == "conr":
        return _conr(source, normalize(leaf, dim=-1), arrays, hyperparameters)
    features = normalize(leaf, dim=-1) if "grad_raw" in arrays else leaf
    labels = arrays["labels"].flatten()
    # (sample, view, dim) in the reference
    if features.ndim == 3:
        labels = labels.repeat(features.shape[1])
        features = features.transpose(0, 1).flatten(0, 1)
    tenths = (labels * 10).round() if source == "sts" else labels
    label_bins = tenths.unique(return_inverse=True)[1]
    if method == "supcon":
        return _supcon(features, label_bins, hyperparameters)
    return _accon(source, features, labels, label_bins, hyperparameters)


def _conr(source, features, arrays, hyperparameters):
    # The AgeDB script overwrites the temperature it is given.
    tau = next(hyperparameters[key] for key in ("t_effective", "t", "tau") if key in hyperparameters)
    return conr(
        features,
        arrays["targets"].flatten(),
        arrays["preds"].flatten(),
        arrays["weights"].flatten(),
        omega=hyperparameters["w"],
        tau=tau,
        push_power=hyperparameters["e"],
        pushing="exp",
        denominator="paper" if source == "paper" else "official",
        outer_weight=True,
    )


def _supcon(features, label_bins, hyperparameters):
    return supcon(
        features,
        label_bins,
        tau=hyperparameters.get("tau", hyperparameters.get("temperature")),
        smoothing=hyperparameters.get("eps", 0.0),
        reduction=hyperparameters.get("reduce", "all"),
    )


def _accon(source, features, labels, label_bins, hyperparameters):
    return accon(
        features,
        labels,
        label_bins,
        tau=hyperparameters.get("tau", hyperparameters.get("temperature")),
        label_range=hyperparameters.get("R", hyperparameters.get("max_inernal")),
        epsilon=hyperparameters.get("eps", hyperparameters.get("tau_eps")),
        variant={"ref": "official", "sts": "official_sts", "paper": "paper"}[source],
        reduction=hyperparameters.get("reduce", "all"),
    )


def test_all_vectors_are_here_and_every_other_one_has_a_test_of_its_term():
    assert len(FILES) == 78
    others = {path.stem for path in FOLDER.glob("*.npz")} - set(FILES)
    assert len(others) == 40
    terms = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for prefix in ELSEWHERE:
        assert terms.count(prefix.rstrip("_")) >= 2, f"{prefix}* is named by no test but this one"


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [(name, torch.float64, 1e-9) for name in IN_FLOAT64] + [(name, torch.float32, 1e-4) for name in IN_FLOAT32],
)
def test_loss_and_gradient_equal_the_reference(name, dtype, tolerance):
    arrays, hyperparameters, expected = _read(name, dtype)
    leaf, expected_gradient = _leaf_and_gradient(arrays)
    loss = _loss(name, leaf, arrays, hyperparameters)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=tolerance, abs=1e-14)
    largest = expected_gradient.abs().max().item()
    torch.testing.assert_close(leaf.grad, expected_gradient, rtol=0, atol=tolerance * largest)


def test_identical_and_antipodal_vectors_have_the_reference_loss_in_float32():
    arrays, hyperparameters, expected = _read(SLOPES_OF_A_THOUSAND, torch.float32)
    leaf, _ = _leaf_and_gradient(arrays)
    loss = _loss(SLOPES_OF_A_THOUSAND, leaf, arrays, hyperparameters)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_anchors_without_positives_give_zero_where_the_reference_is_nan(dtype):
    arrays, hyperparameters, expected = _read(REFERENCE_IS_NAN, dtype)
    leaf, _ = _leaf_and_gradient(arrays)
    loss = _loss(REFERENCE_IS_NAN, leaf, arrays, hyperparameters)
    loss.backward()
    assert np.isnan(expected)
    assert loss.item() == 0.0
    assert leaf.grad.abs().max() == 0.0
