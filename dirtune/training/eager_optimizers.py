"""torch's optimizers without torch's compiler, which they import even where nothing is compiled, and Adam for small networks.

The methods of `torch.optim.Optimizer` are wrapped so that compiled code leaves them out, and the wrapper imports
`torch._dynamo`: 1.6 s and 156 MB in every process that trains (torch 2.15). A recipe compiles its model at most, never
its optimizer, so that the bare methods do the same.

Of a step of Adam for six small tensors on a CPU, four fifths are Python: torch updates one tensor after the other. Here
each operation is one call for all tensors, as in torch's `foreach` form, whose checks and groups are most of the rest. The numbers are equal.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

SMALL_NETWORK = 2**18
"""Numbers of a network whose tensors Adam updates together; those of a larger one are updated one by one, in the cache of the
processor."""
_WRAPPED_METHODS = ("zero_grad", "add_param_group", "state_dict", "load_state_dict")


@cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimizer class that takes the same steps and does not import torch's compiler."""
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED_METHODS}
    # The wrapper of a step has another task: a step is no part of a graph.
    step = torch.no_grad()(inspect.unwrap(kind.step))
    if issubclass(kind, torch.optim.Adam):
        step = _update_small_together(step)
    with_hooks = torch.optim.Optimizer.profile_hook_step(step)

    def step_without_profiler(self: torch.optim.Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        has_hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        return (with_hooks if has_hooks else step)(self, closure)

    # torch then does not wrap it for the profiler, which takes a tenth of the whole step of a small network.
    step_without_profiler.hooked = True  # type: ignore[attr-defined]
    methods["step"] = step_without_profiler
    return type(kind.__name__, (kind,), methods)


def _update_small_together(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step of Adam or AdamW that updates the tensors of a small network on a CPU together."""

    @torch.no_grad()
    def update(self: torch.optim.Adam, closure: Callable[[], Any] | None = None) -> Any:
        groups = [(group, [each for each in group["params"] if each.grad is not None]) for group in self.param_groups]
        trained = [parameter for _, parameters in groups for parameter in parameters]
        # The first step of a parameter makes its state.
        is_plain = all(each.is_cpu and not each.is_complex() and each in self.state for each in trained)
        if closure is not None or not is_plain or sum(each.numel() for each in trained) > SMALL_NETWORK:
            return step(self, closure)
        for group, parameters in groups:
            if parameters:
                _update_together(group, parameters, [self.state[each] for each in parameters])
        return None

    return update


def _update_together(group: dict[str, Any], parameters: list[Tensor], states: list[dict[str, Tensor]]) -> None:
    rate, decay, (beta1, beta2) = group["lr"], group["weight_decay"], group["betas"]
    gradients: Any = [each.grad for each in parameters]
    means, squares = [each["exp_avg"] for each in states], [each["exp_avg_sq"] for each in states]
    steps = []
    for state in states:
        state["step"] += 1
        steps.append(state["step"].item())
    if decay and group["decoupled_weight_decay"]:
        torch._foreach_mul_(parameters, 1 - rate * decay)
    elif decay:
        gradients = torch._foreach_add(gradients, parameters, alpha=decay)
    torch._foreach_lerp_(means, gradients, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1 - beta2**step) ** 0.5 for step in steps])
    torch._foreach_add_(roots, group["eps"])
    torch._foreach_addcdiv_(parameters, means, roots, [rate / (1 - beta1**step) * -1 for step in steps])
