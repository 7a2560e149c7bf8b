"""Kept models as one torch module: stored inputs in, predictions in the label's unit out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dirtune.data.views import make_transform
from dirtune.models.dense_regressor import upsample_bilinear
from dirtune.training.kept_model import KeptModel


class PredictionModule(nn.Module):
    """Mean prediction of the models of an arm, and their standard deviation over the seeds.

    Call it with the inputs as the data set stores them, in the order of `input_names`: standardized vectors in float32, token ids,
    images in bytes. The transform of evaluations is a part of it.
    """

    def __init__(self, models: Sequence[KeptModel]) -> None:
        super().__init__()
        manifest = models[0].contract.manifest
        self.input_names = tuple(manifest.features)
        self.members = nn.ModuleList(model.regressor for model in models)
        self._transform = make_transform(manifest.label, manifest.inputs)
        self._dense = manifest.label.dense
        self._label_transform = models[0].config.model.label_transform

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions `(batch, *label)` and their standard deviation over the members, zero of one member."""
        each = self.predict_each(*inputs)
        if self._label_transform != "none":
            each = each.exp() if self._label_transform == "log" else each.expm1()
        # Not `std`, which is NaN for one member
        spread = (each - each.mean(dim=0)).square().sum(dim=0) / max(len(self.members) - 1, 1)
        return each.mean(dim=0), spread.sqrt()

    def predict_each(self, *inputs: Tensor) -> Tensor:
        """Return the predictions of every member, in the unit of training; shape `(members, batch, *label)`.

        That is the label's unit unless `model.label_transform` is set. Per-pixel predictions have the size of the labels.
        """
        view = dict(zip(self.input_names, inputs, strict=True))
        if self._dense is None:
            view = self._transform.apply_evaluation(view)
            return torch.stack([member(view).predictions for member in self.members])
        # The transform reads the labels, too, which new images do not have.
        first = inputs[0]
        # `len` would fix the batch size of an exported program.
        labels = first.new_zeros((first.shape[0], 1, *first.shape[-2:]), dtype=torch.int16)
        view = self._transform.apply_evaluation({**view, self._dense.column: labels})
        size = view[self._dense.column]
        return torch.stack([upsample_bilinear(member(view).predictions, size) for member in self.members])
