"""`pytest tests/losses/test_blocks.py`: a sum over blocks of anchors against the same sum in one piece."""

import pytest
import torch

from dirtune.losses import blocks
from dirtune.losses.blocks import sum_over_anchors

ROWS = 7


def _leaves(*, needed=(True, True, True)):
    generator = torch.Generator().manual_seed(0)
    shapes = ((ROWS, 3), (ROWS,), (2,))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(need)
        for shape, need in zip(shapes, needed, strict=True)
    ]


def _block(anchors, z, scales, offsets):
    """Reads anchors, all rows, a value per row and tensors without rows."""
    products = (z[anchors] @ z.T) * scales[anchors, None] + offsets[0] * offsets[1]
    return products.sin().sum()


@pytest.fixture(params=[1, 2 * ROWS, 3 * ROWS + 1, (ROWS - 1) * ROWS])
def several_blocks(request, monkeypatch):
    """Blocks of 1, 2, 3 and 6 of 7 rows: even, uneven, and a last one that is smaller."""
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", request.param)


@pytest.mark.usefixtures("several_blocks")
@pytest.mark.parametrize("needed", [(True, True, True), (True, False, False), (False, True, False)])
def test_value_and_gradients_equal_those_of_one_block(needed):
    whole, parts = _leaves(needed=needed), _leaves(needed=needed)
    expected = _block(slice(0, ROWS), *whole)
    total = sum_over_anchors(_block, *parts)
    (3.0 * expected).backward()
    (3.0 * total).backward()
    torch.testing.assert_close(total, expected, rtol=1e-13, atol=0)
    for ours, theirs, need in zip(parts, whole, needed, strict=True):
        assert (ours.grad is not None) == need
        if need:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("several_blocks")
def test_every_row_is_an_anchor_once():
    seen = []

    def block(anchors, values):
        seen.extend(range(ROWS)[anchors])
        return values[anchors].sum()

    assert sum_over_anchors(block, torch.arange(ROWS)) == sum(range(ROWS))
    assert seen == list(range(ROWS))


@pytest.mark.usefixtures("several_blocks")
def test_the_gradient_is_the_slope():
    leaves = _leaves()
    assert torch.autograd.gradcheck(lambda *tensors: sum_over_anchors(_block, *tensors), leaves)


@pytest.mark.usefixtures("several_blocks")
def test_without_gradients_only_the_value_is_computed():
    leaves = _leaves()
    expected = sum_over_anchors(_block, *leaves).detach()
    with torch.no_grad():
        unrecorded = sum_over_anchors(_block, *leaves)
    constant = sum_over_anchors(_block, *_leaves(needed=(False, False, False)))
    assert not unrecorded.requires_grad
    assert not constant.requires_grad
    assert expected == unrecorded == constant


@pytest.mark.usefixtures("several_blocks")
def test_blocks_that_do_not_depend_on_a_tensor_give_it_a_zero_gradient():
    z, scales, _ = _leaves()

    def block(anchors, z, scales):
        return z[anchors].sum() if anchors.start == 0 else torch.zeros((), dtype=z.dtype)

    sum_over_anchors(block, z, scales).backward()
    assert z.grad[0].tolist() == [1, 1, 1]
    assert scales.grad.abs().max() == 0


def test_a_small_batch_is_one_block_and_a_large_one_is_not(monkeypatch):
    def sizes(rows):
        found = []
        values = torch.zeros(rows)
        sum_over_anchors(lambda anchors, v: found.append(len(v[anchors])) or v.sum(), values)
        return found

    assert sizes(256) == [256]
    assert sizes(600) == [256, 256, 88]
    assert sizes(8192) == [128] * 64
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 1)
    assert sizes(2) == [1, 1]


def test_no_rows_are_one_empty_block():
    assert sum_over_anchors(lambda anchors, values: values[anchors].sum(), torch.zeros(0)) == 0


def test_the_blocked_form_has_no_second_derivative(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 1)
    leaves = _leaves()
    squared = sum_over_anchors(_block, *leaves).square()
    gradients = torch.autograd.grad(squared, leaves, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradients[0].sum().backward()
