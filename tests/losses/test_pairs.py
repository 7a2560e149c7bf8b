"""`pytest tests/losses/test_pairs.py`: the pair matrices against loops, and what happens to empty rows."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.losses.pairs import (
    at_least_float32,
    cosine_matrix,
    distance_matrix,
    equal_bins,
    full_precision,
    logsumexp,
    masked_logsumexp,
    negative_log_likelihoods,
    reduce_anchors,
    smoothed_mean,
    without_diagonal,
)


def _random(*shape, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(3)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(dtype)


@pytest.fixture
def inexact_products():
    """Lets this process multiply float32 in bfloat16, as a training script may, and takes it back."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before


def test_cosines_are_the_inner_products():
    z = normalize(_random(4, 3), dim=1)
    expected = [
        [sum(a * b for a, b in zip(p, q, strict=True)) for q in z.tolist()] for p in z.tolist()
    ]
    torch.testing.assert_close(cosine_matrix(z), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.usefixtures("inexact_products")
def test_cosines_are_exact_where_products_may_be_inexact():
    z = normalize(_random(256, 256, dtype=torch.float32), dim=1)
    exact = z.double() @ z.double().T
    assert torch.equal(cosine_matrix(z), exact.float())
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"


@pytest.mark.gpu
def test_cosines_are_exact_where_the_device_may_use_tf32():
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        z = normalize(_random(256, 256, dtype=torch.float32), dim=1)
        cosines = cosine_matrix(z.cuda()).cpu()
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    torch.testing.assert_close(cosines, (z.double() @ z.double().T).float(), rtol=0, atol=1e-7)


def test_distances_are_absolute_differences():
    distances = distance_matrix(torch.tensor([1.0, 4.0, 2.5]))
    assert distances.tolist() == [[0, 3, 1.5], [3, 0, 1.5], [1.5, 1.5, 0]]


def test_equal_bins_include_the_diagonal_until_it_is_taken_out():
    same = equal_bins(torch.tensor([2, 0, 2]))
    assert same.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    others = [[False, False, True], [False, False, False], [True, False, False]]
    assert without_diagonal(same).tolist() == others
    assert same.diagonal().all()  # the mask itself is left as it was


@pytest.mark.parametrize(
    ("dtype", "inside"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_full_precision_widens_half_and_switches_autocast_off(dtype, inside):
    assert at_least_float32(_random(2, 2, dtype=dtype)).dtype == inside
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        full_precision(_random(3, 2, dtype=dtype)) as z,
    ):
        assert z.dtype == inside
        assert (z @ z.T).dtype == inside


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_logsumexp_and_its_gradient_are_those_of_torch(scale):
    ours = _random(5, 7, scale=scale).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    factors = _random(5)
    (logsumexp(ours) * factors).sum().backward()
    (theirs.logsumexp(dim=1) * factors).sum().backward()
    torch.testing.assert_close(logsumexp(ours), theirs.logsumexp(dim=1))
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_masked_logsumexp_sums_over_the_mask_only():
    logits, mask = _random(6, 6), _random(6, 6) > 0
    mask[:, 0] = True
    expected = [
        math.log(sum(math.exp(s) for s, taken in zip(row, keep, strict=True) if taken))
        for row, keep in zip(logits.tolist(), mask.tolist(), strict=True)
    ]
    sums = masked_logsumexp(logits, mask)
    torch.testing.assert_close(sums, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_empty_row_has_a_finite_logsumexp_and_gives_no_gradient(dtype):
    logits = _random(3, 3, dtype=dtype, scale=200.0).requires_grad_()
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    sums = masked_logsumexp(logits, mask)
    sums.sum().backward()
    assert sums.isfinite().all()
    assert sums[1] < -1e38
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().max() == 0


def test_negative_log_likelihoods_are_sums_over_positives():
    logits, log_z = _random(4, 4), _random(4)
    positives = torch.tensor(
        [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool
    )
    sums, counts = negative_log_likelihoods(logits, log_z, positives)
    expected = [
        sum(float(log_z[i] - logits[i, j]) for j in range(4) if positives[i, j]) for i in range(4)
    ]
    assert counts.tolist() == [2, 1, 0, 3]
    assert sums.tolist() == pytest.approx(expected)


def test_the_mean_of_an_empty_set_is_minus_one_with_smoothing_and_zero_without():
    sums, counts = torch.tensor([6.5, 0.0]), torch.tensor([2.5, 0.0])
    assert smoothed_mean(sums, counts, smoothing=0.0).tolist() == pytest.approx([2.6, 0.0])
    assert smoothed_mean(sums, counts, smoothing=0.5).tolist() == [2.0, -1.0]


def test_anchors_are_averaged_over_all_or_over_the_valid_ones():
    losses, valid = torch.tensor([2.0, 5.0, -1.0, 4.0]), torch.tensor([True, True, False, False])
    assert reduce_anchors(losses, valid, "all") == 2.5
    assert reduce_anchors(losses, valid, "valid") == 3.5


def test_no_valid_anchor_gives_a_zero_that_stays_in_the_graph():
    losses = torch.tensor([2.0, 5.0], requires_grad=True)
    loss = reduce_anchors(losses, torch.tensor([False, False]), "valid")
    loss.backward()
    assert loss == 0
    assert losses.grad.tolist() == [0, 0]
