"""Runs of the official training loops as golden vectors, and the same steps by the training loop of the library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import dirtune.pipelines.agedb
import dirtune.pipelines.imdb_wiki
import dirtune.pipelines.sts_b
from dirtune.batch import Inputs
from dirtune.config import TrialConfig
from dirtune.data import cache as data_cache
from dirtune.frozen import read
from dirtune.manifest import InputSpec, Manifest, ShotRule, SplitInfo
from dirtune.nested import merge
from dirtune.presets import expand_presets
from dirtune.reweighting.density import label_bins
from dirtune.training import loop
from dirtune.training.loop import run_epochs
from dirtune.training.objective import Loss
from dirtune.training.stages import list_stages
from dirtune.training.state import Training, begin_training
from tests.golden.vectors import FOLDER

LABELS = {
    "agedb": dirtune.pipelines.agedb.LABEL,
    "imdb_wiki": dirtune.pipelines.imdb_wiki.LABEL,
    "sts_b": dirtune.pipelines.sts_b.LABEL,
}
VOCABULARY = 40
"""Rows of the word vectors in the vectors of STS-B."""


@dataclass(frozen=True)
class OfficialRun:
    """Inputs of an official training loop, and what each of its steps did."""

    name: str
    settings: dict[str, Any]
    """The configuration that is compared: presets by name, with settings over them."""
    meta: dict[str, Any]
    arrays: Mapping[str, Tensor]

    @property
    def has_float32_weights(self) -> bool:
        """True if rounding to float32 enters: sample weights, or the noise scale of Balanced MSE."""
        return not bool((self.arrays["weights"] == 1).all()) or self.name.startswith("bmse_")

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters by name, with one entry for the start and one for each step."""
        prefix = "weights/"
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}


@dataclass(frozen=True)
class Steps:
    """What each step of a run did."""

    losses: Tensor
    rates: Tensor
    grad_norms: Tensor
    """After clipping."""
    weights: dict[str, Tensor]
    """After the last step."""


@cache
def read_official(name: str) -> OfficialRun:
    """Read the vector of a training run."""
    with np.load(FOLDER / "training" / f"{name}.npz") as file:
        settings, meta = (json.loads(str(file[key])) for key in ("hparams", "meta"))
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if file[key].ndim}
    return OfficialRun(name, settings, meta, arrays)


def make_config(run: OfficialRun, **settings: Any) -> TrialConfig:
    """Return the configuration of a run, with settings over it."""
    data = run.settings["data"]
    plain = {**run.settings, **settings, "data": {"name": data}}
    # Named by the commands of these runs, not by those of ConR's and ACCon's papers.
    if "--lds_ks 5 --lds_sigma 2" in run.meta.get("argv", ""):
        plain = merge(plain, {"reweighting": {"lds": {"size": 5, "sigma": 2.0}}})
    return read(TrialConfig, expand_presets(plain, data, where=run.name), where=run.name)


def make_data(run: OfficialRun) -> data_cache.ResidentData:
    """Return the rows of a run, in their order, as a data set whose splits are all the same."""
    arrays, label = run.arrays, LABELS[run.settings["data"]]
    if "views" in arrays:
        inputs = {"vector": arrays["views"][:, 0].flatten(0, 1)}
        specs = {"vector": InputSpec(kind="vector", shape=(arrays["views"].shape[-1],))}
    else:
        inputs = {name: arrays[name].flatten(0, 1) for name in ("first", "second")}
        specs = {
            name: InputSpec(kind="tokens", shape=(rows.shape[1],), vocabulary=VOCABULARY)
            for name, rows in inputs.items()
        }
    labels = arrays["labels"].flatten()
    bins = label_bins(labels.numpy(), label)
    split = data_cache.ResidentSplit(
        sample_ids=tuple(f"{row:05d}" for row in range(len(labels))),
        labels=labels,
        label_bins=torch.from_numpy(bins),
        exact_labels=labels.numpy(),
        inputs=inputs,
    )
    counts = tuple(np.bincount(bins, minlength=label.num_bins).tolist())
    info = SplitInfo(files=("part_0.parquet",), rows=len(labels), bin_counts=counts)
    manifest = Manifest(
        name=run.settings["data"],
        inputs=specs,
        label=label,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits=dict.fromkeys(("train", "val", "test"), info),
        content_hash="c" * 64,
        split_fingerprint="s" * 64,
    )
    splits = dict.fromkeys(("train", "val", "test"), split)
    return data_cache.ResidentData(manifest=manifest, device=torch.device("cpu"), splits=splits)


def run_steps(run: OfficialRun, config: TrialConfig) -> Steps:
    """Train the steps of an official run, in float64, from its first weights, on its rows and views."""
    with _serve_stored_views(run):
        training = begin_training(config, make_data(run))
        # The vectors of regressor re-training hold its second stage.
        if run.name.startswith("rrt_"):
            training.history = [{}] * config.recipe.epochs
            training.start_stage(list_stages(config)[1])
        training.model.double()
        training.loss.double()
        missing, unexpected = training.model.load_state_dict(
            {name: values[0] for name, values in run.weights.items()}, strict=False
        )
        # Only the statistics of feature smoothing have no official start.
        assert not unexpected
        assert all(name.startswith("smoothing.") for name in missing), missing
        recorder = _Recorder(training)
        epochs: Iterable[object] = islice(run_epochs(training), run.meta["epochs"])
        # An epoch of the recipe is longer than the recorded pass.
        if training.stage.recipe.steps_per_epoch is not None:
            assert run.meta["epochs"] == 1
            epochs = islice(loop.run_steps(training), run.meta["steps_per_epoch"])
        for _ in epochs:
            pass
    return recorder.get_steps()


class _Recorder:
    """Records the steps of a run by hooks of its loss and its optimizer."""

    def __init__(self, training: Training) -> None:
        self.model, self.loss = training.model, training.loss
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.grad_norms: list[Tensor] = []
        training.loss.register_forward_hook(self._record_loss)
        training.optimizer.register_step_pre_hook(self._record_step)

    def _record_loss(self, module: object, arguments: object, loss: Loss) -> None:
        self.losses.append(loss.total.detach())

    def _record_step(self, optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        # The official norm includes the noise of Balanced MSE.
        trained = [*self.model.parameters(), *self.loss.parameters()]
        gradients = [value.grad for value in trained if value.grad is not None]
        self.grad_norms.append(torch.nn.utils.get_total_norm(gradients))

    def get_steps(self) -> Steps:
        weights = {name: value.detach() for name, value in self.model.named_parameters()}
        rates = torch.tensor(self.rates, dtype=torch.float64)
        return Steps(torch.stack(self.losses), rates, torch.stack(self.grad_norms), weights)


@contextmanager
def _serve_stored_views(run: OfficialRun) -> Iterator[None]:
    """Train on the rows in their stored order, and on the stored views instead of augmented ones."""

    def serve(
        inputs: Inputs, transform: object, *, count: int, stream: tuple[int, int, int], **_: object
    ) -> tuple[Inputs, ...]:
        stored = run.arrays.get("views")
        # Sentences are not augmented.
        if stored is None:
            return (inputs,) * count
        assert stored.shape[1] >= count, f"{run.name} has {stored.shape[1]} views, the recipe asks for {count}"
        step = stream[2]
        return tuple({"vector": stored[step, view]} for view in range(count))

    def keep_order(seed: int, epoch: int, rows: int) -> Tensor:
        return torch.arange(rows)

    with patch.object(data_cache, "make_views", serve), patch.object(data_cache, "make_epoch_order", keep_order):
        yield
