"""Small networks whose maps can be worked out by hand."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network

SIZE = (8, 10)


def _network(module: nn.Module, name: str) -> Network:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    module.eval().requires_grad_(False)
    return Network(module, mean=mean, std=std, name=name, input_size=SIZE, labels=("ant", "bee", "cat"))


@pytest.fixture
def averaging() -> Network:
    """conv, relu, global average pooling and one linear layer: CAM's own case."""
    return _network(
        nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 5, 3, padding=1), relu=nn.ReLU(inplace=True),
                pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(5, 3),
            )
        ),
        "averaging",
    )  # fmt: skip


@pytest.fixture
def deep() -> Network:
    """Two convolutions and a classifier that is not linear in either: nothing about it is easy."""
    return _network(
        nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(4, 6, 3, stride=2, padding=1), relu2=nn.ReLU(inplace=True),
                flatten=nn.Flatten(), fc1=nn.Linear(6 * 4 * 5, 7), relu3=nn.ReLU(inplace=True), fc2=nn.Linear(7, 3),
            )
        ),
        "deep",
    )  # fmt: skip


@pytest.fixture
def pictures() -> Tensor:
    """(3, 3, 8, 10)."""
    return torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(2))
