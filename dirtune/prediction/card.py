"""Model card of an exported arm: data, errors by shot region, limits, and what the study's checks have found."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from dirtune.manifest import Manifest
from dirtune.prediction.arm import TrainedArm
from dirtune.results.analysis.soundness import check_study
from dirtune.results.records.studies import open_study, read_study
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import as_markdown
from dirtune.wording import format_count

_LOADING = {
    "model.pt2": 'prediction, spread = torch.export.load("model.pt2").module()(*inputs)',
    "model.onnx": 'prediction, spread = onnxruntime.InferenceSession("model.onnx").run(None, inputs)',
}


def make_card(trained: TrainedArm, *, results: str | Path, files: Sequence[str] = ()) -> str:
    """Return the model card as Markdown, with the metadata of model hubs before it.

    Args:
        trained: the arm.
        results: root of its results.
        files: names of the exported files.
    """
    return "\n".join(
        [
            *_list_metadata(trained),
            f"# {trained.study}: {trained.arm}",
            "",
            *_describe_model(trained, results, files),
            "## Data",
            "",
            *_describe_data(trained.contract.manifest),
            "## Errors",
            "",
            *_describe_errors(trained, results),
            "## Limits",
            "",
            *_describe_limits(trained, results),
        ]
    )


def _list_metadata(trained: TrainedArm) -> Iterator[str]:
    kinds = {spec.kind for spec in trained.contract.manifest.features.values()}
    yield "---"
    yield "library_name: dirtune"
    # Hubs have no name for the regression of images.
    if kinds == {"vector"}:
        yield "pipeline_tag: tabular-regression"
    yield "tags: [regression, imbalanced-regression]"
    yield "---"
    yield ""


def _describe_model(trained: TrainedArm, results: str | Path, files: Sequence[str]) -> Iterator[str]:
    first = next(iter(trained.models.values()))
    question = read_study(open_study(results, trained.study)).question
    if question:
        yield f"Arm `{trained.arm}` of a study of: {question}"
        yield ""
    seeds = ", ".join(map(str, trained.models))
    number = sum(each.numel() for each in first.regressor.parameters())
    models = format_count(len(trained.models), "model")
    yield f"* {models} of {number:,} parameters each, trained with the seeds {seeds}; a prediction is their mean, and its"
    yield "  spread their standard deviation."
    yield f"* Trials: {', '.join(model.trial_id for model in trained.models.values())}"
    for file, call in _LOADING.items():
        if file in files:
            yield f"* `{call}`, with the inputs of `inputs.json`: {_describe_inputs(trained)}"
    yield ""
    yield "<details><summary>Configuration</summary>"
    yield ""
    yield "```json"
    yield json.dumps(first.config.to_plain(), indent=1)
    yield "```"
    yield ""
    yield "</details>"
    yield ""


def _describe_inputs(trained: TrainedArm) -> str:
    manifest = trained.contract.manifest
    return "; ".join(
        f"`{name}` {manifest.inputs[name].element} (batch, {', '.join(map(str, manifest.inputs[name].shape))})"
        for name in trained.module.input_names
    )


def _describe_data(manifest: Manifest) -> Iterator[str]:
    label = manifest.label
    rows = ", ".join(f"{info.rows:,} {split}" for split, info in manifest.splits.items())
    yield f"* `{manifest.name}` (content {manifest.fingerprint}): {rows} samples"
    for axis in label.axes:
        unit = axis.unit if axis.transform == "none" else f"in {axis.transform}"
        bins = f"{axis.num_bins:,} bins of {axis.bin_width:g} {unit}"
        yield f"* label `{axis.name}`: {axis.low:g} to {axis.high:g} {axis.unit}, {bins}"
    counts = manifest.train_counts
    yield f"* training labels per bin: {min(counts):,} to {max(counts):,}; {sum(each == 0 for each in counts):,} of {len(counts):,} bins have none"
    yield ""


def _describe_errors(trained: TrainedArm, results: str | Path) -> Iterator[str]:
    """Yield the test errors by region, and the study's table."""
    unit = trained.contract.manifest.label.unit
    yield f"Mean absolute error in {unit} on the test samples, mean and standard deviation over the seeds:"
    yield ""
    yield "| region | test samples | MAE | sd |"
    yield "|---|---:|---:|---:|"
    for region, error in trained.errors.items():
        values = ["" if each is None else f"{each:.4g}" for each in (error.mean, error.spread)]
        yield f"| {region} | {error.samples:,} | {values[0]} | {values[1]} |"
    yield ""
    # A single run has no study to compare it with.
    if read_study(open_study(results, trained.study)).arms:
        yield "All arms of the study:"
        yield ""
        yield as_markdown(compare(results, TableRequest(studies=(trained.study,))))
        yield ""


def _describe_limits(trained: TrainedArm, results: str | Path) -> Iterator[str]:
    label = trained.contract.manifest.label
    yield f"* Labels outside of {label.low:g} to {label.high:g} {label.unit} were never seen; predictions there are extrapolation."
    for region in ("medium", "few"):
        error = trained.errors.get(region)
        if error is not None and error.mean is not None and trained.errors["all"].mean:
            ratio = error.mean / trained.errors["all"].mean
            yield f"* Region {region}: {ratio:.2g} times the error over all test samples, measured on {error.samples:,} of them."
    yield "* The spread is the disagreement of the seeds, not an interval: errors that all seeds share are not in it."
    if read_study(open_study(results, trained.study)).arms:
        findings = [str(each) for each in check_study(results, trained.study)]
        yield from (f"* {finding}" for finding in findings)
        if not findings:
            yield "* `dirtune check` has found nothing about the trainings of the study."
    yield ""
