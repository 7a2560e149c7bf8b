"""Checkpoint of a trial: all that a resumed run needs to end bit for bit like an uninterrupted one.

One file of tensors and plain data, written atomically (`Storage.write`) and read with `weights_only`, so that a checkpoint
from another source cannot run code. It has no random states: every stream is derived from (seed, purpose, epoch).
"""

import io
from typing import Any

import torch

from dirtune.io.storage import Storage

CHECKPOINT = "checkpoint/state.pt"


def save_checkpoint(storage: Storage, state: dict[str, Any]) -> None:
    """Write the checkpoint of a trial into its folder, replacing the previous one."""
    # Through memory, because the storage may be remote and must replace the file in one operation.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    storage.write(CHECKPOINT, buffer.getvalue())


def load_checkpoint(storage: Storage) -> dict[str, Any] | None:
    """Return the checkpoint in a trial's folder, its tensors on the CPU, or None if it is missing or damaged.

    A trial without a checkpoint starts over, and ends with the same numbers.
    """
    if not storage.exists(CHECKPOINT):
        return None
    content = io.BytesIO(storage.read(CHECKPOINT))
    try:
        # On the CPU: models and optimizers copy what they need to their device. A step count of Adam that is loaded onto a GPU
        # would stay there, and every later step would wait for it.
        state = torch.load(content, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # A torn file raises almost anything, as its bytes are read as a program of a small virtual machine
    except Exception:
        return None
    return state if isinstance(state, dict) else None


def remove_checkpoint(storage: Storage) -> None:
    """Remove the checkpoint from a trial's folder."""
    storage.remove("checkpoint")
