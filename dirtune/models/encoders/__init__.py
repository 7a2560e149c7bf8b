"""Encoders, and the dict of their names.

Each is a `Frozen` spec whose `build(inputs)` makes the module for a data set's inputs. To add one, write its file and add
its line here; the contract test covers it.
"""

from dirtune.models.encoders.bilstm import BiLSTM
from dirtune.models.encoders.cnn import CNN
from dirtune.models.encoders.depth_resnet import DepthResNet
from dirtune.models.encoders.lenet import LeNet
from dirtune.models.encoders.mlp import MLP
from dirtune.models.encoders.pair_mlp import PairMLP
from dirtune.models.encoders.resnet import ResNet18, ResNet50

ENCODERS = {
    "bilstm": BiLSTM,
    "cnn": CNN,
    "depth_resnet": DepthResNet,
    "lenet": LeNet,
    "mlp": MLP,
    "pair_mlp": PairMLP,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
}
