"""Trainings side by side come to what they come to alone: `pytest tests/training/test_fused.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from dirtune.batch import Batch, Inputs
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, Rows, Split
from dirtune.errors import NonFiniteLoss
from dirtune.training.fused import Feed, batches_key, in_lockstep, share_batches
from dirtune.training.loop import epochs_by_step
from dirtune.training.state import Training, begin
from tests.training.runs import EXPLODING, TERMS, Configure, same, trained, weights_of

CPU = torch.device("cpu")
VIEWS: dict[str, Any] = {"views": {"count": 2, "augmentation": "shift"}}
IMAGES = {"encoder": {"name": "cnn", "channels": 2}}


@dataclass(frozen=True, kw_only=True)
class Counted(Split):
    """A split that counts the batches that are read of it."""

    whole: Split
    reads: list[int]

    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        for inputs in self.whole.read(batches):
            self.reads.append(len(self.reads))
            yield inputs


def counted(data: ResidentData, reads: list[int]) -> ResidentData:
    whole = data.splits["train"]
    train = Counted(
        whole=whole,
        reads=reads,
        sample_ids=whole.sample_ids,
        labels=whole.labels,
        label_bins=whole.label_bins,
        exact_labels=whole.exact_labels,
    )
    return replace(data, splits={**data.splits, "train": train})


def together(trainings: Sequence[Training]) -> None:
    """Train all of them to their ends, an epoch of each at a time."""
    streams = [epochs_by_step(training) for training in trainings]
    while open_ := [each for each in trainings if not each.is_finished]:
        share_batches(open_)
        in_lockstep([next(streams[trainings.index(each)]) for each in open_], CPU)


def arms(configure: Configure) -> list[TrialConfig]:
    """Different models, losses, weights of samples and learning rates on the same batches."""
    dropping = {"encoder": {"name": "mlp", "hidden": [8], "dropout": 0.3}}
    return [
        configure(recipe=VIEWS, model=IMAGES),
        configure(recipe=VIEWS, model=dropping),
        configure(recipe=VIEWS, model=dropping, reweighting={"scheme": "sqrt_inverse"}),
        configure(recipe={**VIEWS, "learning_rate": 0.1}, model={"projection_dim": 4}, terms=TERMS),
    ]


@pytest.mark.parametrize("recipe", [{}, {"accumulation": 2}, {"batch_size": 202}])
def test_side_by_side_is_bitwise_as_alone_and_every_batch_is_read_once(
    configuration: Configure, toy: ResidentData, recipe: dict[str, Any]
) -> None:
    configs = [
        config.model_copy(update={"recipe": config.recipe.model_copy(update=recipe)}) for config in arms(configuration)
    ]
    alone = [trained(config, toy) for config in configs]
    reads: list[int] = []
    of_one: list[int] = []
    trained(configs[0], counted(toy, of_one))
    fused = [begin(config, counted(toy, reads)) for config in configs]
    together(fused)
    for expected, found in zip(alone, fused, strict=True):
        assert found.history == expected.history
        assert found.order_digest == expected.order_digest
        assert same(weights_of(found), weights_of(expected))
    assert len(reads) == len(of_one)


def test_one_that_diverges_leaves_and_the_others_do_not_notice(configuration: Configure, toy: ResidentData) -> None:
    quiet, loud = configuration(recipe={"epochs": 4}), configuration(recipe=EXPLODING)
    expected = trained(quiet, toy)
    trainings = [begin(config, toy) for config in (loud, quiet)]
    failures: list[NonFiniteLoss] = []

    def guarded(steps: Iterator[None]) -> Iterator[None]:
        try:
            yield from steps
        except NonFiniteLoss as error:
            failures.append(error)

    streams = [epochs_by_step(training) for training in trainings]
    for _ in range(4):
        share_batches(trainings)
        running = streams[len(failures) :]
        in_lockstep([guarded(next(stream)) for stream in running], CPU)
    assert len(failures) == 1
    assert trainings[1].history == expected.history


def test_they_may_stand_at_different_epochs(configuration: Configure, toy: ResidentData) -> None:
    """As after an interruption, when the checkpoint of one is older."""
    config = configuration(recipe=VIEWS, model=IMAGES)
    expected = trained(config, toy)
    ahead, behind = begin(config, toy), begin(config, toy)
    for _ in next(epochs_by_step(ahead)):
        pass
    together([ahead, behind])
    assert ahead.history == behind.history == expected.history
    assert same(weights_of(ahead), weights_of(behind))


def batch(number: int) -> Batch:
    rows = torch.tensor([number])
    return Batch(views=({"x": rows},), labels=rows.float(), label_bins=rows, weights=rows.float(), rows=rows)


def test_a_feed_keeps_a_batch_only_until_all_have_had_it_and_gives_each_its_own_weights() -> None:
    given: list[int] = []

    def numbered() -> Iterator[Batch]:
        for number in range(6):
            given.append(number)
            yield batch(number)

    feed = Feed({1: 2})
    first = feed.shared(numbered(), 1, torch.arange(6.0))
    second = feed.shared(numbered(), 1, 10 * torch.arange(6.0))
    seen = [(next(first), next(second)) for _ in range(3)]
    assert given == [0, 1, 2]
    assert [(one.weights.item(), other.weights.item()) for one, other in seen] == [(0, 0), (1, 10), (2, 20)]
    assert all(one.views is other.views for one, other in seen)
    # It has failed
    second.close()
    assert [each.rows.item() for each in first] == [3, 4, 5]
    assert given == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({"terms": TERMS, "model": {"projection_dim": 4}}, True),
        ({"reweighting": {"scheme": "inverse"}, "recipe": {"learning_rate": 0.5}}, True),
        ({"seed": 1}, False),
        ({"recipe": {"batch_size": 32}}, False),
        ({"recipe": {"accumulation": 2}}, False),
        ({"recipe": {"epochs": 4}}, False),
        ({"recipe": {"views": {"count": 2}}}, False),
        ({"data": {"fraction": 0.5}}, False),
        ({"scheme": {"name": "rrt", "epochs": 2}}, False),
    ],
)
def test_the_key_tells_who_sees_the_same_batches(
    configuration: Configure, change: dict[str, Any], is_same: bool
) -> None:
    assert (batches_key(configuration(**change)) == batches_key(configuration())) is is_same


def test_each_finds_the_random_generator_as_it_left_it() -> None:
    def drawing(seed: int, drawn: list[float]) -> Iterator[None]:
        torch.manual_seed(seed)
        for _ in range(3):
            drawn.append(torch.rand(()).item())
            yield

    alone: list[list[float]] = [[], []]
    for seed, drawn in enumerate(alone):
        for _ in drawing(seed, drawn):
            pass
    beside: list[list[float]] = [[], []]
    in_lockstep([drawing(seed, drawn) for seed, drawn in enumerate(beside)], CPU)
    assert beside == alone
