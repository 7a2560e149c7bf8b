"""`pytest tests/losses/test_hca.py`: HCA's hierarchy, scores and distillation against the official code and loops."""

import math

import numpy as np
import pytest
import torch

from dirtune.losses.hca import HCA, combine_levels, compute_divergences, split_levels, weight_classes
from dirtune.testing import call_loss, fit, make_head, make_loss_inputs
from tests.golden.vectors import list_newest, read_newest

# The code pools by sum after one softmax and takes another one of the result at every level.
SOFTMAX_OF_SOFTMAX = "hca_distil_02_sum_all"


def _to_classes(borders, bins):
    """The class of each integer label below the borders, which are half-integers."""
    return torch.as_tensor(np.searchsorted(borders.numpy(), np.arange(bins)))


@pytest.mark.parametrize("name", list_newest("hca_split"))
def test_levels_and_class_weights_equal_the_official_code(name):
    vector = read_newest(name)
    counts, num = vector["counts"].numpy(), vector.hyperparameters["levels"]
    for number, classes in enumerate(split_levels(counts, num)):
        expected = _to_classes(vector[f"out_borders_{number}"], len(counts))
        assert classes.tolist() == expected.tolist()
        assert classes.max() + 1 == vector.hyperparameters["classes_by_level"][number]
        found = weight_classes(np.bincount(classes, counts))
        np.testing.assert_allclose(found, vector[f"out_class_weights_{number}"].numpy(), rtol=1e-9)


def _read_levels(vector):
    num = sum(key.startswith("logits_head_") for key in vector.values)
    bins = vector["logits_fine"].shape[1]
    classes = torch.stack([_to_classes(vector[f"borders_{number}"], bins) for number in range(num)])
    return [vector[f"logits_head_{number}"] for number in range(num)], classes


@pytest.mark.parametrize("name", list_newest("hca_combine"))
def test_scores_equal_the_official_code(name):
    vector = read_newest(name)
    levels, classes = _read_levels(vector)
    for combine in ("add", "mul"):
        scores, expected = combine_levels(vector["logits_fine"], levels, classes, combine), vector[f"out_{combine}"]
        if combine == "mul":
            expected = expected / expected.amax(dim=1, keepdim=True)
        torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-300)
        assert scores.argmax(dim=1).tolist() == vector[f"out_value_{combine}"].long().tolist()


@pytest.mark.parametrize("name", list_newest("hca_distil"))
def test_divergences_equal_the_official_code(name):
    vector = read_newest(name)
    levels, classes = _read_levels(vector)
    student = vector["logits_student"].clone().requires_grad_()
    found = compute_divergences(student, vector["logits_fine"], levels, classes, vector.hyperparameters["pool"])
    by_level = torch.stack([each.mean() for each in found])
    if name == SOFTMAX_OF_SOFTMAX:
        assert not torch.allclose(by_level, vector["out_kl_by_level"])
        return
    if vector.hyperparameters["mask"] == "all":
        torch.testing.assert_close(by_level, vector["out_kl_by_level"], rtol=1e-9, atol=0)
        torch.testing.assert_close(by_level.sum(), vector["loss"], rtol=1e-9, atol=0)
        (gradient,) = torch.autograd.grad(by_level.sum(), student)
        torch.testing.assert_close(gradient, vector["grad"], rtol=0, atol=1e-9 * float(vector["grad"].abs().max()))
    else:
        # Levels that the mask leaves out have a divergence of zero there.
        kept = vector["out_kl_by_level"] != 0
        torch.testing.assert_close(by_level[kept], vector["out_kl_by_level"][kept], rtol=1e-9, atol=0)


@pytest.mark.parametrize("pool", ["max", "sum"])
def test_the_loss_is_its_formula_in_a_loop(pool):
    settings = HCA(levels=2, distill=True, pool=pool, hidden=3, balanced=True)
    raw, labels, weights = make_loss_inputs(settings, samples=6)
    loss, total = fit(settings), 0.0
    levels = loss.classes.tolist()
    for row, label, weight in zip(raw.detach().tolist(), labels.long().tolist(), weights.tolist(), strict=True):
        parts, start = [], 0
        for size in (10, *(max(each) + 1 for each in levels), 10):
            parts.append(row[start : start + size])
            start += size
        shares = [[math.exp(x) / sum(map(math.exp, part)) for x in part] for part in parts]
        value = -math.log(shares[0][label])
        for number, classes in enumerate(levels):
            own = classes[label]
            # Every bin has four of the forty training labels.
            size = classes.count(own) * 4
            occupied = max(classes) + 1
            value -= 40 / (occupied * size) * math.log(shares[1 + number][own])
            pooled = [[x for x, c in zip(parts[-1], classes, strict=True) if c == k] for k in range(occupied)]
            if pool == "max":
                tops = [max(each) for each in pooled]
                student = [math.exp(x) / sum(map(math.exp, tops)) for x in tops]
            else:
                student = [sum(map(math.exp, each)) / sum(map(math.exp, parts[-1])) for each in pooled]
            value += sum(t * math.log(t / s) for t, s in zip(shares[1 + number], student, strict=True))
        value += sum(t * math.log(t / s) for t, s in zip(shares[0], shares[-1], strict=True))
        total += weight * value / 6
    assert float(call_loss(settings, raw, labels, weights).detach()) == pytest.approx(total, rel=1e-10)


def test_predictions_are_labels_of_bins_or_their_mean():
    settings = HCA(levels=1, bin_label="low")
    head = make_head(settings)
    raw = torch.zeros(1, 12, dtype=torch.float64)
    raw[0, 3] = 8.0
    assert float(head.decode(raw)) == 3.0
    assert float(make_head(HCA(levels=1)).decode(raw)) == 3.5
    scores = combine_levels(raw[:, :10], [raw[:, 10:]], head.classes, "mul")
    mean = make_head(HCA(levels=1, bin_label="low", predict="mean"))
    expected = float((scores * torch.arange(10)).sum() / scores.sum())
    assert float(mean.decode(raw)) == pytest.approx(expected)


def test_levels_that_contradict_each_other_leave_a_prediction():
    # The fine classifier is sure of bin 9 and the level of the lower half: every product is below the least float32.
    head = make_head(HCA(levels=1, bin_label="low", predict="mean"))
    raw = torch.zeros(1, 12)
    raw[0, 9], raw[0, 8], raw[0, 10] = 150.0, 149.0, 120.0
    assert float(head.decode(raw)) == pytest.approx((9 + 8 / math.e) / (1 + 1 / math.e), rel=1e-5)
    assert float(make_head(HCA(levels=1, bin_label="low")).decode(raw)) == 9.0


def test_only_the_fine_classifier_trains_the_encoder():
    settings = HCA(levels=2, distill=True, hidden=3)
    head, read = make_head(settings), torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    parts = head.split(head(read))
    for name, part in parts.items():
        (gradient,) = torch.autograd.grad(part.sum(), read, allow_unused=True, retain_graph=True)
        reaches = gradient is not None and bool(gradient.abs().sum() > 0)
        assert reaches is (name == "fine"), name
