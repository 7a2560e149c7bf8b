"""torch's optimizers without torch's compiler, which they import even where nothing is compiled.

The methods of `torch.optim.Optimizer` are wrapped so that compiled code leaves them out, and the wrapper imports
`torch._dynamo`: 1.6 s and 156 MB in every process that trains (torch 2.15). A recipe compiles its model at most, never
its optimizer, so that the bare methods do the same.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

_WRAPPED_METHODS = ("zero_grad", "add_param_group", "state_dict", "load_state_dict")


@cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer class that takes the same steps and does not import torch's compiler."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED_METHODS}
    # The wrapper of a step has another task: a step is no part of a graph.
    step = torch.no_grad()(inspect.unwrap(kind.step))
    with_hooks = torch.optim.Optimizer.profile_hook_step(step)

    def step_without_profiler(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        has_hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        return (with_hooks if has_hooks else step)(self, closure)

    # torch then does not wrap it for the profiler, which takes a tenth of the whole step of a small network.
    step_without_profiler.hooked = True  # type: ignore[attr-defined]
    methods["step"] = step_without_profiler
    return type(kind.__name__, (kind,), methods)
