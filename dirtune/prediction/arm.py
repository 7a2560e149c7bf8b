"""`load`: the trained models of an arm, one per seed, to predict new samples or to continue in torch."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dirtune.data.cache import get_rank_share
from dirtune.data.contract import InputContract
from dirtune.data.new_samples import NewData, NewSamples, UnknownCategories, read_new_samples
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.label_transform import restore_labels
from dirtune.metrics import SHOT_REGIONS
from dirtune.plugins import load_files, load_recorded_files
from dirtune.prediction.module import PredictionModule
from dirtune.progress import show_progress
from dirtune.results.analysis.arms import StudyRuns, filter_rows, read_study_runs
from dirtune.results.analysis.selection import get_selection
from dirtune.results.records import kept
from dirtune.results.records.studies import open_study, read_study
from dirtune.reweighting.density import label_bins
from dirtune.signatures import check_arguments
from dirtune.study.files import StudySource, get_study_name
from dirtune.training.device import find_device
from dirtune.training.kept_model import KeptModel, read_model
from dirtune.tuning.folder import layout

if TYPE_CHECKING:
    import pandas as pd

ERROR_METRIC = "mae"
_SELECTION = "best_val"


@dataclass(frozen=True, kw_only=True)
class RegionError:
    """Error of an arm on the test samples of a shot region."""

    mean: float | None
    """Mean over the seeds; None if the region has no test sample."""
    spread: float | None
    """Standard deviation over the seeds; None for one seed."""
    samples: int
    """Test samples of the region."""


@dataclass(frozen=True, kw_only=True)
class TrainedArm:
    """Trained models of an arm, by seed."""

    study: str
    arm: str
    models: dict[int, KeptModel]
    """By seed; those whose predictions are in the study's tables."""
    errors: dict[str, RegionError]
    """Test errors by shot region of the label, and of all samples ("all")."""

    @property
    def contract(self) -> InputContract:
        """Input contract of the data set."""
        return next(iter(self.models.values())).contract

    @cached_property
    def module(self) -> PredictionModule:
        """The models as one torch module (`dirtune.prediction.module.PredictionModule`)."""
        return PredictionModule([*self.models.values()])

    @partial(check_arguments, name="predict")
    def predict(
        self, data: NewData, *, each_seed: bool = False, unknown_categories: UnknownCategories = "error"
    ) -> "pd.DataFrame":
        """Return a data frame with a row for each sample, as `predict_table` does."""
        frame: pd.DataFrame = self.predict_table(
            data, each_seed=each_seed, unknown_categories=unknown_categories
        ).to_pandas()
        return frame

    @partial(check_arguments, name="predict_table")
    def predict_table(
        self, data: NewData, *, each_seed: bool = False, unknown_categories: UnknownCategories = "error"
    ) -> pa.Table:
        """Return predictions for new samples, in their order.

        Args:
            data: the samples; see `dirtune.data.new_samples.NewData`.
            each_seed: add the prediction of every seed, `seed_<seed>`.
            unknown_categories: treatment of texts that are no category of the training rows.

        Returns:
            `sample_id`; `prediction`, the mean over the seeds, in the label's unit; `spread`, their standard deviation, empty for one
            seed; `region`, the shot region of the prediction; `training_samples`, the training labels in the label bin of the
            prediction; `test_mae` and `test_mae_spread`, the error of the test samples of that region, mean and standard
            deviation over the seeds. Of labels of several dimensions, `prediction` and `spread` have a column for each, and
            with per-pixel labels they are means over the pixels, without a region.

        Raises:
            InputError: the samples do not fit the input contract.
        """
        samples = read_new_samples(data, self.contract, unknown_categories=unknown_categories)
        return self._make_table(samples.sample_ids, self.predict_seeds(samples), each_seed=each_seed)

    def predict_seeds(self, samples: NewSamples) -> dict[int, np.typing.NDArray[np.float64]]:
        """Return the predictions of every seed; shape `(samples,)`, or `(samples, L)` for labels of L dimensions.

        Samples are sorted by id and evaluated in batches as a trial evaluates its splits: the test rows of the data set get the
        recorded predictions to the last bit on a CPU like that of the training.
        """
        order = np.argsort(np.array(samples.sample_ids, dtype=object), kind="stable")
        predictions: dict[int, np.typing.NDArray[np.float64]] = {}
        # Ranks evaluate shares of the rows, so that their batches are others.
        by_workers = defaultdict(list)
        for seed, model in self.models.items():
            by_workers[model.workers].append(seed)
        for workers, seeds in by_workers.items():
            module = PredictionModule([self.models[seed] for seed in seeds])
            parts = [
                self._mean_over_pixels(part) for part in _predict_batches(module, samples, order, workers, self.rows)
            ]
            for place, seed in enumerate(seeds):
                transform = self.models[seed].config.model.label_transform
                values = restore_labels(torch.cat([part[place] for part in parts]).double().numpy(), transform)
                predictions[seed] = np.empty_like(values)
                predictions[seed][order] = values
        return {seed: predictions[seed] for seed in self.models}

    @partial(check_arguments, name="predict_pixels")
    def predict_pixels(self, data: NewData) -> np.typing.NDArray[np.float32]:
        """Return the mean prediction of every pixel, of a data set with per-pixel labels; shape `(samples, height, width)`.

        Raises:
            InputError: the data set has one label per sample, or the samples do not fit the input contract.
        """
        if self.contract.manifest.label.dense is None:
            raise InputError(Fault(where=self.study, rule="the data set has one label per sample, none per pixel"))
        samples = read_new_samples(data, self.contract)
        order = np.arange(len(samples))
        parts = [part.mean(dim=0) for part in _predict_batches(self.module, samples, order, 1, self.rows)]
        return torch.cat(parts).numpy()

    def describe_range(self, table: pa.Table) -> str:
        """Return a sentence on the predictions of a table that are outside of the labels' range; "" if none is."""
        label = self.contract.manifest.label
        names = [f"prediction.{axis.name}" for axis in label.components] or ["prediction"]
        outside = np.zeros(table.num_rows, dtype=np.bool_)
        for name, axis in zip(names, label.axes, strict=True):
            values = table[name].to_numpy()
            outside |= (values < axis.low) | (values > axis.high)
        if not outside.any():
            return ""
        return f"{outside.sum():,} predictions are outside of the labels' range, {label.low:g} to {label.high:g} {label.unit}"

    @property
    def rows(self) -> int:
        """Samples of a batch."""
        return next(iter(self.models.values())).task.evaluation_rows

    def _mean_over_pixels(self, predictions: Tensor) -> Tensor:
        return predictions if self.contract.manifest.label.dense is None else predictions.mean(dim=(-2, -1))

    def _make_table(
        self, ids: Collection[str], by_seed: dict[int, np.typing.NDArray[np.float64]], *, each_seed: bool
    ) -> pa.Table:
        label, each = self.contract.manifest.label, np.stack([*by_seed.values()])
        means = each.mean(axis=0)
        spreads = each.std(axis=0, ddof=1) if len(each) > 1 else np.full_like(means, np.nan)
        columns: dict[str, Any] = {"sample_id": pa.array(ids, pa.string())}
        for name, values in {"prediction": means, "spread": spreads}.items():
            columns |= self._name_components(name, values)
        if label.dense is None:
            regions = self.contract.find_regions(means, self._shot_rule)
            counts = np.asarray(self.contract.manifest.train_counts)[label_bins(means, label)]
            found = [self.errors.get(region) for region in regions.tolist()]
            columns |= {
                "region": pa.array(regions.tolist(), pa.string()),
                "training_samples": pa.array(counts),
                "test_mae": pa.array([each and each.mean for each in found], pa.float64()),
                "test_mae_spread": pa.array([each and each.spread for each in found], pa.float64()),
            }
        for seed, values in by_seed.items() if each_seed else ():
            columns |= self._name_components(f"seed_{seed}", values)
        return pa.table(columns)

    def _name_components(self, name: str, values: np.typing.NDArray[np.float64]) -> dict[str, pa.Array]:
        components = self.contract.manifest.label.components
        if not components:
            return {name: pa.array(values, pa.float64(), from_pandas=True)}
        return {
            f"{name}.{axis.name}": pa.array(values[:, place], pa.float64(), from_pandas=True)
            for place, axis in enumerate(components)
        }

    @property
    def _shot_rule(self) -> str | None:
        return next(iter(self.models.values())).config.data.shot_rule


def load(
    study: StudySource,
    *,
    arm: str | None = None,
    results: str | Path = "results",
    seeds: Collection[int] | None = None,
    device: str = "cpu",
    plugins: Sequence[str | Path] = (),
    allow_plugins: bool = False,
) -> TrainedArm:
    """Return the trained models of an arm.

    Args:
        study: name of a study in the results, its file, or its content.
        arm: name of the arm; None means the only one.
        results: root of the results, a path or URL.
        seeds: the seeds whose models are loaded; None means all.
        device: device of the models.
        plugins: files that replace the recorded plug-ins of the same name.
        allow_plugins: run the code of the plug-ins that the sweep has recorded.

    Raises:
        InputError: there is no such study, arm, seed or device, a trial was recorded without a model, or the code of plug-ins is needed.
    """
    place = find_device(device)
    study = get_study_name(study)
    storage = open_study(results, study)
    # An encoder may be of a plug-in, and a configuration names its terms and losses.
    load_recorded_files(storage, layout.PLUGINS, allow=allow_plugins, given=load_files(plugins))
    runs = read_study_runs(storage, read_study(storage), get_selection(_SELECTION))
    name, trials = _choose_trials(storage, runs, study, arm, seeds)
    models = {seed: read_model(storage, trial_id, place) for seed, trial_id in trials.items()}
    return TrainedArm(study=study, arm=name, models=models, errors=_measure_errors(runs, [*trials.values()]))


def _choose_trials(
    storage: Storage, runs: StudyRuns, study: str, arm: str | None, seeds: Collection[int] | None
) -> tuple[str, dict[int, str]]:
    """Return the name of the arm, and the trial of each seed whose model is asked for."""
    by_name = {each.arm: each for each in runs.arms}
    if arm is None and len(by_name) == 1:
        (arm,) = by_name
    if arm not in by_name:
        rule = "an arm must be named" if arm is None else "unknown arm"
        raise InputError(Fault(where=study, key="arm", rule=rule, got=arm, known=list(by_name)))
    trials = {seed: candidate.trial_id for seed, candidate in by_name[arm].chosen.items()}
    if seeds is not None and not len(seeds):
        raise InputError(
            Fault(where=study, key="seeds", rule="needs a seed; None means all", known=[*map(str, trials)])
        )
    if unknown := sorted(set(seeds or ()) - trials.keys()):
        raise InputError(
            Fault(
                where=study,
                key="seeds",
                rule="no complete trial of this seed",
                got=unknown[0],
                known=[*map(str, sorted(trials))],
            )
        )
    if not trials:
        raise InputError(Fault(where=study, key=f"arms.{arm}", rule="no trial of this arm is complete"))
    trials = {seed: trial_id for seed, trial_id in trials.items() if seeds is None or seed in seeds}
    models = kept.measure_models(storage)
    # Never a mean over fewer seeds than the tables have without a word
    if missing := {seed: trial_id for seed, trial_id in trials.items() if trial_id not in models}:
        names = ", ".join(f"seed {seed} (trial {trial_id})" for seed, trial_id in missing.items())
        others = [seed for seed in sorted(trials) if seed not in missing]
        hint = (
            f"; choose of seeds {', '.join(map(str, others))}"
            if others
            else "; keep_models: best keeps those of new trials"
        )
        raise InputError(
            Fault(where=storage.path(kept.MODELS), key=arm, rule=f"recorded without a model: {names}{hint}")
        )
    return arm, trials


def _measure_errors(runs: StudyRuns, trial_ids: Collection[str]) -> dict[str, RegionError]:
    """Return the test errors by region, over these trials."""
    metrics = filter_rows(runs.metrics, split="test", selection=_SELECTION, metric=ERROR_METRIC)
    rows = [row for row in metrics.to_pylist() if row["trial_id"] in trial_ids]
    errors = {}
    for region in ("all", *SHOT_REGIONS):
        found = [row for row in rows if row["region"] == region]
        values = np.array([row["value"] for row in found if row["value"] is not None])
        errors[region] = RegionError(
            mean=float(values.mean()) if len(values) else None,
            spread=float(values.std(ddof=1)) if len(values) > 1 else None,
            samples=max((row["n"] for row in found), default=0),
        )
    return errors


def _predict_batches(
    module: PredictionModule, samples: NewSamples, order: np.typing.NDArray[np.int64], workers: int, rows: int
) -> Iterator[Tensor]:
    """Yield the predictions of every member for batches of samples, on the CPU, in the order."""
    device = next(module.parameters()).device
    with show_progress("predicting", len(order)) as advance:
        for rank in range(workers):
            start, stop = get_rank_share(len(order), rank, workers)
            for begin in range(start, stop, rows):
                end = min(begin + rows, stop)
                columns = samples.read(order[begin:end])
                inputs = [
                    torch.from_numpy(np.ascontiguousarray(columns[name])).to(device) for name in module.input_names
                ]
                with torch.inference_mode():
                    yield module.predict_each(*inputs).cpu()
                advance(end - begin)
