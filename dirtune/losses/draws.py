"""Random draws inside a term that are equal on all ranks, reproducible, and independent of the order of the rows.

A draw depends on `TermInputs.draw_seed`, which is that of the trial, the pass over the training rows and the micro-batch, on its
purpose and, where it chooses rows, on their samples' positions in the training split. No generator has a state, so that a
resumed run needs none.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.randomness import derive_seed

# SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose 64-bit numbers are here those with a sign.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))


def make_generator(inputs: TermInputs, purpose: str) -> torch.Generator:
    """Return a generator on the CPU for one purpose in this step, equal on all ranks."""
    return torch.Generator().manual_seed(derive_seed(inputs.draw_seed, purpose))


def select_rows(inputs: TermInputs, most: int, purpose: str) -> Int[Tensor, " drawn"]:
    """Return the rows of samples drawn without replacement, with all their views; all rows if they are at most `most`.

    Args:
        inputs: of the term.
        most: largest number of rows.
        purpose: of the draw; two purposes draw independently.
    """
    samples = inputs.samples[: len(inputs.samples) // inputs.num_views]
    if len(inputs.samples) <= most:
        return torch.arange(len(inputs.samples), device=samples.device)
    drawn = draw_lots(samples, derive_seed(inputs.draw_seed, purpose)).argsort()[: max(most // inputs.num_views, 1)]
    return torch.cat([drawn + view * len(samples) for view in range(inputs.num_views)])


def draw_lots(samples: Int[Tensor, "*rows"], seed: int) -> Int[Tensor, "*rows"]:
    """Return a pseudo-random number for each sample, which does not depend on the others."""
    # Of 63 bits, so that sums wrap around as those without a sign do
    numbers = (samples.long() + 1) * _STEP + seed
    for shift, factor in _ROUNDS:
        numbers = (numbers ^ _shift_right(numbers, shift)) * factor
    return numbers ^ _shift_right(numbers, 31)


def _shift_right(numbers: Int[Tensor, "*rows"], bits: int) -> Int[Tensor, "*rows"]:
    """Shift right and fill with zeros, where `>>` fills with the sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
