"""PH-Reg: matches the shape of a batch's features to that of its labels, by their minimum spanning trees.

Zhang, Kawaguchi and Yao, "Deep Regression Representation Learning with Topology", ICML 2024 (arXiv 2404.13904). Official code:
github.com/needylove/PH-Reg, `PH_Reg.py`, `agedb-dir/PH_Reg_agedb.py`. The 0-dimensional persistence of a set of points is the
edges of its minimum spanning tree. One part makes distances along the edges equal to those of the labels; the other makes the
lengths of the trees of random subsets grow with their size as those of the labels do, so that the features have the
intrinsic dimension of the labels.

Departures: (1) Trees are grown by Prim's algorithm on the device, all trees at once, where the code sorts pairs on the CPU.
(2) Of edges of equal length, the one that is shorter in the other space is taken (`ties`), where the code takes the one
whose rows come first in the batch. (3) Subsets of small batches have half of the rows and more, in eight steps, which is the
code's 128..256 for batches of 256 (`sizes`); they are drawn by sample, with all views, from the step's seed. (4) A
subset without two distinct labels or features has no length and is left out; with fewer than two sizes there is no
slope, and its part is 0. (5) The scale of labels that are all zero is 1; of labels below zero, in the variant agedb, it
is their range.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses import draws, pairs
from dirtune.losses.needs import Needs

Variant = Literal["generic", "agedb"]
Ties = Literal["nearest", "rows"]


class PHReg(Frozen):
    """PH-Reg: spanning trees of features like those of labels (Zhang et al., ICML 2024); formulas: `compare_trees`, `compare_dimensions`."""

    needs: ClassVar[Needs] = Needs(samples=4)
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off."""
    topology: float = Field(default=1.0, ge=0)
    """Weight of the distances along the trees; 0 switches them off. Official: 1 (AgeDB), 100 (synthetic)."""
    topology_of: Literal["both", "labels"] = "both"
    """Trees whose edges are compared: those of labels and of features, or of labels alone (the code's flags 1 and 3)."""
    dimension: float = Field(default=0.1, ge=0)
    """Weight of the growth of the trees; 0 switches it off. Official: 0.1 (AgeDB), 10 or 1 (synthetic)."""
    dimension_of: Literal["ratio", "features"] = "ratio"
    """ratio: absolute slope of the ratio of the two lengths, in logarithms; features: slope of the features' length, with its sign
    (the code's flag 5)."""
    sizes: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=1)]] | None = None
    """Smallest subset and the step to the next, in rows; the largest is below the batch. null: half of the batch, and a sixteenth of
    it, but not above the official 128 and 16, and no subset twice as large as the smallest."""
    rows: int | None = Field(default=None, ge=2)
    """Largest number of rows of the trees whose distances are compared. null: all, as on AgeDB."""
    ties: Ties = "nearest"
    """Choice between edges of equal length, of which equal labels have many. nearest: the shorter one in the other space; rows: as
    in the code, the one whose rows come first, which depends on the order of the batch."""
    variant: Variant = "generic"
    """Units of the features. generic: the longest row has length one; agedb: as in its file, they are divided once more, by their
    largest entry, where distances are compared."""
    reads: Literal["representation", "embedding"] = "embedding"
    """Input of the term: embedding (e), as in the code; representation (z)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        with pairs.full_precision(inputs.representations) as e:
            labels, total = inputs.labels.to(e.dtype), (e * 0.0).sum()
            if self.topology > 0:
                drawn = draws.select_rows(inputs, self.rows or len(e), "phreg topology")
                total = total + self.topology * compare_trees(
                    e, labels, drawn, both=self.topology_of == "both", variant=self.variant, ties=self.ties
                )
            if self.dimension > 0:
                total = total + self.dimension * compare_dimensions(
                    e, labels, self._draw_subsets(inputs), signed=self.dimension_of == "features", ties=self.ties
                )
            return total

    def _draw_subsets(self, inputs: TermInputs) -> list[Int[Tensor, " drawn"]]:
        rows, views = len(inputs.samples), inputs.num_views
        if self.sizes is None:
            smallest = min(rows // 2, 128)
            sizes = range(smallest, min(rows, 2 * smallest), max(smallest // 8, 1))
        else:
            sizes = range(self.sizes[0], rows, self.sizes[1])
        # Samples are drawn with all their views.
        sizes_by_samples = dict.fromkeys(size // views * views for size in sizes if size // views >= 1)
        return [draws.select_rows(inputs, size, f"phreg {size}") for size in sizes_by_samples if size > 1]

    @model_validator(mode="after")
    def _check_parts(self) -> "PHReg":
        if self.topology == self.dimension == 0:
            raise ValueError(
                "topology and dimension are both 0, which leaves nothing of the term; set gamma to 0 instead"
            )
        return self


def compare_trees(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    drawn: Int[Tensor, " drawn"],
    *,
    both: bool = True,
    variant: Variant = "generic",
    ties: Ties = "nearest",
) -> Float[Tensor, ""]:
    """Return `mean_(i,j) (Y_ij - D_ij)^2` over the edges of the labels' tree, plus, with `both`, over those of the features' tree.

    D and Y are the distances of features and of labels of the drawn rows, each divided by the length of its longest row.
    """
    if len(drawn) < 2:
        return (embeddings * 0.0).sum()
    features, labels = _scale(embeddings, labels, drawn, variant)
    distances, gaps = pairs.euclidean_matrix(features.detach()), pairs.distance_matrix(labels)

    members = torch.ones(1 + both, len(drawn), dtype=torch.bool, device=labels.device)
    edges, _ = grow_trees(torch.stack([gaps, distances]), members, ties=ties)
    first, last = edges.unbind(dim=-1)
    # Of the edges alone, because the gradient of all pairs would take as many numbers as rows for each pair.
    apart = gaps[first, last] - _measure_lengths(features[first], features[last])
    return apart.square().mean(dim=1).sum()


def compare_dimensions(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    subsets: Sequence[Tensor],
    *,
    signed: bool = False,
    ties: Ties = "nearest",
) -> Float[Tensor, ""]:
    """Return `| slope of log(len_e(n) / len_y(n)) against log n |`, with the lengths of the subsets' trees; 0 for fewer than two sizes.

    With `signed` it is the slope of `log len_e(n)`, with its sign. `subsets` are the rows of the trees.
    """
    nothing = (embeddings * 0.0).sum()
    if len(subsets) < 2:
        return nothing
    # Shorter subsets are padded with row 0 of the batch, which is no member of them there.
    largest = max(map(len, subsets))
    rows, members = (
        torch.stack([nn.functional.pad(each, (0, largest - len(each))) for each in padded])
        for padded in (subsets, [torch.ones_like(subset, dtype=torch.bool) for subset in subsets])
    )
    features, of_rows = embeddings[rows], labels[rows].flatten(2) if labels.ndim > 1 else labels[rows][..., None]
    distances, gaps = (
        torch.cdist(each, each, compute_mode="donot_use_mm_for_euclid_dist") for each in (features.detach(), of_rows)
    )
    trees = torch.arange(len(rows), device=labels.device)
    edges, there = grow_trees(torch.cat([distances, gaps]), members.repeat(2, 1), ties=ties)
    lengths, label_lengths = (
        torch.where(is_edge, _measure_lengths(*(points[trees[:, None], end] for end in ends.unbind(dim=-1))), 0.0).sum(
            dim=1
        )
        for points, ends, is_edge in zip((features, of_rows), edges.chunk(2), there.chunk(2), strict=True)
    )
    usable = (lengths.detach() > 0) & ((label_lengths > 0) | signed)
    logs = torch.where(usable, lengths, 1.0).log()
    if not signed:
        logs = logs - torch.where(usable, label_lengths, 1.0).log()
    sizes = members.sum(dim=1).to(logs.dtype).log()
    shares = usable.to(logs.dtype) / usable.sum().clamp(min=1)
    centered = sizes - (shares * sizes).sum()
    spread = (shares * centered.square()).sum()
    # One size has no slope, up to the rounding of its logarithm.
    has_slope = spread > 1e-6
    slope = (shares * centered * logs).sum() / torch.where(has_slope, spread, 1.0)
    return torch.where(has_slope, slope if signed else slope.abs(), 0.0) + nothing


def grow_trees(
    lengths: Float[Tensor, "spaces rows rows"], members: Bool[Tensor, "trees rows"], *, ties: Ties
) -> tuple[Int[Tensor, "trees edges 2"], Bool[Tensor, "trees edges"]]:
    """Return the edges of minimum spanning trees, and which there are; by Prim's algorithm for all trees at once.

    It takes as many steps as there are rows, each linear in them.

    Args:
        lengths: of the edges, a matrix for each tree; the second half has the same rows as the first, in the other space. Trees may
            be fewer; they are the first ones.
        members: rows of each tree.
        ties: see `PHReg`.
    """
    trees, rows = (torch.arange(size, device=members.device) for size in members.shape)
    # By the row of all matrices one below the other: for a number of one of them, the host would wait for a GPU.
    flat = lengths.flatten(0, 1)
    own_start, other_start = (each * len(rows) for each in (trees, (trees + len(lengths) // 2) % len(lengths)))

    def measure_edges(newest: Tensor) -> tuple[Tensor, Tensor]:
        found = flat.index_select(0, newest + own_start)
        if ties == "nearest":
            return found, flat.index_select(0, newest + other_start)
        first, last = torch.minimum(newest[:, None], rows), torch.maximum(newest[:, None], rows)
        return found, (first * len(rows) + last).double()

    newest = members.to(torch.uint8).argmax(dim=1)
    outside = members.clone()
    outside[trees, newest] = False
    nearest = newest[:, None].expand(members.shape)
    best, second = measure_edges(newest)
    edges, there = [], []
    for _ in range(members.shape[1] - 1):
        reachable = torch.where(outside, best, torch.inf)
        is_nearest = outside & (reachable == reachable.amin(dim=1, keepdim=True))
        newest = torch.where(is_nearest, second, torch.inf).argmin(dim=1)
        there.append(outside.any(dim=1))
        edges.append(torch.stack([nearest[trees, newest], newest], dim=1))
        outside[trees, newest] = False
        length, other = measure_edges(newest)
        closer = (length < best) | ((length == best) & (other < second))
        nearest = torch.where(closer, newest[:, None], nearest)
        best, second = torch.where(closer, length, best), torch.where(closer, other, second)
    return torch.stack(edges, dim=1), torch.stack(there, dim=1)


def _measure_lengths(
    first: Float[Tensor, "trees edges dim"], last: Float[Tensor, "trees edges dim"]
) -> Float[Tensor, "trees edges"]:
    """Return the lengths of edges; 0, with gradient 0, between equal rows."""
    lengths: Tensor = torch.linalg.vector_norm(first - last, dim=-1)
    return lengths


def _scale(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    drawn: Int[Tensor, " drawn"],
    variant: Variant,
) -> tuple[Float[Tensor, "drawn dim"], Float[Tensor, "drawn *label"]]:
    """Return the features and labels of the drawn rows, each divided by its scale."""
    rows = slice(None) if variant == "agedb" else drawn
    longest = torch.linalg.vector_norm(embeddings[rows], dim=1).amax()
    features = embeddings[drawn] / torch.where(longest > 0, longest, 1.0)
    lengths = labels[rows].reshape(len(labels[rows]), -1).norm(dim=1)
    if variant == "agedb":
        largest = features.amax()
        features = features / torch.where(largest > 0, largest, 1.0)
        low, high = labels.aminmax()
        lengths = torch.where(low < 0, high - low, high)
    largest = lengths.amax()
    return features, labels[drawn] / torch.where(largest > 0, largest, 1.0)
