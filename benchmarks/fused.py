"""Trials side by side in one process against the same trials one after another: images per second.

Run: `.venv/bin/python benchmarks/fused.py [--encoder cnn] [--pixels 32] [--batch 64] [--steps 20] [--most 8]`

K trainings of one encoder, with and without terms and re-weighting, take steps on the same batches: each training reads
its own batches (apart), or all share them (fused). Images lie in memory as bytes, or as JPEG that is decoded in every
epoch, by one thread, as a worker with one core does. A trial's rate is what it sees itself: of K side by side, each makes
one of K steps. The gain is the time of K trials apart over that of K trials fused. On a GPU memory is the peak of all K.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from training import configuration, measured, synthetic

from dirtune.config import TrialConfig, merged
from dirtune.data.cache import DecodeCount, ResidentData, ResidentSplit
from dirtune.data.images import encode
from dirtune.data.streamed import InMemory, StreamedSplit
from dirtune.frozen import read
from dirtune.training.fused import batches_key, share_batches
from dirtune.training.loop import first_steps
from dirtune.training.state import Training, begin

# In an epoch
BATCHES = 4
ARMS: tuple[dict[str, Any], ...] = (
    {},
    {"terms": {"conr": {"omega": 1.0}}, "model": {"projection_dim": 64}},
    {"terms": {"accon": {"gamma": 1.0}}, "model": {"projection_dim": 64}},
    {"reweighting": {"scheme": "sqrt_inverse"}},
)


def encoded(data: ResidentData) -> ResidentData:
    """The same images as JPEG in memory."""
    train = data.splits["train"]
    assert isinstance(train, ResidentSplit)
    spec = data.manifest.inputs["image"].model_copy(update={"encoding": "jpeg"})
    pixels = train.inputs["image"].permute(0, 2, 3, 1).cpu().numpy()
    column = pa.array([encode(Image.fromarray(each), spec) for each in pixels], pa.large_binary())
    split = StreamedSplit(
        sample_ids=train.sample_ids,
        labels=train.labels,
        label_bins=train.label_bins,
        exact_labels=train.exact_labels,
        specs={"image": spec},
        chunks=InMemory({0: {"image": column}}),
        places=np.stack([np.zeros(len(train), np.int64), np.arange(len(train))], axis=1),
        device=data.device,
        threads=1,
        decoded=DecodeCount(),
    )
    return replace(data, splits={"train": split})


def trials(encoder: str, batch: int, count: int) -> list[TrialConfig]:
    plain = configuration(encoder, batch).plain()
    return [read(TrialConfig, merged(plain, arm), where="benchmark") for arm in islice(cycle(ARMS), count)]


def steps(trainings: list[Training], *, fused: bool) -> Iterator[None]:
    """Rounds of one step of each training, epoch after epoch."""
    while True:
        if fused:
            share_batches(trainings)
        yield from (None for _ in zip(*map(first_steps, trainings), strict=True))


def report(options: argparse.Namespace, device: torch.device) -> None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}: {options.encoder}, {options.pixels} px, batches of {options.batch}")
    print(
        f"{'images':8}{'K':>3}{'apart/s per trial':>19}{'fused/s per trial':>19}{'gain':>7}{'MB apart':>10}{'MB fused':>10}"
    )
    raw = synthetic(BATCHES * options.batch, options.pixels, device)
    for kind, data in {"bytes": raw, "jpeg": encoded(raw)}.items():
        for count in (2**power for power in range(options.most.bit_length())):
            configs = trials(options.encoder, options.batch, count)
            assert len({batches_key(config) for config in configs}) == 1
            apart, fused = (
                measured(
                    steps([begin(config, data) for config in configs], fused=is_fused),
                    configs[0],
                    options.steps,
                    device,
                )
                for is_fused in (False, True)
            )
            rates = (apart.images_per_second, fused.images_per_second)
            peaks = ("-" if each.peak_mb is None else f"{each.peak_mb:.0f}" for each in (apart, fused))
            print(
                f"{kind:8}{count:3}{rates[0]:19.1f}{rates[1]:19.1f}{rates[1] / rates[0]:7.2f}"
                + "".join(f"{peak:>10}" for peak in peaks),
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="cnn")
    parser.add_argument("--pixels", type=int, default=32, help="a side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--most", type=int, default=8, help="trials side by side: 1, 2, 4, ...")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    report(options, torch.device(options.device))


if __name__ == "__main__":
    main()
