"""torch's optimizers without torch's compiler, which they import even where nothing is compiled.

The methods of `torch.optim.Optimizer` are wrapped so that compiled code leaves them out, and the wrapper imports
`torch._dynamo`: 1.6 s and 156 MB in every process that trains (torch 2.15). A recipe compiles its model at most, never
its optimizer, so that the bare methods do the same.
"""

import inspect
from collections.abc import Callable
from functools import cache

import torch

_WRAPPED_METHODS = ("zero_grad", "add_param_group", "state_dict", "load_state_dict")


@cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer class that takes the same steps and does not import torch's compiler."""
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED_METHODS}
    # The wrapper of a step has another task: a step is no part of a graph.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)
