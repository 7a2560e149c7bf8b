"""Parts of plug-ins that fail in a training: one sentence with the part and the broken rule. Run with `pytest tests/training/test_failing_parts.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dirtune import plugins
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.nested import merge
from tests.plugin_sources import forgotten_plugins, write
from tests.training.conftest import SETTINGS
from tests.training.runs import trained, without_images

__all__ = ["forgotten_plugins"]
pytestmark = pytest.mark.usefixtures("forgotten_plugins")
HEADER = """
from typing import Literal

import dirtune
import numpy as np
import torch
from dirtune.frozen import Frozen
from dirtune.mixing import Mixtures
from dirtune.models.encoders.encoder import Encoder
from dirtune.models.heads import Head, Outputs
from dirtune.synthesis import SyntheticRows

"""
TERM = """
@dirtune.register.term("bad")
class Bad(Frozen):
    weight: float = 1.0

    def __call__(self, inputs):
        {body}
"""
FITTED = """
class Fitted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))
        {attributes}

    def forward(self, inputs):
        return self.factor * inputs.representations.mean()

    def begin_epoch(self, epoch, epochs):
        {begin}

@dirtune.register.term("bad")
class Bad(Frozen):
    weight: float = 1.0

    def fit(self, labels):
        {fit}

    def __call__(self, inputs):
        return inputs.representations.mean()
"""
LOSS = """
@dirtune.register.loss("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"

    def __call__(self, predictions, labels, weights):
        {body}
"""
HEAD = """
class BadHead(Head):
    def decode(self, raw):
        {decode}

@dirtune.register.loss("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"
    head: str = "bad"

    def build_head(self, read_dim, labels):
        {build}

    def __call__(self, predictions, labels, weights):
        return predictions.mean()
"""
METRIC = """
@dirtune.register.metric("bad", higher_is_better=False)
def bad(labels, predictions):
    {body}
"""
ENCODER = """
class Network(Encoder):
    def __init__(self):
        super().__init__()
        self.embedding_dim = 4
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, inputs):
        embeddings = self.layer(inputs["vector"])
        {body}

@dirtune.register.encoder("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"

    def build(self, inputs):
        {build}
"""
SYNTHESIS = """
@dirtune.register.synthesis("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"

    def make_rows(self, vectors, labels, generator):
        rows = np.arange(len(labels))
        {body}
"""
SAMPLING = """
@dirtune.register.sampling("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"

    def make_order(self, bins, generator):
        rows = np.arange(len(bins))
        {body}
"""
MIXING = """
@dirtune.register.mixing("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"

    def fit(self, labels):
        {body}
"""
SHARPNESS = """
@dirtune.register.sharpness("bad")
class Bad(Frozen):
    name: Literal["bad"] = "bad"

    def compute_perturbations(self, parameters, gradients):
        {body}
"""
OF_TERM, OF_LOSS, OF_METRIC = {"terms": {"bad": {}}}, {"loss": {"name": "bad"}}, {"metrics": ["bad"]}
OF_ENCODER = {"model": {"encoder": {"name": "bad"}}}
A_TERM = "must return a scalar, a tensor of floating-point numbers without dimensions, got"
A_HEAD = "its head must decode one prediction per row, a tensor of shape (rows,), got"
AN_EMBEDDING = "must return embeddings of shape (rows, 4), as its embedding_dim says, got"
AN_ORDER = "must return an order of as many rows as the training split has, whole numbers from 0, got"
MIXTURES = "must draw a partner and a share in [0, 1] for every row, got"
STEPS = "must return a tensor of its shape for each parameter, got"
CASES: list[tuple[str, str, dict[str, Any], str, str]] = [
    # A name of the case, the source, the settings, the part, the broken rule
    ("term_vector", TERM.format(body="return inputs.labels"), OF_TERM, "term", f"{A_TERM} a tensor of 1 dimension"),
    ("term_text", TERM.format(body="return 'much'"), OF_TERM, "term", f"{A_TERM} a str"),
    ("term_none", TERM.format(body="pass"), OF_TERM, "term", f"{A_TERM} None"),
    ("term_number", TERM.format(body="return 0.5"), OF_TERM, "term", f"{A_TERM} a float"),
    ("term_whole", TERM.format(body="return torch.tensor(1)"), OF_TERM, "term", f"{A_TERM} a tensor of torch.int64"),
    ("term_raises", TERM.format(body="1 / 0"), OF_TERM, "term", "raised ZeroDivisionError: division by zero"),
    (
        "term_torch",
        TERM.format(body="return inputs.labels @ torch.ones(3)"),
        OF_TERM,
        "term",
        "raised RuntimeError: ",
    ),
    (
        "term_fit_raises",
        FITTED.format(attributes="", begin="pass", fit="raise KeyError('x')"),
        OF_TERM,
        "term",
        "raised KeyError: 'x'",
    ),
    (
        "term_fit_none",
        FITTED.format(attributes="", begin="pass", fit="return 3"),
        OF_TERM,
        "term",
        "`fit` must return a torch module or None, got an int",
    ),
    (
        "term_fit_rate",
        FITTED.format(attributes="", begin="pass", fit="return Fitted()"),
        OF_TERM,
        "term",
        "a fitted module with parameters needs a number `learning_rate`",
    ),
    (
        "term_begin_epoch",
        FITTED.format(attributes="self.learning_rate = 0.1", begin="return self.nothing", fit="return Fitted()"),
        OF_TERM,
        "term",
        "raised AttributeError: ",
    ),
    ("loss_vector", LOSS.format(body="return weights"), OF_LOSS, "loss", f"{A_TERM} a tensor of 1 dimension"),
    ("loss_raises", LOSS.format(body="raise ValueError('no')"), OF_LOSS, "loss", "raised ValueError: no"),
    (
        "loss_constant",
        LOSS.format(body="return torch.zeros(())"),
        OF_LOSS,
        "loss",
        "must depend on what it is given, to have a gradient, got a constant",
    ),
    (
        "head_shape",
        HEAD.format(decode="return raw", build="return BadHead(read_dim, {'a': Outputs(size=1)})"),
        OF_LOSS,
        "loss",
        f"{A_HEAD} a tensor of shape (2, 1)",
    ),
    (
        "head_none",
        HEAD.format(decode="return raw", build="pass"),
        OF_LOSS,
        "loss",
        "`build_head` must return a dirtune.models.heads.Head, got None",
    ),
    ("metric_text", METRIC.format(body="return '0.5'"), OF_METRIC, "metric", "must return a number, got a str"),
    ("metric_none", METRIC.format(body="pass"), OF_METRIC, "metric", "must return a number, got None"),
    ("metric_array", METRIC.format(body="return labels"), OF_METRIC, "metric", "must return a number, got a ndarray"),
    ("metric_raises", METRIC.format(body="[].pop()"), OF_METRIC, "metric", "raised IndexError: pop from empty list"),
    (
        "encoder_size",
        ENCODER.format(body="return embeddings[:, :3]", build="return Network()"),
        OF_ENCODER,
        "encoder",
        f"{AN_EMBEDDING} 2 dimensions and 3 numbers in a row",
    ),
    (
        "encoder_rows",
        ENCODER.format(body="return embeddings[1:]", build="return Network()"),
        OF_ENCODER,
        "encoder",
        f"{AN_EMBEDDING} another number of rows",
    ),
    (
        "encoder_none",
        ENCODER.format(body="pass", build="return Network()"),
        OF_ENCODER,
        "encoder",
        f"{AN_EMBEDDING} None",
    ),
    (
        "encoder_raises",
        ENCODER.format(body="return inputs['words']", build="return Network()"),
        OF_ENCODER,
        "encoder",
        "raised KeyError: 'words'",
    ),
    (
        "encoder_build",
        ENCODER.format(body="pass", build="return torch.nn.Linear(2, 2)"),
        OF_ENCODER,
        "encoder",
        "`build` must return a dirtune.models.encoders.encoder.Encoder with a whole number `embedding_dim` above zero, got a Linear",
    ),
    (
        "encoder_build_raises",
        ENCODER.format(body="pass", build="return inputs['words']"),
        OF_ENCODER,
        "encoder",
        "raised KeyError: 'words'",
    ),
    (
        "synthesis_none",
        SYNTHESIS.format(body="pass"),
        {"synthesis": {"name": "bad"}},
        "synthesis",
        "must return a dirtune.synthesis.SyntheticRows, got None",
    ),
    (
        "synthesis_lengths",
        SYNTHESIS.format(body="return SyntheticRows(rows, vectors[:3], labels[:2])"),
        {"synthesis": {"name": "bad"}},
        "synthesis",
        "must return one label for each synthetic row, got 2 labels for 3 rows",
    ),
    (
        "synthesis_kept",
        SYNTHESIS.format(body="return SyntheticRows(rows - 1, vectors[:0], labels[:0])"),
        {"synthesis": {"name": "bad"}},
        "synthesis",
        "must keep rows of the training split, whole numbers from 0 to 201, got -1",
    ),
    (
        "synthesis_label",
        SYNTHESIS.format(body="return SyntheticRows(rows, vectors[:1], np.array([np.nan]))"),
        {"synthesis": {"name": "bad"}},
        "synthesis",
        "must return finite vectors and labels, got nan",
    ),
    (
        "sampling_short",
        SAMPLING.format(body="return rows[:100]"),
        {"sampling": {"name": "bad"}},
        "sampling",
        f"{AN_ORDER} shape (100,)",
    ),
    (
        "sampling_negative",
        SAMPLING.format(body="return rows - 1"),
        {"sampling": {"name": "bad"}},
        "sampling",
        f"{AN_ORDER} row -1",
    ),
    (
        "sampling_float",
        SAMPLING.format(body="return rows / 1"),
        {"sampling": {"name": "bad"}},
        "sampling",
        f"{AN_ORDER} float64",
    ),
    ("sampling_none", SAMPLING.format(body="pass"), {"sampling": {"name": "bad"}}, "sampling", f"{AN_ORDER} None"),
    (
        "mixing_share",
        MIXING.format(body="return lambda rows, generator: Mixtures(rows, np.full(len(rows), 1.5))"),
        {"mixing": {"name": "bad"}},
        "mixing",
        f"{MIXTURES} a share of 1.5",
    ),
    (
        "mixing_partner",
        MIXING.format(body="return lambda rows, generator: Mixtures(rows - 300, np.full(len(rows), 0.5))"),
        {"mixing": {"name": "bad"}},
        "mixing",
        f"{MIXTURES} a partner of row -",
    ),
    (
        "mixing_length",
        MIXING.format(body="return lambda rows, generator: Mixtures(rows[:1], np.ones(1))"),
        {"mixing": {"name": "bad"}},
        "mixing",
        f"{MIXTURES} partners of shape (1,)",
    ),
    (
        "mixing_none",
        MIXING.format(body="pass"),
        {"mixing": {"name": "bad"}},
        "mixing",
        "`fit` must return a function of rows and a generator, got None",
    ),
    (
        "sharpness_number",
        SHARPNESS.format(body="return [0.1 for _ in gradients]"),
        {"sharpness": {"name": "bad"}},
        "sharpness",
        f"{STEPS} a float",
    ),
    (
        "sharpness_shape",
        SHARPNESS.format(body="return [each.mean() for each in gradients]"),
        {"sharpness": {"name": "bad"}},
        "sharpness",
        f"{STEPS} a tensor of shape () for one of ",
    ),
    (
        "sharpness_few",
        SHARPNESS.format(body="return gradients[:1]"),
        {"sharpness": {"name": "bad"}},
        "sharpness",
        f"{STEPS} 1 for 4 parameters",
    ),
]


@pytest.mark.parametrize(
    ("source", "settings", "kind", "rule"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_part_that_fails_is_named_with_its_rule(
    source: str, settings: dict[str, Any], kind: str, rule: str, tmp_path: Path, toy: ResidentData
) -> None:
    plugins.load_files([write(tmp_path, HEADER + source)])
    with pytest.raises(InputError) as caught:
        trained(make_config(settings), without_images(toy))
    (fault,) = caught.value.faults
    where = f"{kind} 'bad' of my_terms.py"
    assert fault.where.startswith(where)
    # The line of the file if its code has raised
    assert (fault.where[len(where) :].removeprefix(":").isdigit()) == rule.startswith("raised")
    assert fault.rule.startswith(rule)
    assert "\n" not in str(fault)


def make_config(settings: dict[str, Any]) -> TrialConfig:
    plain = merge(SETTINGS, settings)
    # Not over the settings of another encoder
    encoder = settings.get("model", SETTINGS["model"])["encoder"]
    return read(TrialConfig, {**plain, "model": {**plain["model"], "encoder": encoder}}, where="test")
