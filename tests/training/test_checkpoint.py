"""Run with `pytest tests/training/test_checkpoint.py`."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
import torch

from dirtune.io.storage import Storage
from dirtune.training.checkpoint import CHECKPOINT, load_checkpoint, remove_checkpoint, save_checkpoint


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
