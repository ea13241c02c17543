"""Small networks for the tests of attacks, in double precision so that a sign is never a matter of rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.network import Network


@pytest.fixture
def victim() -> Network:
    """Three classes, a little of everything, on pictures of 8x9."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.SiLU(), nn.Flatten(),
            nn.Linear(8 * 2 * 2, 3),
        ).double().eval()  # fmt: skip
        module[-1].weight.data *= 4
    half = torch.full((3,), 0.5, dtype=torch.float64)
    return Network(module, mean=half, std=half / 2, labels=("ant", "bee", "cat"), name="victim", input_size=(8, 9))


@pytest.fixture
def images() -> Tensor:
    """Five pictures, some of whose pixels are black or white."""
    noise = torch.rand(5, 3, 8, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return noise.mul(1.1).sub(0.05).clamp(0, 1)


@pytest.fixture
def classes(victim: Network, images: Tensor) -> Tensor:
    """What the network takes the pictures for."""
    with torch.no_grad():
        return victim(images).argmax(1)
