"""Any image network of timm (huggingface.co/docs/timm), with its own input size, mean and standard deviation.

The embedding is the network's pooled output, before its classifier.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from dirtune import manifest
from dirtune.errors import Fault, InputError
from dirtune.models.encoders import backbone
from dirtune.models.encoders.encoder import Encoder

_FILES = ("model.safetensors", "pytorch_model.bin")


class Timm(backbone.ImageBackboneSpec):
    """Network of timm, of thousands; reads one image input of one or three channels."""

    name: Literal["timm"] = "timm"
    weights_file: str | None = None
    """A file of weights as timm or `safetensors` saves them, instead of those of the hub."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator or the weights.

        Raises:
            InputError: the inputs do not fit, timm is not installed or has no such network, or the weights are missing.
        """
        reads = backbone.find_image(self.name, inputs)
        settings = self._get_settings()
        files = self.find_weights()
        size = tuple(settings["input_size"][1:]) if self.image_size is None else (self.image_size, self.image_size)
        options: dict[str, Any] = {"num_classes": 0}
        if settings.get("fixed_input_size"):
            options["img_size"] = size
        if files and not backbone.is_meta():
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(files[0]), "hf_hub_id": None}}
        try:
            network = _import_timm().create_model(self.model, **options)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            rule = f"cannot be built ({str(error).splitlines()[0]})"
            raise InputError(Fault(where="model.encoder.model", rule=rule, got=self.model)) from None
        mean, deviation = settings["mean"], settings["std"]
        dim = getattr(network, "head_hidden_size", None) or network.num_features
        return backbone.ImageBackbone(self, reads, network, size=size, dim=dim, mean=mean, deviation=deviation)

    def find_weights(self) -> Sequence[Path]:
        """Return the file of the weights; none for random ones.

        Raises:
            InputError: it is not on this machine.
        """
        if self.weights_file is not None:
            path = Path(os.path.expanduser(self.weights_file))
            if not path.is_file():
                raise InputError(Fault(where="model.encoder.weights_file", rule="no such file", got=self.weights_file))
            return [path]
        if not self.pretrained:
            return []
        hub_id = self._get_settings().get("hf_hub_id")
        if not hub_id:
            rule = "has no pretrained weights on the hub"
            raise InputError(Fault(where="model.encoder.model", rule=rule, got=self.model))
        from huggingface_hub import try_to_load_from_cache

        for name in _FILES:
            found = try_to_load_from_cache(hub_id, name)
            if isinstance(found, str):
                return [Path(found)]
        rule = f"its weights are not in the cache of the hub; fetch them once by `hf download {hub_id}`"
        raise InputError(Fault(where="model.encoder.pretrained", rule=rule, got=self.model))

    def _get_settings(self) -> dict[str, Any]:
        timm = _import_timm()
        if not timm.is_model(self.model):
            close = timm.list_models(f"*{self.model.split('.')[0]}*")[:20]
            raise InputError(
                Fault(where="model.encoder.model", rule="timm has no such network", got=self.model, known=close)
            )
        settings: dict[str, Any] = timm.get_pretrained_cfg(self.model).to_dict()
        return settings


def _import_timm() -> Any:
    try:
        import timm
    except ImportError:
        raise backbone.make_missing_error("timm", "timm") from None
    return timm
