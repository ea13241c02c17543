"""Networks for several tests: a toy that can be worked out by hand, and torchvision's with random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network
from convscope.zoo.torchvision_models import import_torchvision


class Toy(nn.Module):
    """captum's BasicModel_ConvNet_One_Conv, written out: its attributions are known from captum's own tests."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3)
        self.relu1 = nn.ReLU(inplace)
        self.fc1 = nn.Linear(8, 4)
        self.relu2 = nn.ReLU(inplace)
        with torch.no_grad():
            self.conv1.weight.fill_(1.0)
            self.conv1.bias.copy_(torch.tensor([-50.0, -75.0]))
            self.fc1.weight.copy_(torch.tensor([[1.0] * 5 + [-1.0] * 3]).expand(4, 8))
            self.fc1.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.fc1(self.relu1(self.conv1(x)).flatten(1)))


@pytest.fixture(params=[False, True], ids=["plain", "inplace"])
def toy(request: pytest.FixtureRequest) -> Network:
    """The toy on pictures of 4x4 in one channel, of which it sees the raw numbers."""
    module = Toy(inplace=request.param)
    return Network(module, mean=torch.zeros(1), std=torch.ones(1), name="toy", input_size=(4, 4))


@pytest.fixture
def ramp() -> Tensor:
    """(1, 1, 4, 4): 0 to 15, the picture that the toy's numbers are known for."""
    return torch.arange(16.0).reshape(1, 1, 4, 4)


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """``torchvision.models``."""
    return import_torchvision().models


@pytest.fixture(scope="session")
def random_network(models: ModuleType) -> Callable[..., Network]:
    """A torchvision network by name, with seeded random weights, in evaluation mode, for small pictures."""

    @lru_cache(maxsize=2)
    def build(name: str, side: int = 64) -> Network:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3", "vgg11") else {}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = models.get_model(name, weights=None, **options).eval()
        return Network(module, name=name, input_size=(side, side))

    return build
