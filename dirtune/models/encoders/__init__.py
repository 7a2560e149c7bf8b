"""Encoders, and the registry of their names.

Each is a `Frozen` spec whose `build(inputs)` makes the module for a data set's inputs. To add one, write its file and add
its line here; the contract test covers it.
"""

from dirtune.models.encoders import (
    bilstm,
    cnn,
    depth_resnet,
    lenet,
    mlp,
    module,
    pair_mlp,
    resnet,
    timm,
    torchvision,
    transformers,
)
from dirtune.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "bilstm": bilstm.BiLSTM,
        "cnn": cnn.CNN,
        "depth_resnet": depth_resnet.DepthResNet,
        "lenet": lenet.LeNet,
        "mlp": mlp.MLP,
        "module": module.Module,
        "pair_mlp": pair_mlp.PairMLP,
        "resnet18": resnet.ResNet18,
        "resnet50": resnet.ResNet50,
        "timm": timm.Timm,
        "torchvision": torchvision.Torchvision,
        "transformers": transformers.Transformers,
    },
)
