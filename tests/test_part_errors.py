"""Errors of parts of plug-ins outside of a training: metrics, figures, pipelines. Run with `pytest tests/test_part_errors.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dirtune
from dirtune import plugins
from dirtune.errors import InputError, NonFiniteLoss
from dirtune.frozen import Frozen
from dirtune.metrics import compute_metrics
from dirtune.part_errors import name_part
from tests.plugin_sources import forgotten_plugins, write
from tests.results.record_factory import record, write_study

__all__ = ["forgotten_plugins"]
pytestmark = pytest.mark.usefixtures("forgotten_plugins")
FIGURE = """
import dirtune
from dirtune.results.figures import FigureKind

def build(request):
    {build}

def draw(data):
    {draw}

dirtune.register.figure("bad")(FigureKind(build, draw))
"""
PIPELINE = """
import dirtune
from dirtune.frozen import Frozen

@dirtune.register.pipeline("bad")
class Bad:
    class Options(Frozen):
        pass

    @staticmethod
    def ingest(storage, raw, options):
        {body}
"""
METRIC = """
import dirtune

@dirtune.register.metric("bad", higher_is_better=True)
def bad(labels, predictions):
    return {value}
"""


@pytest.mark.parametrize(
    ("build", "draw", "message"),
    [
        ("1 / 0", "pass", "figure 'bad' of my_terms.py:6: raised ZeroDivisionError: division by zero"),
        (
            "pass",
            "data['x']",
            "figure 'bad' of my_terms.py:9: raised TypeError: 'NoneType' object is not subscriptable",
        ),
        ("pass", "return 'a.png'", "figure 'bad' of my_terms.py: `draw` must return a matplotlib Figure, got a str"),
    ],
)
def test_a_figure_that_fails_is_one_sentence(build: str, draw: str, message: str, tmp_path: Path) -> None:
    write_study(tmp_path, [record("a", 0, 1.0)], arms=("a",), reference="a")
    plugins.load_files([write(tmp_path, FIGURE.format(build=build, draw=draw))])
    with pytest.raises(InputError) as caught:
        dirtune.plot("study", "bad", results=tmp_path, output=tmp_path / "a.png")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('a\\nb')", "pipeline 'bad' of my_terms.py:12: raised ValueError: a"),
        ("pass", "pipeline 'bad' of my_terms.py: `ingest` must return the manifest of the data set, .* got None"),
    ],
)
def test_a_pipeline_that_fails_is_one_sentence(body: str, message: str, tmp_path: Path) -> None:
    plugins.load_files([write(tmp_path, PIPELINE.format(body=body))])
    with pytest.raises(InputError, match=message):
        dirtune.ingest("bad", root=tmp_path)


@pytest.mark.parametrize("value", ["labels.mean()", "1", "torch.ones(())", "labels.mean().astype('float32')"])
def test_every_kind_of_number_is_a_metric(value: str, tmp_path: Path) -> None:
    plugins.load_files([write(tmp_path, f"import torch\n{METRIC.format(value=value)}")])
    ones = torch.ones(4).double().numpy()
    assert compute_metrics(["bad"], ones, ones) == {"bad": 1.0}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Connection closed by peer"),
        torch.distributed.DistBackendError("NCCL"),
        ConnectionResetError("reset"),
        NonFiniteLoss("bad", 1, 1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_the_machine_keep_their_class(error: Exception, tmp_path: Path) -> None:
    """The class of a failure, and with it what a retry does, follows from them."""
    (plugin,) = plugins.load_files([write(tmp_path, METRIC.format(value="1"))])
    metric = plugins.get_registry("metric")["bad"]
    assert plugins.find_plugin_of(metric) == plugin
    with pytest.raises(type(error)) as caught, name_part("metric", "bad", metric):
        raise error
    assert caught.value is error


def test_errors_of_own_parts_stay_as_they_are(tmp_path: Path) -> None:
    class Own(Frozen):
        pass

    with pytest.raises(IndexError), name_part("term", "own", Own()):
        [].pop()
