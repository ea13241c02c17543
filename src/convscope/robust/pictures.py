"""Photographs in folders of classes, to train on: read once, cropped anew each time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope import progress
from convscope.errors import ConvscopeError, ImageError, OptionError, nearest
from convscope.images import find_images, read_image, resize
from convscope.network import Network

SPARE = 1.125  # how much larger than the network's picture each is kept
STRETCH = 4 / 3  # most that a crop's proportions differ from the network's picture


@dataclass(frozen=True, eq=False)
class Photographs:
    """Labelled photographs in memory, each squashed to a square.

    Attributes:
        pixels: (N, 3, S, S) uint8.
        aspect: (N,) width over height as published.
        labels: (N,) class indices.
        paths: where each lies under the folder.
        unreadable: file to the reason why it is left out.
    """

    pixels: Tensor
    aspect: Tensor
    labels: Tensor
    paths: tuple[str, ...]
    unreadable: dict[str, str]

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, chosen: Sequence[int]) -> Photographs:
        """Some of them, by their places."""
        places = torch.tensor(chosen, dtype=torch.long)
        paths = tuple(self.paths[place] for place in chosen)
        return Photographs(self.pixels[places], self.aspect[places], self.labels[places], paths, self.unreadable)

    def crops(
        self, chosen: Tensor, size: tuple[int, int], generator: torch.Generator, *, least: float, mirror: bool
    ) -> Tensor:
        """(N, 3, H, W) in [0, 1]: random parts of the photographs ``chosen``.

        Each takes ``least`` to all of the area, anywhere, stretched a little unless it takes all; with ``mirror`` half
        of them are mirrored.
        """
        maps = _random_maps(self.aspect[chosen], size, generator, least, mirror)
        return self._sampled(chosen, maps, size)

    def whole(self, chosen: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, 3, H, W) in [0, 1]: the largest part in the middle that has the network's proportions."""
        width, height = _largest(self.aspect[chosen], size)
        return self._sampled(chosen, _maps(width, height), size)

    def _sampled(self, chosen: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
        images = self.pixels[chosen].float() / 255
        grid = F.affine_grid(maps, [len(chosen), 3, *size], align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def read_classes(network: Network, folder: str | Path) -> Photographs:
    """Every photograph under ``folder``, its class named by the folder in which it lies.

    Raises:
        ImageError: no such folder, no pictures, or none that can be read.
        OptionError: the network has no labels, or a folder has the name of none.
    """
    paths = find_images(folder)
    if not paths:
        raise ImageError(f"{folder} holds no pictures; name a folder that holds one folder of photographs a class")
    classes = classes_of(network, paths)
    side = math.ceil(SPARE * max(network.input_size))
    pixels, aspect, kept, unreadable = [], [], [], {}
    for path in progress.over(paths, "photographs"):
        try:
            image = read_image(path)
        except ImageError as error:
            unreadable[str(path)] = str(error)
            continue
        aspect.append(image.shape[2] / image.shape[1])
        pixels.append((resize(image, (side, side)) * 255).round().to(torch.uint8))
        kept.append(path)
    if not kept:
        raise ImageError(f"none of the {len(paths)} pictures can be read: {next(iter(unreadable.values()))}")
    labels = torch.tensor([classes[path.parent] for path in kept])
    names = tuple(str(path.relative_to(folder)) for path in kept)
    return Photographs(torch.stack(pixels), torch.tensor(aspect), labels, names, unreadable)


def classes_of(network: Network, paths: Sequence[Path]) -> dict[Path, int]:
    """Folder to class, for every folder in which a picture lies.

    Raises :class:`OptionError` that names the folders of no class and how many others fit.
    """
    if not network.labels:
        raise OptionError(f"{network.name} has no labels to tell classes by; give it some with --labels FILE")
    found: dict[Path, int] = {}
    foreign = []
    for folder in sorted({path.parent for path in paths}):
        try:
            found[folder] = network.target(folder.name)
        except ConvscopeError:
            foreign.append(folder.name)
    if foreign:
        raise OptionError(_foreign(network, foreign, len(found)))
    return found


def _foreign(network: Network, foreign: Sequence[str], known: int) -> str:
    hint = nearest(foreign[0], network.labels)
    others = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    return (
        f"{network.name} has no class {foreign[0]!r}{others}{hint}; each photograph lies in a folder with the name of "
        f"one of its labels ({known} of {known + len(foreign)} folders do)"
    )


def split(photographs: Photographs, share: float) -> tuple[Photographs, Photographs]:
    """Those to train on, and about a ``share`` that is held out; a hash of the name decides, not the order."""
    bits = [int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") / 2**32 for path in photographs.paths]
    kept = [place for place, bit in enumerate(bits) if bit >= share]
    held = sorted((place for place, bit in enumerate(bits) if bit < share), key=bits.__getitem__)  # classes mixed
    if not kept or (share > 0 and not held):
        raise OptionError(
            f"{len(bits)} photographs cannot be split into some to train on and {share:.0%} held out; give more"
        )
    return photographs.only(kept), photographs.only(held)


# ---- which part of a photograph is seen


def _largest(aspect: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """(N,), (N,): shares of the width and height of the largest part with the proportions of ``size``."""
    ratio = size[1] / size[0] / aspect
    return ratio.clamp(max=1), (1 / ratio).clamp(max=1)


def _random_maps(
    aspect: Tensor, size: tuple[int, int], generator: torch.Generator, least: float, mirror: bool
) -> Tensor:
    if least == 1:
        width, height = _largest(aspect, size)
        sign = torch.where(torch.rand(len(aspect), generator=generator) < 0.5 * mirror, -1.0, 1.0)
        return _maps(width, height, sign=sign)
    area, stretch, across, down, mirrored = torch.rand(5, len(aspect), generator=generator)
    area = least + (1 - least) * area
    ratio = (math.log(STRETCH) * (2 * stretch - 1)).exp() * size[1] / size[0] / aspect
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = ((2 * across - 1) * (1 - width), (2 * down - 1) * (1 - height))
    return _maps(width, height, x, y, torch.where(mirrored < 0.5 * mirror, -1.0, 1.0))


def _maps(
    width: Tensor, height: Tensor, x: Tensor | float = 0.0, y: Tensor | float = 0.0, sign: Tensor | float = 1.0
) -> Tensor:
    """(N, 2, 3) affine maps onto parts of that width and height around (x, y), in the square's coordinates."""
    nothing = torch.zeros_like(width)
    rows = [width * sign, nothing, nothing + x, nothing, height, nothing + y]
    return torch.stack(rows, 1).view(-1, 2, 3)
