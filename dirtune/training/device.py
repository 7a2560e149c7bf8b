"""Device of a training or a prediction, by its name."""

import torch

from dirtune.errors import Fault, InputError

AMPERE = 8
"""Major capability of the first GPUs that compute in TF32 and bfloat16."""


def find_device(name: str, *, where: str = "device") -> torch.device:
    """Return the device of this name.

    Raises:
        InputError: this machine has no such device; with those that it has.
    """
    # Listed by number, because a worker of a machine with several GPUs may need a certain one.
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    known = ["cpu", "cuda", *cuda] if cuda else ["cpu"]
    if name not in known:
        raise InputError(Fault(where=where, rule="not on this machine", got=name, known=known))
    return torch.device(name)
