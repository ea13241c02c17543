"""A network that sees colours, pictures of them, and methods that are known to be right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from convscope.evaluate.sample import Sample, sample
from convscope.network import Network

SIDE = 16
COLOURS = ("red", "green", "blue", "grey")


class Colours(nn.Module):
    """Four classes; the score is the brightness of a colour, or of all three, over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.scale = nn.Linear(4, 4)
        with torch.no_grad():
            mix = torch.cat([2 * torch.eye(3) - 1, torch.full((1, 3), 0.4)])
            self.conv.weight.copy_(mix[:, :, None, None])
            self.conv.bias.zero_()
            self.scale.weight.copy_(20 * torch.eye(4))
            self.scale.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.scale(self.pool(self.conv(x)).flatten(1))


@dataclass(frozen=True)
class Fixed:
    """A method that knows its maps."""

    maps: Tensor
    name: str = "fixed"
    control: bool = False

    def __call__(self, network: Network, images: Tensor, targets: Sequence[int]) -> Tensor:
        return self.maps


@pytest.fixture
def network() -> Network:
    return Network(Colours().eval(), labels=COLOURS, name="colours", input_size=(SIDE, SIDE), max_batch=5)


def spots(count: int = 8) -> tuple[Tensor, Tensor]:
    """Pictures (N, 3, S, S) of a coloured square on black, the colour going round, and where it is (N, S, S)."""
    generator = torch.Generator().manual_seed(0)
    images, masks = torch.zeros(count, 3, SIDE, SIDE), torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for number in range(count):
        top, left = torch.randint(0, SIDE - 8, (2,), generator=generator).tolist()
        masks[number, top : top + 8, left : left + 8] = True
        colour = torch.eye(3)[number % 4] if number % 4 < 3 else torch.ones(3)
        images[number] = colour[:, None, None] * masks[number]
    return images, masks


@pytest.fixture
def given(network: Network) -> Sample:
    """Eight pictures whose classes the network gets right, with masks."""
    images, masks = spots()
    return sample(network, images, labels=[number % 4 for number in range(8)], masks=masks)
