"""Run with `pytest tests/training/test_checkpoint.py`."""

from __future__ import annotations

import errno
import io
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dirtune.io.storage import Storage
from dirtune.training.checkpoint import (
    CHECKPOINT,
    Checkpoints,
    load_checkpoint,
    remove_checkpoint,
    save_checkpoint,
)

CPU = torch.device("cpu")


class Touch:
    """When it is unpickled, a file appears."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path / "trial")


def test_a_checkpoint_is_loaded_bit_for_bit(storage: Storage) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "digest": "ab",
        "history": [{"loss": 0.1, "undefined": math.nan}],
        "none": None,
    }
    save_checkpoint(storage, state)
    loaded = load_checkpoint(storage)
    assert loaded is not None
    assert loaded.keys() == state.keys()
    assert torch.equal(loaded["model"]["weight"], model.weight)
    torch.testing.assert_close(loaded["optimizer"]["state"], state["optimizer"]["state"], rtol=0, atol=0)
    assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert loaded["history"][0]["loss"] == 0.1
    assert math.isnan(loaded["history"][0]["undefined"])
    assert loaded["none"] is None


def test_a_checkpoint_replaces_the_previous_one(storage: Storage) -> None:
    save_checkpoint(storage, {"epoch": 1})
    save_checkpoint(storage, {"epoch": 2})
    assert load_checkpoint(storage) == {"epoch": 2}
    assert [path.name for path in Path(storage.path("checkpoint")).iterdir()] == ["state.pt"]


def test_there_is_nothing_to_load_before_the_first_and_after_the_last(storage: Storage) -> None:
    assert load_checkpoint(storage) is None
    remove_checkpoint(storage)
    save_checkpoint(storage, {"epoch": 1})
    remove_checkpoint(storage)
    assert load_checkpoint(storage) is None
    assert not storage.exists("checkpoint")


def test_a_checkpoint_that_holds_an_object_is_none_and_not_executed(storage: Storage, tmp_path: Path) -> None:
    mark, content = tmp_path / "executed", io.BytesIO()
    torch.save({"model": Touch(mark)}, content)
    storage.write(CHECKPOINT, content.getvalue())
    assert load_checkpoint(storage) is None
    assert not mark.exists()
    torch.load(io.BytesIO(content.getvalue()), weights_only=False)
    # It would have run
    assert mark.exists()


def test_a_checkpoint_is_loaded_to_the_cpu(storage: Storage) -> None:
    save_checkpoint(storage, {"weights": torch.ones(2)})
    loaded = load_checkpoint(storage)
    assert loaded is not None
    assert loaded["weights"].device.type == "cpu"


def test_a_flipped_bit_of_a_checkpoint_counts_as_none_or_changes_nothing(storage: Storage) -> None:
    save_checkpoint(storage, {"weights": torch.arange(50.0)})
    content, found = storage.read(CHECKPOINT), 0
    for at in range(0, 8 * len(content), 101):
        changed = bytearray(content)
        changed[at // 8] ^= 1 << at % 8
        storage.write(CHECKPOINT, bytes(changed))
        loaded = load_checkpoint(storage)
        assert loaded is None or torch.equal(loaded["weights"], torch.arange(50.0))
        found += loaded is None
    assert found > 100


# --- Written by a thread


class Recording(Storage):
    """A storage with the names of all writes, of which some may be held up or fail."""

    def __init__(self, folder: Path) -> None:
        opened = Storage.open(folder)
        super().__init__(opened.filesystem, opened.root)
        self.__dict__.update(written=[], go_on=threading.Event(), failing=None)
        self.__dict__["go_on"].set()

    def write(self, name: str, content: bytes) -> None:
        found: dict[str, Any] = self.__dict__
        assert found["go_on"].wait(60)
        if found["failing"] is not None and name.startswith(found["failing"]):
            raise OSError(errno.ENOSPC, "No space left on device", name)
        super().write(name, content)
        found["written"].append(name)


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "trial")


def make_state(weight: torch.Tensor, *, best: torch.Tensor | None, best_epoch: int) -> dict[str, Any]:
    weights = {} if best is None else {"weight": best}
    return {
        "training": {"model": {"weight": weight}, "best_epoch": best_epoch, "best_weights": weights},
        "overhead": 1.0,
    }


def list_files(storage: Storage) -> list[str]:
    return storage.list_files("checkpoint")


def test_the_best_weights_are_written_only_if_another_epoch_is_the_best(recording: Recording) -> None:
    checkpoints, found = Checkpoints(recording, CPU), []
    for epoch, best in enumerate([1, 1, 1, 4, 4], start=1):
        state = make_state(torch.full((3,), float(epoch)), best=torch.full((3,), float(best)), best_epoch=best)
        checkpoints.begin(state)
        checkpoints.wait()
        found.append([name.split("-")[0] for name in recording.__dict__["written"]])
        recording.__dict__["written"].clear()
        loaded = load_checkpoint(recording)
        assert loaded is not None
        assert loaded["training"]["model"]["weight"].tolist() == [epoch] * 3
        assert loaded["training"]["best_weights"]["weight"].tolist() == [best] * 3
        assert len(list_files(recording)) == 2
    first, later = ["checkpoint/best", "checkpoint/state.pt"], ["checkpoint/state.pt"]
    assert found == [first, later, later, first, later]
    # Nor after a resume
    again = Checkpoints(recording, CPU)
    state = again.load()
    assert state is not None
    again.begin(state)
    again.wait()
    assert recording.__dict__["written"] == ["checkpoint/state.pt"]
    # A second stage has no best weights at its start
    again.begin(make_state(torch.zeros(3), best=None, best_epoch=0))
    again.wait()
    assert list_files(recording) == ["state.pt"]
    loaded = load_checkpoint(recording)
    assert loaded is not None
    assert loaded["training"]["best_weights"] == {}


def test_a_checkpoint_is_of_the_moment_at_which_it_was_asked_for(recording: Recording) -> None:
    weight, history = torch.zeros(3, 2).t(), [{"loss": 1.0}]
    state = make_state(weight, best=torch.ones(2), best_epoch=1)
    state["training"]["history"] = history
    checkpoints = Checkpoints(recording, CPU)
    recording.__dict__["go_on"].clear()
    checkpoints.begin(state)
    assert checkpoints.is_writing
    # The next epoch trains
    weight += 1
    history[0]["loss"] = 2.0
    history.append({"loss": 3.0})
    recording.__dict__["go_on"].set()
    checkpoints.wait()
    loaded = load_checkpoint(recording)
    assert loaded is not None
    assert loaded["training"]["model"]["weight"].tolist() == [[0.0] * 3] * 2
    assert loaded["training"]["model"]["weight"].stride() == weight.stride()
    assert loaded["training"]["history"] == [{"loss": 1.0}]


def test_an_error_of_the_thread_is_raised_once_and_the_checkpoint_before_remains(recording: Recording) -> None:
    checkpoints = Checkpoints(recording, CPU)
    for number, failing in enumerate(["checkpoint/state", "checkpoint/best"], start=1):
        recording.__dict__["failing"] = None
        checkpoints.begin(make_state(torch.zeros(1), best=torch.zeros(1), best_epoch=2 * number - 1))
        checkpoints.wait()
        recording.__dict__["failing"] = failing
        checkpoints.begin(make_state(torch.ones(1), best=torch.ones(1), best_epoch=2 * number))
        with pytest.raises(OSError, match="No space left"):
            checkpoints.wait()
        checkpoints.wait()
        loaded = load_checkpoint(recording)
        assert loaded is not None
        assert loaded["training"]["best_weights"]["weight"].tolist() == [0.0]
    recording.__dict__["failing"] = None
    checkpoints.begin(make_state(torch.ones(1), best=torch.ones(1), best_epoch=4))
    checkpoints.wait()
    loaded = load_checkpoint(recording)
    assert loaded is not None
    assert loaded["training"]["best_weights"]["weight"].tolist() == [1.0]


def test_a_process_that_dies_at_any_write_leaves_the_checkpoint_before_or_the_new_one(tmp_path: Path) -> None:
    """Replay the operations of a checkpoint up to each of them."""
    for last in range(4):
        storage = Storage.open(tmp_path / str(last))
        checkpoints = Checkpoints(storage, CPU)
        checkpoints.begin(make_state(torch.zeros(1), best=torch.zeros(1), best_epoch=1))
        checkpoints.wait()
        done = iter(range(10))

        def die(self: Storage, name: str, *content: bytes, last: int = last, done: Any = done) -> None:
            if next(done) >= last:
                raise SystemExit
            (Storage.write if content else Storage.remove)(self, name, *content)

        dying = type("Dying", (Storage,), {"write": die, "remove": die})(storage.filesystem, storage.root)
        checkpoints._storage = dying
        checkpoints.begin(make_state(torch.ones(1), best=torch.ones(1), best_epoch=2))
        checkpoints.join()
        loaded = load_checkpoint(storage)
        assert loaded is not None
        found = (loaded["training"]["model"]["weight"].item(), loaded["training"]["best_weights"]["weight"].item())
        assert found == ((0, 0) if last < 2 else (1, 1))


def test_a_checkpoint_without_its_best_weights_counts_as_none_and_the_next_one_has_them(storage: Storage) -> None:
    checkpoints = Checkpoints(storage, CPU)
    state = make_state(torch.ones(1), best=torch.ones(1), best_epoch=1)
    checkpoints.begin(state)
    checkpoints.wait()
    (name,) = storage.list_files("checkpoint", suffix=".pt")[:1]
    assert name.startswith("best-")
    storage.write(f"checkpoint/{name}", storage.read(f"checkpoint/{name}")[:-50])
    assert load_checkpoint(storage) is None
    storage.remove(f"checkpoint/{name}")
    assert load_checkpoint(storage) is None
    checkpoints.begin(state)
    checkpoints.wait()
    assert load_checkpoint(storage) is not None
