"""`pytest tests/models/test_fds.py`: feature smoothing against plain loops and against the official code's outputs."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
import torch

from dirtune.errors import InputError
from dirtune.manifest import LabelSpec
from dirtune.models.fds import BinStatistics, FeatureSmoothing, make_calibration
from dirtune.reweighting.density import label_bins
from dirtune.reweighting.fds import FDS
from dirtune.reweighting.lds import make_kernel_window
from tests.golden.vectors import load_reweighting

DIM, BINS = 3, 8

AGE = LabelSpec(name="age", unit="years", low=0, high=20, bin_width=1, num_bins=20)
STS = LabelSpec(name="similarity", unit="points", low=0, high=5, bin_width=0.1, num_bins=50)
NYU = LabelSpec(name="depth", unit="m", low=0, high=10, bin_width=0.1, num_bins=100)
OFFICIAL = {
    "fds_age_gaussian_mom0.9": (AGE, FDS(first_bin=3)),
    "fds_age_gaussian_momNone": (AGE, FDS(first_bin=3, momentum=None)),
    "fds_stsb_gaussian": (STS, FDS(clip=(0.5, 2.0), fill_empty=True, zero_variance="skip_bin")),
    "fds_nyud2_gaussian": (NYU, FDS(first_bin=7, clip=(0.2, 5.0), zero_variance="skip_bin")),
}
RUNS = [(name, variant) for name in OFFICIAL for variant in ("ref", "noalias")][:-1]
STATE = {
    "running_mean": lambda module: module.running[0],
    "running_var": lambda module: module.running[1],
    "running_mean_last_epoch": lambda module: module.frozen[0],
    "running_var_last_epoch": lambda module: module.frozen[1],
    "smoothed_mean_last_epoch": lambda module: module.smoothed[0],
    "smoothed_var_last_epoch": lambda module: module.smoothed[1],
    "num_samples_tracked": lambda module: module.count.double(),
}
CLIPS = {"age": ((0.1, 10.0), "skip_dimension"), "sts": ((0.5, 2.0), "skip_bin"), "nyu": ((0.2, 5.0), "skip_bin")}
CALIBRATIONS = {
    "plain": ("v1", "v2"),
    "v1zero": ("v1_zero", "v2"),
    "v1neg": ("v1_neg", "v2"),
    "v2neg": ("v1", "v2_neg"),
    "tiny": ("v1_tiny", "v2"),
}


def _golden(name):
    return {key: value for key, value in load_reweighting(name).items() if key != "meta"}


def _bins(labels, spec):
    return torch.from_numpy(label_bins(labels.squeeze(1) if labels.ndim > 1 else labels, spec))


@pytest.mark.parametrize(("name", "variant"), RUNS)
def test_a_run_equals_the_official_code_epoch_by_epoch(name, variant):
    golden, (spec, settings) = _golden(name), OFFICIAL[name]
    aliased = variant == "ref" and spec is not NYU
    settings = settings.model_copy(update={"published_aliasing": aliased})
    module = FeatureSmoothing(settings, 6, spec.num_bins).double()
    epochs = sum(key.endswith("_features") for key in golden) - 1
    assert epochs >= 4
    # The features are given, whereas training would take them through `statistics`, smoothed if aliased.
    plain = FeatureSmoothing(settings.model_copy(update={"published_aliasing": False}), 6, spec.num_bins)
    for epoch in range(epochs):
        expected = {key.removeprefix(f"{variant}__e{epoch}_"): golden[key] for key in golden}
        batch = torch.from_numpy(golden["batch_features"])
        smoothed = module(batch, _bins(golden["batch_labels"], spec))
        _assert_equal(smoothed, expected["smooth_out"])
        features = torch.from_numpy(golden[f"epoch{epoch}_features"])
        module.end_epoch(plain.compute_statistics(features, _bins(golden[f"epoch{epoch}_labels"], spec)))
        for key, state in STATE.items():
            _assert_equal(state(module), expected[key])


@pytest.mark.parametrize("data", sorted(CLIPS))
@pytest.mark.parametrize("case", sorted(CALIBRATIONS))
def test_calibration_equals_the_official_code(data, case):
    golden, (clip, zero_variance) = _golden("calibrate_mean_var"), CLIPS[data]
    v1, v2 = CALIBRATIONS[case]
    moments, smoothed = (
        torch.from_numpy(np.stack([golden[mean], golden[variance]])[:, None])
        for mean, variance in (("m1", v1), ("m2", v2))
    )
    maps = make_calibration(moments, smoothed, clip=clip, zero_variance=zero_variance)
    found = (torch.from_numpy(golden["x"]) - maps.center) * maps.scale + maps.target
    _assert_equal(found, golden[f"{data}__{case}"])


def _assert_equal(found, expected):
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-13, atol=1e-14)


class _ByHand:
    """Feature smoothing in plain loops over bins and dimensions."""

    def __init__(self, settings, num_bins=BINS):
        self.settings, self.epoch = settings, 0
        self.bins = range(settings.first_bin, num_bins)
        self.running = {b: ([0.0] * DIM, [1.0] * DIM) for b in self.bins}
        self.frozen, self.smoothed = self.running, self.running
        self.seen = dict.fromkeys(self.bins, 0)

    def smooth(self, row, label_bin):
        if self.epoch < self.settings.start_smooth or label_bin < 0:
            return row
        at = max(label_bin, self.settings.first_bin)
        (mean, variance), (target, spread) = self.frozen[at], self.smoothed[at]
        if sum(variance) < 1e-10:
            return row
        low, high = self.settings.clip
        return [
            (x - m) * min(max(s / v, low), high) ** 0.5 + t if v else x
            for x, m, v, t, s in zip(row, mean, variance, target, spread, strict=True)
        ]

    def end_epoch(self, rows, label_bins):
        settings = self.settings
        if self.epoch > settings.start_update:
            self.frozen = dict(self.running)
            self.smoothed = {b: self._convolved(b) for b in self.bins}
        if self.epoch >= settings.start_update:
            self._update(rows, [max(b, settings.first_bin) for b in label_bins])
        if self.epoch > settings.start_update and settings.published_aliasing:
            self.frozen = dict(self.running)
        self.epoch += 1

    def _convolved(self, at):
        window = make_kernel_window(self.settings.kernel, self.settings.size, self.settings.sigma)
        first, last = self.bins[0], self.bins[-1]
        moments = ([0.0] * DIM, [0.0] * DIM)
        for offset, weight in enumerate(window / window.sum(), start=-(len(window) // 2)):
            b = abs(at + offset - first) + first
            b = last - abs(last - b)
            for kind in (0, 1):
                for d in range(DIM):
                    moments[kind][d] += weight * self.frozen[b][kind][d]
        return moments

    def _update(self, rows, label_bins):
        for b in self.bins:
            own = [row for row, label_bin in zip(rows, label_bins, strict=True) if label_bin == b]
            if not own:
                continue
            self.seen[b] += len(own)
            f = self.settings.momentum
            f = 1 - len(own) / self.seen[b] if f is None else f
            f = 0.0 if self.epoch == self.settings.start_update else f
            means = [float(np.mean([row[d] for row in own])) for d in range(DIM)]
            spreads = [float(np.var([row[d] for row in own], ddof=1)) if len(own) > 1 else 0.0 for d in range(DIM)]
            fresh = (means, spreads)
            self.running[b] = tuple(
                [(1 - f) * fresh[k][d] + f * self.running[b][k][d] for d in range(DIM)] for k in (0, 1)
            )
        if self.settings.fill_empty:
            for b in self.bins:
                if b not in label_bins:
                    near = [self.running[n] for n in (b - 1, b + 1) if n in self.running]
                    self.running[b] = tuple(
                        [sum(n[k][d] for n in near) / len(near) for d in range(DIM)] for k in (0, 1)
                    )


def _samples(seed, rows=40, empty=(4, 7)):
    """Embeddings whose mean and spread depend on the bin; some bins are empty, one has one sample."""
    drawn = np.random.default_rng(seed)
    label_bins = drawn.choice([b for b in range(BINS) if b not in (*empty, 5)], rows)
    label_bins[0] = 5
    shift, spread = np.sin(label_bins)[:, None] * 3, 0.2 + label_bins[:, None] % 3
    return shift + spread * drawn.normal(size=(rows, DIM)), label_bins


def _module(settings, **changes):
    return FeatureSmoothing(settings.model_copy(update=changes), DIM, BINS).double()


def _after(settings, epochs):
    module = _module(settings)
    for epoch in range(epochs):
        rows, label_bins = map(torch.from_numpy, _samples(epoch))
        module.end_epoch(module.compute_statistics(rows, label_bins))
    return module


@pytest.mark.parametrize(
    "settings",
    [
        FDS(),
        FDS(momentum=None, kernel="triang", size=3),
        FDS(first_bin=2, kernel="laplace", clip=(0.8, 1.1)),
        FDS(start_update=1, start_smooth=3),
        FDS(fill_empty=True, size=7),
        FDS(published_aliasing=True, fill_empty=True),
        FDS(size=1),
    ],
    ids=str,
)
def test_a_run_equals_plain_loops(settings):
    module, by_hand = _module(settings), _ByHand(settings)
    module.window.copy_(torch.from_numpy(_normalized_window(settings)))
    for epoch in range(5):
        rows, label_bins = _samples(epoch)
        found = module(torch.from_numpy(rows), torch.from_numpy(label_bins))
        smoothed = [by_hand.smooth(row, b) for row, b in zip(rows, label_bins, strict=True)]
        torch.testing.assert_close(found, torch.tensor(np.array(smoothed)), rtol=1e-10, atol=1e-10)
        module.end_epoch(module.compute_statistics(torch.from_numpy(rows), torch.from_numpy(label_bins)))
        by_hand.end_epoch(smoothed if settings.published_aliasing else rows, label_bins.tolist())
    assert module.count.tolist() == list(by_hand.seen.values())


def _normalized_window(settings):
    window = make_kernel_window(settings.kernel, settings.size, settings.sigma)
    return window / window.sum()


def test_smoothing_shows_from_the_third_epoch_on_and_in_training_only():
    rows, label_bins = map(torch.from_numpy, _samples(9))
    for epochs, changes in ((0, False), (1, False), (2, True), (3, True)):
        module = _after(FDS(), epochs)
        assert torch.equal(module(rows, label_bins), rows) != changes
        assert module.eval()(rows, label_bins) is rows


def test_a_row_with_a_negative_bin_is_left_as_it_is():
    rows, label_bins = map(torch.from_numpy, _samples(9))
    module = _after(FDS(first_bin=2), 3)
    smoothed = module(rows, label_bins)
    label_bins[::2] = -1
    found = module(rows, label_bins)
    assert torch.equal(found[::2], rows[::2])
    assert torch.equal(found[1::2], smoothed[1::2])
    assert not torch.equal(smoothed[::2], rows[::2])


def test_the_moments_are_constants_to_the_gradient():
    rows, label_bins = map(torch.from_numpy, _samples(9))
    module = _after(FDS(), 3)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: module(x, label_bins), rows)
    clip, rule = module.settings.clip, module.settings.zero_variance
    maps = make_calibration(module.frozen, module.smoothed, clip=clip, zero_variance=rule)
    module(rows, label_bins).sum().backward()
    torch.testing.assert_close(rows.grad, maps.scale[label_bins])


def test_half_precision_embeddings_are_smoothed_in_float32():
    module = _after(FDS(), 3).float()
    rows, label_bins = map(torch.from_numpy, _samples(9))
    half = rows.to(torch.bfloat16)
    found = module(half, label_bins)
    assert found.dtype == torch.float32
    assert torch.equal(found, module(half.float(), label_bins))


def test_a_dense_embedding_is_one_row_per_pixel():
    rows, label_bins = map(torch.from_numpy, _samples(9, rows=24))
    dense, dense_bins = rows.reshape(2, 3, 4, DIM).permute(0, 3, 1, 2), label_bins.reshape(2, 3, 4)
    module = _after(FDS(), 3)
    found = module(dense, dense_bins).permute(0, 2, 3, 1).reshape(24, DIM)
    assert torch.equal(found, module(rows, label_bins))
    for ours, theirs in zip(
        _parts(module.compute_statistics(dense, dense_bins)),
        _parts(module.compute_statistics(rows, label_bins)),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def _parts(statistics):
    return statistics.count, statistics.mean, statistics.squares


@pytest.mark.parametrize("zero_variance", ["skip_dimension", "skip_bin"])
def test_a_dimension_that_does_not_vary_is_left_as_it_is_or_its_whole_bin(zero_variance):
    module = _module(FDS(), zero_variance=zero_variance)
    rows, label_bins = map(torch.from_numpy, _samples(0))
    rows[label_bins == 2, 1] = 0.0
    for _ in range(3):
        module.end_epoch(module.compute_statistics(rows, label_bins))
    unchanged = module(rows, label_bins) == rows
    assert unchanged[label_bins == 2, 1].all()
    assert unchanged[label_bins == 2][:, [0, 2]].all() == (zero_variance == "skip_bin")
    assert unchanged[label_bins == 5].all(), "a bin of one sample has no variance"
    assert not unchanged[label_bins == 3].any()


def test_aliased_statistics_are_of_smoothed_embeddings():
    rows, label_bins = map(torch.from_numpy, _samples(9))
    module = _after(FDS(published_aliasing=True), 3)
    smoothed = module(rows, label_bins)
    intended = _module(FDS()).compute_statistics(smoothed, label_bins)
    torch.testing.assert_close(module.compute_statistics(rows, label_bins).mean, intended.mean)
    assert torch.equal(module.frozen, module.running)
    assert not torch.equal(_after(FDS(), 3).frozen, _after(FDS(), 3).running)


@pytest.mark.parametrize("settings", [FDS(), FDS(momentum=None, published_aliasing=True)], ids=str)
def test_a_run_that_is_restored_goes_on_as_if_it_had_not_stopped(settings):
    whole, stopped = _after(settings, 2), _after(settings, 2)
    continued = _module(settings)
    continued.load_state_dict({k: v.clone() for k, v in stopped.state_dict().items()})
    for epoch in (2, 3):
        rows, label_bins = map(torch.from_numpy, _samples(epoch))
        for module in (whole, continued):
            module.end_epoch(module.compute_statistics(rows, label_bins))
    assert continued.epochs == whole.epochs == 4
    assert torch.equal(continued(rows, label_bins), whole(rows, label_bins))


def test_every_state_is_a_tensor_and_changes_in_place():
    module = _after(FDS(), 1)
    assert all(isinstance(value, torch.Tensor) for value in module.state_dict().values())
    places = {name: buffer.data_ptr() for name, buffer in module.named_buffers()}
    rows, label_bins = map(torch.from_numpy, _samples(1))
    module.end_epoch(module.compute_statistics(rows, label_bins))
    assert {name: buffer.data_ptr() for name, buffer in module.named_buffers()} == places


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_statistics_of_parts_add_up_far_from_zero(parts):
    rows, label_bins = _samples(3, rows=50)
    rows = rows * 1e-3 + 1e6
    pieces = zip(np.array_split(rows, parts), np.array_split(label_bins, parts), strict=True)
    none = BinStatistics.from_rows(torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64), BINS)
    merged = reduce(add, (BinStatistics.from_rows(*map(torch.from_numpy, piece), BINS) for piece in pieces), none)
    for b in range(BINS):
        own = rows[label_bins == b]
        assert int(merged.count[b]) == len(own)
        if len(own):
            np.testing.assert_allclose(merged.mean[b], own.mean(axis=0), rtol=1e-15)
            np.testing.assert_allclose(merged.squares[b] / len(own), own.var(axis=0), rtol=1e-6)
        if len(own) > 1:
            np.testing.assert_allclose(merged.variance[b], own.var(axis=0, ddof=1), rtol=1e-6)
        else:
            assert not merged.variance[b].any()


def test_float32_embeddings_are_summed_in_float64():
    rows = torch.full((4, 1), 3e5) + torch.tensor([[0.0], [0.25], [0.5], [0.75]])
    statistics = BinStatistics.from_rows(rows.float(), torch.zeros(4, dtype=torch.int64), 1)
    assert statistics.mean.item() == 3e5 + 0.375
    assert statistics.variance.item() == np.var([0.0, 0.25, 0.5, 0.75], ddof=1)


def test_bins_below_the_first_count_as_the_first():
    rows, label_bins = map(torch.from_numpy, _samples(0))
    module = _module(FDS(first_bin=2))
    clamped = module.compute_statistics(rows, label_bins.clamp(min=2))
    for ours, theirs in zip(_parts(module.compute_statistics(rows, label_bins)), _parts(clamped), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("first_bin", "num_bins"), [(0, 2), (6, 8), (9, 8), (0, 0)])
def test_a_window_too_wide_for_the_bins_is_refused(first_bin, num_bins):
    with pytest.raises(InputError, match=r"reweighting.fds: size: half the window .*, got 5"):
        FeatureSmoothing(FDS(first_bin=first_bin), DIM, num_bins)


def test_the_smallest_number_of_bins_works():
    module = FeatureSmoothing(FDS(), DIM, 3)
    rows = torch.randn(9, DIM)
    for _ in range(3):
        module.end_epoch(module.compute_statistics(rows, torch.arange(9) % 3))
    assert module(rows, torch.arange(9) % 3).isfinite().all()
