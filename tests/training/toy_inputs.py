"""Tiny data sets of every kind of input and label, in memory, on a device; and a case for each loss, term, scheme, ..."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dirtune.config import TrialConfig
from dirtune.data.cache import DecodeCount, ResidentData, Split
from dirtune.data.streaming import MemoryChunks, load_onto_device, make_streamed_split
from dirtune.frozen import read
from dirtune.losses import LOSSES, TERMS
from dirtune.manifest import DenseLabels, InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.nested import merge
from dirtune.reweighting.density import label_bins

LABEL = LabelSpec(name="length", unit="m", low=0, high=20, bin_width=2, num_bins=10)
AXIS = LabelSpec(name="pitch", unit="rad", low=0, high=20, bin_width=10, num_bins=2)
LABELS = {
    "scalar": LABEL,
    "grid": LabelSpec.grid("gaze", "rad", (AXIS, AXIS)),
    "dense": LABEL.model_copy(
        update={"dense": DenseLabels(column="depth", unit_per_count=0.01, height=32, width=40, mask="mask")}
    ),
}
ROWS = {"train": 24, "val": 10, "test": 10}

VECTOR = InputSpec(kind="vector", shape=(6,))
TOKENS = InputSpec(kind="tokens", shape=(5,), vocabulary=20)
INPUTS: dict[str, dict[str, InputSpec]] = {
    "vector": {"vector": VECTOR},
    "image": {"image": InputSpec(kind="image", shape=(3, 16, 16))},
    "gray": {"image": InputSpec(kind="image", shape=(1, 24, 24))},
    "pair": {"first_features": VECTOR, "second_features": VECTOR},
    "tokens": {"first": TOKENS, "second": TOKENS},
    "dense": {
        "image": InputSpec(kind="image", shape=(3, 40, 48)),
        "depth": InputSpec(kind="dense_label", shape=(1, 40, 48)),
        "mask": InputSpec(kind="image", shape=(1, 40, 48)),
    },
}


def make_data(inputs: str, device: torch.device) -> ResidentData:
    """Return a data set whose labels are spread over the bins, its numbers drawn from a fixed seed.

    Args:
        inputs: a name of `INPUTS`, and "grid" for labels of two dimensions, "streamed" for inputs that are not resident.
        device: of the batches.
    """
    inputs, *form = inputs.split()
    label = "grid" if "grid" in form else "scalar"
    spec, drawn = LABELS["dense" if inputs == "dense" else label], np.random.default_rng(0)
    found: dict[str, tuple[np.typing.NDArray[np.float64], dict[str, Any]]] = {}
    for split, rows in ROWS.items():
        shape = (rows, 2) if label == "grid" else (rows,)
        labels = drawn.uniform(0, 20, shape).round(1)
        found[split] = labels, {name: _draw(each, rows, drawn) for name, each in INPUTS[inputs].items()}
    infos = {
        split: SplitInfo(
            files=("part",),
            rows=len(labels),
            bin_counts=tuple(np.bincount(label_bins(labels, spec), minlength=spec.num_bins).tolist()),
        )
        for split, (labels, _) in found.items()
    }
    manifest = Manifest(
        name="toy",
        inputs=INPUTS[inputs],
        label=spec,
        shot_rules={"toy": ShotRule(many_above=4, few_below=2)},
        default_shot_rule="toy",
        splits=infos,
        content_hash="c" * 64,
        split_fingerprint="s" * 64,
    )
    splits: dict[str, Split] = {}
    count = DecodeCount()
    for split, (labels, columns) in found.items():
        ids = np.array([f"{split}{row:03d}" for row in range(len(labels))], dtype=object)
        places = np.stack([np.zeros(len(labels), dtype=np.int64), np.arange(len(labels))], axis=1)
        streamed = make_streamed_split(
            manifest, MemoryChunks({0: columns}), ids, labels, places, device=device, threads=1, decoded=count
        )
        splits[split] = streamed if "streamed" in form else load_onto_device(streamed)
    return ResidentData(manifest=manifest, device=device, splits=splits, decoded=count)


def _draw(spec: InputSpec, rows: int, drawn: np.random.Generator) -> Any:
    shape = (rows, *spec.shape)
    if spec.kind == "vector":
        return drawn.standard_normal(shape).astype(np.float32)
    high = {"image": 256, "tokens": spec.vocabulary or 0, "dense_label": 2000}[spec.kind]
    return drawn.integers(0, high, shape).astype(spec.element)


BASE: dict[str, Any] = {
    "data": {"name": "toy"},
    "model": {"label_scale": 1.0, "label_offset": 4.0, "projection_dim": 4},
    "recipe": {"epochs": 1, "batch_size": 12, "learning_rate": 0.01},
}
ENCODERS: dict[str, dict[str, Any]] = {
    "vector": {"name": "mlp", "hidden": [8]},
    "image": {"name": "cnn", "channels": 4},
    "gray": {"name": "lenet"},
    "pair": {"name": "pair_mlp", "shared": 8, "hidden": [8]},
    "tokens": {"name": "bilstm", "hidden": 4, "vector_size": 5, "dropout": 0.1, "word_dropout": 0.1},
    "dense": {"name": "depth_resnet", "base": "resnet18"},
}
TWO_VIEWS = {"views": {"count": 2, "augmentation": "none"}}
LIGHT = {"views": {"count": 2, "augmentation": "light"}}

STEP_WAITS = {
    # One sample per distinct label is kept, and their number is the size of all that follows.
    "term ranksim": 2,
    # One center per distinct label
    "term ordinal_entropy": 1,
    # The rows on both sides of each label, whose numbers are sizes
    "term supremix": 1,
    # Whether neighbors are pooled, which is computed on the host
    "loss dist": 1,
    # Three for each of the two sentences, as cuDNN takes their lengths from the host; the others are steps of the packing's
    # backward pass, which a GPU does not have.
    "encoder tokens": 16,
    # The labeled pixels, whose number is the size of predictions, labels and weights, and the images that have any
    "dense conr": 2,
}
"""Waits in a step that an algorithm needs, by case; all others need none."""
UNCOUNTED_WAITS = {
    # Sinkhorn's iterations end at a precision: the host asks for it after every tenth, up to 100 times.
    "term rotreg": "losses/rotreg.py"
}
"""Cases that wait as often as the numbers ask for, and the only file in which they do."""


def list_cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name, inputs and settings."""
    for name in LOSSES:
        yield f"loss {name}", "vector", {"loss": {"name": name}}
    # With more entropy, far fewer iterations
    chosen: dict[str, dict[str, Any]] = {"rotreg": {"entropy": 1.0}}
    for name in TERMS:
        yield f"term {name}", "vector", {"terms": {name: chosen.get(name, {})}, "recipe": TWO_VIEWS}
    for temperature in ("individual",):
        for name in ("conr", "accon", "supcon"):
            yield f"term {name} {temperature}", "vector", {"terms": {name: {"temperature": temperature}}}
    for scheme in ("inverse", "sqrt_inverse", "dense"):
        yield f"weights {scheme}", "vector", {"reweighting": {"scheme": scheme}}
    # Its term begins with the second epoch, unless it has zeros for what is unknown in the first.
    yield "term srl zeros", "vector", {"terms": {"srl": {"before": "zeros"}}, "recipe": TWO_VIEWS}
    yield "weights lds", "vector", {"reweighting": {"scheme": "sqrt_inverse", "lds": {}}}
    yield "smoothing", "vector", {"reweighting": {"fds": {}}, "recipe": {"epochs": 2}}
    for scheme in ("rrt", "two_stage"):
        yield f"scheme {scheme}", "vector", {"terms": {"conr": {}}, "scheme": {"name": scheme, "epochs": 1}}
    for inputs in [name for name in INPUTS if name != "dense"]:
        yield f"encoder {inputs}", inputs, {}
    yield "dense conr", "dense", {"terms": {"conr": {}}}
    yield "grid", "vector grid", {"terms": {"accon": {}, "conr": {}}}
    yield "streamed", "image streamed", {"recipe": LIGHT, "terms": {"conr": {}}}
    two_inputs = {"reweighting": {"fds": {}}, "recipe": {"epochs": 2, "accumulation": 2}}
    yield "streamed in parts", "pair streamed", two_inputs
    yield "bf16", "image", {"recipe": {**LIGHT, "precision": "bf16", "channels_last": True}, "terms": {"accon": {}}}
    yield "accumulation", "image", {"recipe": {**LIGHT, "accumulation": 2, "gradient_clip": 1.0}, "terms": {"conr": {}}}
    yield (
        "passes apart",
        "image",
        {"recipe": {"views": {"count": 3, "regression": "first", "passes": "apart"}}, "terms": {"conr": {}}},
    )
    yield "sgd", "image", {"recipe": {"optimizer": "sgd", "momentum": 0.9}}


CASES = list(list_cases())


def make_case_config(inputs: str, settings: dict[str, Any]) -> TrialConfig:
    """Return the configuration of a case."""
    kind = inputs.split()[0]
    # Per-pixel embeddings have no projection.
    model = {"encoder": ENCODERS[kind], "projection_dim": None if kind == "dense" else 4}
    return read(TrialConfig, merge(merge(BASE, {"model": model}), settings), where="test")
