"""Free photographs that come with packages, for everything that is shown without a photograph of one's own."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from convscope.network import Network

PARTS = 8  # of a photograph, for what takes many pictures


@dataclass(frozen=True)
class Photograph:
    """A free photograph that comes with a package, and whom it is from."""

    name: str
    package: str
    file: str
    credit: str


PHOTOGRAPHS = (
    Photograph("cat", "skimage", "data/chelsea.png", "Stéfan van der Walt, CC0"),
    Photograph("coffee", "skimage", "data/coffee.png", "Rachel Michetti, CC0"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "SpaceX, public domain"),
    Photograph("astronaut", "skimage", "data/astronaut.png", "NASA, public domain"),
    Photograph("temple", "sklearn", "datasets/images/china.jpg", "danielbuechele, CC BY 2.0"),
    Photograph("flower", "sklearn", "datasets/images/flower.jpg", "vultilion, CC BY 2.0"),
)


def photographs() -> list[tuple[str, Path]]:
    """(name, file) of the free photographs that are installed: four of scikit-image, two of scikit-learn.

    Nothing is downloaded; those of a package that is absent are left out.
    """
    found = [(photograph.name, _file(photograph)) for photograph in PHOTOGRAPHS]
    return [(name, path) for name, path in found if path is not None]


def parts_of(network: Network, photograph: Tensor, count: int = PARTS) -> Tensor:
    """(count, 3, h, w): parts of a photograph (3, H, W) as the network gets them, for what takes dozens of pictures.

    All of it first, then windows of 60 to 90 % of its sides; the same every time.
    """
    generator = torch.Generator().manual_seed(0)
    found = [network.prepare(photograph)]
    for share, *place in (torch.rand(count - 1, 3, generator=generator)).tolist():
        sides = [round((0.6 + 0.3 * share) * side) for side in photograph.shape[1:]]
        top, left = (round(at * (all - side)) for at, all, side in zip(place, photograph.shape[1:], sides, strict=True))
        found.append(network.prepare(photograph[:, top : top + sides[0], left : left + sides[1]]))
    return torch.stack(found)


def _file(photograph: Photograph) -> Path | None:
    """Where its package lies, found without importing it."""
    spec = importlib.util.find_spec(photograph.package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / photograph.file
        if path.is_file():
            return path
    return None
