"""Kept models as one torch module: stored inputs in, predictions in the label's unit out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dirtune.data.views import make_transform
from dirtune.errors import Fault, InputError
from dirtune.models.dense_regressor import upsample_bilinear
from dirtune.signatures import describe_value
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
        self._specs = manifest.features
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
        # An exported program has its own check of shapes.
        if not torch.compiler.is_compiling():
            self._check(inputs)
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

    def _check(self, inputs: Sequence[object]) -> None:
        """Raise if inputs are not as the data set stores them.

        Raises:
            InputError: with a fault for each input.
        """
        where, names = "module", ", ".join(self.input_names)
        if len(inputs) != len(self.input_names):
            rule = f"needs the tensors of {len(self.input_names)} inputs in this order: {names}"
            raise InputError(Fault(where=where, rule=rule, got=len(inputs)))
        weights = next(self.parameters())
        faults = []
        for (name, spec), value in zip(self._specs.items(), inputs, strict=True):
            shape = f"(batch, {', '.join(map(str, spec.shape))})"
            # Vectors are read in the precision of the weights; an index may have more bytes than a stored one.
            types = {"vector": (weights.dtype,), "tokens": (torch.int32, torch.int64)}.get(spec.kind, (torch.uint8,))
            words = " or ".join(str(each).removeprefix("torch.") for each in types)
            rule, got = f"must be a {words} tensor of shape {shape} on {weights.device}", ""
            if not isinstance(value, Tensor):
                got = describe_value(value)
            elif value.shape[1:] != spec.shape or not value.ndim:
                got = f"the shape {tuple(value.shape)}"
            elif value.dtype not in types:
                got = str(value.dtype).removeprefix("torch.")
            elif value.device != weights.device:
                got = str(value.device)
            if got:
                faults.append(Fault(where=where, key=name, rule=f"{rule}, got {got}"))
        if faults:
            raise InputError(faults)
