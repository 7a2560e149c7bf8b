"""Any PyTorch module of a plug-in package as an encoder, made by a function."""

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune import batch, manifest, plugins
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.models.encoders.encoder import Encoder, make_input_error
from dirtune.registry import Plugin


class Module(Frozen):
    """Module of a plug-in package; reads the only input of the data set.

    The function gets the shape of an input and the `options`. Its module maps a batch of inputs to vectors, whose size is
    the module's attribute `embedding_dim`.
    """

    name: Literal["module"] = "module"
    factory: str = Field(pattern=r"^[\w.]+:\w+$")
    """`package.module:function`, of an installed package with entry points of dirtune."""
    options: dict[str, Any] = {}
    """Arguments of the function besides the shape."""
    input: str | None = None
    """Name of the input, if the data set has several."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator.

        Raises:
            InputError: the inputs do not fit, or the function is not that of a plug-in or makes no encoder.
        """
        name = self.input
        if name is None:
            fitting = [each for each, spec in inputs.items() if spec.kind != "dense_label"]
            if len(fitting) != 1:
                raise make_input_error(self.name, "one input (or the setting `input`)", inputs)
            name = fitting[0]
        if name not in inputs:
            raise make_input_error(self.name, f"an input {name!r}", inputs, tuple(inputs))
        make, _ = plugins.find_factory(self.factory)
        try:
            module = make(inputs[name].shape, **self.options)
        except (TypeError, ValueError) as error:
            rule = f"cannot be made ({error})"
            raise InputError(Fault(where="model.encoder.factory", rule=rule, got=self.factory)) from None
        if not isinstance(module, nn.Module) or not isinstance(getattr(module, "embedding_dim", None), int):
            rule = "must return a module with an attribute embedding_dim"
            raise InputError(Fault(where="model.encoder.factory", rule=rule, got=self.factory))
        return _ModuleEncoder(name, module)

    def find_plugin(self) -> Plugin:
        """Return the package, which is part of a trial's identity."""
        return plugins.find_factory(self.factory)[1]


class _ModuleEncoder(Encoder):
    def __init__(self, reads: str, module: Any) -> None:
        super().__init__()
        self.reads, self.module, self.embedding_dim = reads, module, module.embedding_dim

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        embeddings: Tensor = self.module(inputs[self.reads])
        return embeddings
