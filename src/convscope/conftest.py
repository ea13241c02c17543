"""Networks for several tests: a toy that can be worked out by hand, and torchvision's with random weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from convscope.images import write_image
from convscope.index import Index
from convscope.network import Network
from convscope.scanning import scan
from convscope.zoo import load_network
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


COLOURS = {"blue": (0.15, 0.2, 0.75), "green": (0.2, 0.65, 0.2), "red": (0.8, 0.2, 0.15)}
COLOUR_NET = """
from torch import nn

def make():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))
"""


def colour_pictures(folder: Path, each: int = 8) -> Path:
    """Folders blue, green and red, with ``each`` pictures of 40 x 48: a square of the colour on noisy grey."""
    for place, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            chance = torch.Generator().manual_seed(100 * place + number)
            picture = 0.4 + 0.1 * torch.rand(3, 40, 48, generator=chance)
            top, left = torch.randint(4, 20, (2,), generator=chance).tolist()
            picture[:, top : top + 16, left : left + 16] += torch.tensor(colour).view(3, 1, 1) * 0.5
            write_image(picture.clamp(0, 1), folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def colour_spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Options of ``load_network`` for a tiny network that tells the colours of ``colour_pictures`` apart, mostly."""
    folder = tmp_path_factory.mktemp("colour-network")
    (folder / "colours.py").write_text(COLOUR_NET)
    spec = {"network": f"{folder / 'colours.py'}:make", "labels": list(COLOURS), "input_size": 32}
    network = load_network(**spec, weights="random")
    tones = torch.tensor(list(COLOURS.values())).view(3, 3, 1, 1).expand(-1, -1, 32, 32)
    codes = network.module[:-1](0.45 + 0.15 * tones)  # pictures that are one square all over
    state = dict(network.module.state_dict())
    wanted = 8 * (torch.eye(3) - 1 / 3)  # scores of the three
    state["7.weight"] = wanted @ torch.linalg.pinv((codes - codes.mean(0)).detach().T)
    state["7.bias"] = -(state["7.weight"] * codes.mean(0)).sum(1).detach()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "colours.safetensors")
    return spec | {"weights": str(folder / "colours.safetensors")}


@pytest.fixture(scope="session")
def colour_index(tmp_path_factory: pytest.TempPathFactory, colour_spec: dict[str, object]) -> Index:
    """24 pictures of three classes and a broken one, scanned by a tiny network of two convolutions."""
    folder = tmp_path_factory.mktemp("colour-pictures")
    colour_pictures(folder)
    (folder / "green" / "broken.png").write_bytes(b"\x89PNG but not for long")
    return scan(load_network(**colour_spec), folder, folder.parent / f"{folder.name}.index", loaded=colour_spec)
