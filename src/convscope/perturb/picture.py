"""A picture, and the boxes that are replaced in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convscope.errors import OptionError
from convscope.perturb.places import Places, overlap

Box: TypeAlias = tuple[int, int, int, int]
"""Top, left, height, width, in pixels."""
FEWEST_PLANNED = 20  # windows that are worth a plan of their own
MOST_BANDS = 6  # at unlike distances from the border; each pair of bands is planned by itself


@dataclass(frozen=True, eq=False)
class Wanted:
    """The boxes of one size, and which of all variations they are."""

    boxes: NDArray[np.int64]  # (k each, 4)
    index: NDArray[np.int64]  # (k,)


class Picture:
    """A picture with the boxes that are to be replaced in it."""

    def __init__(
        self, image: Tensor, boxes: Sequence[Box], content: Tensor | Sequence[Tensor], each: int = 1
    ) -> None:  # fmt: skip
        self.image, self.boxes, self.each = image, np.array(boxes, dtype=np.int64).reshape(-1, 4), each
        self.count = len(self.boxes) // each
        self._own = not isinstance(content, Tensor) or content.ndim == 4
        self._check_boxes()
        self.content = content if self._own else self._expanded(content)

    def _check_boxes(self) -> None:
        height, width = self.image.shape[-2:]
        if not len(self.boxes):
            raise OptionError("there is no box to replace; give at least one (top, left, height, width)")
        low, size = self.boxes[:, :2], self.boxes[:, 2:]
        bad = np.flatnonzero((low < 0).any(1) | (size < 1).any(1) | (low + size > (height, width)).any(1))
        if len(bad):
            raise OptionError(
                f"box {tuple(self.boxes[bad[0]].tolist())} does not lie in a picture of {height}x{width}; "
                "a box is (top, left, height, width) in pixels"
            )
        if self.each > 1 and (len(self.boxes) % self.each or len(np.unique(self.boxes[:, 2:], axis=0)) > 1):
            raise OptionError(
                f"{len(self.boxes)} boxes, {self.each} a variation: give as many for each, and all of one size"
            )

    def _expanded(self, content: Any) -> Tensor:
        try:
            return content.to(self.image).expand(self.image.shape)
        except RuntimeError:
            raise OptionError(
                f"content of shape {tuple(content.shape)} does not fit a picture of {tuple(self.image.shape)}; "
                "give a picture of that shape, a colour (3, 1, 1), or (3, height, width) for each box"
            ) from None

    def groups(self) -> list[Wanted]:
        """The boxes of one size at like distances from the border, where less of what grows lies in the picture."""
        if self.each > 1:
            return [Wanted(self.boxes, np.arange(self.count))]
        height, width = self.image.shape[-2:]
        _, which = np.unique(self.boxes[:, 2:], axis=0, return_inverse=True)
        keys = np.zeros((len(self.boxes), 3), dtype=np.int64)
        keys[:, 0] = which.reshape(-1)
        for size in range(int(keys[:, 0].max()) + 1):
            same = np.flatnonzero(keys[:, 0] == size)
            top, left, high, wide = self.boxes[same].T
            bands = max(1, min(MOST_BANDS, math.isqrt(len(same) // FEWEST_PLANNED)))
            keys[same, 1] = _banded(np.minimum(top, height - top - high), bands)
            keys[same, 2] = _banded(np.minimum(left, width - left - wide), bands)
        _, code = np.unique(keys, axis=0, return_inverse=True)
        code = code.reshape(-1)
        indices = (np.flatnonzero(code == number) for number in np.unique(code))
        return [Wanted(self.boxes[index], index) for index in indices]

    def patch(self, number: int) -> Tensor:
        """(3, height, width) of one box."""
        top, left, height, width = self.boxes[number].tolist()
        if not self._own:
            return self.content[:, top : top + height, left : left + width]  # type: ignore[call-overload]
        if len(self.content) != len(self.boxes):
            raise OptionError(f"content for {len(self.content)} of {len(self.boxes)} boxes; give as many")
        patch = self.content[number].to(self.image)
        if patch.shape != (len(self.image), height, width):
            raise OptionError(f"content of shape {tuple(patch.shape)} does not fit a box of {height}x{width}")
        return patch

    def patches(self, index: NDArray[np.int64]) -> Tensor:
        """(k each, 3, height, width) of variations of one size."""
        numbers = self._numbers(index)
        found = torch.stack([self.patch(number) for number in numbers])
        for place, number in enumerate(numbers if self.each > 1 else []):
            self._cover(found[place], number)
        return found

    def _numbers(self, index: NDArray[np.int64]) -> list[int]:
        """Of the boxes of those variations."""
        return (index[:, None] * self.each + np.arange(self.each)).flatten().tolist()

    def _cover(self, patch: Tensor, number: int) -> None:
        """Later boxes of the same variation, where they lie over this one; in place."""
        for other in range(number + 1, number - number % self.each + self.each):
            (down, across), (height, width) = (self.boxes[other] - self.boxes[number])[:2].tolist(), patch.shape[1:]
            (a, y), (b, x) = overlap(down, height, height), overlap(across, width, width)
            if y.start < y.stop and x.start < x.stop:
                patch[:, y, x] = self.patch(other)[:, a, b]

    def altered(self, index: NDArray[np.int64]) -> Tensor:
        """(k, 3, H, W): whole pictures."""
        images = self.image.expand(len(index), *self.image.shape).clone()
        for place, number in enumerate(self._numbers(index)):
            top, left, height, width = self.boxes[number].tolist()
            images[place // self.each, :, top : top + height, left : left + width] = self.patch(number)
        return images


def _banded(distance: Places, bands: int) -> Places:
    """Which of so many bands each distance falls into, each with about as many different distances."""
    ends = [band[-1] for band in np.array_split(np.unique(distance), bands) if len(band)]
    return np.searchsorted(np.array(ends), distance)
