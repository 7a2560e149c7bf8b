"""`pytest tests/losses/test_ranksim.py`: RankSim against loops over rows, its backward pass included."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from dirtune.errors import InputError
from dirtune.losses import blocks
from dirtune.losses import ranksim as module
from dirtune.losses.ranksim import RankSim, normalize_rows, ranksim, require_scalar_labels


def _rank_rows(values):
    """1 / m for the largest entry; of equal ones the last is first."""
    order = sorted(range(len(values)), key=lambda k: (values[k], k), reverse=True)
    return [(order.index(k) + 1) / len(values) for k in range(len(values))]


def _ranksim_by_loops(vectors, labels, *, interpolation, factor=1.0):
    """Loss, and the gradient of `factor` times the loss by the matrix of cosines."""
    z = normalize(vectors, dim=1).tolist()
    rows, total, slopes = range(len(z)), 0.0, []
    for i in rows:
        cosines = [sum(p * q for p, q in zip(z[i], z[j], strict=True)) for j in rows]
        wanted = _rank_rows([-abs(labels[i] - labels[j]) for j in rows])
        found = _rank_rows(cosines)
        errors = [b - a for a, b in zip(wanted, found, strict=True)]
        total += sum(error**2 for error in errors) / len(z)
        pushed = _rank_rows(
            [c + interpolation * factor * 2 * error / len(z) for c, error in zip(cosines, errors, strict=True)]
        )
        slopes.append([-(b - p) / (interpolation + 1e-8) for b, p in zip(found, pushed, strict=True)])
    return total, torch.tensor(slopes, dtype=torch.float64)


def _distinct(count, *, seed=0, dim=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, dim, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randperm(2 * count, generator=generator)[:count].to(dtype)
    return vectors.requires_grad_(), labels, torch.arange(count)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("count", [2, 9, 20])
@pytest.mark.parametrize("interpolation", [0.5, 2.0])
@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_loss_and_gradient_equal_the_loops(seed, count, interpolation, factor):
    vectors, labels, samples = _distinct(count, seed=seed)
    loss = ranksim(vectors, labels, samples, interpolation=interpolation)
    (factor * loss).backward()
    expected, slopes = _ranksim_by_loops(vectors.detach(), labels.tolist(), interpolation=interpolation, factor=factor)
    leaf = vectors.detach().clone().requires_grad_()
    z = normalize(leaf, dim=1)
    (z @ z.T * slopes).sum().backward()
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(vectors.grad, leaf.grad, rtol=1e-9, atol=1e-12)


def test_one_sample_per_label_is_drawn_independently_of_the_order_of_rows(term_inputs):
    inputs = term_inputs(samples=12, views=1, labels=[3, 3, 7, 1, 1, 1, 9, 3, 5, 7, 7, 0])
    term = RankSim()
    expected = term(inputs)
    expected.backward()
    used = inputs.representations.grad.abs().sum(dim=1) > 0
    assert inputs.labels[used].unique().tolist() == inputs.labels[used].sort().values.tolist()
    for seed in range(5):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        shuffled = replace(
            inputs,
            representations=inputs.representations.detach()[order],
            labels=inputs.labels[order],
            samples=inputs.samples[order],
        )
        assert term(shuffled) == expected


def test_every_sample_of_a_label_is_drawn_in_some_batch():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0.0] * 6 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
    drawn = set()
    for batch in range(60):
        # Six samples of one label meet six others, of which the batch decides.
        samples = torch.cat([torch.arange(6), 100 + 7 * batch + torch.arange(6)])
        leaf = vectors.clone().requires_grad_()
        (100 * ranksim(leaf, labels, samples, interpolation=2.0)).backward()
        drawn |= set((leaf.grad[:6].abs().sum(dim=1) > 0).nonzero().flatten().tolist())
    assert drawn == set(range(6))


def test_lots_of_different_samples_differ():
    samples = torch.randperm(2_000_000)[:50_000]
    assert len(module._draw_lots(samples).unique()) == len(samples)


def test_the_views_of_the_drawn_sample_enter_as_their_mean():
    vectors, labels, samples = _distinct(7)
    shift = torch.randn(7, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    views = torch.cat([vectors.detach() + shift, vectors.detach() - shift]).requires_grad_()
    (100 * ranksim(vectors, labels, samples, interpolation=2.0)).backward()
    (100 * ranksim(views, labels.repeat(2), samples.repeat(2), interpolation=2.0)).backward()
    torch.testing.assert_close(views.grad, vectors.grad.repeat(2, 1) / 2)


def test_ties_of_label_distance_go_to_the_sample_of_higher_position():
    vectors = torch.eye(3, dtype=torch.float64)
    # Row 1 is nearer to row 0 than row 2 is
    vectors[0, 1] = 0.5
    # Rows 1 and 2 are 3 away from row 0
    labels = torch.tensor([5.0, 2.0, 8.0], dtype=torch.float64)
    loss = ranksim(vectors, labels, torch.tensor([0, 1, 2]), interpolation=2.0)
    swapped = ranksim(vectors, labels, torch.tensor([0, 2, 1]), interpolation=2.0)
    assert swapped < loss


def test_vectors_ranked_like_their_labels_have_no_loss_and_no_gradient():
    angles = torch.tensor([0.0, 0.1, 0.3, 0.75, 1.45], dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()
    loss = ranksim(vectors, 10 * angles.detach(), torch.arange(5), interpolation=2.0)
    loss.backward()
    assert loss == 0
    assert vectors.grad.abs().max() == 0


def test_equal_labels_give_a_zero_that_is_connected_to_the_graph(term_inputs):
    inputs = term_inputs(labels=[4] * 6)
    loss = RankSim()(inputs)
    loss.backward()
    assert loss == 0
    assert inputs.representations.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_embeddings_of_zeros_and_duplicates_have_finite_gradients(dtype):
    vectors, labels, samples = _distinct(12, dtype=dtype)
    vectors.data[2:5] = 0
    vectors.data[6:9] = vectors.data[5]
    loss = ranksim(vectors, labels, samples, interpolation=2.0)
    (100 * loss).backward()
    assert loss.isfinite()
    assert vectors.grad.isfinite().all()
    assert vectors.grad[2:5].abs().max() == 0


def test_the_length_of_an_embedding_does_not_matter():
    vectors, labels, samples = _distinct(9)
    lengths = torch.linspace(0.1, 30, 9, dtype=torch.float64)[:, None]
    expected = ranksim(vectors, labels, samples, interpolation=2.0)
    assert ranksim(vectors * lengths, labels, samples, interpolation=2.0) == expected


@pytest.mark.parametrize("columns", [1, 7, 300, 1200])
def test_the_packed_sort_is_the_stable_sort(columns):
    generator = torch.Generator().manual_seed(1)
    values = torch.randint(-40, 40, (9, columns), generator=generator).float() / 7
    values[0] = 0.0
    values[0, ::2] = -0.0
    values[1, ::3] = torch.inf
    values[1, 1::3] = -torch.inf
    # Subnormal
    values[2] *= 1e-40
    order = module._sort_packed(values)
    assert torch.equal(order, values.argsort(dim=1, stable=True))


@pytest.mark.parametrize("power", [1, 9])
@pytest.mark.parametrize("columns", [300, 1024])
def test_values_too_near_for_the_coarse_sort_are_sorted_exactly(columns, power):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(9, columns, generator=generator) ** power
    values[3] = 1 - 1e-6 * torch.rand(columns, generator=generator)
    order = module._sort_packed(values)
    assert torch.equal(order, values.argsort(dim=1, stable=True))


def test_blocks_of_rows_change_nothing(monkeypatch):
    vectors, labels, samples = _distinct(40, dtype=torch.float32)
    expected = ranksim(vectors, labels, samples, interpolation=2.0)
    monkeypatch.setattr(module, "_CACHED_ENTRIES", 130)
    monkeypatch.setattr(blocks, "BLOCK_ENTRIES", 130)
    assert ranksim(vectors, labels, samples, interpolation=2.0) == expected
    exact = ranksim(vectors.double(), labels.double(), samples, interpolation=2.0)
    assert exact.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("trailing", [(), (1,)])
def test_labels_of_one_dimension_may_have_a_trailing_one(trailing):
    labels = torch.arange(3.0).reshape(3, *trailing)
    assert require_scalar_labels(labels, term="ranksim").tolist() == [0.0, 1.0, 2.0]


def test_labels_of_several_dimensions_are_refused_by_the_terms_name(term_inputs):
    inputs = term_inputs()
    inputs = replace(inputs, labels=inputs.labels[:, None].repeat(1, 2))
    with pytest.raises(InputError, match=r"term ranksim: needs labels of one dimension, got \(2,\)"):
        RankSim()(inputs)


def test_directions_have_unit_norm_and_zeros_stay_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    found = normalize_rows(vectors)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0]]).double())
    assert vectors.grad[0].abs().max() > 0
    assert vectors.grad[1].tolist() == [0.0, 0.0]


def test_the_term_passes_its_hyperparameters_to_the_formula(term_inputs):
    inputs = term_inputs()
    term = RankSim(gamma=3e-4, interpolation=0.5)
    expected = ranksim(inputs.representations, inputs.labels, inputs.samples, interpolation=0.5)
    assert term.weight == 3e-4
    assert term.reads == "embedding"
    assert term(inputs) == expected
