"""Trials with predictions on a small data set of angles, and the metrics that an evaluation would have recorded for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dirtune.io.storage import Storage
from dirtune.manifest import LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.metrics import compute_region_metrics
from dirtune.results.records.schema import SplitPredictions, TrialRecord
from dirtune.reweighting.density import label_bins, label_density, shot_regions
from tests.results.record_factory import record, write_study

LABEL = LabelSpec(name="angle", unit="degrees", low=0.0, high=10.0, bin_width=1.0, num_bins=10)
RULES = {"counts": ShotRule(many_above=40, few_below=15), "published": ShotRule(many_bins=(0, 1), medium_bins=(2, 9))}
TRAIN = np.random.default_rng(1).exponential(2.5, 300).clip(0.0, 9.99)


def make_manifest(fingerprint: str = "data-a") -> Manifest:
    counts = label_density(label_bins(TRAIN, LABEL), LABEL.num_bins)
    split = SplitInfo(files=("a",), rows=len(TRAIN), bin_counts=tuple(counts.tolist()))
    return Manifest(
        name="angles",
        inputs={},
        label=LABEL,
        shot_rules=RULES,
        default_shot_rule="counts",
        splits={"train": split},
        content_hash=fingerprint.ljust(16, "-") + "0" * 48,
        split_fingerprint="1" * 64,
    )


def make_predictions(seed: int, *, labels_seed: int | None = None) -> dict[str, SplitPredictions]:
    """Predictions that shrink the labels; with `labels_seed`, trials of different seeds share their samples."""
    generator = np.random.default_rng(seed)
    found = {}
    for split, n in (("val", 40), ("test", 60)):
        labels = generator.uniform(0.0, 9.5, n)
        if labels_seed is not None:
            labels = np.random.default_rng([labels_seed, n]).uniform(0.0, 9.5, n)
        found[split] = SplitPredictions(
            sample_ids=[f"{split}{i}" for i in range(n)],
            labels=labels,
            predictions=0.8 * labels + generator.normal(0.0, 1.0, n),
        )
    return found


def make_trial(
    arm: str, seed: int, rule: str | None, predictions: dict[str, SplitPredictions] | None = None
) -> TrialRecord:
    """A trial with the metrics that an evaluation would have recorded for its predictions."""
    predictions = predictions or make_predictions(seed)
    per_bin = shot_regions(make_manifest().train_counts, RULES[rule or "counts"])
    rows = []
    for split, one in predictions.items():
        bins = label_bins(one.labels, LABEL)
        found = compute_region_metrics(one.labels, one.predictions, per_bin[bins], bins=bins)
        rows += [{"split": split, "selection": "best_val", **row} for row in found]
    made = record(
        arm, seed, metrics=rows, config={"data": {"shot_rule": rule}}, fingerprint=make_manifest().fingerprint
    )
    return replace(made, predictions=predictions)


SHIFTS = {"vanilla": 0.0, "conr": -0.12, "same": 0.0, "ranksim": 0.3}


def make_crossed_predictions(arm: str, seed: int, shift: float, *, samples: int = 300) -> dict[str, SplitPredictions]:
    """Predictions whose errors are larger than the reference's by a share, on samples that all arms have; some suit an arm."""
    found = {}
    for split in ("val", "test"):
        shared = np.random.default_rng([7, samples, len(split)])
        labels = shared.uniform(0.0, 9.5, samples)
        difficulty = np.exp(0.5 * shared.normal(size=samples))
        # An arm that is nearly the same as the reference has its luck.
        name = ord("v" if arm == "same" else arm[0])
        suits = np.random.default_rng([name, samples]).normal(0.0, 0.15, samples)
        own = np.random.default_rng([name, seed, samples])
        luck, signs = 1 + 0.02 * own.normal(), own.choice([-1, 1], samples)
        noise = np.exp(0.2 * own.normal(size=samples))
        if arm == "same":
            noise *= np.exp(0.05 * np.random.default_rng([1, seed, samples]).normal(size=samples))
        found[split] = SplitPredictions(
            sample_ids=[f"{split}{i}" for i in range(samples)],
            labels=labels,
            predictions=labels + (1 + shift + suits) * difficulty * luck * signs * noise,
        )
    return found


@cache
def _write_crossed_trials(trained: int, samples: int) -> TemporaryDirectory[str]:
    """Write the records once for all tests: flushing files to the disk takes most of the time."""
    folder = TemporaryDirectory()
    records = [
        make_trial(arm, seed, "counts", make_crossed_predictions(arm, seed, shift, samples=samples))
        for arm, shift in SHIFTS.items()
        for seed in range(trained)
    ]
    write_study(Path(folder.name), records)
    return folder


def write_predicted_study(
    root: Path, *, name: str = "study", trained: int = 5, samples: int = 300, **keys: Any
) -> Storage:
    """A study with predictions and manifest: an arm that helps, one that is nearly the same, and one that hurts."""
    known = {"reference": "vanilla", "arms": list(SHIFTS), "seeds": [*range(trained)], "objective": {"metric": "mae"}}
    data = {"data": {"name": "angles", "unit": "degrees"}}
    copytree(Path(_write_crossed_trials(trained, samples).name) / "study", root / name, dirs_exist_ok=True)
    storage = write_study(root, [], name=name, **{**known, **data, **keys})
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return storage
