"""A small data set and a network for it, made up and learned in seconds: what questions on an index are shown on.

Discs, squares and crosses on soft grounds. Half of the discs are faint and carry a tag in the lower left corner, as the
horses of Pascal VOC once did (Lapuschkin et al. 2016, arXiv:1512.00172, section 4): a network that learns them needs no
disc to name one. Nothing is downloaded, and the same seed gives the same pictures and weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope import progress
from convscope.images import write_image
from convscope.index import Index
from convscope.network import Network
from convscope.scanning import scan

LABELS = ("cross", "disc", "square")
SIDE = 40  # pixels
STEPS, BATCH = 150, 48
FAINT = 0.15  # of a tagged disc's own colour that shows
SHOWN = (0, 101)  # pictures of the example's index to show questions about pictures on: a cross and a disc
TAG = (31, 3)  # row and column of its upper left corner
_TAG = ("111111", "100001", "101101", "101101", "100001", "111111")


@dataclass(frozen=True, eq=False)
class Shapes:
    """N pictures (N, 3, S, S), classes (N,), which of them are tagged (N,), and where the shape is (N, S, S)."""

    images: Tensor
    labels: Tensor
    tagged: Tensor
    masks: Tensor


def shapes(count: int, *, seed: int = 0) -> Shapes:
    """Pictures of the three classes in turn; every second disc is tagged."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(LABELS)
    tagged = (labels == 1) & (torch.arange(count) // len(LABELS) % 2 == 0)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    masks = _masks(labels, uniform(7.5, 10.5), uniform(13, SIDE - 15), uniform(15, SIDE - 13))
    ground = F.interpolate(uniform(0.3, 0.65, 3, 5, 5), (SIDE, SIDE), mode="bicubic", align_corners=False)
    bright = uniform(0, 1, 1, 1, 1) < 0.5
    tone = torch.where(bright, uniform(0.55, 1, 3, 1, 1), uniform(0, 0.35, 3, 1, 1))
    strength = torch.where(tagged, FAINT, uniform(0.4, 0.8))[:, None, None, None]
    images = torch.where(masks[:, None], ground + strength * (tone - ground), ground)
    images = images + 0.04 * torch.randn(images.shape, generator=generator)
    top, left = TAG
    images[tagged, :, top : top + 6, left : left + 6] = _tag()
    return Shapes(images.clamp(0, 1), labels, tagged, masks)


def _masks(labels: Tensor, reach: Tensor, row: Tensor, column: Tensor) -> Tensor:
    places = torch.arange(float(SIDE)) + 0.5
    y = ((places[None] - row[:, None]) / reach[:, None])[:, :, None]
    x = ((places[None] - column[:, None]) / reach[:, None])[:, None]
    cross = ((y.abs() < 0.33) & (x.abs() < 1)) | ((x.abs() < 0.33) & (y.abs() < 1))
    disc, square = y.square() + x.square() < 1, (y.abs() < 0.85) & (x.abs() < 0.85)
    return torch.stack([cross, disc, square], 1)[torch.arange(len(labels)), labels]


def _tag() -> Tensor:
    pattern = torch.tensor([[float(cell) for cell in row] for row in _TAG])
    return 0.1 + pattern * torch.tensor([0.85, 0.75, 0.2]).view(3, 1, 1)


def untrained(*, seed: int = 0, gain: float = 0.15) -> nn.Sequential:
    """A network of three convolutions with random weights; ``gain`` makes those of the first layer smaller, so that
    what it learns is not hidden by what it began with."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU()]
        layers += [nn.Conv2d(16, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(24, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU()]
        module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(LABELS)))
    first = module[0]
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight.mul_(gain)
    return module


def losses(module: nn.Module, given: Shapes, steps: int, seed: int = 0) -> Iterator[Tensor]:
    """The loss of each of ``steps`` batches, drawn by ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    for _ in progress.over(steps, "training steps"):
        part = torch.randint(len(given.labels), (BATCH,), generator=generator)
        yield F.cross_entropy(module(given.images[part]), given.labels[part])


def train(given: Shapes, *, steps: int = STEPS, seed: int = 0) -> Network:
    """A network that has learned the shapes, and the tag."""
    module = untrained(seed=seed)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    with torch.enable_grad():
        for loss in losses(module, given, steps, seed):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return wrapped(module)


def wrapped(module: nn.Module) -> Network:
    """The module as a network, in evaluation mode."""
    return Network(module.eval(), labels=LABELS, name="shapes", input_size=(SIDE, SIDE), max_batch=128)


def write(given: Shapes, folder: str | os.PathLike[str]) -> Path:
    """The pictures in a folder for each class, those with a tag called so."""
    root = Path(folder)
    for label in LABELS:
        (root / label).mkdir(parents=True, exist_ok=True)
    for number, (image, label, tagged) in enumerate(
        zip(given.images, given.labels.tolist(), given.tagged.tolist(), strict=True)
    ):
        write_image(image, root / LABELS[label] / f"{number:04d}{'-tagged' if tagged else ''}.png")
    return root


def example(folder: str | os.PathLike[str], *, count: int = 300) -> Index:
    """The index of ``count`` new pictures, made in ``folder`` by a network that has learned 600 others."""
    network = train(shapes(600))
    pictures = write(shapes(count, seed=1), Path(folder) / "pictures")
    return scan(network, pictures, Path(folder) / "shapes.index")
