"""Construction of regressors from a spec and a seed, on the CPU; the result depends on the arguments alone.

Encoder, projection and predictor are initialized from one random stream each, so that arms that differ in one part start
equal in the others. The caller's random state is left unchanged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from dirtune import manifest, part_errors, randomness
from dirtune.errors import Fault, InputError
from dirtune.models import dense_regressor, fds, heads, regressor
from dirtune.models.encoders.encoder import Encoder
from dirtune.models.pixels import PixelStandardization
from dirtune.reweighting.fds import FDS
from dirtune.signatures import describe_value


def build_regressor(
    spec: regressor.ModelSpec,
    inputs: dict[str, manifest.InputSpec],
    seed: int,
    vocabulary: Sequence[str] | None = None,
    *,
    smoothing: FDS | None = None,
    num_bins: int = 0,
    label_dim: int = 1,
    build_head: Callable[[int], heads.Head] | None = None,
) -> regressor.Regressor:
    """Return a regressor for one label per sample.

    Args:
        spec: the regressor as a value.
        inputs: the data set's inputs, from its manifest.
        seed: the trial's seed.
        vocabulary: tokens by id, for encoders that start from word vectors.
        smoothing: FDS of the embeddings that the predictor reads; None switches it off.
        num_bins: label bins of the data set, for the smoothing.
        label_dim: label dimensions; predictions have shape `(batch,)` for one, `(batch, label_dim)` for more.
        build_head: build a head from the size of what it reads; None means a linear predictor.

    Raises:
        InputError: the inputs do not fit the encoder, a file it names cannot be used, the smoothing does not fit the
            label bins, or the encoder makes per-pixel embeddings.
    """
    encoder = _build_encoder(spec, inputs, seed, vocabulary)
    if encoder.is_dense:
        raise _mismatch(spec, "makes an embedding for each pixel, but a sample of this data set has one label")
    smooth = fds.FeatureSmoothing(smoothing, encoder.embedding_dim, num_bins) if smoothing else None
    projection: nn.Linear | nn.Sequential | None = None
    read_dim = dim = encoder.embedding_dim
    if spec.projection_dim is not None:
        size = spec.projection_heads * spec.projection_dim
        with _random_stream(seed, "projection"):
            projection = (
                nn.Linear(dim, size)
                if spec.projection_layers == 1
                else nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, size))
            )
        if spec.predictor_input != "embedding":
            read_dim = size
    with _random_stream(seed, "predictor"):
        predictor = build_head(read_dim) if build_head else nn.Linear(read_dim, label_dim)
    return regressor.Regressor(spec, encoder, projection, predictor, smooth)


def build_dense_regressor(
    spec: regressor.ModelSpec,
    inputs: dict[str, manifest.InputSpec],
    seed: int,
    vocabulary: Sequence[str] | None = None,
    *,
    smoothing: FDS | None = None,
    num_bins: int = 0,
) -> dense_regressor.DenseRegressor:
    """Return a regressor for per-pixel labels; the arguments are those of `build_regressor`.

    Raises:
        InputError: as `build_regressor`; or the encoder makes one embedding per sample, or the spec has a projection.
    """
    encoder = _build_encoder(spec, inputs, seed, vocabulary)
    if not encoder.is_dense:
        rule = "makes one embedding for the whole sample, but this data set has per-pixel labels"
        raise _mismatch(spec, rule)
    if spec.projection_dim is not None:
        rule = "per-pixel embeddings have no projection"
        raise InputError(Fault(where="model.projection_dim", rule=rule, got=spec.projection_dim))
    smooth = fds.FeatureSmoothing(smoothing, encoder.embedding_dim, num_bins) if smoothing else None
    with _random_stream(seed, "predictor"):
        predictor = nn.Conv2d(
            encoder.embedding_dim, 1, dense_regressor.PREDICTOR_SIZE, padding=dense_regressor.PREDICTOR_SIZE // 2
        )
    return dense_regressor.DenseRegressor(spec, encoder, None, predictor, smooth)


def _build_encoder(
    spec: regressor.ModelSpec, inputs: dict[str, manifest.InputSpec], seed: int, vocabulary: Sequence[str] | None
) -> Encoder:
    # To a type checker, a union computed from ENCODERS is no type.
    encoder: Any = spec.encoder
    with _random_stream(seed, "encoder"):
        reads_words = getattr(encoder, "reads_vocabulary", False)
        with part_errors.name_part("encoder", encoder.name, encoder):
            built = encoder.build(inputs, vocabulary) if reads_words else encoder.build(inputs)
    dim = getattr(built, "embedding_dim", None)
    if not isinstance(built, Encoder) or not isinstance(dim, int) or dim < 1:
        rule = "`build` must return a dirtune.models.encoders.encoder.Encoder with a whole number `embedding_dim` above zero"
        raise part_errors.make_part_error("encoder", encoder.name, encoder, rule, describe_value(built))
    if not isinstance(spec.pixel_units, regressor.PixelUnits):
        return built
    if getattr(encoder, "standardizes_pixels", False):
        rule = "has no effect: the encoder standardizes images as its weights expect it; leave it out"
        raise InputError(Fault(where="model.pixel_units", rule=rule))
    channels = {name: each.shape[0] for name, each in inputs.items() if each.kind == "image"}
    mean, deviation = spec.pixel_units.mean, spec.pixel_units.deviation
    if any(number != len(mean) for number in channels.values()):
        rule = "must have a number for each channel of the images"
        raise InputError(Fault(where="model.pixel_units", rule=rule, got=len(mean)))
    return PixelStandardization(built, tuple(channels), mean, deviation)


def _mismatch(spec: regressor.ModelSpec, rule: str) -> InputError:
    encoder: Any = spec.encoder
    return InputError(Fault(where="model.encoder", rule=rule, got=encoder.name))


@contextmanager
def _random_stream(seed: int, part: str) -> Iterator[None]:
    """Seed torch's global CPU generator for one part of the regressor, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also seed the accelerators, which nothing here restores.
        torch.default_generator.manual_seed(randomness.derive_seed(seed, "init", part))
        yield
