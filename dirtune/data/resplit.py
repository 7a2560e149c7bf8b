"""Further train, val and test splits of a data set in memory, drawn from all its rows.

A single split is one draw: which rows are tested may decide which of two methods is better. Split `k` of a data set is
another draw with the same label histograms: in every label bin as many rows are in val and in test as ingested, and which
ones depends on `k` and the sample ids alone. So every split has the same bins in every shot region, and all that is taken
from the label histogram (weights, units of settings) stays. Where the data set has groups, no group is in two splits, and
histograms are approximated as those of an ingested grouped split (`dirtune.data.splits.partition`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from dirtune.batch import Inputs
from dirtune.data.cache import ResidentData, ResidentSplit, Rows, Split
from dirtune.data.splits.partition import split_by_group
from dirtune.data.splits.rows import TEST, TRAIN, VAL, SplitNames, rank_by_seed, rank_within_bins
from dirtune.errors import Fault
from dirtune.manifest import SPLITS, Manifest, ShotRule
from dirtune.reweighting.density import shot_regions

_NOTE = "split: "
"""Start of the note of a manifest on how its splits were made."""


@dataclass(frozen=True, kw_only=True)
class PooledSplit(Split):
    """Selected rows of several splits that are not all on the device, renumbered in the order of their ids."""

    sources: tuple[Split, ...]
    positions: NDArray[np.int64]
    """Source of each row, and its row there; shape (rows, 2)."""

    @property
    def placement(self) -> str:
        return " and ".join(sorted({source.placement for source in self.sources}))

    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        for rows in batches:
            positions = torch.from_numpy(self.positions[rows.numpy()])
            found: Inputs = {}
            for number, source in enumerate(self.sources):
                (at,) = torch.nonzero(positions[:, 0] == number, as_tuple=True)
                # A batch without rows, as a rank may have, has the inputs' shapes from the first source.
                if not len(at) and (number or len(rows)):
                    continue
                (inputs,) = source.read([positions[at, 1]])
                for name, values in inputs.items():
                    if name not in found:
                        found[name] = values.new_empty((len(rows), *values.shape[1:]))
                    found[name].index_copy_(0, at.to(values.device), values)
            yield found


def find_resplit_fault(manifest: Manifest) -> Fault | None:
    """Return why the rows of a data set cannot be split again, or None."""
    notes = [note for note in manifest.notes if note.startswith(_NOTE)]
    if manifest.label.dense is not None:
        rule = "further splits need one label per sample, but this data set has labels per pixel"
    elif set(SPLITS) - manifest.splits.keys():
        rule = f"further splits need rows in {', '.join(SPLITS)}"
    elif not notes or "as published" in notes[0]:
        rule = (
            "further splits are for data whose splits dirtune has drawn: these are published or come from a column of the "
            "raw files, and results on other splits could not be compared with those on them; remove `splits`"
        )
    else:
        return None
    return Fault(where=manifest.name, key="splits", rule=rule)


def draw_split(
    ids: NDArray[np.object_],
    bins: NDArray[np.int64],
    ingested: NDArray[np.int64],
    number: int,
    groups: NDArray[np.object_] | None = None,
) -> SplitNames:
    """Return the split of each row in another draw of the ingested label histograms.

    Args:
        ids: unique, shape `(rows,)`.
        bins: label bin of each row.
        ingested: position in `SPLITS` of each row's ingested split.
        number: of the draw.
        groups: of each row; None if rows are independent.
    """
    counts = np.stack([np.bincount(bins[ingested == split], minlength=bins.max() + 1) for split in range(len(SPLITS))])
    if groups is not None:
        return split_by_group(ids, bins, groups, counts.astype(np.float64), seed=number)
    ranks = rank_within_bins(bins, rank_by_seed(ids, number, "redrawn"))
    val, test = counts[1][bins], counts[2][bins]
    return np.select([ranks < val, ranks < val + test], [VAL, TEST], default=TRAIN)


def redraw_splits(data: ResidentData, number: int) -> ResidentData:
    """Return the data set with its split of this number; 0 is the ingested one."""
    if number == 0:
        return data
    sources = tuple(data.splits[name] for name in SPLITS)
    ids = np.array([sample for source in sources for sample in source.sample_ids], dtype=object)
    bins = np.concatenate([source.label_bins.cpu().numpy() for source in sources])
    positions = np.concatenate(
        [np.stack([np.full(len(each), at), np.arange(len(each))], axis=1) for at, each in enumerate(sources)]
    )
    own_groups = [source.sample_groups for source in sources if source.sample_groups is not None]
    groups = np.concatenate(own_groups) if data.manifest.group is not None else None
    names = draw_split(ids, bins, positions[:, 0], number, groups)
    manifest, splits = data.manifest, dict(data.splits)
    infos = dict(manifest.splits)
    for name in SPLITS:
        rows = np.flatnonzero(names == name)
        rows = rows[np.argsort(ids[rows])]
        splits[name] = _pool(sources, positions[rows])
        counts = np.bincount(bins[rows], minlength=manifest.label.num_bins)
        update = {"rows": len(rows), "bin_counts": tuple(counts.tolist())}
        infos[name] = manifest.splits[name].model_copy(update=update)
    rules = {name: _fix_regions(manifest, rule) for name, rule in manifest.shot_rules.items()}
    return replace(data, splits=splits, manifest=manifest.model_copy(update={"splits": infos, "shot_rules": rules}))


def _fix_regions(manifest: Manifest, rule: ShotRule) -> ShotRule:
    """Return a rule by which the regions of every split have the bins of the ingested one."""
    # With groups the training counts differ a little from split to split, and a column of a table must mean one thing.
    regions = shot_regions(np.asarray(manifest.train_counts), rule)
    many, medium = (tuple(np.flatnonzero(regions == name).tolist()) for name in ("many", "medium"))
    return rule.model_copy(update={"many_bins": many, "medium_bins": medium})


def _pool(sources: tuple[Split, ...], positions: NDArray[np.int64]) -> Split:
    """Return selected rows of several splits as one split, in the order of `positions`."""
    starts = np.cumsum([0, *map(len, sources)])
    rows = torch.from_numpy(starts[positions[:, 0]] + positions[:, 1])
    local = rows.to(sources[0].labels.device)
    sample_ids = [sample for source in sources for sample in source.sample_ids]
    shared = {
        "sample_ids": tuple(sample_ids[row] for row in rows.tolist()),
        "labels": torch.cat([source.labels for source in sources]).index_select(0, local),
        "label_bins": torch.cat([source.label_bins for source in sources]).index_select(0, local),
        "exact_labels": np.concatenate([source.exact_labels for source in sources])[rows.numpy()],
        "transform": sources[0].transform,
    }
    if not all(isinstance(source, ResidentSplit) for source in sources):
        return PooledSplit(sources=sources, positions=positions, **shared)
    resident = [source for source in sources if isinstance(source, ResidentSplit)]
    inputs = {
        name: torch.cat([source.inputs[name] for source in resident]).index_select(0, local)
        for name in resident[0].inputs
    }
    return ResidentSplit(inputs=inputs, **shared)
