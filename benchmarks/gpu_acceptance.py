"""Acceptance test of a GPU, in about ten minutes: does dirtune compute on it what it computes on a CPU, and as fast as it should?

    python benchmarks/gpu_acceptance.py [--only 0,2,4] [--results FOLDER] [--json FILE] [--seconds 600] [--device cuda]

Every check runs in a process of its own with a time limit, since a fault of a GPU ends the process that found it. A line for each
value has the bound that it must keep; the exit code is the number of failures. A failed environment ends the run. With
`--device cpu` the parts that need no GPU run on tiny data, which tests this script. Needs torch and this repository; the sweep (8)
needs Ray.

| check | what |
|---|---|
| 0 environment | driver, CUDA, a convolution and a matrix product |
| 1 numbers | losses, terms, weights, schemes and encoders: first steps on the device against the CPU |
| 2 waits | host waits for the device in a step (`torch.cuda.set_sync_debug_mode`) |
| 3 steps | time of a step against a bare loop of the same model, and its part before the host has launched all of it |
| 4 resume | an interrupted trial against an undisturbed one: state, and time of a step |
| 5 streaming | rate of a streamed set of JPEG images against the resident one |
| 6 memory | a batch that does not fit, evaluation batches that are halved, training next to a greedy process on the same GPU |
| 7 checkpoint | its size and the time that it blocks the device |
| 8 sweep | trials that share the GPU, one worker killed |
| 9 group | two ranks with batch normalization: one model, exact resume |
| 10 nccl | two ranks on two GPUs of this machine against one process |
| 11 hidden | a worker with `CUDA_VISIBLE_DEVICES=""` says that it has no GPU |
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import training as bare  # noqa: E402
from dirtune.cluster.machine import read_driver_version  # noqa: E402
from dirtune.config import TrialConfig  # noqa: E402
from dirtune.data.cache import DecodeCount, ResidentData, Split  # noqa: E402
from dirtune.data.streaming import MemoryChunks, load_onto_device, make_streamed_split  # noqa: E402
from dirtune.errors import OutOfMemory  # noqa: E402
from dirtune.frozen import read  # noqa: E402
from dirtune.io.storage import Storage  # noqa: E402
from dirtune.nested import merge  # noqa: E402
from dirtune.training.checkpoint import Checkpoints, load_checkpoint  # noqa: E402
from dirtune.training.distributed import Ranks  # noqa: E402
from dirtune.training.evaluation import predict  # noqa: E402
from dirtune.training.loop import run_epochs, run_steps  # noqa: E402
from dirtune.training.state import begin_training  # noqa: E402
from dirtune.training.trial import PROGRESS, TrialJob, TrialRun  # noqa: E402
from tests.training.toy_inputs import CASES, STEP_WAITS, UNCOUNTED_WAITS, make_case_config, make_data  # noqa: E402

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Value:
    """One measured value; `bound` is None if it is for information."""

    name: str
    value: float | str
    bound: str | None = None
    ok: bool = True


def at_most(name: str, value: float, bound: float) -> Value:
    return Value(name=name, value=value, bound=f"<= {bound:g}", ok=value <= bound)


def at_least(name: str, value: float, bound: float) -> Value:
    return Value(name=name, value=value, bound=f">= {bound:g}", ok=value >= bound)


@dataclass(frozen=True)
class Options:
    device: torch.device
    results: Path

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)


def check_environment(options: Options) -> Iterator[Value]:
    device = options.device
    yield Value(name="torch", value=f"{torch.__version__}, CUDA {torch.version.cuda}")
    if options.is_gpu:
        yield Value(name="NVIDIA driver", value=read_driver_version() or "unknown")
        major, minor = torch.cuda.get_device_capability(device)
        free, total = (each / 2**30 for each in torch.cuda.mem_get_info(device))
        yield Value(name="GPU", value=f"{torch.cuda.get_device_name(device)}, capability {major}.{minor}")
        yield Value(name="memory", value=f"{free:.1f} of {total:.1f} GiB free")
        yield Value(name="TF32 of convolutions", value=str(torch.backends.cudnn.allow_tf32))
    images = torch.rand(2, 3, 16, 16, device=device)
    made = torch.nn.functional.conv2d(images, torch.rand(4, 3, 3, 3, device=device)).flatten(1)
    is_finite = bool((made @ made.T).sum().isfinite())
    yield Value(name="convolution and matrix product", value=float(is_finite), bound="= 1", ok=is_finite)


def check_numbers(options: Options) -> Iterator[Value]:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    worst = {"difference": 0.0, "case": ""}
    for name, inputs, settings in CASES:
        # Dropout draws on the device, and half precision rounds.
        if name.startswith(("bf16", "encoder tokens")):
            continue
        # Adam would turn the rounding of a gradient of zero into a whole step.
        config = make_case_config(inputs, merge({"recipe": {"optimizer": "sgd"}}, settings))
        losses = []
        for device in (options.device, torch.device("cpu")):
            steps = run_steps(begin_training(config, make_data(inputs, device)))
            losses.append([float(loss.total) for loss in islice(steps, 3)])
        difference = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(*losses, strict=True))
        if difference > 1e-4 or not math.isfinite(difference):
            yield at_most(name, difference, 1e-4)
        worst = max(worst, {"difference": difference, "case": name}, key=lambda each: float(each["difference"]))
    yield at_most(f"largest relative difference of a loss, of {len(CASES)} cases", float(worst["difference"]), 1e-4)


def check_waits(options: Options) -> Iterator[Value]:
    if not options.is_gpu:
        yield Value(name="waits", value="only a GPU shows them; see tests/training/test_pretended_matrix.py")
        return
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, inputs, settings) in enumerate([*CASES, ("resumed", "image", {"recipe": {"epochs": 2}})]):
            data, config = make_data(inputs, options.device), make_case_config(inputs, settings)
            training = begin_training(config, data)
            if name == "resumed":
                job = TrialJob(study="acceptance", arm="a", config=config, trial_id=str(number))
                TrialRun(job, data, Storage.open(folder), waits_for_checkpoints=True).step()
                training = TrialRun(job, data, Storage.open(folder)).training
            steps = run_steps(training)
            next(steps)
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                next(steps)
            torch.cuda.set_sync_debug_mode("default")
            waits = [each for each in caught if "synchroniz" in str(each.message)]
            places = ", ".join(dict.fromkeys(f"{Path(each.filename).name}:{each.lineno}" for each in waits))
            if name in UNCOUNTED_WAITS:
                yield Value(name=f"{name}: {places}", value=len(waits))
            elif len(waits) > STEP_WAITS.get(name, 0):
                yield at_most(f"{name}: {places}", len(waits), STEP_WAITS.get(name, 0))
    yield Value(name="cases", value=len(CASES) + 1)


def check_steps(options: Options) -> Iterator[Value]:
    encoder, pixels, batch, count = ("resnet50", 224, 64, 25) if options.is_gpu else ("cnn", 24, 16, 3)
    data = bare.make_data(4 * batch, pixels, options.device)
    methods: dict[str, Any] = {
        "plain": ({}, 0.95),
        "conr": ({"terms": {"conr": {}}, "recipe": {"views": {"count": 2, "augmentation": "light"}}}, 0.95),
        "accon": ({"terms": {"accon": {}}, "recipe": {"views": {"count": 2, "augmentation": "strong"}}}, 0.92),
    }
    for fast in (False, True) if options.is_gpu else (False,):
        speed = {"precision": "bf16", "channels_last": True} if fast else {}
        for name, (settings, bound) in methods.items():
            base = {
                "data": {"name": "s"},
                "model": {"encoder": {"name": encoder}, "label_scale": 1.0, "label_offset": 0.0},
                "recipe": {"batch_size": batch, **speed},
            }
            config = read(TrialConfig, merge(base, settings), where="acceptance")
            views = config.recipe.views.count
            # The bare loop has as many images as the views together.
            plain_config = read(TrialConfig, merge(base, {"recipe": {"batch_size": batch * views}}), where="acceptance")
            ratios = []
            for _ in range(3 if options.is_gpu else 1):
                plain = bare.measure(bare.run_plain_steps(plain_config, data), plain_config, count, options.device)
                ours = bare.measure(bare.run_dirtune_steps(config, data), config, count, options.device)
                ratios.append(ours.images_per_second * views / plain.images_per_second)
            label = f"{name}, {config.recipe.precision}: rate / bare rate"
            yield at_least(label, max(ratios), bound) if options.is_gpu else Value(name=label, value=max(ratios))
            # Above it, a faster GPU would wait for the host.
            label = f"{name}, {config.recipe.precision}: host's part of the time of a step"
            part = measure_host_part(bare.run_dirtune_steps(config, data), count, options)
            yield at_most(label, part, 0.7) if options.is_gpu else Value(name=label, value=part)


def measure_host_part(steps: Iterator[None], count: int, options: Options) -> float:
    """Return the median, over single steps, of the time until the host has launched all work, by the time until it is done."""
    parts = []
    for _ in range(bare.WARM_UP + count):
        options.wait()
        started = time.perf_counter()
        next(steps)
        launched = time.perf_counter()
        options.wait()
        parts.append((launched - started) / (time.perf_counter() - started))
    return float(np.median(parts[bare.WARM_UP :]))


def check_resume(options: Options) -> Iterator[Value]:
    data = make_data("image", options.device)
    config = make_case_config("image", {"recipe": {"epochs": 3}})
    job = TrialJob(study="acceptance", arm="a", config=config, trial_id=config.compute_trial_id("data"))
    states = []
    with tempfile.TemporaryDirectory() as folder:
        for name, interruptions in (("whole", 0), ("parts", 1)):
            study = Storage.open(Path(folder) / name)
            for _ in range(interruptions):
                TrialRun(job, data, study).step()
            trial = TrialRun(job, data, study)
            while trial.status is None:
                trial.step()
            states.append(trial.training.get_state())
        for part in ("model", "optimizer"):
            problem = ""
            try:
                torch.testing.assert_close(states[1][part], states[0][part], rtol=1e-3, atol=1e-5)
            except AssertionError as error:
                problem = str(error).splitlines()[0]
            yield Value(name=f"{part} of a resumed trial", value=problem or "equal", bound="equal", ok=not problem)
        rates = []
        for resumes in (False, True):
            study = Storage.open(Path(folder) / f"speed {resumes}")
            if resumes:
                TrialRun(job, data, study).step()
            training = TrialRun(job, data, study).training
            steps = chain.from_iterable(run_steps(training) for _ in iter(int, 1))
            for _ in islice(steps, 5):
                pass
            options.wait()
            started = time.perf_counter()
            for _ in islice(steps, 50 if options.is_gpu else 3):
                pass
            options.wait()
            rates.append(time.perf_counter() - started)
        ratio = Value(name="step of a resumed / of a new trial", value=rates[1] / rates[0])
        yield at_most(ratio.name, rates[1] / rates[0], 1.03) if options.is_gpu else ratio


def check_streaming(options: Options) -> Iterator[Value]:
    from PIL import Image

    from dirtune.manifest import InputSpec

    # More than all measured steps read: a new epoch starts without batches that are ready.
    rows, pixels, batch, encoder = (8000, 224, 128, "resnet50") if options.is_gpu else (32, 24, 16, "cnn")
    data = bare.make_data(rows, pixels, torch.device("cpu"))
    stored = data.splits["train"]
    files = []
    drawn = np.random.default_rng(0)
    for _ in range(min(rows, 500)):
        small = drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(small).resize((pixels, pixels)).save(content, "JPEG", quality=90)
        files.append(content.getvalue())
    files = [files[row % len(files)] for row in range(rows)]
    spec = InputSpec(kind="image", shape=(3, pixels, pixels), encoding="jpeg")
    manifest = data.manifest.model_copy(update={"inputs": {"image": spec}})
    places = np.stack([np.zeros(rows, dtype=np.int64), np.arange(rows)], axis=1)
    cores = os.cpu_count() or 1
    rates = {}
    for threads in (0, *sorted({1, min(4, cores), min(8, cores), cores})):
        split: Split = make_streamed_split(
            manifest,
            MemoryChunks({0: {"image": pa.array(files, pa.large_binary())}}),
            np.array(stored.sample_ids, dtype=object),
            stored.exact_labels,
            places,
            device=options.device,
            threads=threads or cores,
            decoded=DecodeCount(),
        )
        if not threads:
            split = load_onto_device(split)  # type: ignore[arg-type]
        held = ResidentData(manifest=manifest, device=options.device, splits={"train": split})
        config = bare.make_config(encoder, batch, views={"augmentation": "light"})
        count = 12 if options.is_gpu else 2
        rates[threads] = bare.measure(
            bare.run_dirtune_steps(config, held), config, count, options.device
        ).images_per_second
    for threads, rate in rates.items():
        if threads:
            label = f"streamed by {threads} threads / resident"
            is_bound = options.is_gpu and threads == cores
            yield at_least(label, rate / rates[0], 0.95) if is_bound else Value(name=label, value=rate / rates[0])


def check_memory(options: Options) -> Iterator[Value]:
    if not options.is_gpu:
        yield Value(name="memory", value="only a GPU has it; see tests/training/test_memory.py")
        return
    data = bare.make_data(4096, 224, options.device)
    too_large = bare.make_config("resnet50", 4096)
    torch.cuda.set_per_process_memory_fraction(12 * 2**30 / torch.cuda.mem_get_info(options.device)[1], options.device)
    before, named = torch.cuda.memory_allocated(options.device), ""
    try:
        next(run_epochs(begin_training(too_large, data)))
    except OutOfMemory as error:
        named = error.message
    yield Value(
        name="a batch that does not fit", value=named or "no error", bound="is named", ok="a batch of 4096" in named
    )
    import gc

    gc.collect()
    torch.cuda.empty_cache()
    yield at_most("MiB left after it", (torch.cuda.memory_allocated(options.device) - before) / MIB, 50)
    evaluated = ResidentData(
        manifest=data.manifest, device=data.device, splits={**data.splits, "val": data.splits["train"]}
    )
    torch.backends.cudnn.allow_tf32 = False
    training = begin_training(bare.make_config("resnet50", 32), evaluated)
    whole = predict(training, "val")
    torch.cuda.set_per_process_memory_fraction(3 * 2**30 / torch.cuda.mem_get_info(options.device)[1], options.device)
    torch.cuda.empty_cache()
    halved = predict(training, "val")
    yield at_most("difference of predictions whose batches were halved", float(np.abs(halved - whole).max()), 1e-2)
    del training
    torch.cuda.empty_cache()
    yield from check_fence(data, options)


GREEDY = """
import sys, torch
from dirtune.tuning.execution.worker import get_local_device
device, held = get_local_device(0.5), []
try:
    while True:
        held.append(torch.empty(2**28, dtype=torch.uint8, device=device))
except torch.OutOfMemoryError:
    print(torch.cuda.memory_reserved(device), flush=True)
sys.stdin.read()
"""
"""A worker with half of a GPU that takes all memory that it can get, and keeps it."""


def check_fence(data: ResidentData, options: Options) -> Iterator[Value]:
    """Train while another process takes all of its half of the GPU."""
    from dirtune.tuning.execution.worker import FENCE

    total = torch.cuda.mem_get_info(options.device)[1]
    torch.cuda.set_per_process_memory_fraction(0.5 * FENCE, options.device)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", GREEDY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as neighbor:
        assert neighbor.stdout is not None
        taken = int(neighbor.stdout.readline() or 0)
        yield at_least("memory of a greedy process / its share", taken / (0.5 * total), 0.8)
        yield at_most("memory of a greedy process / its fence", taken / (0.5 * FENCE * total), 1.0)
        torch.cuda.reset_peak_memory_stats(options.device)
        reason = ""
        try:
            for _ in islice(run_steps(begin_training(bare.make_config("resnet50", 32), data)), 5):
                pass
            options.wait()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
        yield Value(name="training next to it", value=reason or "works", bound="works", ok=not reason)
        peaks = torch.cuda.max_memory_allocated(options.device), torch.cuda.max_memory_reserved(options.device)
        yield Value(name="recorded peak / reserved memory", value=peaks[0] / peaks[1])
        # The end of its input ends the neighbor.
        neighbor.communicate()


def check_checkpoint(options: Options) -> Iterator[Value]:
    encoder, pixels = ("resnet50", 224) if options.is_gpu else ("cnn", 24)
    data = bare.make_data(32, pixels, options.device)
    training = begin_training(bare.make_config(encoder, 16), data)
    for _ in run_steps(training):
        pass
    training.best_epoch = 1
    training.best_weights = {name: value.clone() for name, value in training.model.state_dict().items()}
    folder = Storage.open(options.results).get_folder("gpu_acceptance")
    checkpoints = Checkpoints(folder, options.device)
    # The first one allocates the pinned memory of the later ones.
    for name in ("first", "later"):
        options.wait()
        started = time.perf_counter()
        checkpoints.begin({"training": training.get_state()})
        options.wait()
        waited = time.perf_counter() - started
        checkpoints.wait()
        yield at_most(f"seconds that the device waits for the {name} checkpoint / an epoch of 30 s", waited / 30, 0.02)
    loaded = load_checkpoint(folder)
    assert loaded is not None
    same = all(
        torch.equal(value.cpu(), loaded["training"]["model"][name])
        for name, value in training.model.state_dict().items()
    )
    size = sum(len(folder.read(f"checkpoint/{name}")) for name in folder.list_files("checkpoint")) / MIB
    folder.remove("checkpoint")
    yield Value(name="MiB", value=size)
    yield Value(name="seconds to write it", value=checkpoints.write_seconds)
    yield at_most("tensors that differ from the device's", float(not same), 0)


def check_sweep(options: Options) -> Iterator[Value]:
    if not options.is_gpu:
        yield Value(name="sweep", value="see tests/tuning")
        return
    study = {
        "name": "gpu_acceptance",
        "question": "Do trials share a GPU?",
        "reference": "plain",
        "seeds": [0, 1, 2],
        "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}, "recipe": {"epochs": 10}},
        "arms": {"plain": {}, "conr": {"model": {"projection_dim": 8}, "terms": {"conr": {}}}},
        "resources": {"gpus": 0.5},
    }
    with tempfile.TemporaryDirectory() as folder:
        import dirtune

        file = Path(folder) / "gpu_acceptance.yaml"
        file.write_text(json.dumps(study))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "dirtune.cli"]
        roots = ["--data", f"{folder}/data"]
        subprocess.run([*command, "ingest", "digits", *roots], check=True, env=environment, capture_output=True)
        sweep = [*command, "sweep", str(file), *roots, "--results", f"{folder}/results"]
        with subprocess.Popen(sweep, env=environment, stdout=subprocess.DEVNULL) as running:
            killed = kill_worker(Path(folder) / "results", running)
        yield Value(name="a worker killed in its trial", value=killed or "none found", bound="killed", ok=bool(killed))
        yield at_most("exit code of the sweep", running.returncode, 0)
        trials = dirtune.query("select status, error_class, device from trials", results=f"{folder}/results")
        complete = int((trials["status"] == "complete").sum())
        yield at_least("complete trials", complete, 6)
        yield Value(name="device", value=str(trials["device"].iloc[0]))


def kill_worker(results: Path, sweep: subprocess.Popen[bytes]) -> str:
    """Kill the process of the first trial that has written its progress; return its name, or nothing if the sweep ends first."""
    while sweep.poll() is None:
        for file in results.rglob(PROGRESS):
            # It may be removed while it is read.
            with contextlib.suppress(OSError, ValueError, ProcessLookupError):
                worker = str(json.loads(file.read_text())["trial"]["worker"])
                os.kill(int(worker.rpartition("/")[2]), signal.SIGKILL)
                return worker
        time.sleep(0.05)
    return ""


def check_group(options: Options) -> Iterator[Value]:
    from tests.training.gloo import on_ranks

    config = make_case_config(
        "image", {"model": {"encoder": {"name": "resnet18"}}, "recipe": {"epochs": 2, "last_batch": "drop"}}
    )
    with tempfile.TemporaryDirectory() as folder:
        found = on_ranks(2, train_normalized, str(options.device), config, folder)
    first = found[0]["whole"]
    buffers = all(torch.equal(each["whole"][name], first[name]) for each in found for name in first)
    yield Value(
        name="statistics of batch normalization on all ranks",
        value="equal" if buffers else "differ",
        bound="equal",
        ok=buffers,
    )
    worst = max(float((each["resumed"][name] - first[name]).abs().max()) for each in found for name in first)
    yield at_most("difference of a resumed group", worst, 0.0 if not options.is_gpu else 1e-3)


def train_normalized(rank: int, world: int, device: str, config: TrialConfig, folder: str) -> dict[str, Any]:
    """Return the floating-point state of a whole and of a resumed trial on this rank."""
    import torch.distributed as dist

    data, found = make_data("image", torch.device(device)), {}
    job = TrialJob(study="acceptance", arm="a", config=config, trial_id="trial")
    for name in ("whole", "resumed"):
        study = Storage.open(Path(folder) / name)
        if name == "resumed":
            TrialRun(job, data, study, ranks=Ranks(rank, world)).step()
            dist.barrier()
        trial = TrialRun(job, data, study, ranks=Ranks(rank, world))
        while trial.status is None:
            trial.step()
        state = trial.training.model.state_dict()
        found[name] = {key: value.cpu() for key, value in state.items() if value.is_floating_point()}
    return found


def check_nccl(options: Options) -> Iterator[Value]:
    from tests.training.gloo import on_ranks

    gpus = torch.cuda.device_count() if options.is_gpu else 0
    if options.is_gpu and gpus < 2:
        yield Value(name="NCCL", value=f"skipped: needs 2 GPUs of this machine, which has {gpus}")
        return
    backend = "nccl" if options.is_gpu else "gloo"
    recipe = {"epochs": 2, "optimizer": "sgd", "views": {"count": 2}}
    config = make_case_config("image", {"terms": {"conr": {}}, "recipe": recipe})
    expected = train_on_rank(0, 1, options.device.type, config)
    found = on_ranks(2, train_on_rank, options.device.type, config, backend=backend)
    worst = max(float((each[name] - expected[name]).abs().max()) for each in found for name in expected)
    yield at_most(f"difference of a weight of 2 ranks ({backend}) from one process", worst, 1e-4)
    same = all(torch.equal(found[0][name], found[1][name]) for name in expected)
    yield Value(name="weights on both ranks", value="equal" if same else "differ", bound="equal", ok=same)


def train_on_rank(rank: int, world: int, device: str, config: TrialConfig) -> dict[str, torch.Tensor]:
    """Return the weights of a training; each rank has a GPU of its own."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cuda":
        torch.cuda.set_device(rank)
    data = make_data("image", torch.device(device, rank if device == "cuda" else None))
    training = begin_training(config, data, Ranks(rank, world))
    for _ in run_epochs(training):
        pass
    return {name: value.cpu() for name, value in training.model.state_dict().items()}


def check_hidden(options: Options) -> Iterator[Value]:
    program = "from dirtune.tuning.execution.worker import get_local_device; get_local_device(1.0)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )
    said = (ended.stderr.strip().splitlines() or ["nothing"])[-1].rpartition("device_faults.")[2]
    is_named = re.match(r"DeviceFault: GPU .* of .*: .*(No CUDA GPUs|no NVIDIA driver|not compiled with CUDA)", said)
    yield Value(name="a worker without a GPU", value=said, bound="says so", ok=bool(is_named))


@dataclass(frozen=True)
class Check:
    run: Callable[[Options], Iterator[Value]]
    seconds: float
    """Time limit."""


CHECKS = {
    0: Check(check_environment, 60),
    1: Check(check_numbers, 180),
    2: Check(check_waits, 120),
    3: Check(check_steps, 240),
    4: Check(check_resume, 90),
    5: Check(check_streaming, 150),
    6: Check(check_memory, 120),
    7: Check(check_checkpoint, 60),
    8: Check(check_sweep, 240),
    9: Check(check_group, 150),
    10: Check(check_nccl, 90),
    11: Check(check_hidden, 60),
}


def run_check(number: int, options: argparse.Namespace, seconds: float) -> list[Value]:
    """Run a check in a process of its own and return its values, or one value with the way it ended."""
    name = CHECKS[number].run.__name__.removeprefix("check_")
    command = [
        sys.executable,
        __file__,
        "--check",
        str(number),
        "--device",
        options.device,
        "--results",
        options.results,
    ]
    # Files, which hold what a check that does not end has found, and a group of its own, so that its children end with it.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=out, stderr=errors, start_new_session=True) as process:
            problem = ""
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                problem = f"no result within {seconds:.0f} s"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        out.seek(0)
        errors.seek(0)
        values = [Value(**json.loads(line)) for line in out if line.startswith('{"name"') and line.endswith("\n")]
        if process.returncode and not problem:
            error = (errors.read().strip().splitlines() or ["no error"])[-1]
            problem = f"exit code {process.returncode}: {error}"
    if problem:
        values.append(Value(name=name, value=problem, bound="ends", ok=False))
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(map(str, CHECKS)), help="numbers of checks, with commas")
    parser.add_argument("--results", default=tempfile.gettempdir(), help="folder to which checkpoints are written")
    parser.add_argument("--json", type=Path, help="file for all values")
    parser.add_argument("--seconds", type=float, default=600, help="time for all checks; what does not fit is skipped")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--check", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check is not None:
        found = Options(torch.device(options.device, 0 if options.device == "cuda" else None), Path(options.results))
        for value in CHECKS[options.check].run(found):
            print(json.dumps(asdict(value)), flush=True)
        return 0
    end, failures, values = time.monotonic() + options.seconds, 0, {}
    for number in map(int, options.only.split(",")):
        name = CHECKS[number].run.__name__.removeprefix("check_")
        left = end - time.monotonic()
        if left < 10:
            print(f"{number} {name}: skipped, no time left")
            continue
        started = time.monotonic()
        found_values = run_check(number, options, min(CHECKS[number].seconds, left))
        values[name] = [asdict(value) for value in found_values]
        print(f"{number} {name} ({time.monotonic() - started:.0f} s)")
        for value in found_values:
            shown = f"{value.value:.4g}" if isinstance(value.value, float) else value.value
            verdict = "" if value.bound is None else f"  [{value.bound}] {'ok' if value.ok else 'FAIL'}"
            print(f"  {value.name}: {shown}{verdict}", flush=True)
        failures += sum(not value.ok for value in found_values)
        if number == 0 and failures:
            break
    if options.json is not None:
        options.json.write_text(json.dumps({"failures": failures, "checks": values}, indent=1))
    return failures


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
