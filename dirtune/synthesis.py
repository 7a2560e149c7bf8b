"""Synthetic training rows of tables: rare labels over-sampled by interpolation between neighbors, frequent ones thinned.

A synthesis is given the vectors and labels of the training split alone, after it was split and standardized; validation and
test rows are never seen and never made. To add one: write its class, add its line here; from outside of the package, see
`dirtune.plugins`.

The relevance of a label is 1 at and beyond the adjacent value of the box plot on a side that has outliers (coefficient 1.5), 0 at
the median, and follows a cubic without slopes at both in between. Rows are rare from `threshold` on. Runs of rare or normal
rows in the order of the labels are the strata.

Sources: SmoteR: Torgo et al., "SMOTE for Regression", EPIA 2013. SMOGN: Branco et al., "SMOGN: a Pre-processing Approach for
Imbalanced Regression", LIDTA 2017. Departures: 1. a side of the box plot without outliers has no rare labels; 2. columns of
zeros and ones alone, such as those of a category, are copied from one of the two rows; 3. a run of one row makes no rows,
for lack of a neighbor.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.part_errors import make_part_error, name_part
from dirtune.registry import Registry
from dirtune.signatures import describe_value

Array = NDArray[np.float64]
_WHISKER = 1.5


class SyntheticRows(NamedTuple):
    """Rows of a training split that are kept, and those that are made."""

    kept: NDArray[np.int64]
    """Positions, sorted."""
    vectors: Array
    """Of the new rows, shape `(new, columns)`."""
    labels: Array
    """Of the new rows, shape `(new,)`."""


class Synthesis(Protocol):
    """Synthetic training rows."""

    @property
    def name(self) -> str: ...

    def make_rows(self, vectors: Array, labels: Array, generator: np.random.Generator) -> SyntheticRows:
        """Return the rows that are kept and the new ones.

        Args:
            vectors: inputs of the training rows, shape `(rows, columns)`.
            labels: in the label's unit, shape `(rows,)`.
            generator: of the trial.

        Raises:
            InputError: no label is rare.
        """
        ...


def synthesize(synthesis: Synthesis, vectors: Array, labels: Array, generator: np.random.Generator) -> SyntheticRows:
    """Return the rows of a synthesis; the arguments are those of `Synthesis.make_rows`.

    Raises:
        InputError: no label is rare, or the synthesis of a plug-in raises, or returns something else.
    """
    with name_part("synthesis", synthesis.name, synthesis):
        made = synthesis.make_rows(vectors, labels, generator)
    if not isinstance(made, SyntheticRows):
        rule = "must return a dirtune.synthesis.SyntheticRows"
        raise make_part_error("synthesis", synthesis.name, synthesis, rule, describe_value(made))
    with name_part("synthesis", synthesis.name, synthesis):
        kept, new = np.asarray(made.kept), [np.asarray(each, dtype=np.float64) for each in (made.vectors, made.labels)]
    rule, got = "", ""
    if kept.ndim != 1 or not np.issubdtype(kept.dtype, np.integer):
        rule, got = (
            "must keep rows of the training split, whole numbers from 0",
            f"{kept.ndim} dimensions of {kept.dtype}",
        )
    elif len(wrong := kept[(kept < 0) | (kept >= len(labels))]):
        rule, got = f"must keep rows of the training split, whole numbers from 0 to {len(labels) - 1}", str(wrong[0])
    elif new[0].ndim != 2 or new[0].shape[1] != vectors.shape[1]:
        rule, got = f"must return vectors of shape (new, {vectors.shape[1]})", f"shape {new[0].shape}"
    elif new[1].shape != new[0].shape[:1]:
        rule = "must return one label for each synthetic row"
        got = f"{new[1].size} labels for {len(new[0])} rows"
    elif far := [float(each[~np.isfinite(each)][0]) for each in new if not np.isfinite(each).all()]:
        rule, got = "must return finite vectors and labels", f"{far[0]:g}"
    if rule:
        raise make_part_error("synthesis", synthesis.name, synthesis, rule, got)
    return SyntheticRows(kept.astype(np.int64), *new)


class SmoteR(Frozen):
    """New rows between a rare row and one of its neighbors; every run of rare or normal rows gets the mean size of a run."""

    name: Literal["smoter"] = "smoter"
    neighbors: int = Field(default=5, ge=1)
    """Number of nearest rows of the same run among which a partner is drawn."""
    threshold: float = Field(default=0.5, gt=0, le=1)
    """Least relevance of a rare label."""
    thin: bool = True
    """True: runs of normal rows that are larger than the mean are thinned to it, at random."""

    def make_rows(self, vectors: Array, labels: Array, generator: np.random.Generator) -> SyntheticRows:
        """Return the rows that are kept and the new ones."""
        runs = list(list_runs(labels, self.threshold))
        if not any(is_rare for _, is_rare in runs):
            rule = "finds no rare labels: none is beyond the whiskers of their box plot, or the threshold is too high"
            raise InputError(Fault(where="training labels", key="synthesis", rule=rule, got=self.name))
        size = round(len(labels) / len(runs))
        is_binary: NDArray[np.bool_] = np.asarray(np.isin(vectors, (0.0, 1.0)).all(axis=0))
        kept, made = [], []
        for rows, is_rare in runs:
            if is_rare or not self.thin or len(rows) <= size:
                kept.append(rows)
            else:
                kept.append(generator.choice(rows, size, replace=False))
            if is_rare and len(rows) > 1:
                for own in generator.integers(len(rows), size=max(0, size - len(rows))):
                    made.append(self.make_row(vectors[rows], labels[rows], int(own), is_binary, generator))
        new_vectors = np.array([vector for vector, _ in made]).reshape(-1, vectors.shape[1])
        return SyntheticRows(np.sort(np.concatenate(kept)), new_vectors, np.array([label for _, label in made]))

    def make_row(
        self, vectors: Array, labels: Array, own: int, is_binary: NDArray[np.bool_], generator: np.random.Generator
    ) -> tuple[Array, float]:
        """Return a new row of a run from one of its rows.

        Args:
            vectors: of the run.
            labels: of the run.
            own: position of the row in the run.
            is_binary: columns that are copied.
            generator: of the trial.
        """
        distances = np.sqrt(np.square(vectors - vectors[own]).sum(axis=1))
        partner = int(generator.choice(find_neighbors(distances, own, self.neighbors)))
        return interpolate(vectors[[own, partner]], labels[[own, partner]], is_binary, generator)


class SMOGN(SmoteR):
    """SmoteR where the neighbor is near; elsewhere the row itself with Gaussian noise on vector and label."""

    name: Literal["smogn"] = "smogn"  # type: ignore[assignment]
    noise: float = Field(default=0.02, gt=0)
    """Standard deviation of the noise, as a share of that of each column, and of the label, in the run."""

    def make_row(
        self, vectors: Array, labels: Array, own: int, is_binary: NDArray[np.bool_], generator: np.random.Generator
    ) -> tuple[Array, float]:
        """Return a new row of a run from one of its rows."""
        distances = np.sqrt(np.square(vectors - vectors[own]).sum(axis=1))
        partner = int(generator.choice(find_neighbors(distances, own, self.neighbors)))
        # Half of the median distance to the other rows of the run is near.
        if distances[partner] < np.median(np.delete(distances, own)) / 2:
            return interpolate(vectors[[own, partner]], labels[[own, partner]], is_binary, generator)
        scales = np.where(is_binary, 0.0, self.noise * vectors.std(axis=0))
        return generator.normal(vectors[own], scales), float(generator.normal(labels[own], self.noise * labels.std()))


def compute_relevance(labels: Array) -> Array:
    """Return the relevance of each label, in [0, 1], by the box plot of all."""
    lower, median, upper = np.quantile(labels, (0.25, 0.5, 0.75))
    reach = _WHISKER * (upper - lower)
    inside = labels[(labels >= lower - reach) & (labels <= upper + reach)]
    relevance = np.zeros(len(labels))
    for side, adjacent, has_outliers in (
        (-1, inside.min(), (labels < lower - reach).any()),
        (1, inside.max(), (labels > upper + reach).any()),
    ):
        if has_outliers:
            beyond, whisker = side * (labels - median), side * (adjacent - median)
            # A whisker without length: all beyond the median is an outlier.
            position = np.clip(beyond / whisker, 0, 1) if whisker > 0 else (beyond > 0).astype(np.float64)
            relevance = np.maximum(relevance, position**2 * (3 - 2 * position))
    return relevance


def list_runs(labels: Array, threshold: float) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """Yield the runs of rare or normal rows in the order of the labels, each with whether it is rare."""
    order = np.argsort(labels, kind="stable")
    is_rare = (compute_relevance(labels) >= threshold)[order]
    for run in np.split(np.arange(len(labels)), np.flatnonzero(np.diff(is_rare)) + 1):
        yield order[run], bool(is_rare[run[0]])


def find_neighbors(distances: Array, own: int, count: int) -> NDArray[np.int64]:
    """Return the positions of the nearest other rows."""
    nearest: NDArray[np.int64] = np.argsort(distances, kind="stable")
    others: NDArray[np.int64] = nearest[nearest != own]
    return others[:count]


def interpolate(
    vectors: Array, labels: Array, is_binary: NDArray[np.bool_], generator: np.random.Generator
) -> tuple[Array, float]:
    """Return a row between two: each column at a random fraction, the label weighted by the nearness of the two.

    Args:
        vectors: of the two rows.
        labels: of the two rows.
        is_binary: columns that are copied from one of the two.
        generator: of the trial.
    """
    drawn = generator.random(vectors.shape[1])
    shares = np.where(is_binary, np.round(drawn), drawn)
    vector = vectors[0] + shares * (vectors[1] - vectors[0])
    distances = np.sqrt(np.square(vectors - vector).sum(axis=1))
    # Of equal rows, both are as near.
    weight = float(distances[1] / distances.sum()) if distances.sum() > 0 else 0.5
    return vector, float(weight * labels[0] + (1 - weight) * labels[1])


SYNTHESIS = Registry("synthesis", {"smogn": SMOGN, "smoter": SmoteR})
