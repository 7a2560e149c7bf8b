"""Checkpoint of a trial: all that a resumed run needs to end bit for bit like an uninterrupted one.

One file of tensors and plain data, written atomically (`Storage.write`) and read with `weights_only`, so that a checkpoint
from another source cannot run code. It has no random states: every stream is derived from (seed, purpose, epoch).
"""

import hashlib
import io
from typing import Any

import torch

from dirtune.io.storage import Storage

CHECKPOINT = "checkpoint/state.pt"
_MARK = b"dirtune sha256: "
_DIGEST = 32
_TRAILER = len(_MARK) + _DIGEST


def save_checkpoint(storage: Storage, state: dict[str, Any]) -> None:
    """Write the checkpoint of a trial into its folder, replacing the previous one."""
    # Through memory, because the storage may be remote and must replace the file in one operation.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    # torch reads a changed byte of a tensor as another number
    storage.write(CHECKPOINT, content + _MARK + hashlib.sha256(content).digest())


def load_checkpoint(storage: Storage) -> dict[str, Any] | None:
    """Return the checkpoint in a trial's folder, its tensors on the CPU, or None if it is missing or damaged.

    A trial without a checkpoint starts over, and ends with the same numbers.
    """
    if not storage.exists(CHECKPOINT):
        return None
    content = storage.read(CHECKPOINT)
    body, mark, digest = content[:-_TRAILER], content[-_TRAILER:-_DIGEST], content[-_DIGEST:]
    is_whole = mark == _MARK and digest == hashlib.sha256(body).digest()
    # Checkpoints of earlier releases have no digest
    if not is_whole and _MARK in content[-2 * _TRAILER :]:
        return None
    try:
        # On the CPU: models and optimizers copy what they need to their device. A step count of Adam that is loaded onto a GPU
        # would stay there, and every later step would wait for it.
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    # A torn file raises almost anything, as its bytes are read as a program of a small virtual machine
    except Exception:
        return None
    return state if isinstance(state, dict) else None


def remove_checkpoint(storage: Storage) -> None:
    """Remove the checkpoint from a trial's folder."""
    storage.remove("checkpoint")
