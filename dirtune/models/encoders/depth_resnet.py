"""Dense encoder, with an embedding for each pixel: a residual network, a decoder, and fused features of all scales.

    image (3, H, W) -> residual network: four scales, the finest at a quarter of the image
    decoder         -> from the coarsest scale, four up-projections to half of the image
    fusion          -> every scale, up-projected to half of the image, fused by a 5x5 convolution
    refinement      -> decoder and fusion, concatenated, through two 5x5 convolutions: the embedding (dim, H/2, W/2)

The prediction is one more 5x5 convolution, which is the regressor's predictor (`dirtune.models.dense_regressor`). With
ResNet-50 the embedding has 128 values for each pixel, with ResNet-18 80.

Source: Hu et al., "Revisiting Single Image Depth Estimation: Toward Higher Resolution Maps with Accurate Object Boundaries",
WACV 2019, the network of NYUD2-DIR (Yang et al., ICML 2021, `nyud2-dir`); up-projection after Laina et al., "Deeper Depth
Prediction with Fully Convolutional Residual Networks", 3DV 2016. Departures: 1. images arrive in [0, 1] and are normalized
here with the mean and deviation of ImageNet, there by the data set; 2. up-projections align the corners of two grids, unless
`align_corners` is off, as in NYUD2-DIR.
"""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.frozen import Added, Frozen
from dirtune.models.encoders import encoder, resnet

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Channels of each scale in the fusion
_FUSED = 16


class DepthResNet(Frozen):
    """Residual network with up-projection decoder, multi-scale fusion and refinement; one embedding per pixel."""

    name: Literal["depth_resnet"] = "depth_resnet"
    base: Literal["resnet18", "resnet50"] = "resnet50"
    """The residual network; resnet50 in the papers."""
    weights_file: str | None = None
    """A state dict of the base as torchvision saves it (its last layer is ignored), in the papers that of ImageNet; None
    means random weights."""
    align_corners: Annotated[bool, Added()] = True
    """Alignment of the pixels in up-projections. True: corners of both grids coincide, the only way of torch when Hu et al.
    wrote the network; False: the default of the torch versions that NYUD2-DIR was published with."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> encoder.Encoder:
        """Return the encoder, initialized from torch's global generator or the weights file.

        Raises:
            InputError: the inputs do not fit, or the weights file cannot be used.
        """
        # A local import: it takes as long as that of torch itself, and the other encoders do without.
        from torchvision.models import get_model

        name = encoder.find_only_input(self.name, "image", inputs)
        if inputs[name].shape[0] != 3:
            raise encoder.make_input_error(self.name, "an image input of three channels", inputs)
        network = get_model(self.base)
        coarsest, network.fc = int(network.fc.in_features), nn.Identity()
        if self.weights_file is not None:
            resnet.load_weights(network, self.weights_file)
        return _DepthResNet(name, network, coarsest, align_corners=self.align_corners)


class _DepthResNet(encoder.Encoder):
    is_dense = True
    mean: Tensor
    deviation: Tensor

    def __init__(self, reads: str, network: Any, coarsest: int, *, align_corners: bool) -> None:
        super().__init__()
        self.reads = reads
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.scales = nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])
        channels = [coarsest // 8, coarsest // 4, coarsest // 2, coarsest]
        self.bridge = _make_convolution(coarsest, coarsest // 2, size=1)
        halved = [(coarsest >> step, coarsest >> (step + 1)) for step in range(1, 5)]
        self.decoder = nn.ModuleList([_UpProjection(*each, align_corners=align_corners) for each in halved])
        self.lifts = nn.ModuleList([_UpProjection(each, _FUSED, align_corners=align_corners) for each in channels])
        fused = _FUSED * len(channels)
        self.fusion = _make_convolution(fused, fused, size=5)
        self.embedding_dim = coarsest // 32 + fused
        self.refinement = nn.Sequential(
            *(_make_convolution(self.embedding_dim, self.embedding_dim, size=5) for _ in range(2))
        )
        for name, colors in (("mean", _MEAN), ("deviation", _DEVIATION)):
            values = torch.tensor(colors)[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim height width"]:
        images = (inputs[self.reads] - self.mean) / self.deviation
        # Rounded up, as the strided convolutions round
        half = [-(-side // 2) for side in images.shape[-2:]]
        features, found = self.stem(images), []
        for scale in self.scales:
            features = scale(features)
            found.append(features)
        sizes = [*(each.shape[-2:] for each in reversed(found[:-1])), half]
        decoded = self.bridge(features)
        for step, size in zip(self.decoder, sizes, strict=True):
            decoded = step(decoded, size)
        lifted = [lift(each, half) for lift, each in zip(self.lifts, found, strict=True)]
        fused = self.fusion(torch.cat(lifted, dim=1))
        embeddings: Tensor = self.refinement(torch.cat([decoded, fused], dim=1))
        return embeddings


class _UpProjection(nn.Module):
    """Bilinear upsampling, then the sum of two branches: a 5x5 and a 3x3 convolution, and one 5x5 convolution."""

    def __init__(self, given: int, made: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.long = nn.Sequential(
            _make_convolution(given, made, size=5),
            nn.Conv2d(made, made, 3, padding=1, bias=False),
            nn.BatchNorm2d(made),
        )
        self.short = nn.Sequential(nn.Conv2d(given, made, 5, padding=2, bias=False), nn.BatchNorm2d(made))

    def forward(self, features: Tensor, size: Any) -> Tensor:
        # To a given size instead of by a factor of two: the encoder rounds odd sizes up.
        upsampled = F.interpolate(features, tuple(size), mode="bilinear", align_corners=self.align_corners)
        return F.relu(self.long(upsampled) + self.short(upsampled))


def _make_convolution(given: int, made: int, *, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(given, made, size, padding=size // 2, bias=False), nn.BatchNorm2d(made), nn.ReLU())
