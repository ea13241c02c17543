from __future__ import annotations

import torch
from torch import Tensor, nn

import convscope
from convscope.network import Network
from convscope.techniques.synthesize._layers import codes, stages


def network(module: nn.Module, side: int = 64) -> Network:
    return Network(module.eval(), input_size=(side, side))


def test_the_built_in_networks_stages_are_its_last_rectifiers() -> None:
    assert stages(convscope.load_network("builtin")) == ["relu1", "relu2_2", "relu3_2", "relu4_3"]


def test_more_of_a_stage_are_spread_and_end_with_the_last() -> None:
    found = stages(convscope.load_network("builtin"), each=2)
    assert found == ["relu1", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu4_2", "relu4_3"]
    assert stages(convscope.load_network("builtin"), each=9)[-3:] == ["relu4_1", "relu4_2", "relu4_3"]


def test_of_squeezenet_and_resnet_blocks_are_taken_and_class_maps_are_not() -> None:
    squeeze = convscope.load_network("torchvision:squeezenet1_0", weights="random")
    assert stages(squeeze) == ["features.1", "features.5", "features.10", "features.12"]
    residual = convscope.load_network("torchvision:resnet18", weights="random")
    assert stages(residual) == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_a_network_of_one_convolution_has_one_stage() -> None:
    assert stages(network(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()))) == ["1"]


def test_a_network_without_weights_gives_what_it_has() -> None:
    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.same(x))

    assert stages(network(Still())) == ["same"]


def test_behind_the_maps_are_the_code_and_the_scores() -> None:
    assert codes(convscope.load_network("builtin")) == ["relu5", "fc6"]
    assert codes(convscope.load_network("torchvision:resnet18", weights="random")) == ["avgpool", "fc"]
    assert codes(convscope.load_network("torchvision:squeezenet1_0", weights="random")) == ["classifier.3"]
