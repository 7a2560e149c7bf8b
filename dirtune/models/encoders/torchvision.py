"""Any classification network of torchvision without its last layer, as an encoder of images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
from torch import nn

from dirtune import manifest
from dirtune.errors import Fault, InputError
from dirtune.models.encoders import backbone
from dirtune.models.encoders.encoder import Encoder


class Torchvision(backbone.ImageBackboneSpec):
    """Classification network of torchvision; reads one image input of one or three channels.

    The embedding is the input of its last linear layer.
    """

    name: Literal["torchvision"] = "torchvision"
    weights: str = "DEFAULT"
    """Which of the network's weights, such as IMAGENET1K_V2, if it is pretrained."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator or the weights.

        Raises:
            InputError: the inputs do not fit, torchvision has no such network, or the weights are missing.
        """
        reads = backbone.find_image(self.name, inputs)
        weights = self._get_weights()
        files = self.find_weights()
        size = self.image_size or getattr(weights.transforms(), "crop_size", [224])[0]
        # Networks of patches have a table of positions, and so one size.
        options = {"image_size": size} if self.model.startswith("vit_") else {}
        network = _import_models().get_model(self.model, weights=None, **options)
        if files and not backbone.is_meta():
            state = torch.load(files[0], map_location="cpu", weights_only=True)
            try:
                network.load_state_dict(state)
            except RuntimeError as error:
                rule = f"its weights do not fit an image size of {size} ({str(error).splitlines()[-1].strip()})"
                raise InputError(Fault(where="model.encoder.image_size", rule=rule, got=size)) from None
        dim = self._remove_head(network)
        mean, deviation = weights.transforms().mean, weights.transforms().std
        return backbone.ImageBackbone(self, reads, network, size=(size, size), dim=dim, mean=mean, deviation=deviation)

    def find_weights(self) -> Sequence[Path]:
        """Return the file of the weights; none for random ones.

        Raises:
            InputError: it is not on this machine.
        """
        if not self.pretrained:
            return []
        url = self._get_weights().url
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
        if not path.is_file():
            rule = f"its weights are not in torch's cache; fetch {url} once to {path}"
            raise InputError(Fault(where="model.encoder.pretrained", rule=rule, got=self.model))
        return [path]

    def _get_weights(self) -> Any:
        models = _import_models()
        known = models.list_models(module=models)
        if self.model not in known:
            raise InputError(
                Fault(where="model.encoder.model", rule="torchvision has no such network", got=self.model, known=known)
            )
        choices = models.get_model_weights(self.model)
        if self.weights not in choices.__members__:
            rule = f"{self.model} has no such weights"
            raise InputError(
                Fault(where="model.encoder.weights", rule=rule, got=self.weights, known=list(choices.__members__))
            )
        return choices[self.weights]

    def _remove_head(self, network: nn.Module) -> int:
        """Replace the last linear layer by the identity, and return the size of its input."""
        modules = list(network.named_modules())
        name, last = next((each for each in reversed(modules) if isinstance(each[1], nn.Linear)), ("", None))
        if not isinstance(last, nn.Linear) or getattr(network, "aux_logits", False):
            rule = "has no last linear layer that gives an embedding; choose another"
            raise InputError(Fault(where="model.encoder.model", rule=rule, got=self.model))
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, nn.Identity())
        return last.in_features


def _import_models() -> Any:
    # A local import: it takes as long as that of torch itself, and other encoders do without.
    from torchvision import models

    return models
