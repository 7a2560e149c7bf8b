"""Ingesting a data set by name, and looking at one that is ingested.

`pipeline` is the only place where dirtune reaches a pipeline module: by name, through the list that the `pipelines`
package keeps, so that the library never depends on a data set.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from dirtune.data.store import read_manifest
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
from dirtune.manifest import MANIFEST, Manifest
from dirtune.reweighting.density import shot_regions
from dirtune.storage import Storage

_REGIONS = ("many", "medium", "few")
_MARKS = {"many": "M", "medium": "m", "few": "."}
_BARS = " ▁▂▃▄▅▆▇█"
_BINS_PER_LINE = 60


class Pipeline(Protocol):
    """What a module of the `pipelines` package offers."""

    Options: type[Frozen]

    def ingest(self, storage: Storage, raw: Path | None, options: Any) -> Manifest: ...


def pipeline(name: str) -> Pipeline:
    """The pipeline module of a data set.

    Raises:
        InputError: there is no such pipeline.
    """
    known = importlib.import_module("pipelines").PIPELINES
    if name not in known:
        raise InputError(Fault(where="data set", rule="unknown name", got=name, known=tuple(known)))
    return cast(Pipeline, importlib.import_module(f"pipelines.{name}"))


def ingest(
    name: str,
    *,
    root: str | Path,
    raw: str | Path | None = None,
    options: Mapping[str, object] | None = None,
    download: bool = False,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Ingest a data set below a data root, unless the same raw files and options have made it already.

    The pipeline joins the Ray of this process; if there is none, it starts one and shuts it down again.

    Args:
        root: the data root, a path or URL.
        raw: the raw file, or the folder of the raw files, for pipelines that need them.
        options: settings of the pipeline (its `Options`).
        download: bring the raw files into the folder `raw` first, as far as their source allows it.
        say: receives one line on what was done.

    Raises:
        InputError: unknown data set or option, or raw files that cannot be used.
    """
    module, storage = pipeline(name), Storage.at(root)
    chosen = read(module.Options, dict(options or {}), where=f"options of {name}")
    before = _manifest_text(storage, getattr(chosen, "name", name))  # one's own data have a name
    folder = None if raw is None else Path(raw).expanduser()
    if download:
        _download(name, folder, say)
    manifest = module.ingest(storage, folder, chosen)
    unchanged = before is not None and before == _manifest_text(storage, manifest.name)
    rows = sum(info.rows for info in manifest.splits.values())
    outcome = "unchanged, already ingested from the same request" if unchanged else "ingested"
    say(f"{manifest.name}: {outcome}; {rows:,} samples, content {manifest.fingerprint}")
    return manifest


def _download(name: str, folder: Path | None, say: Callable[[str], None]) -> None:
    if folder is None:
        raise InputError(Fault(where=name, key="raw", rule="a download needs the folder to fill"))
    importlib.import_module("pipelines.downloads").download_raw(name, folder, say=say)


def _manifest_text(storage: Storage, name: str) -> bytes | None:
    path = f"{name}/{MANIFEST}"
    return storage.read(path) if storage.exists(path) else None


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """An ingested data set under one shot rule; `str()` is what the command line shows."""

    manifest: Manifest
    shot_rule: str
    regions: NDArray[np.str_]  # shot region of each label bin

    def bins(self, region: str) -> int:
        """Number of label bins in a shot region."""
        return int(np.count_nonzero(self.regions == region))

    def samples(self, split: str, region: str) -> int:
        """Number of samples of a split in a shot region."""
        counts = np.asarray(self.manifest.splits[split].bin_counts)
        return int(counts[self.regions == region].sum())

    def __str__(self) -> str:
        return "\n".join(
            [*self._heading(), "", *self._table(), "", *self._histogram(), *self._notes()]
        )

    def _heading(self) -> list[str]:
        manifest, label = self.manifest, self.manifest.label
        inputs = ", ".join(
            f"{name} ({spec.kind} {'x'.join(map(str, spec.shape))})"
            for name, spec in manifest.inputs.items()
        )
        return [
            f"{manifest.name}: content {manifest.fingerprint}, split {manifest.split_fingerprint[:16]}",
            f"inputs: {inputs}",
            f"label: {label.name} [{label.unit}], {label.low:g}..{label.high:g}, "
            f"{label.num_bins} bins of {label.bin_width:g}",
            f"shot rule: {self.shot_rule} (known: {', '.join(manifest.shot_rules)})",
        ]

    def _table(self) -> list[str]:
        splits = list(self.manifest.splits)
        lines = [f"{'region':8}{'bins':>8}" + "".join(f"{split:>10}" for split in splits)]
        for region in _REGIONS:
            samples = "".join(f"{self.samples(split, region):>10,}" for split in splits)
            lines.append(f"{region:8}{self.bins(region):>8}{samples}")
        totals = "".join(f"{self.manifest.splits[split].rows:>10,}" for split in splits)
        return [*lines, f"{'all':8}{len(self.regions):>8}{totals}"]

    def _histogram(self) -> list[str]:
        label, counts = self.manifest.label, np.asarray(self.manifest.train_counts)
        lines = [
            f"training samples per bin, the tallest bar {counts.max():,}; "
            + ", ".join(f"{mark} {region}" for region, mark in _MARKS.items())
        ]
        for start in range(0, label.num_bins, _BINS_PER_LINE):
            part = slice(start, start + _BINS_PER_LINE)
            lines += [
                f"{label.low + start * label.bin_width:>8g} {_bars(counts[part], counts.max())}",
                f"{'':8} {''.join(_MARKS[region] for region in self.regions[part])}",
            ]
        return lines

    def _notes(self) -> list[str]:
        return [f"note: {note}" for note in self.manifest.notes]


def _bars(counts: NDArray[np.int64], tallest: int) -> str:
    # Rounded up, so that a bin with one sample does not look empty.
    heights = np.ceil(counts / max(tallest, 1) * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)


def inspect(name: str, *, root: str | Path, shot_rule: str | None = None) -> Inspection:
    """An ingested data set with its label bins sorted into shot regions.

    Args:
        shot_rule: a rule of the data set; none: its default.

    Raises:
        InputError: the set is not ingested, or it has no such rule.
    """
    manifest = read_manifest(Storage.at(root), name)
    rule = shot_rule or manifest.default_shot_rule
    if rule not in manifest.shot_rules:
        known = tuple(manifest.shot_rules)
        raise InputError(Fault(where=name, rule="unknown shot rule", got=rule, known=known))
    regions = shot_regions(manifest.train_counts, manifest.shot_rules[rule])
    return Inspection(manifest=manifest, shot_rule=rule, regions=regions)
