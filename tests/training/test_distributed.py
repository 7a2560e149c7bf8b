"""Run with `pytest tests/training/test_distributed.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.data.cache import count_by_rank, get_rank_share
from dirtune.losses import TERMS, Fittable
from dirtune.manifest import LabelSpec
from dirtune.training.distributed import Ranks
from tests.training.gloo import on_ranks

# An odd number of rows: shares are uneven
ROWS, WIDTH = 11, 4


def gathered(rank: int, world: int) -> dict[str, torch.Tensor]:
    start, stop = get_rank_share(ROWS, rank, world)
    rows = torch.arange(ROWS * WIDTH, dtype=torch.float64).reshape(ROWS, WIDTH)[start:stop].requires_grad_()
    everything = Ranks(rank, world).gather(rows)
    # Every rank weighs the rows differently, so that a gradient from a wrong rank would show.
    ((rank + 1) * everything * torch.arange(ROWS).unsqueeze(1)).sum().backward()
    return {"all": everything.detach(), "gradient": rows.grad}


def make_parts() -> list[torch.Tensor]:
    """Tensors with the same rows: float32, integers that float32 does not hold, and two dimensions."""
    numbers = torch.arange(ROWS)
    return [numbers / 3, 2**40 + numbers, numbers[:, None, None] + torch.rand(ROWS, 2, 3, generator=torch.Generator())]


def gathered_together(rank: int, world: int) -> dict[str, Any]:
    start, stop = get_rank_share(ROWS, rank, world)
    collectives, all_gather = [], dist.all_gather
    dist.all_gather = lambda *given: collectives.append(all_gather(*given))
    parts = Ranks(rank, world).gather_together([part[start:stop] for part in make_parts()], count_by_rank(ROWS, world))
    dist.all_gather = all_gather
    return {"parts": parts, "collectives": len(collectives)}


def test_one_process_gathers_nothing() -> None:
    rows = torch.ones(3, 2)
    assert Ranks().gather(rows) is rows
    assert Ranks().gather_together([rows])[0] is rows


@pytest.mark.slow
def test_parts_are_gathered_exactly_in_one_collective(ranks: list[dict[str, Any]]) -> None:
    for result in ranks:
        assert result["together"]["collectives"] == 1
        for part, expected in zip(result["together"]["parts"], make_parts(), strict=True):
            assert part.dtype == expected.dtype
            assert torch.equal(part, expected)


def term_inputs(representations: torch.Tensor) -> TermInputs:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 5, (ROWS,), generator=generator).double()
    return TermInputs(
        representations=torch.nn.functional.normalize(representations, dim=-1),
        labels=labels,
        label_bins=labels.long(),
        predictions=labels + torch.randn(ROWS, generator=generator).double(),
        weights=torch.rand(ROWS, generator=generator).double() + 0.5,
        samples=torch.arange(ROWS),
        num_views=1,
        label_range=5.0,
    )


def model_and_inputs() -> tuple[torch.nn.Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(WIDTH, 3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, torch.randn(ROWS, WIDTH, generator=generator).double()


def called(name: str) -> Callable[[TermInputs], torch.Tensor]:
    """A term as training calls it: fitted to the labels of these rows, if it can be."""
    # Without a finished epoch, SRL is off by default.
    settings = {"before": "zeros"} if name == "srl" else {}
    term, seen = TERMS[name](**settings), term_inputs(torch.ones(ROWS, 3))
    if not isinstance(term, Fittable):
        return term
    spec = LabelSpec(name="length", unit="m", low=0, high=5, bin_width=1, num_bins=5)
    dims = dict.fromkeys(("representation", "embedding", "direction"), 3)
    labels = TrainingLabels(labels=seen.labels, label_bins=seen.label_bins, spec=spec, dims=dims)
    return term.fit(labels) or term


def term_gradients(rank: int, world: int) -> dict[str, dict[str, torch.Tensor]]:
    start, stop = get_rank_share(ROWS, rank, world)
    results = {}
    for name in TERMS:
        model, inputs = model_and_inputs()
        replica = DistributedDataParallel(model)
        loss = called(name)(term_inputs(Ranks(rank, world).gather(replica(inputs[start:stop]))))
        loss.backward()
        results[name] = {"loss": loss.detach(), "gradient": model.weight.grad}
    return results


def on_this_rank(rank: int, world: int) -> dict[str, object]:
    return {
        "gathered": gathered(rank, world),
        "together": gathered_together(rank, world),
        "terms": term_gradients(rank, world),
    }


@pytest.fixture(scope="module", params=[2, 4], ids=["two_ranks", "four_ranks"])
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return on_ranks(request.param, on_this_rank)


def test_gather_returns_all_rows_in_order_and_sums_the_gradients_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    expected = torch.arange(ROWS * WIDTH, dtype=torch.float64).reshape(ROWS, WIDTH)
    factor = sum(range(1, len(ranks) + 1))
    for rank, result in enumerate(ranks):
        start, stop = get_rank_share(ROWS, rank, len(ranks))
        assert torch.equal(result["gathered"]["all"], expected)
        weights = torch.arange(start, stop, dtype=torch.float64).unsqueeze(1).expand(-1, WIDTH)
        assert torch.equal(result["gathered"]["gradient"], factor * weights)


@pytest.mark.parametrize("name", sorted(TERMS))
def test_a_term_on_several_ranks_equals_the_term_on_the_global_batch(ranks: list[dict[str, Any]], name: str) -> None:
    model, inputs = model_and_inputs()
    loss = called(name)(term_inputs(model(inputs)))
    loss.backward()
    assert model.weight.grad.abs().max() > 0
    for result in ranks:
        torch.testing.assert_close(result["terms"][name]["loss"], loss.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(result["terms"][name]["gradient"], model.weight.grad, rtol=1e-9, atol=1e-12)
