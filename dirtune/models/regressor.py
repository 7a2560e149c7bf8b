"""Regressor for one label per sample: encoder `f`, projection `g`, predictor `h`; its spec and its output.

    e = f(x)                                embedding
    z = g(e) / |g(e)|                       representation on the hypersphere; without projection z = e / |e|
    prediction = offset + scale * h(...)    in the label's unit, or of its `label_transform`; h reads z, g(e) or e

With H projection heads `z = (g_1(e) / |g_1(e)|, ..., g_H(e) / |g_H(e)|) / sqrt(H)`, again of unit length: the cosine of
two representations is the mean of their heads' cosines. With feature smoothing (`dirtune.models.fds`) the input of `h`
in training is computed from the smoothed `e`; the representations that the terms read are of the unsmoothed one, unless
`FDS.smooths_terms` is set.

Source: Zhao et al., "ACCon", AAAI 2025 (its framework and its official code); Keramati et al., "ConR", ICLR 2024 (no
projection, the predictor reads `e`); heads after Wang et al., "Adaptive Multi-head Contrastive Learning", ECCV 2024,
without its adaptive temperatures. ACCon's text puts `h` on the normalized `z`; its code does so on STS-B-DIR only
(label divided by 5) and reads the projection before normalization on ages. All three are offered; the default is the
text's. Departures: 1. `h` has a bias everywhere (ACCon's text has none, its code has one); 2. the ReLU on the output, which
ACCon's code has on ages and which stops learning where the output is negative, is there only if `predictor_output` asks
for it; 3. a vector of zero length has the representation zero and passes no gradient, where division by a tiny number
would pass an enormous one; a head of zero length reduces the length of the whole representation by its share.
"""

import math
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from dirtune import part_errors
from dirtune.batch import Inputs, Mixture
from dirtune.frozen import Added, Frozen
from dirtune.losses.pairs import normalize_rows, to_at_least_float32
from dirtune.manifest import LabelTransform
from dirtune.models import encoders, fds, heads
from dirtune.models.encoders.encoder import Encoder
from dirtune.signatures import describe_value
from dirtune.wording import format_count

PredictorInput = Literal["representation", "projection", "embedding"]


def make_encoder_union() -> Any:
    """Return the union of all registered encoders."""
    return reduce(or_, encoders.ENCODERS.values())


AnyEncoder = Annotated[make_encoder_union(), Field(discriminator="name")]  # type: ignore[valid-type]


class PixelUnits(Frozen):
    """Units of the pixels that an encoder reads: `(pixel - mean) / deviation` for each channel of images in [0, 1]."""

    mean: tuple[float, ...]
    deviation: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _check_channels(self) -> "PixelUnits":
        if len(self.mean) != len(self.deviation):
            raise ValueError("mean and deviation must have a number for each channel")
        return self


class ModelSpec(Frozen):
    """Settings of a regressor, as a value."""

    encoder: AnyEncoder  # type: ignore[valid-type]
    projection_dim: int | None = Field(default=None, gt=0)
    """Size of the representation, or of each head's part of it; None means no projection layer."""
    projection_heads: int = Field(default=1, gt=0)
    """Number of parallel projections, each normalized on its own."""
    projection_layers: Annotated[Literal[1, 2], Added()] = 1
    """Linear layers of the projection. 2: linear, of the size of e, ReLU, linear, as ACCon's code has for SupCon and AdaSupCon
    (`contraNet_scl`, `contraNet_ada`), whose predictors read e."""
    predictor_input: PredictorInput = "representation"
    """Input of the predictor: z, the projection before normalization, or e. Without projection it is always e."""
    predictor_output: Annotated[Literal["linear", "relu"], Added()] = "linear"
    """relu: outputs below zero become zero, as in ACCon's code on ages for the arms with a projection; such a row has no
    gradient through its prediction."""
    label_scale: PositiveFloat | Literal["auto"] = "auto"
    """Label units per unit of the predictor's output; the regression loss is computed on labels divided by it, terms and
    metrics in label units. auto: the spread of the training labels (`dirtune.data.label_units`), which is recorded as a number.
    Papers: 1 on ages, 5 on STS-B-DIR."""
    label_offset: float | Literal["auto"] = "auto"
    """Prediction, in label units, at a predictor output of zero. auto: the median of the training labels. Papers: 0."""
    label_transform: Annotated[LabelTransform, Added()] = "none"
    """Function of the label that is trained, for labels over orders of magnitude: log, or log1p for labels that begin at zero
    (`dirtune.label_transform`). `label_scale`, `label_offset`, losses and terms are then in its unit; records and metrics are
    in the label's."""

    target_copies: Annotated[int, Added()] = Field(default=1, ge=1)
    """Copies of the label that the predictor has outputs for, each with the regression loss; the prediction is their mean (Zhang
    et al., ICLR 2025: multiple targets)."""

    pixel_units: Annotated[PixelUnits | Literal["auto"] | None, Added()] = "auto"
    """Mean and deviation with which images are standardized. auto: those of the training images if the data set's manifest has
    them, as that of own images does, or those of ImageNet if the encoder then has a `weights_file` and images three channels;
    published data sets, and null, leave pixels in [0, 1]."""

    @model_validator(mode="after")
    def _check_heads(self) -> "ModelSpec":
        for name in ("projection_heads", "projection_layers"):
            if getattr(self, name) > 1 and self.projection_dim is None:
                raise ValueError(f"{name} > 1 needs a projection_dim")
        return self

    def get_label_units(self) -> tuple[float, float]:
        """Return scale and offset.

        Raises:
            ValueError: one of them is still "auto"; `dirtune.data.label_units` makes it a number.
        """
        if self.label_scale == "auto" or self.label_offset == "auto":
            raise ValueError("label_scale and label_offset must be numbers")
        return self.label_scale, self.label_offset


class RegressorOutput(NamedTuple):
    """Output of the regressor for one view of a batch.

    A tuple, because `DistributedDataParallel` finds tensors only in containers that it knows: with a dataclass and a
    static graph it silently skips the reduction of gradients over ranks.
    """

    embeddings: Float[Tensor, "batch embedding_dim *space"]
    """The embedding e."""
    projections: Float[Tensor, "batch *heads dim"]
    """The projection of e before normalization, or e without one; by head if there are several."""
    predictions: Float[Tensor, "batch *label"]
    """In the unit of training, which is the label's unless `label_transform` is set; at least float32."""
    raw: Float[Tensor, "batch outputs"] | None = None
    """Raw outputs of a head (`dirtune.models.heads`), of which the predictions are decoded; None for a plain predictor."""
    directions: Float[Tensor, "batch representation_dim"] | None = None
    """The representation, if the predictor has read it."""

    @property
    def representations(self) -> Float[Tensor, "batch representation_dim"]:
        """The representation z, L2-normalized, at least float32; computed when it is asked for, as by a term."""
        return normalize_projections(self.projections) if self.directions is None else self.directions


class Regressor(nn.Module):
    """Encoder, projection (or none), feature smoothing (or none) and predictor."""

    def __init__(
        self,
        spec: ModelSpec,
        encoder: Encoder,
        projection: nn.Linear | nn.Sequential | None,
        predictor: nn.Linear | nn.Conv2d | heads.Head,
        smoothing: fds.FeatureSmoothing | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.label_scale, self.label_offset = spec.get_label_units()
        self.encoder = encoder
        self.projection = projection
        self.predictor = predictor
        self.smoothing = smoothing

    @property
    def vector_dims(self) -> dict[str, int]:
        """Sizes of the vectors that a term may read, by kind."""
        embedding = representation = self.encoder.embedding_dim
        if self.projection is not None:
            representation = self.spec.projection_heads * (self.spec.projection_dim or 0)
        return {"embedding": embedding, "direction": embedding, "representation": representation}

    def forward(
        self, inputs: Inputs, label_bins: Int[Tensor, " batch"] | None = None, mixture: Mixture | None = None
    ) -> RegressorOutput:
        """Return embeddings, representations and predictions of a batch.

        Args:
            inputs: one view, or several stacked.
            label_bins: bins of the same rows, for feature smoothing in training; None smooths nothing, a bin below
                zero leaves its row unsmoothed.
            mixture: partners with whose embeddings those of the inputs are combined; None combines nothing.
        """
        embeddings = self.embed(inputs)
        if mixture is not None:
            shares = mixture.shares[:, None].to(embeddings.dtype)
            embeddings = shares * embeddings + (1 - shares) * self.embed(mixture.partners)
        kind = embeddings.device.type
        # The rest is cheap, and bf16 has no numbers between 100 and 100.5. Embeddings of pixels are too large for it.
        if embeddings.ndim == 2 and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self._predict(to_at_least_float32(embeddings), label_bins)
        return self._predict(embeddings, label_bins)

    def embed(self, inputs: Inputs) -> Float[Tensor, "batch embedding_dim *space"]:
        """Return the embeddings of a batch.

        Raises:
            InputError: the encoder of a plug-in raises, or returns something else.
        """
        encoder = self.encoder
        # No part of a compiled or exported program: the encoder has been called before, or will be in the evaluation.
        if torch.compiler.is_compiling():
            compiled: Tensor = encoder(inputs)
            return compiled
        spec: Any = self.spec.encoder
        with part_errors.name_part("encoder", spec.name, spec):
            embeddings = encoder(inputs)
        dim, rows, is_dense = encoder.embedding_dim, next(iter(inputs.values())).shape[0], encoder.is_dense
        got = ""
        if not isinstance(embeddings, Tensor):
            got = describe_value(embeddings)
        elif embeddings.ndim != (4 if is_dense else 2) or embeddings.shape[1] != dim:
            numbers = f" and {embeddings.shape[1]} numbers in a row" if embeddings.ndim > 1 else ""
            got = f"{format_count(embeddings.ndim, 'dimension')}{numbers}"
        elif embeddings.shape[0] != rows:
            got = "another number of rows"
        elif not embeddings.is_floating_point():
            got = f"numbers of {embeddings.dtype}"
        if got:
            shape = f"(rows, {dim}{', height, width' if is_dense else ''})"
            rule = f"must return embeddings of shape {shape}, as its embedding_dim says"
            raise part_errors.make_part_error("encoder", spec.name, spec, rule, got)
        return embeddings  # type: ignore[no-any-return]

    def _predict(self, embeddings: Tensor, label_bins: Int[Tensor, " batch"] | None) -> RegressorOutput:
        read, projections = embeddings, self._project(embeddings)
        projections_read = projections
        if self.smoothing is not None and label_bins is not None:
            read = self.smoothing(embeddings, label_bins)
            # Before smoothing has begun, nothing is projected twice.
            if read is not embeddings:
                projections_read = self._project(read)
            if self.smoothing.settings.smooths_terms:
                embeddings, projections = read, projections_read
        directions = None
        if self.projection is None or self.spec.predictor_input == "embedding":
            raw = self.predictor(read)
        elif self.spec.predictor_input == "projection":
            raw = self.predictor(projections_read.flatten(1))
        else:
            directions_read = normalize_projections(projections_read)
            raw = self.predictor(directions_read)
            directions = directions_read if projections is projections_read else None
        if isinstance(self.predictor, heads.Head):
            predictions = self.label_scale * self.predictor.decode(raw)
            return RegressorOutput(embeddings, projections, predictions, raw, directions)
        predictions = self._scale_output(raw)
        # Labels of one dimension have shape (batch,), and (batch, 1) would be broadcast against them.
        if predictions.shape[-1] == 1:
            predictions = predictions.squeeze(-1)
        return RegressorOutput(embeddings, projections, predictions, directions=directions)

    def compute_deviations(self, output: RegressorOutput) -> Float[Tensor, " batch"] | None:
        """Return the predicted standard deviation of each label, in the unit of training; None without such a head."""
        if output.raw is None or not isinstance(self.predictor, heads.Head):
            return None
        deviations = self.predictor.decode_deviation(output.raw)
        return None if deviations is None else self.label_scale * deviations

    def _scale_output(self, raw: Tensor) -> Tensor:
        """Return predictions in the label's unit from outputs of the predictor."""
        raw = to_at_least_float32(raw)
        if self.spec.predictor_output == "relu":
            raw = raw.relu()
        return self.label_offset + self.label_scale * raw

    def _project(self, embeddings: Tensor) -> Float[Tensor, "batch *heads dim"]:
        if self.projection is None:
            return embeddings
        projected: Tensor = self.projection(embeddings)
        count = self.spec.projection_heads
        return projected if count == 1 else projected.unflatten(-1, (count, -1))


def normalize_projections(projections: Float[Tensor, "batch *heads dim"]) -> Float[Tensor, "batch representation_dim"]:
    """Return representations of length one: each row divided by its length, or by that of each head's part of it."""
    directions = normalize_rows(projections)
    return directions if directions.ndim == 2 else directions.flatten(1) / math.sqrt(directions.shape[1])
