"""A trial's checkpoint: everything that a continued run needs to end bit for bit as an uninterrupted one.

One file of tensors and plain data, written whole (`Storage.write`) and read with `weights_only`, so that a checkpoint
from elsewhere cannot run code. Random states are not in it: every stream is derived from (seed, purpose, epoch).
"""

from __future__ import annotations

import io
from typing import Any

import torch

from dirtune.io.storage import Storage

CHECKPOINT = "checkpoint/state.pt"


def save_checkpoint(storage: Storage, state: dict[str, Any]) -> None:
    """Replace the checkpoint in a trial's folder."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    storage.write(CHECKPOINT, buffer.getvalue())


def load_checkpoint(storage: Storage, device: torch.device) -> dict[str, Any] | None:
    """The checkpoint in a trial's folder, or None if there is none."""
    if not storage.exists(CHECKPOINT):
        return None
    content = io.BytesIO(storage.read(CHECKPOINT))
    state: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
    return state


def remove_checkpoint(storage: Storage) -> None:
    """Forget the checkpoint of a trial that has been recorded."""
    storage.remove("checkpoint")
