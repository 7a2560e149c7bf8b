"""`pytest tests/losses/test_pairs.py`: the pair matrices against loops, and what happens to empty rows."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.losses.pairs import (
    compare_bins,
    compute_smoothed_mean,
    cosine_matrix,
    count_anchors,
    count_bin_members,
    distance_matrix,
    euclidean_matrix,
    find_label_classes,
    full_precision,
    logsumexp,
    masked_logsumexp,
    normalize_rows,
    remove_self,
    sum_anchors,
    sum_likelihoods,
    sum_likelihoods_among_others,
    to_at_least_float32,
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


def test_normalized_rows_have_length_one():
    rows = normalize_rows(torch.randn(5, 7, dtype=torch.float64) * 100)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-8])
def test_a_vector_without_length_is_zero_and_passes_no_gradient(scale):
    vectors = torch.tensor([[1.0, -1.0, 2.0], [3.0, 0.0, 4.0]]) * torch.tensor([[scale], [1.0]])
    vectors.requires_grad_()
    rows = normalize_rows(vectors)
    (rows * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert rows[0].tolist() == [0.0, 0.0, 0.0]
    assert vectors.grad[0].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(rows[1], torch.tensor([0.6, 0.0, 0.8]))
    assert vectors.grad[1].abs().max() > 0


def test_the_gradient_of_normalization_is_right():
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalize_rows, vectors)


def test_cosines_are_the_inner_products():
    z = normalize(_random(4, 3), dim=1)
    expected = [[sum(a * b for a, b in zip(p, q, strict=True)) for q in z.tolist()] for p in z.tolist()]
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


@pytest.mark.usefixtures("inexact_products")
def test_a_block_of_cosines_is_exact_as_well():
    z = normalize(_random(256, 256, dtype=torch.float32), dim=1)
    assert torch.equal(cosine_matrix(z[10:30], z), (z.double() @ z.double().T).float()[10:30])


def test_euclidean_distances_are_the_lengths_of_differences():
    a, b = _random(3, 4), _random(5, 4)
    expected = [[math.dist(p, q) for q in b.tolist()] for p in a.tolist()]
    torch.testing.assert_close(euclidean_matrix(a, b), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_vectors_are_at_distance_zero_without_gradient(dtype):
    z = normalize(_random(1, 64, dtype=dtype), dim=1).repeat(40, 1).requires_grad_()
    distances = euclidean_matrix(z)
    distances.sum().backward()
    assert distances.abs().max() == 0
    assert z.grad.abs().max() == 0


def test_near_neighbors_keep_the_direction_of_their_gradient():
    near = torch.tensor([[1.0, 0.0], [1.0, 1e-6]], requires_grad=True)
    euclidean_matrix(near)[0, 1].backward()
    assert near.grad.tolist() == [[0, -1], [0, 1]]


def test_distances_are_absolute_differences():
    distances = distance_matrix(torch.tensor([1.0, 4.0, 2.5]))
    assert distances.tolist() == [[0, 3, 1.5], [3, 0, 1.5], [1.5, 1.5, 0]]


def test_labels_of_one_dimension_have_one_distance_under_every_name():
    labels = torch.tensor([1.0, 4.0, 2.5])
    for name in ("l1", "l2", "max", "angular"):
        assert torch.equal(distance_matrix(labels, label_distance=name), distance_matrix(labels))


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("l1", lambda d: sum(abs(v) for v in d)),
        ("l2", lambda d: math.sqrt(sum(v * v for v in d))),
        ("max", lambda d: max(abs(v) for v in d)),
    ],
)
def test_labels_of_several_dimensions_differ_by_the_named_norm(name, length):
    labels = _random(6, 3)
    rows = labels.tolist()
    expected = [[length([a - b for a, b in zip(p, q, strict=True)]) for q in rows] for p in rows]
    distances = distance_matrix(labels, label_distance=name)
    torch.testing.assert_close(distances, torch.tensor(expected, dtype=torch.float64))


def _gaze(pitch, yaw):
    return (-math.cos(pitch) * math.sin(yaw), -math.sin(pitch), -math.cos(pitch) * math.cos(yaw))


def _angle(g, h):
    cross = (g[1] * h[2] - g[2] * h[1], g[2] * h[0] - g[0] * h[2], g[0] * h[1] - g[1] * h[0])
    return math.atan2(math.hypot(*cross), sum(a * b for a, b in zip(g, h, strict=True)))


def test_the_angular_distance_is_the_angle_between_gaze_directions():
    labels = _random(8, 2, scale=2.0)
    directions = [_gaze(*row) for row in labels.tolist()]
    expected = [[_angle(g, h) for h in directions] for g in directions]
    angles = distance_matrix(labels, label_distance="angular")
    torch.testing.assert_close(angles, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_and_opposite_gaze_directions_have_exact_angles(dtype):
    gaze = torch.tensor([[0.1, 0.7], [0.1, 0.7], [-0.1, 0.7 - math.pi], [0.1, 0.7001]], dtype=dtype)
    angles = distance_matrix(gaze, label_distance="angular")
    assert angles[0, :2].tolist() == [0, 0]
    assert angles[0, 2].item() == pytest.approx(math.pi)
    assert angles[0, 3].item() == pytest.approx(1e-4 * math.cos(0.1), rel=1e-2)


def test_angular_labels_have_two_dimensions():
    with pytest.raises(ValueError, match="needs labels of 2 dimensions, pitch and yaw, got 3"):
        distance_matrix(torch.zeros(4, 3), label_distance="angular")


def test_equal_bins_include_the_anchor_itself_unless_it_is_removed():
    same = compare_bins(torch.tensor([2, 0, 2]))
    assert same.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    others = [[False, False, True], [False, False, False], [True, False, False]]
    assert remove_self(same, slice(0, 3)).tolist() == others
    # The mask itself is left as it was
    assert same.diagonal().all()


@pytest.mark.parametrize("anchors", [slice(0, 3), slice(2, 5), slice(4, 9), slice(6, 8)])
def test_a_block_of_anchors_is_the_same_rows_of_the_whole(anchors):
    z, labels, gaze = _random(7, 3), _random(7), _random(7, 2)
    bins = torch.tensor([1, 0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(cosine_matrix(z[anchors], z), cosine_matrix(z)[anchors])
    torch.testing.assert_close(euclidean_matrix(z[anchors], z), euclidean_matrix(z)[anchors])
    assert torch.equal(distance_matrix(labels[anchors], labels), distance_matrix(labels)[anchors])
    for name in ("l1", "l2", "max", "angular"):
        block = distance_matrix(gaze[anchors], gaze, label_distance=name)
        torch.testing.assert_close(block, distance_matrix(gaze, label_distance=name)[anchors])
    assert torch.equal(compare_bins(bins[anchors], bins), compare_bins(bins)[anchors])
    block = remove_self(compare_bins(bins[anchors], bins), anchors)
    assert torch.equal(block, remove_self(compare_bins(bins), slice(0, 7))[anchors])


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
    assert to_at_least_float32(_random(2, 2, dtype=dtype)).dtype == inside
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(_random(3, 2, dtype=dtype)) as z:
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
    positives = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    sums, counts = sum_likelihoods(logits, log_z, positives)
    expected = [sum(float(log_z[i] - logits[i, j]) for j in range(4) if positives[i, j]) for i in range(4)]
    assert counts.tolist() == [2, 1, 0, 3]
    assert sums.tolist() == pytest.approx(expected)


def _likelihoods_by_loops(logits, positives, first, form):
    sums, counts = [], []
    for i, (row, taken) in enumerate(zip(logits.tolist(), positives.tolist(), strict=True)):
        log_z = math.log(sum(math.exp(s) for j, s in enumerate(row) if j != first + i))
        found = [s for s, positive in zip(row, taken, strict=True) if positive]
        if form == "each":
            sums.append(sum(log_z - s for s in found))
        else:
            sums.append(log_z - math.log(sum(math.exp(s) for s in found)) if found else 0.0)
        counts.append(len(found) if form == "each" else min(len(found), 1))
    return sums, counts


@pytest.mark.parametrize("form", ["each", "joint"])
@pytest.mark.parametrize("first", [0, 3])
def test_likelihoods_among_others_equal_the_loops(form, first):
    logits = _random(4, 7)
    positives = _random(4, 7).T[[6, 5, 4, 3, 2, 1, 0]].T > 0.3
    positives[1] = False
    sums, counts = sum_likelihoods_among_others(logits, positives, slice(first, first + 4), form=form)
    expected_sums, expected_counts = _likelihoods_by_loops(logits, positives, first, form)
    assert sums.tolist() == pytest.approx(expected_sums, rel=1e-12)
    assert counts.tolist() == expected_counts
    assert 0 in expected_counts


@pytest.mark.parametrize("form", ["each", "joint"])
def test_the_gradient_of_likelihoods_among_others_is_their_slope(form):
    logits = _random(4, 6).requires_grad_()
    positives = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) > 0.5
    positives[2] = False

    def sums(logits):
        return sum_likelihoods_among_others(logits, positives, slice(1, 5), form=form)[0]

    assert torch.autograd.gradcheck(sums, (logits,))


@pytest.mark.parametrize("form", ["each", "joint"])
def test_a_single_row_has_no_others_and_no_likelihood(form):
    logits = torch.tensor([[20.0]], requires_grad=True)
    sums, counts = sum_likelihoods_among_others(logits, torch.tensor([[False]]), slice(0, 1), form=form)
    sums.sum().backward()
    assert sums == 0
    assert counts == 0
    assert logits.grad == 0


def test_the_mean_of_an_empty_set_is_minus_one_with_smoothing_and_zero_without():
    sums, counts = torch.tensor([6.5, 0.0]), torch.tensor([2.5, 0.0])
    assert compute_smoothed_mean(sums, counts, smoothing=0.0).tolist() == pytest.approx([2.6, 0.0])
    assert compute_smoothed_mean(sums, counts, smoothing=0.5).tolist() == [2.0, -1.0]


def test_anchors_are_summed_over_all_or_over_the_valid_ones():
    losses, valid = torch.tensor([2.0, 5.0, -1.0, 4.0]), torch.tensor([True, True, False, False])
    assert sum_anchors(losses, valid, "all") == 10.0
    assert sum_anchors(losses, valid, "valid") == 7.0


def test_no_valid_anchor_gives_a_zero_that_stays_in_the_graph():
    losses = torch.tensor([2.0, 5.0], requires_grad=True)
    total = sum_anchors(losses, torch.tensor([False, False]), "valid")
    total.backward()
    assert total == 0
    assert losses.grad.tolist() == [0, 0]


def test_bin_sizes_count_the_rows_of_each_rows_bin():
    bins = torch.tensor([7, 0, 7, 3, 0, 7, 90])
    assert count_bin_members(bins).tolist() == [3, 2, 3, 1, 2, 3, 1]
    assert count_anchors(bins, "all") == 7
    assert count_anchors(bins, "valid") == 5


@pytest.mark.parametrize("bins", [[], [4], [4, 5]])
def test_a_mean_is_over_at_least_one_anchor(bins):
    assert count_anchors(torch.tensor(bins, dtype=torch.long), "valid") == 1
    assert count_anchors(torch.tensor(bins, dtype=torch.long), "all") == max(len(bins), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_labels_are_of_one_class_if_they_are_equal_after_rounding(dtype):
    labels = torch.cat([torch.arange(0, 5.01, 0.05), torch.rand(99, generator=torch.Generator().manual_seed(0)) * 5])
    labels, bins = labels.to(dtype), torch.zeros(len(labels), dtype=torch.long)
    classes = find_label_classes(labels, bins, 1)
    rounded = torch.round(labels, decimals=1)
    assert torch.equal(compare_bins(classes), rounded[:, None] == rounded[None, :])
    assert find_label_classes(labels, bins, None) is bins


def test_labels_of_several_dimensions_are_rounded_each():
    labels = torch.tensor([[0.11, 2.0], [0.09, 2.04], [0.11, 2.06], [0.0, 2.0]])
    classes = find_label_classes(labels, torch.zeros(4, dtype=torch.long), 1)
    assert compare_bins(classes).tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]
