"""The first study on a user's own data: a commented file with common methods, whose settings suit the data."""

from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec, Manifest
from dirtune.results.analysis.claims import MIN_FEW_SAMPLES
from dirtune.reweighting.density import shot_regions

_LARGE_IMAGE = 64
"""Height or width beyond which images get a residual network, in pixels."""
_BATCH = 64
EPOCHS, STEPS, PATIENCE = 60, 50, 10
"""Longest training, steps of an epoch, at least, and epochs without a better one after which a training ends."""
_TEMPLATE = """\
# Which method lowers the error of {subject}? Written by `dirtune init`; every line may be changed.
# {rows:,} training rows; {label_name} from {low:g} to {high:g} {unit}, in bins of {bin_width:g} {bin_unit}.
# What the labels determine is taken from the data unless it is given here, and `dirtune plan {file}` shows it: predictions
# are the median of the training labels plus an output times their spread, and ConR's window is one label bin.
name: {name}
question: Does a method for imbalanced labels lower the error of {subject}?
reference: vanilla
# Runs are compared in pairs of equal seeds; fewer than five pairs seldom decide anything.
seeds: [0, 1, 2, 3, 4]
# The epoch and the settings of a run are selected by the mean error over label bins, in which rare labels count like others.
objective: {{metric: balanced_mae}}
# Words such as "helps" are about this column of the table, fixed before the results are seen. {few:,} test rows are few-shot{reason}.
claim: {{region: {region}}}

base:
  data: {{name: {data}}}
  model:
    encoder: {encoder}{transform}
  loss: {{name: l1}}
  recipe:
    name: starter
    optimizer: adamw
    learning_rate: 1e-3
    weight_decay: 1e-4
    batch_size: {batch_size}
    # An epoch is a number of steps, so that small data are trained as long as large data; a run ends when its objective has
    # not improved for so many epochs.
    steps_per_epoch: {steps}
    epochs: {epochs}
    early_stopping: {{patience: {patience}}}
    views: {views}

arms:
  vanilla: {{}}
{arms}
# Every arm tries as many settings, with the seed `tuning_seed`; those with the best objective are trained with all seeds.
search: {{trials: {trials}, sampler: random, confirm: true, tuning_seed: 100}}
space:
  recipe.learning_rate: {{distribution: loguniform, low: 3e-4, high: 1e-2}}
{space}
resources:
  cpus: 1
"""
_TRANSFORM = """
    # Trained on {transform}(label), in which the label bins have equal widths; errors are in the label's unit.
    label_transform: {transform}"""
_WEIGHTED = (
    "  sqrt_inverse_lds:\n    reweighting: {scheme: sqrt_inverse, lds: {kernel: gaussian, size: 5, sigma: 2.0}}\n"
)
_RANKSIM = "  ranksim:\n    terms: {ranksim: {gamma: 0.1}}\n"
# Terms of pairs act on a projection of their own, as in ACCon; the predictor reads the embedding.
_PAIRS = """\
  balanced_mse:
    # The noise at the start, in spreads of the labels; it is trained.
    loss: {name: bmc, sigma: 0.1}
  conr:
    model: {projection_dim: 64, predictor_input: embedding}
    terms: {conr: {beta: 0.1, tau: 0.2}}
  accon:
    model: {projection_dim: 64, predictor_input: embedding}
    terms: {accon: {gamma: 0.1, tau: 0.1}}
"""
_SPACE = """\
  loss.sigma: {distribution: loguniform, low: 0.03, high: 1.0}
  terms.conr.beta: {distribution: loguniform, low: 0.01, high: 1.0}
  terms.accon.gamma: {distribution: loguniform, low: 0.01, high: 1.0}
"""
_RANKSIM_SPACE = "  terms.ranksim.gamma: {distribution: loguniform, low: 0.01, high: 1.0}\n"


def write_starter_study(manifest: Manifest, *, name: str, file: str) -> str:
    """Return the text of a study of a data set: plain training, re-weighting, Balanced MSE, RankSim, ConR and ACCon.

    Labels of several dimensions have no RankSim, which ranks numbers, and no smoothing of their density.

    Args:
        manifest: the data set.
        name: of the study.
        file: its file, for its comments.

    Raises:
        InputError: there is no encoder for the inputs, or labels are per pixel, for which most of the methods have no form.
    """
    label = manifest.label
    if label.dense is not None:
        rule = "labels per pixel have no common methods to begin with; the study nyud2_conr is one with those that they have"
        raise InputError(Fault(where=manifest.name, rule=rule))
    encoder, views, is_small = _choose_encoder(manifest)
    few = _count_few_samples(manifest)
    claims_few = few >= MIN_FEW_SAMPLES
    rows = manifest.splits["train"].rows
    is_scalar = not label.components
    return _TEMPLATE.format(
        label_name=label.name,
        subject=f"rare {label.name}" if claims_few else f"{label.name}, with rare values counted like frequent ones",
        few=few,
        region="few" if claims_few else "all",
        reason="" if claims_few else f", too few (under {MIN_FEW_SAMPLES}) for a claim about them alone",
        unit=label.unit,
        rows=rows,
        low=label.low,
        high=label.high,
        bin_width=label.bin_width,
        bin_unit=label.unit if label.transform == "none" else f"of its {label.transform}",
        name=name,
        data=manifest.name,
        file=file,
        encoder=encoder,
        transform="" if label.transform == "none" else _TRANSFORM.format(transform=label.transform),
        views=views,
        # At least four batches, or most steps would see the same rows together.
        batch_size=max(2, min(_BATCH, rows // 4)),
        steps=STEPS if is_small else max(STEPS, rows // _BATCH),
        epochs=EPOCHS,
        patience=PATIENCE,
        arms=(_WEIGHTED + _RANKSIM if is_scalar else "") + _PAIRS,
        trials=6,
        space=(_RANKSIM_SPACE if is_scalar else "") + _SPACE,
    )


def _count_few_samples(manifest: Manifest) -> int:
    """Return the number of test samples in the shot region few."""
    if "test" not in manifest.splits:
        return 0
    regions = shot_regions(manifest.train_counts, manifest.shot_rules[manifest.default_shot_rule])
    counts = manifest.splits["test"].bin_counts
    return sum(number for number, region in zip(counts, regions, strict=True) if region == "few")


def _choose_encoder(manifest: Manifest) -> tuple[str, str, bool]:
    """Return encoder and views as YAML, and whether its steps take milliseconds."""
    kinds: dict[str, list[InputSpec]] = {}
    for spec in manifest.features.values():
        kinds.setdefault(spec.kind, []).append(spec)
    # Sentence features, beside which the tokens need not be read.
    if {"first_features", "second_features"} <= manifest.features.keys():
        return "{name: pair_mlp, dropout: 0.1}", "{count: 1}", True
    if set(kinds) == {"vector"} and len(kinds["vector"]) == 1:
        return "{name: mlp, dropout: 0.1}", "{count: 1}", True
    if set(kinds) == {"image"} and len(kinds["image"]) == 1:
        side = max(kinds["image"][0].shape[1:])
        if side > _LARGE_IMAGE:
            return "{name: resnet18}", "{count: 2, augmentation: light}", False
        return "{name: cnn}", "{count: 2, augmentation: shift}", False
    if set(kinds) == {"tokens"}:
        return "{name: bilstm, hidden: 128}", "{count: 1}", False
    got = ", ".join(f"{len(specs)} {kind}" for kind, specs in kinds.items())
    raise InputError(Fault(where=manifest.name, rule="no encoder to begin with reads these inputs together", got=got))
