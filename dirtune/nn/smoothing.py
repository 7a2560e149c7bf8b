"""Feature distribution smoothing as a layer between an encoder and the last layer of a regressor."""

from typing import Any

import torch
from torch import Tensor, nn

from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.models.fds import FeatureSmoothing
from dirtune.nn.checks import check_finite, check_integer, check_shape, check_tensors
from dirtune.reweighting import fds
from dirtune.reweighting.labels import BINS_RULE, LabelBins


class FDS(nn.Module):
    """Feature distribution smoothing (Yang et al., ICML 2021); formula: `dirtune.models.fds`.

    Smooths in training mode from the third epoch on, by the statistics of the epochs before the last one, and is the identity
    in evaluation mode. At the end of every epoch, pass the embeddings of the whole training set to `observe`, batch by batch
    and unsmoothed, and then call `end_epoch`.

    Args:
        embedding_dim: embedding size.
        bins: label bins of the training set.
        settings: those of `reweighting.fds`, such as `size`, `sigma` and `momentum`.
    """

    def __init__(self, embedding_dim: int, bins: LabelBins, **settings: Any) -> None:
        super().__init__()
        if not isinstance(bins, LabelBins):
            raise InputError(Fault(where="FDS", key="bins", rule=BINS_RULE, got=type(bins).__name__))
        check_integer("FDS", "embedding_dim", embedding_dim, least=1)
        self.bins, self.embedding_dim = bins, embedding_dim
        self.smoothing = FeatureSmoothing(read(fds.FDS, settings, where="FDS"), embedding_dim, bins.spec.num_bins)
        self._statistics = self.smoothing.make_empty_statistics()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the embeddings that the last layer reads.

        Args:
            embeddings: `(rows, dim)`.
            labels: `(rows,)`.

        Raises:
            InputError: they have other shapes.
        """
        self._check(embeddings, labels)
        # Bins need the labels on the CPU, for which the device would have to finish.
        if not self.training:
            return embeddings
        smoothed: Tensor = self.smoothing(embeddings, self.bins.find_bins(labels))
        return smoothed

    @torch.no_grad()
    def observe(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add a batch of the training set to the statistics of the epoch; raises as a call, and if embeddings are not finite."""
        self._check(embeddings, labels)
        # One such row would stay in the moments of its bin.
        check_finite("FDS", "embeddings", embeddings)
        found = self.smoothing.compute_statistics(embeddings, self.bins.find_bins(labels))
        if not int(self._statistics.count.sum()):
            self._statistics = found
        else:
            self._statistics = self._statistics + found

    def _check(self, embeddings: Tensor, labels: Tensor) -> None:
        check_tensors("FDS", ("embeddings", "labels"), embeddings=embeddings, labels=labels)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.embedding_dim:
            rule = f"must have the shape (rows, {self.embedding_dim})"
            raise InputError(Fault(where="FDS", key="embeddings", rule=rule, got=tuple(embeddings.shape)))
        check_shape("FDS", "labels", labels, (len(embeddings),))

    def end_epoch(self) -> None:
        """Smooth and update the statistics with those of the epoch.

        Raises:
            InputError: no batch was observed.
        """
        if not int(self._statistics.count.sum()):
            rule = "has statistics of the training set: pass its embeddings to `observe`, batch by batch, before `end_epoch`"
            raise InputError(Fault(where="FDS", rule=rule))
        self.smoothing.end_epoch(self._statistics)
        self._statistics = self.smoothing.make_empty_statistics()
