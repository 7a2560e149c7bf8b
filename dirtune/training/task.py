"""Regression tasks: all that depends on the kind of label, one per sample or one per pixel, behind one interface.

`make_task` chooses the task of a data set from its manifest, once. A task provides the regressor, the loss, the label bins
for feature smoothing, the evaluation and the known metrics and augmentations, and raises an error for settings that it
does not support. The transforms of the inputs (`dirtune.data.views.Transform`) are the data layer's part of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune.batch import Batch, Inputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.data import label_units
from dirtune.data.cache import Rows, Split, get_rank_share
from dirtune.data.views import make_transform
from dirtune.errors import Fault, InputError
from dirtune.label_transform import restore_labels, transform_labels
from dirtune.losses import RawLoss
from dirtune.losses.balanced_mse import BMC
from dirtune.losses.needs import Needs
from dirtune.manifest import LabelTransform, Manifest
from dirtune.metrics import DENSE_METRICS, DEVIATION_METRICS, METRICS, RegionMetric, compute_region_metrics
from dirtune.metrics.intervals import compute_deviation_metrics
from dirtune.models import build, dense_regressor, heads
from dirtune.models.regressor import Regressor, RegressorOutput
from dirtune.reweighting import Reweighting
from dirtune.training import batch_limit, dense_evaluation, dense_loss, distributed, objective, stages

DENSE_TERMS = ("conr",)
"""The terms that are defined for per-pixel labels."""
_INSTEAD_ON_PIXELS = {
    "loss.name": "l1, mse, gai and bni are",
    "metrics": "leave them out",
    "mixing": "leave it out",
    "model.target_copies": "leave it out",
    "reweighting.scheme": "inverse and sqrt_inverse are",
    "sampling": "leave it out; reweighting weights pixels by their labels",
    "sharpness.weights": "both is",
    "synthesis": "leave it out; reweighting weights pixels by their labels",
    "terms": "the term conr is",
}
"""What would do where a setting has no form for per-pixel labels, by its key."""


NEEDS_DEVIATION = (
    "needs a predicted standard deviation, which this loss does not have or label_transform leaves without a unit; the losses "
    "beta_nll, evidential, gaussian_nll, laplace_nll, uvote and vir_head have one"
)


class Evaluation(NamedTuple):
    """Predictions of a model for a split, and their metrics."""

    predictions: np.typing.NDArray[np.float64]
    """As of `dirtune.training.evaluation.predict`; with per-pixel labels, each sample's mean over its labeled pixels."""
    metrics: list[RegionMetric]
    deviations: np.typing.NDArray[np.float64] | None = None
    """Predicted standard deviation of each label, in its unit; None without a head that predicts one."""


@dataclass(frozen=True)
class Task(ABC):
    """The parts of training and evaluation that depend on the kind of label of a data set."""

    manifest: Manifest
    label_transform: LabelTransform = "none"
    """Function of the labels in which the regressor predicts."""
    plugin_metrics: tuple[str, ...] = ()
    """Metrics of plug-ins that are evaluated with those of the data set."""

    general_metrics: ClassVar[Sequence[str]]
    """The metrics of every data set of this kind."""
    has_representations: ClassVar[bool]
    """True if a sample has one representation that can be recorded."""
    evaluation_rows: ClassVar[int]
    """Samples of an evaluation batch."""
    statistics_rows: ClassVar[int]
    """Samples of a batch of the statistics of feature smoothing."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the data set, its own included."""
        return (*self.general_metrics, *self.manifest.metrics)

    @property
    def augmentations(self) -> Mapping[str, object]:
        """The augmentations that fit the data set, by name."""
        return make_transform(self.manifest.label, self.manifest.inputs).augmentations

    def check(self, config: TrialConfig) -> None:
        """Raise an error if objective, loss, terms or smoothing do not fit the labels.

        Raises:
            InputError: the data set does not have the objective's metric, labels of several dimensions are to be
                smoothed, a setting is not defined for the kind of label, a loss or term has no form for the labels or the
                recipe, or the labels cannot be transformed.
        """
        where, dims = self.manifest.name, len(self.manifest.label.axes)
        label_units.check_label_transform(config, self.manifest)
        known = (*self.metrics, *config.plugin_metrics)
        if faults := [*self.find_faults(config), *self._find_unmet_needs(config)]:
            raise InputError(faults)
        for key, chosen in (
            ("objective", config.objective),
            ("scheme.first_objective", getattr(config.scheme, "first_objective", None)),
        ):
            if chosen is None or chosen.metric in known:
                continue
            if chosen.metric not in DEVIATION_METRICS:
                rule = "the data set has no such metric"
                raise InputError(Fault(where=where, key=f"{key}.metric", rule=rule, got=chosen.metric, known=known))
            if not predicts_deviation(config, self.manifest):
                raise InputError(Fault(where=where, key=f"{key}.metric", rule=NEEDS_DEVIATION, got=chosen.metric))
        if dims > 1 and config.reweighting.fds is not None:
            # The window runs over neighboring bins, and consecutive cells of a grid are no neighbors.
            rule = "is made for labels of one dimension"
            raise InputError(Fault(where=where, key="reweighting.fds", rule=rule, got=dims))

    def _find_unmet_needs(self, config: TrialConfig) -> Iterator[Fault]:
        """Yield a fault for every condition of a loss or term (`dirtune.losses.needs`) that data or recipe do not meet."""
        for stage in stages.list_stages(config):
            recipe = stage.recipe
            is_first_apart = recipe.views.regression == "first"
            of_loss, of_terms = (1, recipe.views.count - 1) if is_first_apart else (recipe.views.count,) * 2
            parts: dict[str, tuple[Any, int]] = {}
            if stage.trains_predictor:
                key = "scheme.loss" if getattr(config.scheme, "loss", None) is stage.config.loss else "loss"
                parts[f"{key}.name"] = stage.config.loss, of_loss
            if stage.trains_representation:
                parts |= {f"terms.{name}": (term, of_terms) for name, term in config.terms.get_active().items()}
            for key, (part, views) in parts.items():
                needs: Needs = getattr(part, "needs", Needs())
                if isinstance(part, RawLoss):
                    # A head has one prediction per sample.
                    needs = replace(needs, scalar_labels=True)
                # Terms without a form for per-pixel labels are among the faults of their task.
                is_dense_term = self.manifest.label.dense is not None and key.startswith("terms.")
                rules = [] if is_dense_term else [*needs.find_label_faults(self.manifest.label)]
                rules += needs.find_batch_faults(recipe.micro_batch, accumulation=recipe.accumulation, views=views)
                name = key.rpartition(".")[2] if key.startswith("terms") else getattr(part, "name", None)
                yield from (Fault(where=self.manifest.name, key=key, rule=rule, got=name) for rule in rules)

    def collect_outputs(
        self, model: Regressor, split: Split, ranks: distributed.Ranks, select: Callable[[RegressorOutput], Tensor]
    ) -> Tensor:
        """Return a part of the regressor's output for every row of a split, gathered from all ranks.

        Args:
            model: the regressor itself, not its distributed wrapper; it is left in evaluation mode.
            split: the split, of which every rank evaluates its share.
            ranks: this rank in its group.
            select: selects the part, with one row per sample.
        """
        order = split.reading_order
        start, stop = get_rank_share(len(split), ranks.rank, ranks.world)
        model.eval()
        with torch.inference_mode():
            parts: list[Tensor] = []
            limit = batch_limit.BatchLimit()
            for inputs in split.read(order[start:stop].split(self.evaluation_rows)):

                def compute(part: slice, inputs: Inputs = inputs) -> Tensor:
                    view = split.transform.apply_evaluation(batch_limit.select_part(inputs, part))
                    return select(model(view))

                parts += limit.map_parts(compute, batch_limit.count_rows(inputs))
            as_read = ranks.gather(torch.cat(parts))
            return as_read[order.argsort().to(as_read.device)]

    def predict(self, model: Regressor, split: Split, ranks: distributed.Ranks) -> np.typing.NDArray[np.float64]:
        """Return predictions for every row of a split in the label's unit, gathered from all ranks."""
        predictions = self.collect_outputs(model, split, ranks, lambda output: output.predictions)
        return restore_labels(predictions.double().cpu().numpy(), self.label_transform)

    def predict_deviations(
        self, model: Regressor, split: Split, ranks: distributed.Ranks
    ) -> tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.float64] | None]:
        """Return predictions for every row of a split, and their standard deviations if the model has a head for them."""
        # The deviation of a transformed label has no counterpart in the label's unit.
        if find_distribution(model) is None or self.label_transform != "none":
            return self.predict(model, split, ranks), None

        def select(output: RegressorOutput) -> Tensor:
            deviations = model.compute_deviations(output)
            assert deviations is not None, "the head has a distribution"
            return torch.stack([output.predictions, deviations], dim=1)

        found = self.collect_outputs(model, split, ranks, select).double().cpu().numpy()
        return found[:, 0], found[:, 1]

    @abstractmethod
    def find_faults(self, config: TrialConfig) -> Iterable[Fault]:
        """Yield a fault for every setting that is not defined for the kind of label."""

    @abstractmethod
    def build_regressor(self, config: TrialConfig, vocabulary: Sequence[str] | None = None) -> Regressor:
        """Return the regressor of a configuration, on the CPU.

        Args:
            config: the trial's configuration.
            vocabulary: tokens by id, for encoders that start from word vectors.

        Raises:
            InputError: see `dirtune.models.build`.
        """

    @abstractmethod
    def make_loss(self, labels: TrainingLabels, stage: stages.Stage) -> objective.TrainingLoss:
        """Return the loss of a stage, fitted to the training labels."""

    @abstractmethod
    def compute_sample_weights(self, split: Split, reweighting: Reweighting) -> Float[Tensor, " rows"]:
        """Return the weight of every row of a split, in float32 on its device."""

    @abstractmethod
    def stack_bins(self, batch: Batch) -> Int[Tensor, "rows *space"]:
        """Return the label bins of `stack_views(batch.views)`; -1 for an unlabeled pixel. The tensor is the caller's own."""

    @abstractmethod
    def embed_inputs(
        self, model: Regressor, split: Split, rows: Rows, inputs: Inputs
    ) -> tuple[Float[Tensor, "labels dim"], Int[Tensor, " labels"]]:
        """Return one embedding and one bin per label, of stored inputs.

        Args:
            model: the regressor.
            split: the split of the inputs.
            rows: positions of the inputs in the split.
            inputs: as stored.
        """

    @abstractmethod
    def evaluate(
        self, model: Regressor, split: Split, ranks: distributed.Ranks, regions: np.typing.NDArray[Any]
    ) -> Evaluation:
        """Return predictions for a split and all metrics in all shot regions.

        Args:
            model: the regressor itself, not its distributed wrapper.
            split: the split, of which every rank evaluates its share.
            ranks: this rank in its group.
            regions: shot region of each label bin.
        """


class SampleTask(Task):
    """Regression of one label per sample, of one or more dimensions."""

    general_metrics = tuple(METRICS)
    has_representations = True
    evaluation_rows = 1024
    statistics_rows = 1024

    def find_faults(self, config: TrialConfig) -> Iterator[Fault]:
        """Yield a fault for every setting that is not defined for the inputs, or for labels of several dimensions."""
        others = [name for name, spec in self.manifest.inputs.items() if spec.kind != "vector"]
        if config.synthesis is not None and others:
            rule = f"needs neighbors among vectors, and input {others[0]!r} is none; ingest it as features of a frozen encoder"
            yield Fault(where=self.manifest.name, key="synthesis", rule=rule, got=config.synthesis.name)
        if config.synthesis is not None and self.manifest.label.components:
            rule = f"is made for labels of one dimension, not {len(self.manifest.label.components)}"
            advice = "sampling, mixing and reweighting take any number"
            yield Fault(where=self.manifest.name, key="synthesis", rule=f"{rule}; {advice}", got=config.synthesis.name)
        counts = self.manifest.train_counts
        if config.sampling is not None and np.count_nonzero(counts) < 2:
            rule = "orders rows by their label bins, but all training labels are in one; ingest with narrower bins"
            yield Fault(where=self.manifest.name, key="sampling", rule=rule, got=config.sampling.name)
        tokens = [name for name, spec in self.manifest.inputs.items() if spec.kind == "tokens"]
        mixes_inputs = config.mixing is not None and getattr(config.mixing, "place", "input") == "input"
        if (
            config.mixing is not None
            and mixes_inputs
            and tokens
            and getattr(config.model.encoder, "reads_tokens", True)
        ):
            rule = f"has no form for tokens (input {tokens[0]!r}), between which there are no numbers"
            advice = "use place: embedding, or ingest the texts as features of a frozen encoder"
            yield Fault(where=self.manifest.name, key="mixing", rule=f"{rule}; {advice}", got=config.mixing.name)
        from_batch = config.mixing is not None and getattr(config.mixing, "partners", "split") == "batch"
        if config.mixing is not None and from_batch and config.recipe.batch_size == 1:
            rule = "draws partners from a batch of one sample; use partners: split, or raise recipe.batch_size"
            yield Fault(where=self.manifest.name, key="mixing", rule=rule, got=config.mixing.name)
        dims, copies = len(self.manifest.label.axes), config.model.target_copies
        if dims > 1 and copies > 1:
            rule = f"is made for labels of one dimension, not {dims}; leave it out"
            yield Fault(where=self.manifest.name, key="model.target_copies", rule=rule, got=copies)

    def build_regressor(self, config: TrialConfig, vocabulary: Sequence[str] | None = None) -> Regressor:
        """Return a regressor with one prediction per sample."""
        label = self.manifest.label
        return build.build_regressor(
            config.model,
            self.manifest.features,
            config.seed,
            vocabulary,
            smoothing=config.reweighting.fds,
            num_bins=label.num_bins,
            label_dim=len(label.axes),
            build_head=make_head_builder(config, self.manifest),
        )

    def make_loss(self, labels: TrainingLabels, stage: stages.Stage) -> objective.TrainingLoss:
        """Return the loss of a stage."""
        return objective.TrainingLoss(
            stage.config, labels, regression=stage.trains_predictor, terms=stage.trains_representation
        )

    def compute_sample_weights(self, split: Split, reweighting: Reweighting) -> Float[Tensor, " rows"]:
        """Return the weight of every row by its label."""
        # In NumPy and float64 on the CPU, so that weights are equal on every device.
        bins = split.label_bins.cpu().numpy()
        labels = transform_labels(split.exact_labels, self.label_transform)
        weights = reweighting.compute_weights(bins, self.manifest.label.num_bins, labels=labels)
        return torch.from_numpy(weights).to(split.labels.device, torch.float32)

    def stack_bins(self, batch: Batch) -> Int[Tensor, " rows"]:
        """Return the samples' bins, repeated for each view."""
        return batch.label_bins.repeat(len(batch.views))

    def embed_inputs(
        self, model: Regressor, split: Split, rows: Rows, inputs: Inputs
    ) -> tuple[Float[Tensor, "labels dim"], Int[Tensor, " labels"]]:
        """Return one embedding and one bin per sample."""
        embeddings = model.embed(split.transform.apply_evaluation(inputs))
        return embeddings, split.label_bins[rows.to(split.label_bins.device)]

    def evaluate(
        self, model: Regressor, split: Split, ranks: distributed.Ranks, regions: np.typing.NDArray[Any]
    ) -> Evaluation:
        """Return predictions `(rows,)` or `(rows, L)` in the label's unit, and their metrics."""
        values, deviations = self.predict_deviations(model, split, ranks)
        bins = split.label_bins.cpu().numpy()
        own = (*self.manifest.metrics, *self.plugin_metrics)
        # `exact_labels` are float64 as stored; the labels on the device are float32.
        rows = compute_region_metrics(split.exact_labels, values, regions[bins], bins=bins, extra=own)
        distribution = find_distribution(model)
        if deviations is not None and distribution is not None:
            rows += compute_deviation_metrics(
                split.exact_labels, values, deviations, regions[bins], distribution=distribution
            )
        return Evaluation(values, rows, deviations)


def find_distribution(model: Regressor) -> heads.Distribution | None:
    """Return the form of the distribution that a model's head predicts; None if it predicts a number alone."""
    return model.predictor.distribution if isinstance(model.predictor, heads.Head) else None


def predicts_deviation(config: TrialConfig, manifest: Manifest) -> bool:
    """Return True if predictions of a configuration have standard deviations, in the label's unit, and so their metrics."""
    is_scalar = manifest.label.dense is None and not manifest.label.components
    if not isinstance(config.loss, RawLoss) or config.model.label_transform != "none" or not is_scalar:
        return False
    labels = heads.HeadLabels.from_histogram(manifest.label, manifest.train_counts)
    with torch.random.fork_rng(devices=[]):
        return heads.build_head(config.loss, 1, labels).distribution is not None


def make_head_builder(config: TrialConfig, manifest: Manifest) -> Callable[[int], heads.Head] | None:
    """Return a function that builds the head of a configuration from the size of what it reads; None without a head."""
    scale, offset = config.model.get_label_units()
    if config.model.target_copies > 1:
        return partial(heads.TargetCopies, copies=config.model.target_copies, offset=offset / scale)
    if not isinstance(config.loss, RawLoss):
        return None
    labels = heads.HeadLabels.from_histogram(
        manifest.label,
        manifest.train_counts,
        scale=scale,
        offset=offset,
        transform=config.model.label_transform,
    )
    return partial(heads.build_head, config.loss, labels=labels)


class DenseTask(Task):
    """Dense prediction: regression of one label per pixel."""

    general_metrics = DENSE_METRICS
    has_representations = False
    evaluation_rows = dense_evaluation.DENSE_EVALUATION_ROWS
    # 128 values in float64 for each of 114 x 152 pixels are 18 MB per image.
    statistics_rows = 8

    def find_faults(self, config: TrialConfig) -> Iterator[Fault]:
        """Yield a fault for every setting that is not defined for per-pixel labels."""
        found: dict[str, Any] = {f"terms.{name}": name for name in config.terms.get_active() if name not in DENSE_TERMS}
        if config.model.target_copies > 1:
            found["model.target_copies"] = config.model.target_copies
        for key in ("synthesis", "sampling", "mixing"):
            if (part := getattr(config, key)) is not None:
                found[key] = part.name
        if getattr(config.sharpness, "weights", "both") == "ascent":
            found["sharpness.weights"] = "ascent"
        if config.plugin_metrics:
            found["metrics"] = config.plugin_metrics[0]
        for prefix, part in (("", config), ("scheme.", config.scheme)):
            # A second stage without settings of its own has those of the trial.
            reweighting, loss = getattr(part, "reweighting", None), getattr(part, "loss", None)
            if reweighting is not None and reweighting.scheme == "dense":
                found[f"{prefix}reweighting.scheme"] = "dense"
            # Batch-based balanced MSE compares every label of a batch with every other.
            if isinstance(loss, BMC):
                found[f"{prefix}loss.name"] = "bmc"
        for key, got in found.items():
            instead = _INSTEAD_ON_PIXELS["terms" if key.startswith("terms.") else key.removeprefix("scheme.")]
            rule = f"is not defined for per-pixel labels; {instead}"
            yield Fault(where=self.manifest.name, key=key, rule=rule, got=got)

    def build_regressor(self, config: TrialConfig, vocabulary: Sequence[str] | None = None) -> Regressor:
        """Return a regressor with one prediction per pixel of its embedding."""
        return build.build_dense_regressor(
            config.model,
            self.manifest.features,
            config.seed,
            vocabulary,
            smoothing=config.reweighting.fds,
            num_bins=self.manifest.label.num_bins,
        )

    def make_loss(self, labels: TrainingLabels, stage: stages.Stage) -> objective.TrainingLoss:
        """Return the loss of a stage, with pixel weights by the bins of all training pixels, mean one over them."""
        # From the manifest, because counting the pixels would read every label image of the training split.
        counts = np.asarray(self.manifest.train_counts, dtype=np.int64)
        weights = stage.config.reweighting.compute_bin_weights(counts)
        return dense_loss.DenseLoss(
            stage.config,
            labels,
            dense_loss.make_pixel_labels(labels, counts),
            torch.from_numpy(weights).to(labels.labels.device, torch.float32),
            regression=stage.trains_predictor,
            terms=stage.trains_representation,
        )

    def compute_sample_weights(self, split: Split, reweighting: Reweighting) -> Float[Tensor, " rows"]:
        """Return ones: pixels have weights, samples have none."""
        return torch.ones_like(split.labels)

    def stack_bins(self, batch: Batch) -> Int[Tensor, "rows height width"]:
        """Return the bins of the labels in the stacked views."""
        label = self.manifest.label
        assert label.dense is not None
        return dense_loss.compute_dense_bins(objective.stack_views(batch.views)[label.dense.column], label)

    def embed_inputs(
        self, model: Regressor, split: Split, rows: Rows, inputs: Inputs
    ) -> tuple[Float[Tensor, "labels dim"], Int[Tensor, " labels"]]:
        """Return the embeddings and bins of the labeled pixels, at the height and width of the embeddings."""
        label = self.manifest.label
        assert label.dense is not None
        view = split.transform.apply_evaluation(inputs)
        embeddings = model.embed(view)
        # Labels are read at the embeddings' size: upsampling 128 values per pixel would take four times the memory.
        bins = dense_loss.compute_dense_bins(
            dense_regressor.downsample_nearest(view[label.dense.column], embeddings), label
        )
        return embeddings.movedim(1, -1)[bins >= 0], bins[bins >= 0]

    def evaluate(
        self, model: Regressor, split: Split, ranks: distributed.Ranks, regions: np.typing.NDArray[Any]
    ) -> Evaluation:
        """Return each sample's mean prediction, and the metrics over pixels."""
        return Evaluation(*dense_evaluation.evaluate_dense(model, split, ranks, self.manifest, regions))


def make_task(
    manifest: Manifest, label_transform: LabelTransform = "none", plugin_metrics: tuple[str, ...] = ()
) -> Task:
    """Return the task of a data set: one label per sample, or per-pixel labels."""
    if manifest.label.dense is not None:
        return DenseTask(manifest)
    return SampleTask(manifest, label_transform, plugin_metrics)
