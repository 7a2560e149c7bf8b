"""A pause within an epoch: its state is kept in `Training.unfinished`, so that a killed run goes on from the step.

Orders, views and mixtures follow from the numbers of pass and step. What does not are the losses, the gradient
shares of the first step, and the global random generators, from which dropout draws. A loop that is paused and goes on in the
same process needs none of it.
"""

import torch

from dirtune.training.gradient_shares import GradientShares
from dirtune.training.objective import LossMeans
from dirtune.training.state import Training, UnfinishedEpoch


def describe_unfinished(training: Training, means: LossMeans, shares: GradientShares | None) -> UnfinishedEpoch:
    """Return the state of the epoch after a step."""
    device, states = training.data.device, {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    measured = None if shares is None else dict(shares.values)
    return UnfinishedEpoch(means=means.get_state(), shares=measured, random_states=states)


def restore_unfinished(training: Training, means: LossMeans, shares: GradientShares | None) -> None:
    """Restore means, shares and random states of an epoch that was paused; do nothing at the start of an epoch."""
    unfinished, device = training.unfinished, training.data.device
    if unfinished is None:
        return
    means.load_state(unfinished.means, device)
    if shares is not None:
        shares.values, shares.is_finished = dict(unfinished.shares or {}), True
    torch.set_rng_state(unfinished.random_states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(unfinished.random_states["cuda"], device)
