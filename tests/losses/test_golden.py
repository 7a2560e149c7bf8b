"""`pytest tests/losses/test_golden.py`: every golden vector of a term against the term, in float64 and in float32.

The vectors and their sources are described in `tests/golden/regularizers/README.md`. Where a vector holds unnormalized
features and `grad_raw`, the gradient is compared there, behind the normalization: at a cosine of one, the part of the
gradient along the representation itself depends on the last bit of the reference's matrix product.
"""

import math
import re

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.losses.accon import accon
from dirtune.losses.acconr import acconr
from dirtune.losses.adasupcon import adasupcon
from dirtune.losses.conr import conr
from dirtune.losses.ordinal_entropy import ordinal_entropy
from dirtune.losses.ranksim import ranksim
from dirtune.losses.rnc import rnc
from dirtune.losses.supcon import supcon
from tests.golden.vectors import INDEX, list_vectors, read_regularizer

# 0 / 0 in the reference: a batch without any positive, and one in which every label is unique
CONR_WITHOUT_POSITIVES = "conr_imdb_90_singleview_nopos_nan"
# All exponentials underflow in the reference
RNC_UNDERFLOWS = "rnc_10_far_b8_L1_t2.0"
# c = 1 +- 1e-7 moves a slope of 1000 by 10 percent in float32
SLOPES_OF_A_THOUSAND = "accon_ref_80_collinear"


def flatten_views(features):
    """`(sample, view, dim)` in the references as rows, view-major."""
    return features.transpose(0, 1).flatten(0, 1)


def get_first(hyperparameters, *keys):
    return next(hyperparameters[key] for key in keys if key in hyperparameters)


def compute_bins(labels):
    return labels.unique(return_inverse=True)[1]


def prepare_contrastive(source, leaf, vector):
    """Features as rows, their labels, and their label bins, as ACCon's and SupCon's references see them."""
    features = normalize(leaf, dim=-1) if "grad_raw" in vector.arrays else leaf
    labels = vector.arrays["labels"].flatten()
    if features.ndim == 3:
        labels = labels.repeat(features.shape[1])
        features = flatten_views(features)
    return features, labels, compute_bins((labels * 10).round() if source == "sts" else labels)


def compute_accon(source, leaf, vector):
    given = vector.hyperparameters
    features, labels, bins = prepare_contrastive(source, leaf, vector)
    return accon(
        features,
        labels,
        bins,
        tau=get_first(given, "tau", "temperature"),
        label_range=get_first(given, "R", "max_inernal"),
        epsilon=get_first(given, "eps", "tau_eps"),
        variant={"ref": "official", "sts": "official_sts", "paper": "paper"}[source],
        reduction=given.get("reduce", "all"),
    )


def compute_supcon(source, leaf, vector):
    given = vector.hyperparameters
    features, _, bins = prepare_contrastive(source, leaf, vector)
    return supcon(
        features,
        bins,
        tau=get_first(given, "tau", "temperature"),
        smoothing=given.get("eps", 0.0),
        reduction=given.get("reduce", "all"),
    )


def compute_conr(source, leaf, vector):
    given = vector.hyperparameters
    return conr(
        normalize(leaf, dim=-1),
        *(vector.arrays[key].flatten() for key in ("targets", "preds", "weights")),
        omega=given["w"],
        # The AgeDB script overwrites the temperature that it is given
        tau=get_first(given, "t_effective", "t", "tau"),
        push_power=given["e"],
        pushing="exp",
        denominator="paper" if source == "paper" else "official",
        outer_weight=True,
    )


def compute_conr_nyu(source, leaf, vector):
    """The official code for depth maps, on the means of the maps."""
    given = vector.hyperparameters
    return conr(
        normalize(leaf.flatten(1), dim=1),
        *(vector.arrays[key].flatten(1).mean(dim=1) for key in ("depth", "output", "weights")),
        omega=given["w"],
        tau=given["t"],
        push_power=given["e"],
        pushing="linear",
        denominator="official",
        outer_weight=False,
        counts_self=True,
    )


def compute_conr_of_several_dimensions(source, leaf, vector):
    given, targets = vector.hyperparameters, vector.arrays["targets"]
    # The mean of absolute differences is l1 with the label unit divided by their number
    units = targets.shape[1] if given["metric"] == "l1mean" else 1
    return conr(
        normalize(leaf, dim=1),
        targets,
        vector.arrays["preds"],
        vector.arrays["weights"].flatten(),
        omega=given["w"] * units,
        tau=given["tau"],
        push_power=given["e"] / units,
        pushing=given["push"],
        denominator="paper",
        outer_weight=given["outer_weight"],
        label_distance={"l1": "l1", "l1mean": "l1", "l2": "l2", "linf": "max"}[given["metric"]],
    )


def compute_acconr(source, leaf, vector):
    given = vector.hyperparameters
    if source == "ref":
        switches = {"pushing": "none", "denominator": "official", "outer_weight": True, "clamps_logits": True}
    else:
        switches = {"pushing": given["push"], "denominator": "paper", "outer_weight": given["outer_weight"]}
    return acconr(
        normalize(leaf, dim=1),
        *(vector.arrays[key].flatten() for key in ("targets", "preds", "weights")),
        label_range=float(get_first(given, "R", "max_inernal")),
        omega=given["w"],
        tau=get_first(given, "tau", "t_effective"),
        push_power=given["e"],
        epsilon=given["eps"],
        **switches,
    )


def compute_adasupcon(source, leaf, vector):
    given, views = vector.hyperparameters, leaf.shape[1]
    return adasupcon(
        flatten_views(normalize(leaf, dim=-1)),
        vector.arrays["dist"].flatten().repeat(views) * given["norm_val"] / 2,
        compute_bins(vector.arrays["labels"].flatten().repeat(views)),
        tau=given["temperature"] / given.get("scale_s", 1.0),
        smoothing=given.get("eps", 0.0),
    )


def compute_ranksim(source, leaf, vector):
    """RankSim on the rows that the reference drew, one per label."""
    drawn = vector.arrays["selected"]
    labels = vector.arrays["targets"].flatten()[drawn]
    interpolation = vector.hyperparameters["interpolation_lambda"]
    return ranksim(leaf[drawn], labels, torch.arange(len(drawn)), interpolation=interpolation)


def compute_rnc(source, leaf, vector):
    labels = vector.arrays["labels"].repeat(leaf.shape[1], 1)
    return rnc(flatten_views(leaf), labels, tau=vector.hyperparameters["temperature"])


def compute_ordinal_entropy(source, leaf, vector):
    return ordinal_entropy(leaf, vector.arrays["targets"].flatten())


TERMS = {
    "accon_paper": compute_accon,
    "accon_ref": compute_accon,
    "accon_sts": compute_accon,
    "acconr_paper": compute_acconr,
    "acconr_ref": compute_acconr,
    "adasupcon_acconrepo": compute_adasupcon,
    "adasupcon_official": compute_adasupcon,
    "conr_agedb": compute_conr,
    "conr_imdb": compute_conr,
    "conr_nyu": compute_conr_nyu,
    "conr_paper": compute_conr,
    "conr_paper_md": compute_conr_of_several_dimensions,
    "ordinal_entropy": compute_ordinal_entropy,
    "ranksim": compute_ranksim,
    "ranksim_sts": compute_ranksim,
    "rnc": compute_rnc,
    "supcon_paper": compute_supcon,
    "supcon_ref": compute_supcon,
    "supcon_sts": compute_supcon,
}
"""By the name of a vector up to its first number."""


def find_family(name):
    return re.match(r"[a-z_]+?(?=_\d)", name)[0]


def run(name, dtype):
    """The loss of a vector, its gradient in float64, and the vector."""
    vector, family = read_regularizer(name, dtype), find_family(name)
    key = "features_raw" if "grad_raw" in vector.arrays else "features"
    leaf = vector.arrays[key].clone().requires_grad_()
    loss = TERMS[family](family.rpartition("_")[2], leaf, vector)
    loss.backward()
    return loss.item(), leaf.grad.double(), vector


def test_every_vector_belongs_to_a_term_and_is_listed():
    names = list_vectors("regularizers")
    assert names == sorted(INDEX)
    assert len(names) == 118
    assert {find_family(name) for name in names} == TERMS.keys()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["64", "32"])
def test_losses_and_gradients_equal_the_reference(dtype, tolerance):
    names = [name for name, known in INDEX.items() if not known["not_finite"] and not known["ties_broken_by_chance"]]
    assert len(names) == 113
    offenders = []
    for name in names:
        # Its own test below
        if name == SLOPES_OF_A_THOUSAND and dtype == torch.float32:
            continue
        loss, gradient, vector = run(name, dtype)
        expected = vector.arrays["grad_raw" if "grad_raw" in vector.arrays else "grad"].double()
        off = (gradient - expected).abs().max().item()
        if loss != pytest.approx(vector.loss, rel=tolerance, abs=1e-14) or not off <= tolerance * expected.abs().max():
            offenders.append((name, loss, vector.loss, off))
    assert not offenders


def test_where_the_reference_breaks_ties_by_chance_the_loss_is_close():
    names = [name for name, known in INDEX.items() if known["ties_broken_by_chance"]]
    assert names == ["ranksim_06_uniform_b64_lam2"]
    for name in names:
        loss, _, vector = run(name, torch.float64)
        assert loss == pytest.approx(vector.loss, rel=1e-3)


def test_identical_and_antipodal_vectors_have_the_reference_loss_in_float32():
    loss, gradient, vector = run(SLOPES_OF_A_THOUSAND, torch.float32)
    assert loss == pytest.approx(vector.loss, rel=1e-3)
    assert gradient.isfinite().all()


def test_every_vector_whose_reference_is_not_finite_has_a_test():
    names = {name for name, known in INDEX.items() if known["not_finite"]}
    assert {find_family(name) for name in names} == {"adasupcon_official", "conr_imdb", "ordinal_entropy", "rnc"}
    assert len(names) == 4
    assert {CONR_WITHOUT_POSITIVES, RNC_UNDERFLOWS} <= names
    for name in names:
        assert not math.isfinite(read_regularizer(name, torch.float64).loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_anchors_without_positives_give_zero_where_the_reference_is_nan(dtype):
    loss, gradient, _ = run(CONR_WITHOUT_POSITIVES, dtype)
    assert loss == 0.0
    assert gradient.abs().max() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_anchors_without_positives_are_finite_in_adasupcon_where_the_reference_is_nan(dtype):
    loss, gradient, _ = run("adasupcon_official_13_ties_b16v1_t0.05", dtype)
    assert math.isfinite(loss)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_far_vectors_have_the_exact_loss_where_the_reference_is_infinite(dtype, tolerance):
    loss, gradient, vector = run(RNC_UNDERFLOWS, dtype)
    assert vector.loss == -math.inf
    assert loss == pytest.approx(vector.meta["check"]["own_loss"], rel=tolerance)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_unique_labels_leave_the_spread_between_them_where_the_reference_is_nan(dtype, tolerance):
    loss, gradient, vector = run("ordinal_entropy_00_distinct_b4", dtype)
    features, labels = vector.arrays["features"], vector.arrays["targets"].flatten()
    assert len(labels.unique()) == len(labels)
    pairs = torch.combinations(torch.arange(len(labels)))
    gaps = (labels[pairs[:, 0]] - labels[pairs[:, 1]]).abs()
    directions = normalize(features, dim=1)
    spans = (directions[pairs[:, 0]] - directions[pairs[:, 1]]).norm(dim=1)
    assert loss == pytest.approx(-((gaps - gaps.min()) / gaps.max() * spans).mean().item(), rel=tolerance)
    # The reference's mean over nothing has no gradient
    expected = vector.arrays["grad"].double()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=tolerance * expected.abs().max().item())
