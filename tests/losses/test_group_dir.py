"""`pytest tests/losses/test_group_dir.py`: Group-DIR against the author's code, loops, and its degenerate groups."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.batch import TrainingLabels
from dirtune.losses.group_dir import GroupDIR, GroupDIRLoss, find_groups, make_soft_targets
from dirtune.losses.rnc import rnc
from dirtune.manifest import LabelSpec
from dirtune.testing import make_head
from tests.golden.vectors import list_newest, read_newest

AGE = LabelSpec(name="age", unit="years", low=0, high=120, bin_width=1, num_bins=121)


@pytest.mark.parametrize("name", list_newest("groupdir_soft"))
def test_soft_targets_equal_the_authors_code(name):
    vector = read_newest(name)
    given = vector.hyperparameters
    targets = make_soft_targets(
        vector["groups"].long(), given["num_groups"], step=float(given["step"]), scale=given["scale"]
    )
    torch.testing.assert_close(targets, vector["out_soft_labels"], rtol=1e-9, atol=0)
    logits = vector["logits"].clone().requires_grad_()
    # The classifier's part alone, with no weight of the experts
    settings = GroupDIR(groups=given["num_groups"], scale=given["scale"], sigma=0.0, reduction="sum")
    edges = torch.arange(1, given["num_groups"], dtype=torch.float64)
    raw = torch.cat([logits, torch.zeros_like(logits)], dim=1)
    loss = GroupDIRLoss(settings, edges)(raw, vector["groups"].double())
    torch.testing.assert_close(loss, vector["loss"], rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, vector["grad"], rtol=0, atol=1e-9 * float(vector["grad"].abs().max()))


@pytest.mark.parametrize("name", list_newest("groupdir_total"))
def test_the_loss_equals_the_authors_code(name):
    vector = read_newest(name)
    given, targets = vector.hyperparameters, vector["targets"].double()
    settings = GroupDIR(
        groups=given["num_groups"], width=float(given["group_width"]), sigma=given["sigma"], reduction="sum"
    )
    labels = TrainingLabels(labels=targets, label_bins=targets.long(), spec=AGE)
    loss = settings.fit(labels)
    assert find_groups(targets, loss.edges).tolist() == vector["groups"].long().tolist()
    outputs = vector["outputs"].clone().requires_grad_()
    value = loss(outputs, targets)
    torch.testing.assert_close(value, vector["loss"], rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(value, outputs)
    torch.testing.assert_close(gradient, vector["grad"], rtol=0, atol=1e-9 * float(vector["grad"].abs().max()))
    torch.testing.assert_close(make_head(settings).decode(outputs), vector["out_prediction"])


@pytest.mark.parametrize("name", list_newest("groupdir_contrast"))
def test_the_contrast_of_groups_equals_the_authors_code(name):
    vector = read_newest(name)
    features = vector["features"].clone().requires_grad_()
    rows, groups = normalize(features, dim=-1).transpose(0, 1).flatten(0, 1), vector["groups"].double().repeat(2)
    loss = rnc(rows, groups, tau=vector.hyperparameters["temperature"])
    torch.testing.assert_close(loss, vector["loss"], rtol=1e-9, atol=0)
    (gradient,) = torch.autograd.grad(loss, features)
    torch.testing.assert_close(gradient, vector["grad"], rtol=0, atol=1e-9 * float(vector["grad"].abs().max()))


def test_the_loss_is_its_formula_with_weights():
    raw = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0.0, 4.0, 5.0, 9.0], dtype=torch.float64)
    weights = torch.tensor([1.0, 2.0, 0.5, 0.5], dtype=torch.float64)
    loss = GroupDIRLoss(GroupDIR(groups=3, sigma=0.3), torch.tensor([4.0, 8.0], dtype=torch.float64))
    total = 0.0
    for row, label, weight, group in zip(raw, labels, weights, (0, 1, 1, 2), strict=True):
        peaks = [2.0 if other == group else max(3 - 1 - abs(other - group), 0) for other in range(3)]
        shares = [math.exp(peak) / sum(math.exp(each) for each in peaks) for peak in peaks]
        logs = [float(each) for each in row[:3].log_softmax(0)]
        squared = float(row[3 + group] - label) ** 2
        total += weight * (0.3 * squared - sum(s * log for s, log in zip(shares, logs, strict=True))) / 4
    assert float(loss(raw, labels, weights)) == pytest.approx(float(total), rel=1e-12)


def test_a_column_of_a_table_has_groups_without_a_warning():
    columns = torch.tensor([[0.0, 1.0], [10.0, 1.0], [25.0, 1.0]])
    assert find_groups(columns[:, 0], torch.tensor([10.0, 20.0])).tolist() == [0, 1, 2]


def test_groups_may_be_quantiles_and_experts_start_at_the_mean():
    labels = torch.tensor([0.0] * 6 + [1.0, 2.0, 3.0, 100.0])
    settings = GroupDIR(groups=2, division="quantile")
    found = settings.find_edges(TrainingLabels(labels=labels, label_bins=labels.long(), spec=AGE))
    assert found.tolist() == [0.0]
    head = make_head(settings, torch.arange(10))
    raw = head(torch.randn(3, 4, dtype=torch.float64)).detach()
    # The mean of the centers of ten bins with one label each
    torch.testing.assert_close(head.decode(raw), torch.full((3,), 5.0, dtype=torch.float64))
