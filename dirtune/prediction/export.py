"""`export`: the trained models of an arm in a form that other programs load, with a model card and the input contract.

    model.pt2                     pt2: `torch.export.load("model.pt2").module()`, in a process with torch alone
    model.onnx                    onnx: any ONNX runtime; compared with torch here if onnxruntime is installed
    seed-N/model.safetensors      safetensors: weights and configuration of every seed (`dirtune.training.kept_model`)
    inputs.json                   input contract: how raw rows become the inputs of the model
    README.md                     model card

The exported program has the inputs of `dirtune.prediction.module.PredictionModule`, of any batch size, and returns the mean of the
seeds and their standard deviation. Optional packages (`dirtune[export]`) are imported here alone.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dirtune.data.contract import InputContract
from dirtune.errors import Fault, InputError
from dirtune.io.files import format_file_name, make_parent
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec
from dirtune.prediction.arm import TrainedArm, load
from dirtune.prediction.card import make_card
from dirtune.prediction.module import PredictionModule
from dirtune.results.records import kept
from dirtune.results.records.studies import open_study
from dirtune.study.files import StudySource

FORMATS = ("pt2", "onnx", "safetensors")
OUTPUTS = ("prediction", "spread")
TOLERANCE = 1e-4
"""Largest difference of ONNX and torch, as a share of the label scale."""
_EXAMPLE_ROWS = 3


def export(
    study: StudySource,
    *,
    arm: str | None = None,
    results: str | Path = "results",
    format: str = "safetensors",
    output: str | Path | None = None,
    seeds: Collection[int] | None = None,
    allow_plugins: bool = False,
) -> Path:
    """Export the trained models of an arm into a folder, and return it.

    Args:
        study: name of a study in the results, its file, or its content.
        arm: name of the arm; None means the only one.
        results: root of the results, a path or URL.
        format: one of `FORMATS`.
        output: the folder; None means `exports/STUDY-ARM-FORMAT`.
        seeds: the seeds whose models are exported; None means all.
        allow_plugins: as for `load`.

    Raises:
        InputError: there is no such arm or model, a package is missing, or the encoder cannot be exported in this format.
    """
    if format not in FORMATS:
        raise InputError(Fault(where="export", rule="unknown format", got=format, known=FORMATS))
    if format == "onnx" and (
        missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    ):
        rule = f"needs {' and '.join(missing)} (`pip install 'dirtune[export]'`)"
        raise InputError(Fault(where="export", key="format", rule=rule, got=format))
    trained = load(study, arm=arm, results=results, seeds=seeds, allow_plugins=allow_plugins)
    if format == "safetensors":
        files = _read_weights(open_study(results, trained.study), trained)
    else:
        make = _make_pt2 if format == "pt2" else _make_onnx
        files = {f"model.{format}": make(trained.module, _make_examples(trained.contract, trained.module), trained)}
    # Without paths of the machine that ingested the data, and without notes on single rows
    manifest = trained.contract.manifest.model_copy(update={"source": {}, "notes": ()})
    contract = trained.contract.model_copy(update={"manifest": manifest})
    files["inputs.json"] = contract.model_dump_json(indent=1).encode()
    files["README.md"] = make_card(trained, results=results, files=tuple(files)).encode()
    name = format_file_name(f"{trained.study}-{trained.arm}-{format}")
    folder = Path("exports") / name if output is None else Path(output)
    make_parent(folder / "README.md")
    storage = Storage.open(folder)
    for name, content in files.items():
        storage.write(name, content)
    return folder


def _read_weights(study: Storage, trained: TrainedArm) -> dict[str, bytes]:
    return {
        f"seed-{seed}/{name}": study.read(f"{kept.get_model_folder(model.trial_id)}/{name}")
        for seed, model in trained.models.items()
        for name in (kept.WEIGHTS, kept.CONFIG)
    }


def _make_examples(contract: InputContract, module: PredictionModule) -> tuple[Tensor, ...]:
    """Return random inputs of a few samples."""
    drawn = np.random.default_rng(0)

    def draw(spec: InputSpec) -> Tensor:
        shape = (_EXAMPLE_ROWS, *spec.shape)
        if spec.kind == "vector":
            return torch.from_numpy(drawn.standard_normal(shape).astype(np.float32))
        most = 256 if spec.kind == "image" else (spec.vocabulary or 2)
        return torch.from_numpy(drawn.integers(0, most, shape).astype(spec.element))

    # Stored images may be larger than their views.
    return tuple(draw(contract.manifest.inputs[name]) for name in module.input_names)


def _make_pt2(module: PredictionModule, examples: tuple[Tensor, ...], trained: TrainedArm) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    # One tuple, because the inputs are variable arguments
    shapes = (tuple({0: batch} for _ in examples),)
    with _refuse_inexportable(trained, "pt2"):
        program = torch.export.export(module, examples, dynamic_shapes=shapes)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _make_onnx(module: PredictionModule, examples: tuple[Tensor, ...], trained: TrainedArm) -> bytes:
    batch = torch.export.Dim("batch", min=1)
    with _refuse_inexportable(trained, "onnx"), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        program = torch.onnx.export(
            module,
            examples,
            input_names=list(module.input_names),
            output_names=list(OUTPUTS),
            dynamic_shapes=(tuple({0: batch} for _ in examples),),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(file, external_data=False)
        content = file.read_bytes()
    check_onnx(content, module, examples, scale=max(model.regressor.label_scale for model in trained.models.values()))
    return content


def check_onnx(content: bytes, module: PredictionModule, examples: tuple[Tensor, ...], *, scale: float) -> bool:
    """Compare an ONNX model with torch, for another batch size than that of the export; return False without onnxruntime.

    Raises:
        InputError: they differ by more than `TOLERANCE`.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    more = tuple(torch.cat([each, each[:1]]) for each in examples)
    names = [each.name for each in session.get_inputs()]
    given = dict(zip(module.input_names, more, strict=True))
    found = session.run(None, {name: given[name].numpy() for name in names})
    with torch.inference_mode():
        expected = module(*more)
    far = max(float(np.abs(one - other.numpy()).max()) for one, other in zip(found, expected, strict=True))
    limit = TOLERANCE * max(scale, float(expected[0].abs().max()))
    if not far <= limit:
        rule = f"the ONNX model differs from torch by more than {limit:.2g}"
        raise InputError(Fault(where="export", rule=rule, got=far))
    return True


@contextlib.contextmanager
def _refuse_inexportable(trained: TrainedArm, form: str) -> Any:
    """Turn what torch raises about a module that it cannot export into one sentence, and keep its remarks off the terminal."""
    encoder: Any = next(iter(trained.models.values())).config.model.encoder
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    # torch has no common class of such errors.
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        rule = f"the encoder {encoder.name!r} cannot be exported in this format ({reason}); safetensors can"
        raise InputError(Fault(where="export", key="format", rule=rule, got=form)) from None
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)
