"""Training split with synthetic rows: those of a `dirtune.synthesis`, which exist in the memory of a worker alone.

They follow from the split and the seed, so that every rank, and a resumed run, makes the same ones.
"""

from dataclasses import replace

import numpy as np
import torch

from dirtune.data.cache import ResidentData, ResidentSplit
from dirtune.label_transform import transform_labels
from dirtune.manifest import LabelTransform
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins
from dirtune.synthesis import Synthesis, synthesize


def add_synthetic_rows(
    data: ResidentData, synthesis: Synthesis | None, *, seed: int, transform: LabelTransform
) -> ResidentData:
    """Return the data set with the training rows that a synthesis keeps and makes; the new ones are the last.

    Args:
        data: the data set, whose inputs are vectors.
        synthesis: None for none.
        seed: of the trial.
        transform: of the labels of training.

    Raises:
        InputError: no label is rare.
    """
    if synthesis is None:
        return data
    train = data.splits["train"]
    # In the order of the rows, not of reading: what is made must not depend on how the set is stored.
    (inputs,) = train.read([torch.arange(len(train))])
    columns = {name: values.flatten(1).double().cpu().numpy() for name, values in inputs.items()}
    generator = np.random.default_rng(derive_seed(seed, "synthesis"))
    made = synthesize(synthesis, np.concatenate([*columns.values()], axis=1), train.exact_labels, generator)
    widths = np.cumsum([values.shape[1] for values in columns.values()])[:-1]
    vectors = dict(zip(columns, np.split(made.vectors, widths, axis=1), strict=True))
    kept = torch.from_numpy(made.kept)
    on_device = kept.to(train.labels.device)
    labels = np.concatenate([train.exact_labels[made.kept], made.labels])
    extended = ResidentSplit(
        sample_ids=(
            *(train.sample_ids[row] for row in made.kept.tolist()),
            *(f"synthetic/{number:06d}" for number in range(1, len(made.labels) + 1)),
        ),
        inputs={
            name: torch.cat(
                [values[on_device], torch.from_numpy(vectors[name]).to(values).unflatten(1, values.shape[1:])]
            )
            for name, values in inputs.items()
        },
        labels=torch.from_numpy(transform_labels(labels, transform)).to(train.labels),
        label_bins=torch.from_numpy(label_bins(labels, data.manifest.label)).to(train.label_bins),
        exact_labels=labels,
        transform=train.transform,
    )
    return replace(data, splits={**data.splits, "train": extended})
