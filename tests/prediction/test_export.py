"""Run with `pytest tests/prediction/test_export.py`: exported models predict as torch does, elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import dirtune
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.data.contract import InputContract
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.prediction import export
from dirtune.prediction.arm import TrainedArm
from dirtune.training.kept_model import KeptModel, read_model
from dirtune.training.task import make_task
from dirtune.training.trial import TrialRun
from tests.training.runs import Configure, finish, job_of

LOAD = """
import sys, numpy, torch
inputs = [torch.from_numpy(each) for each in numpy.load(sys.argv[2]).values()]
outputs = torch.export.load(sys.argv[1]).module()(*inputs)
assert not [name for name in sys.modules if name.startswith(("dirtune", "pipelines", "ray"))]
numpy.savez(sys.argv[3], *[each.detach().numpy() for each in outputs])
"""


def run_elsewhere(model: Path, inputs: list[np.ndarray], folder: Path) -> list[np.ndarray]:
    """Run a pt2 file in a process without dirtune, outside of the repository."""
    np.savez(folder / "inputs.npz", *inputs)
    arguments = [str(model), str(folder / "inputs.npz"), str(folder / "outputs.npz")]
    subprocess.run([sys.executable, "-I", "-c", LOAD, *arguments], check=True, cwd=folder)
    return [*np.load(folder / "outputs.npz").values()]


def run_onnx(model: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {each.name: value for each, value in zip(session.get_inputs(), inputs, strict=True)})


def random_rows(rows: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((rows, 5)).astype(np.float32)


@pytest.mark.slow
def test_pt2_and_onnx_predict_as_torch_for_other_batch_sizes(results: Path, tmp_path: Path) -> None:
    module = dirtune.load("mine", arm="logarithms", results=results).module
    for form, rows in (("pt2", 7), ("onnx", 7), ("onnx", 1)):
        model = tmp_path / form / f"model.{form}"
        if not model.exists():
            dirtune.export("mine", arm="logarithms", results=results, format=form, output=model.parent)
        expected = [each.detach().numpy() for each in module(torch.from_numpy(random_rows(rows)))]
        given = [random_rows(rows)]
        found = run_elsewhere(model, given, tmp_path) if form == "pt2" else run_onnx(model, given)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == (rows,)
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_safetensors_are_the_kept_files(results: Path, tmp_path: Path) -> None:
    folder = dirtune.export("mine", arm="plain", results=results, output=tmp_path / "out", seeds=[1, 5])
    trained = dirtune.load("mine", arm="plain", results=results, seeds=[1, 5])
    for seed, model in trained.models.items():
        for name in ("model.safetensors", "config.json"):
            kept = results / "mine" / "models" / model.trial_id / name
            assert (folder / f"seed-{seed}" / name).read_bytes() == kept.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "inputs.json", "seed-1", "seed-5"]
    # Neither the path of the raw file nor rows of the data leave the machine.
    contract = json.loads((folder / "inputs.json").read_text())
    assert contract["manifest"]["source"] == {}
    assert contract["features"] == [each.model_dump() for each in trained.contract.features]


def test_the_card_has_the_numbers_of_the_tables_and_the_findings(results: Path, tmp_path: Path) -> None:
    text = (dirtune.export("mine", arm="smooth", results=results, output=tmp_path / "out") / "README.md").read_text()
    errors = dirtune.load("mine", arm="smooth", results=results).errors
    for region, error in errors.items():
        assert f"| {region} | {error.samples} | {'' if error.mean is None else f'{error.mean:.4g}'} | " in text
    assert "label `y`" in text
    assert "MPa" in text
    for finding in dirtune.check("mine", results=results):
        assert str(finding) in text
    assert "models of 89 parameters" in text
    assert text.startswith("---\nlibrary_name: dirtune\npipeline_tag: tabular-regression\n")


def test_unknown_formats_and_missing_packages_are_one_sentence(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"unknown format, got 'onx'.*did you mean 'onnx'"):
        dirtune.export("mine", arm="plain", results=results, format="onx")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx and onnxscript \(`pip install 'dirtune\[export\]'`\)"):
        dirtune.export("mine", arm="plain", results=results, format="onnx", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_onnx_model_that_differs_is_refused(results: Path) -> None:
    trained = dirtune.load("mine", arm="plain", results=results)
    examples = (torch.from_numpy(random_rows(3)),)
    content = export._make_onnx(trained.module, examples, trained)
    assert export.check_onnx(content, trained.module, examples, scale=1.0)
    with torch.no_grad():
        trained.module.members[0].predictor.bias += 0.1
    with pytest.raises(InputError, match="the ONNX model differs from torch by more than"):
        export.check_onnx(content, trained.module, examples, scale=1.0)


@pytest.mark.slow
def test_images_are_exported_as_bytes(configuration: Configure, toy: ResidentData, tmp_path: Path) -> None:
    """The encoder reads one of two inputs, and the exported model has both by name."""
    study, config = Storage.open(tmp_path), configuration(model={"encoder": {"name": "cnn", "channels": 2}})
    job = job_of(config, toy)
    finish(TrialRun(job, toy, study, contract=InputContract(manifest=toy.manifest)))
    trained = TrainedArm(study="study", arm="conr", models={0: read_model(study, job.trial_id)}, errors={})
    (inputs,) = toy.splits["test"].read([torch.arange(5)])
    given = tuple(inputs[name] for name in trained.module.input_names)
    content = export._make_onnx(trained.module, tuple(each[:3] for each in given), trained)
    (tmp_path / "model.onnx").write_bytes(content)
    found = run_onnx(tmp_path / "model.onnx", [each.numpy() for each in given])
    for one, other in zip(found, trained.module(*given), strict=True):
        np.testing.assert_allclose(one, other.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_token_ids_are_exported_without_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = InputSpec(kind="tokens", shape=(3,), vocabulary=9)
    label = LabelSpec(name="score", unit="points", low=0, high=5, bin_width=1, num_bins=5)
    manifest = Manifest(
        name="pairs",
        inputs={"first": tokens, "second": tokens},
        label=label,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={"train": SplitInfo(files=("version-1/train/part_0.parquet",), rows=5, bin_counts=(1,) * 5)},
        content_hash="0" * 64,
        split_fingerprint="0" * 64,
    )
    model = {
        "encoder": {"name": "bilstm", "hidden": 2, "vector_size": 3, "layers": 2},
        "label_scale": 1.0,
        "label_offset": 0.0,
    }
    config = read(TrialConfig, {"data": {"name": "pairs"}, "model": model}, where="test")
    kept = KeptModel(
        trial_id="0" * 16,
        config=config,
        contract=InputContract(manifest=manifest),
        regressor=make_task(manifest).build_regressor(config).eval(),
        workers=1,
    )
    trained = TrainedArm(study="study", arm="arm", models={0: kept}, errors={})
    examples = export._make_examples(trained.contract, trained.module)
    (tmp_path / "model.onnx").write_bytes(export._make_onnx(trained.module, examples, trained))
    # Sentences of every length, an empty one among them
    first = np.random.default_rng(0).integers(1, 9, (4, 3)).astype(np.int32)
    first[np.arange(3)[None, :] >= np.arange(4)[:, None]] = 0
    given = [first, first[::-1].copy()]
    found = run_onnx(tmp_path / "model.onnx", given)[0]
    expected = trained.module(*map(torch.from_numpy, given))[0]
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-6)

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(torch.export, "export", refuse)
    rule = r"the encoder 'bilstm' cannot be exported in this format \(no such operator\); safetensors can"
    with pytest.raises(InputError, match=rule):
        export._make_pt2(trained.module, examples, trained)
