"""Checkpoint of a trial: all that a resumed run needs to end bit for bit like an uninterrupted one.

    checkpoint/state.pt      tensors and plain data; it names the file with the weights of the best epoch
    checkpoint/best-HASH.pt  weights of the best epoch, written only when another epoch is the best

Each file is written atomically (`Storage.write`) and has its digest; the weights are written before the state that names them,
and those of the state before are removed after it: whenever a process is killed, a complete checkpoint remains. Files are read
with `weights_only`, so that a checkpoint from another source cannot run code. It has no random states but those within an
epoch: every stream is derived from (seed, purpose, epoch).
"""

import copy
import hashlib
import io
import threading
import time
from typing import Any

import torch
from torch import Tensor

from dirtune.io.storage import Storage

FOLDER = "checkpoint"
CHECKPOINT = f"{FOLDER}/state.pt"
_BEST, _BEST_FILE = "best_weights", "best_weights_file"
_MARK = b"dirtune sha256: "
_DIGEST = 32
_TRAILER = len(_MARK) + _DIGEST


class Checkpoints:
    """The checkpoints of one trial, written by a thread from a copy of the state while the trial trains.

    Args:
        storage: the trial's folder.
        device: device of the trial's tensors.
    """

    def __init__(self, storage: Storage, device: torch.device) -> None:
        self._storage, self._device = storage, device
        self.write_seconds = 0.0
        """Seconds that the thread took for the last checkpoint."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._best_epoch, self._best_file = 0, ""

    @property
    def is_writing(self) -> bool:
        """True while the thread writes."""
        return self._thread is not None and self._thread.is_alive()

    def load(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, as `load_checkpoint` does."""
        state = load_checkpoint(self._storage)
        if state is not None and _BEST_FILE in state:
            self._best_epoch, self._best_file = state["training"]["best_epoch"], state.pop(_BEST_FILE)
        return state

    def begin(self, state: dict[str, Any]) -> None:
        """Copy the state and write it in a thread; wait for the checkpoint before.

        Args:
            state: tensors and plain data; "training" is `Training.get_state()`.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.wait()
        training = dict(state["training"])
        best_epoch, best = training["best_epoch"], training.pop(_BEST)
        is_new = bool(best) and best_epoch != self._best_epoch
        # Nothing changes the best weights in place, but a GPU has them in its own memory.
        kept = _copy_to_host(best) if is_new and self._device.type == "cuda" else best
        copied = _copy_to_host({**state, "training": training})
        # The copies of a GPU are only queued here, before the next step changes what they read.
        copies_end = torch.cuda.current_stream(self._device).record_event() if self._device.type == "cuda" else None

        def write() -> None:
            started = time.perf_counter()
            try:
                if copies_end is not None:
                    copies_end.synchronize()
                self._write(copied, kept, best_epoch)
            # Raised in the trial: what a thread raises is lost
            except BaseException as error:
                self._error = error
            self.write_seconds = time.perf_counter() - started

        # No daemon: a process that ends would cut it off within a call of torch, which aborts
        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the last checkpoint is written, and raise the error that prevented it."""
        self.join()
        self.raise_error()

    def raise_error(self) -> None:
        """Raise the error of a checkpoint that could not be written, once."""
        if not self.is_writing and self._error is not None:
            error, self._error = self._error, None
            raise error

    def join(self) -> None:
        """Wait until nothing is written any more, whatever became of it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, state: dict[str, Any], best: dict[str, Tensor], best_epoch: int) -> None:
        before = self._best_file
        if not best:
            self._best_epoch, self._best_file = 0, ""
        # Another process may have removed it: a worker of a driver that was killed lives on for some seconds.
        elif best_epoch != self._best_epoch or not self._storage.exists(before):
            content, digest = _serialize({name: value.cpu() for name, value in best.items()})
            self._best_epoch, self._best_file = best_epoch, f"{FOLDER}/best-{digest.hex()[:16]}.pt"
            self._storage.write(self._best_file, content)
        if best:
            state[_BEST_FILE] = self._best_file
        else:
            state["training"][_BEST] = {}
        self._storage.write(CHECKPOINT, _serialize(state)[0])
        if before and before != self._best_file:
            self._storage.remove(before)


def save_checkpoint(storage: Storage, state: dict[str, Any]) -> None:
    """Write a checkpoint of one file into a trial's folder, replacing the previous one."""
    storage.write(CHECKPOINT, _serialize(state)[0])


def load_checkpoint(storage: Storage) -> dict[str, Any] | None:
    """Return the checkpoint in a trial's folder, its tensors on the CPU, or None if it is missing or damaged.

    A trial without a checkpoint starts over, and ends with the same numbers.
    """
    state = _read(storage, CHECKPOINT)
    # Checkpoints of earlier releases are one file.
    if state is not None and _BEST_FILE in state:
        best = _read(storage, state[_BEST_FILE])
        if best is None:
            return None
        state["training"][_BEST] = best
    return state


def remove_checkpoint(storage: Storage) -> None:
    """Remove the checkpoint from a trial's folder."""
    storage.remove(FOLDER)


def _serialize(state: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the content of a file, and the digest that it ends with."""
    # Through memory, because the storage may be remote and must replace the file in one operation.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    # torch reads a changed byte of a tensor as another number
    with buffer.getbuffer() as body:
        digest = hashlib.sha256(body).digest()
    buffer.write(_MARK + digest)
    return buffer.getvalue(), digest


def _read(storage: Storage, name: str) -> dict[str, Any] | None:
    """Return the content of a file, or None if it is missing or damaged."""
    try:
        content = storage.read(name)
    except FileNotFoundError:
        return None
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


def _copy_to_host(value: Any) -> Any:
    """Return a copy of tensors and plain data whose tensors are on the CPU; those of a GPU are only queued.

    A copy that is queued is complete when the stream has reached it. Strides are kept, on which the last digits of a step
    depend.
    """
    if isinstance(value, Tensor):
        value = value.detach()
        # torch allocates pinned memory for a copy that is not waited for.
        return value.to("cpu", non_blocking=True) if value.is_cuda else value.clone()
    if isinstance(value, dict):
        # Of the same type, with the versions of modules that a state dict has as an attribute
        copied = copy.copy(value)
        for key, inner in value.items():
            copied[key] = _copy_to_host(inner)
        return copied
    return type(value)(_copy_to_host(inner) for inner in value) if isinstance(value, list | tuple) else value
