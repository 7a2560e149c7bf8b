"""Program that computes a convolution and a matrix product on every GPU of this machine, and compares them with the CPU.

A process of its own (`dirtune.cluster.machine`): a fault of a GPU ends the process that found it, or never returns. Printed: a line
for each GPU; the exit code is 1 and the standard error has a line for each one that failed. It needs torch alone.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 0.02
"""Largest difference from the CPU, relative to the largest value: TF32, the default of convolutions, has 11 bits."""

_COMPUTATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "convolution": lambda images, filters: torch.nn.functional.conv2d(images, filters),
    "matrix product": lambda images, filters: images.flatten(1) @ images.flatten(1).T,
}


def compute_on(device: torch.device) -> None:
    """Compute on a device and on the CPU.

    Raises:
        RuntimeError: from torch, if the device does not work; or a result differs from the CPU's.
    """
    drawn = torch.Generator().manual_seed(0)
    images, filters = torch.randn(4, 3, 32, 32, generator=drawn), torch.randn(8, 3, 3, 3, generator=drawn)
    for name, compute in _COMPUTATIONS.items():
        expected, found = compute(images, filters), compute(images.to(device), filters.to(device)).cpu()
        difference = float((found - expected).abs().max() / expected.abs().max())
        # Also if it is not a number
        if not difference <= TOLERANCE:
            raise RuntimeError(f"its {name} differs from the CPU's by {difference:.1%}")


def describe(device: torch.device) -> str:
    """Return name, capability and memory of a GPU."""
    free, total = (each / 2**30 for each in torch.cuda.mem_get_info(device))
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}, {free:.0f} of {total:.0f} GiB free"


def run() -> list[str]:
    """Test every GPU and print its line; return a line for each one that failed."""
    faults = []
    for number in range(torch.cuda.device_count()):
        device = torch.device("cuda", number)
        try:
            compute_on(device)
            print(describe(device), flush=True)
        except Exception as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            faults.append(f"GPU {number}: {type(error).__name__}: {first}")
    return faults


def main() -> None:
    """Test every GPU; exit with a line for each one that failed."""
    if not torch.cuda.device_count():
        # Raises an error that says why
        torch.cuda.init()
        raise RuntimeError("torch finds no GPU")
    if faults := run():
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
