"""Small stores for the figures: arms that are compared, an arm that is searched, predictions with their manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirtune.manifest import LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.results.figures import PlotRequest
from dirtune.results.records.schema import SplitPredictions, SplitRepresentations, TrialRecord
from tests.results.record_factory import metric_rows, record, write_study

# Error on all samples by arm and seed
VALUES = {
    "vanilla": {0: 5.0, 1: 5.3, 2: 5.1},
    "conr": {0: 4.1, 1: 4.6, 2: 4.0},
    "lds": {0: 5.2, 1: 5.1, 2: 5.9},
    "half": {0: 4.5},
}
KEYS: dict[str, Any] = {
    "arms": list(VALUES),
    "seeds": [0, 1, 2],
    "reference": "vanilla",
    "data": {"name": "digits", "unit": "degrees"},
}
SPACE = {
    "terms.conr.omega": {"distribution": "uniform", "low": 1.0, "high": 9.0},
    "terms.conr.beta": {"distribution": "loguniform", "low": 0.01, "high": 100.0},
    "model.projection_dim": {"distribution": "choice", "values": [16, 64, 256]},
}
LABEL = LabelSpec(name="angle", unit="degrees", low=0.0, high=60.0, bin_width=1.0, num_bins=60)


def write_compared_arms(root: Path, **keys: Any) -> Path:
    """Three whole arms and one with a single seed; epochs and two metrics of every trial."""
    records = [
        add_epochs(record(arm, seed, value, metrics=make_metrics(value)), [value + 4, value + 1, value])
        for arm, by_seed in VALUES.items()
        for seed, value in by_seed.items()
    ]
    write_study(root, records, **(KEYS | keys))
    return root


def make_metrics(value: float) -> list[dict[str, Any]]:
    return [*metric_rows(value), *metric_rows(1 - value / 10, metric="pearson")]


def add_epochs(made: TrialRecord, values: Sequence[float]) -> TrialRecord:
    return replace(made, epochs=[{"val/all/mae": value, "train/loss": 2 * value} for value in values])


def write_ranked_arms(root: Path) -> Path:
    """Three arms with five seeds, and one with four."""
    records = [
        record(arm, seed, value + ((seed * 7 + int(10 * value)) % 5) / 10, metrics=make_metrics(value + seed % 3 / 5))
        for arm, value in (("vanilla", 5.0), ("conr", 4.1), ("lds", 5.2), ("half", 4.5))
        for seed in range(4 if arm == "half" else 5)
    ]
    write_study(root, records, **(KEYS | {"seeds": [*range(5)]}))
    return root


def write_many_arms(root: Path, count: int, *, seeds: int = 3) -> Path:
    """Arms with long names; `arm 00` is the reference, and the later an arm the better it is."""
    names = [f"a rather long name of arm {position:02d}" for position in range(count)]
    records = [
        add_epochs(record(name, seed, 9.0 - position / 10 + seed / 50), [9.5, 9.0 - position / 10])
        for position, name in enumerate(names)
        for seed in range(seeds)
    ]
    write_study(root, records, **(KEYS | {"seeds": [*range(seeds)], "arms": names, "reference": names[0]}))
    return root


def write_search(root: Path, complete: int = 12, **keys: Any) -> Path:
    """Arm conr: omega decides its objective; trials ended in the reverse order of their names; two pruned, one failed."""
    generator = np.random.default_rng(3)
    records = []
    for position in range(complete + 3):
        omega, beta = generator.uniform(1, 9), 10 ** generator.uniform(-2, 2)
        settings = {
            "terms": {"conr": {"omega": float(omega), "beta": float(beta)}},
            "model": {"projection_dim": int(generator.choice([16, 64, 256]))},
        }
        status = "complete" if position < complete else "failed" if position == complete else "pruned"
        made = record("conr", 0, float(omega), trial_id=f"t{position:02d}", status=status, config=settings)
        ended = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(minutes=position)
        records.append(replace(made, trial={**made.trial, "finished_at": ended}))
    spaces = {"conr": SPACE, "accon": {"terms.accon.tau": SPACE["terms.conr.beta"]}}
    keys = {"arms": ["vanilla", "conr", "accon"], "spaces": spaces, "seeds": [0]} | keys
    write_study(root, records, **(KEYS | keys))
    return root


def make_manifest() -> Manifest:
    counts = tuple(int(500 * 0.9**position) for position in range(60))
    return Manifest(
        name="angles",
        inputs={},
        label=LABEL,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={"train": SplitInfo(files=("a",), rows=sum(counts), bin_counts=counts)},
        content_hash="data-a".ljust(16, "-") + "0" * 48,
        split_fingerprint="1" * 64,
    )


def make_predictions(arm: str, seed: int) -> SplitPredictions:
    generator = np.random.default_rng([len(arm), seed])
    labels = generator.uniform(0.0, 50.0, 80)
    return SplitPredictions(
        sample_ids=[str(i) for i in range(80)],
        labels=labels,
        predictions=labels + generator.normal(0.0, 1 + labels / 20),
    )


def write_predictions(root: Path, splits: Sequence[str] = ("val", "test")) -> Path:
    """Two arms with predictions, one without, and the manifest."""
    fingerprint = make_manifest().fingerprint
    records = [
        replace(
            record(arm, seed, fingerprint=fingerprint),
            predictions={split: make_predictions(arm, seed + 10 * (split == "val")) for split in splits},
        )
        for arm in ("vanilla", "conr")
        for seed in range(3)
    ]
    records.append(record("lds", 0, fingerprint=fingerprint))
    storage = write_study(root, records, **(KEYS | {"arms": ["vanilla", "conr", "lds"]}))
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return root


def place_on_circle(labels: NDArray[np.float64]) -> NDArray[np.float32]:
    """ACCon's ideal: the angle between two samples is pi times their label distance, over a range of 60."""
    angles = np.pi * labels / 60
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def place_at_random(labels: NDArray[np.float64]) -> NDArray[np.float32]:
    vectors = np.random.default_rng(1).normal(size=(len(labels), 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def write_representations(root: Path) -> Path:
    """Two arms with the representations of every second test sample, one without any, and the manifest."""
    fingerprint, records = make_manifest().fingerprint, []
    for arm, place in (("vanilla", place_at_random), ("conr", place_on_circle)):
        for seed in (1, 2):
            found = make_predictions(arm, seed)
            kept = SplitRepresentations(sample_ids=found.sample_ids[::2], vectors=place(found.labels[::2]))
            made = record(arm, seed, fingerprint=fingerprint)
            records.append(replace(made, predictions={"test": found}, representations={"test": kept}))
    records.append(record("lds", 1, fingerprint=fingerprint))
    storage = write_study(root, records, **(KEYS | {"arms": ["vanilla", "conr", "lds"]}))
    storage.write("manifest.json", make_manifest().model_dump_json().encode())
    return root


def write_fractions(root: Path) -> Path:
    """Two arms at three shares of the training data, as a product of axes; one trial failed."""
    records, arms = [], []
    for arm, start in (("vanilla", 9.0), ("conr", 7.0)):
        for share in (0.1, 0.5, 1):
            name = f"{arm} fraction={share}"
            arms.append(name)
            records += [
                record(
                    name,
                    seed,
                    start - share + seed / 10,
                    status="failed" if (name, seed) == ("conr fraction=1", 2) else "complete",
                    config={"data": {"fraction": float(share)}},
                    cell=f'{{"data.fraction": {share}}}',
                )
                for seed in range(3)
            ]
    write_study(root, records, **(KEYS | {"arms": arms, "reference": "vanilla fraction=1"}))
    return root


# Settings of arms that have one, two or three parts
PARTS: dict[str, dict[str, Any]] = {
    "base": {"model": {"projection_dim": None}, "terms": {}, "reweighting": {"scheme": "none", "lds": None}},
    "lds": {"reweighting": {"scheme": "sqrt_inverse", "lds": {"sigma": 2.0}}},
    "projection": {"model": {"projection_dim": 128}},
    "conr": {"terms": {"conr": {"omega": 3.0, "beta": 1.0}}},
}
# By arm: its parts, and its error by seed
BUILT = {
    "plain": ((), (9.0, 9.4, 9.1)),
    "weighted": (("lds",), (8.1, 8.2, 8.6)),
    "head": (("projection",), (8.8, 9.5, 9.2)),
    "contrastive": (("projection", "conr"), (7.0, 7.7, 7.1)),
    "weighted head": (("projection", "lds"), (8.0, 8.5, 8.3)),
    "everything": (("projection", "conr", "lds"), (6.6, 7.2, 7.3)),
}


def make_configuration(parts: Sequence[str]) -> dict[str, Any]:
    return PARTS["base"] | {key: value for part in parts for key, value in PARTS[part].items()}


def write_composed_arms(root: Path, *, without: Sequence[str] = (), **keys: Any) -> Path:
    """Arms made of parts; `plain` is the reference. All names say nothing of their settings."""
    arms = [arm for arm in BUILT if arm not in without]
    records = [
        record(arm, seed, value, config=make_configuration(BUILT[arm][0]))
        for arm in arms
        for seed, value in enumerate(BUILT[arm][1])
    ]
    configs = {arm: make_configuration(BUILT[arm][0]) for arm in arms}
    whole = {"arms": arms, "reference": "plain", "configs": configs}
    write_study(root, records, **(KEYS | whole | keys))
    return root


def make_request(root: Path, **options: Any) -> PlotRequest:
    return PlotRequest(root=root, study="study", **options)
