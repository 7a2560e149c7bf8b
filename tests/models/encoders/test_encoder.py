"""`pytest tests/models/encoders/test_encoder.py`: the contract that every registered encoder keeps."""

from __future__ import annotations

import pytest
import torch

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import InputSpec
from dirtune.models.encoders import ENCODERS
from dirtune.models.encoders.encoder import find_only_input
from dirtune.testing import ENCODER_CHECKS, make_inputs
from tests.models.encoders.cases import CASES, IMAGE, VECTOR

OF_LIBRARIES = {"module", "timm", "torchvision", "transformers"}
"""Tested in `tests/models/encoders/test_libraries.py` and `tests/test_example_plugin.py`."""
every_encoder = pytest.mark.parametrize("name", sorted(CASES))


def _built(name: str, seed: int = 0):
    spec, inputs = CASES[name]
    torch.manual_seed(seed)
    return spec.build(inputs)


def _inputs(name: str, batch: int):
    return make_inputs(CASES[name][1], batch)


def test_every_encoder_has_a_case():
    assert CASES.keys() | OF_LIBRARIES == ENCODERS.keys()


@every_encoder
def test_the_registry_knows_an_encoder_by_its_name(name):
    spec, _ = CASES[name]
    assert isinstance(spec, ENCODERS[name])
    assert spec.name == name
    assert read(ENCODERS[name], {"name": name}, where="model.encoder") == ENCODERS[name]()


@every_encoder
@pytest.mark.parametrize("check", ENCODER_CHECKS)
def test_every_encoder_keeps_the_contract(name, check):
    ENCODER_CHECKS[check](*CASES[name])


@every_encoder
def test_another_seed_gives_another_start(name):
    first, other = (_built(name, seed).state_dict() for seed in (0, 1))
    assert any(not torch.equal(first[part], other[part]) for part in first)


@every_encoder
def test_a_data_set_without_fitting_inputs_is_refused(name):
    spec, fitting = CASES[name]
    unfitting = IMAGE if next(iter(fitting.values())).kind != "image" else VECTOR
    for inputs in ({}, unfitting):
        with pytest.raises(InputError, match=f"model.encoder: encoder '{name}' needs"):
            spec.build(inputs)


@every_encoder
def test_further_inputs_of_another_kind_do_no_harm(name):
    spec, fitting = CASES[name]
    spare = InputSpec(kind="vector", shape=(2,))
    if name == "mlp":
        spare = InputSpec(kind="image", shape=(1, 8, 8))
    encoder = spec.build({**fitting, "spare": spare}).eval()
    assert encoder(_inputs(name, 2)).shape[:2] == (2, encoder.embedding_dim)


def test_two_inputs_of_one_kind_leave_no_choice():
    twice = {"left": IMAGE["image"], "right": IMAGE["image"]}
    with pytest.raises(InputError, match=r"needs one image input, got .*left.*right"):
        find_only_input("cnn", "image", twice)
