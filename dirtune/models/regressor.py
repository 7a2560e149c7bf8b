"""The regressor: encoder `f`, projection `g`, predictor `h`, and how it is built from a spec and a seed.

    e = f(x)                                embedding
    z = g(e) / |g(e)|                       representation on the hypersphere; without projection z = e / |e|
    prediction = offset + scale * h(...)    in the label's unit; h reads z, g(e) or e

With H projection heads `z = (g_1(e) / |g_1(e)|, ..., g_H(e) / |g_H(e)|) / sqrt(H)`, again of unit length: the cosine of
two representations is the mean of their heads' cosines. With feature smoothing (`dirtune.models.fds`) `h` reads, in
training, what becomes of the smoothed `e`; the representations that the terms see are of the unsmoothed one.

Source: Zhao et al., "ACCon", AAAI 2025 (its framework and its official code); Keramati et al., "ConR", ICLR 2024 (no
projection, the predictor reads `e`); heads after Wang et al., "Adaptive Multi-head Contrastive Learning", ECCV 2024,
without its adaptive temperatures. ACCon's text puts `h` on the normalised `z`; its code does so on STS-B-DIR only
(label divided by 5) and reads the projection before normalisation on ages. All three are offered; the default is the
text's. Departures: 1. `h` has a bias everywhere (ACCon's text: none; its code: bias, and a ReLU on the output, which
stops learning where the output is negative and is left out here); 2. a vector without length has the representation zero and
passes no gradient, where division by a tiny number would pass an enormous one, and a head without length takes its
share of the unit length away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from dirtune.batch import Inputs
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.manifest import InputSpec
from dirtune.models.encoders import ENCODERS
from dirtune.models.encoders.bilstm import BiLSTM
from dirtune.models.encoders.encoder import Encoder
from dirtune.models.fds import FeatureSmoothing
from dirtune.randomness import derive_seed
from dirtune.reweighting.fds import FDS

PredictorInput = Literal["representation", "projection", "embedding"]
AnyEncoder = Annotated[reduce(or_, ENCODERS.values()), Field(discriminator="name")]  # type: ignore[valid-type]

# A vector shorter than this has no direction
_SHORTEST = 1e-6


class ModelSpec(Frozen):
    """The regressor as a value."""

    encoder: AnyEncoder  # type: ignore[valid-type]
    projection_dim: int | None = Field(default=None, gt=0)
    """Size of the representation, or of each head's part of it; none: no projection layer."""
    projection_heads: int = Field(default=1, gt=0)
    """Projections side by side, each normalised on its own."""
    predictor_input: PredictorInput = "representation"
    """What the predictor reads: z, the projection before normalisation, or e. Without projection it always reads e."""
    label_scale: float = Field(default=1.0, gt=0)
    """Label units per unit of the predictor's output; the regression loss is taken on labels divided by it, terms and
    metrics see label units. Papers: 1 on ages, 5 on STS-B-DIR."""
    label_offset: float = 0.0
    """The prediction, in label units, where the predictor's output is zero. Papers: 0."""

    @model_validator(mode="after")
    def _heads_need_a_size(self) -> ModelSpec:
        if self.projection_heads > 1 and self.projection_dim is None:
            raise ValueError("projection_heads > 1 needs a projection_dim")
        return self


class RegressorOutput(NamedTuple):
    """What the regressor says about one view of a batch.

    A tuple, because `DistributedDataParallel` finds tensors only in containers that it knows: behind a dataclass and a
    static graph it leaves the gradients of the ranks apart, without a word.
    """

    embeddings: Float[Tensor, "batch embedding_dim *space"]
    """E."""
    representations: Float[Tensor, "batch representation_dim"]
    """Z, L2-normalised, float32 at least."""
    predictions: Float[Tensor, "batch *label"]
    """In the label's unit, float32 at least."""


class Regressor(nn.Module):
    """Encoder, projection (or none), feature smoothing (or none) and predictor."""

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Encoder,
        projection: nn.Linear | None,
        predictor: nn.Linear | nn.Conv2d,
        smoothing: FeatureSmoothing | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.projection = projection
        self.predictor = predictor
        self.smoothing = smoothing

    def forward(self, inputs: Inputs, label_bins: Int[Tensor, " batch"] | None = None) -> RegressorOutput:
        """What the regressor says about a batch.

        Args:
            inputs: one view, or several stacked.
            label_bins: of the same rows, for feature smoothing in training; without them nothing is smoothed, and
                neither is a row whose bin is below zero.
        """
        embeddings = self.encoder(inputs)
        vectors = read = self._vectors(embeddings)
        if self.smoothing is not None and label_bins is not None:
            smoothed = self.smoothing(embeddings, label_bins)
            read = vectors if smoothed is embeddings else self._vectors(smoothed)
        predictor_input = "embedding" if self.projection is None else self.spec.predictor_input
        raw = _at_least_float32(self.predictor(read[predictor_input]))
        predictions = self.spec.label_offset + self.spec.label_scale * raw
        if predictions.shape[-1] == 1:
            predictions = predictions.squeeze(-1)
        return RegressorOutput(embeddings, vectors["representation"], predictions)

    def _vectors(self, embeddings: Tensor) -> dict[PredictorInput, Tensor]:
        projected = embeddings if self.projection is None else self.projection(embeddings)
        heads = self.spec.projection_heads
        directions = normalised(projected.unflatten(-1, (heads, -1))).flatten(-2) / math.sqrt(heads)
        return {"embedding": embeddings, "projection": projected, "representation": directions}


def build_regressor(
    spec: ModelSpec,
    inputs: dict[str, InputSpec],
    seed: int,
    vocabulary: Sequence[str] | None = None,
    *,
    smoothing: FDS | None = None,
    num_bins: int = 0,
    label_dim: int = 1,
    maps: bool = False,
) -> Regressor:
    """A regressor for a data set's inputs, on the CPU, determined by its arguments alone.

    Encoder, projection and predictor are initialised from a stream each, so that arms that differ in one part start
    equal in the others. The caller's random state is left as it was.

    Args:
        spec: the regressor as a value.
        inputs: of the data set, from its manifest.
        seed: of the trial.
        vocabulary: tokens by id, for encoders that start from word vectors.
        smoothing: of the embeddings that the predictor reads; none: not smoothed.
        num_bins: label bins of the data set, for smoothing.
        label_dim: dimensions of the label; predictions are `(batch,)` for one, `(batch, label_dim)` for more.
        maps: every pixel has a label; the regressor is a `dirtune.models.dense_regressor.MapRegressor`.

    Raises:
        InputError: the inputs do not fit the encoder, a file it names cannot be used, the smoothing does not fit the
            label bins, or what the encoder makes does not fit the labels.
    """
    with _own_stream(seed, "encoder"):
        encoder = _build_encoder(spec, inputs, vocabulary)
    _check_maps(spec, encoder, maps=maps)
    smooth = FeatureSmoothing(smoothing, encoder.embedding_dim, num_bins) if smoothing else None
    if maps:
        return _map_regressor(spec, encoder, seed, smooth)
    projection, read_dim = None, encoder.embedding_dim
    if spec.projection_dim is not None:
        with _own_stream(seed, "projection"):
            projection = nn.Linear(encoder.embedding_dim, spec.projection_heads * spec.projection_dim)
        if spec.predictor_input != "embedding":
            read_dim = projection.out_features
    with _own_stream(seed, "predictor"):
        predictor = nn.Linear(read_dim, label_dim)
    return Regressor(spec, encoder, projection, predictor, smooth)


def _check_maps(spec: ModelSpec, encoder: Encoder, *, maps: bool) -> None:
    if encoder.makes_maps != maps:
        made, has = (
            ("each pixel", "one label") if encoder.makes_maps else ("the whole sample", "a label for each pixel")
        )
        rule = f"makes an embedding for {made}, but a sample of this data set has {has}"
        raise InputError(Fault(where="model.encoder", rule=rule, got=_name_of(spec)))
    if maps and spec.projection_dim is not None:
        rule = "there is no projection of embeddings of pixels"
        raise InputError(Fault(where="model.projection_dim", rule=rule, got=spec.projection_dim))


def _name_of(spec: ModelSpec) -> str:
    encoder: Any = spec.encoder
    return str(encoder.name)


def _map_regressor(spec: ModelSpec, encoder: Encoder, seed: int, smoothing: FeatureSmoothing | None) -> Regressor:
    # Here, because a regressor of maps is a regressor.
    from dirtune.models.dense_regressor import MapRegressor, map_predictor

    with _own_stream(seed, "predictor"):
        predictor = map_predictor(encoder.embedding_dim)
    return MapRegressor(spec, encoder, None, predictor, smoothing)


def normalised(vectors: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Each row divided by its length, in float32 at least; zero, with gradient zero, for a row without length."""
    vectors = _at_least_float32(vectors)
    lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    has_direction = lengths > _SHORTEST
    return torch.where(has_direction, vectors / torch.where(has_direction, lengths, 1.0), 0.0)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _build_encoder(spec: ModelSpec, inputs: dict[str, InputSpec], vocabulary: Sequence[str] | None) -> Encoder:
    # To a type checker, a union computed from ENCODERS is no type
    encoder: Any = spec.encoder
    built: Encoder = encoder.build(inputs, vocabulary) if isinstance(encoder, BiLSTM) else encoder.build(inputs)
    return built


@contextmanager
def _own_stream(seed: int, part: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would also seed the accelerators, which nothing here restores.
        torch.default_generator.manual_seed(derive_seed(seed, "init", part))
        yield
