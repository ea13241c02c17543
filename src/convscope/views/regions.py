"""Parts found in a heat map: the photograph, the map with its scale, and the photograph with boxes or an outline."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.morphology import dilation, disk, erosion

from convscope.results import Regions
from convscope.views import embed, heatmaps
from convscope.views.heatmaps import MOST, Row
from convscope.views.pixels import Pixels, enlarged, photograph
from convscope.views.sheet import Plate
from convscope.views.style import LIGHT, Theme

Mask = NDArray[np.bool_]
WIDE, NARROW = 4, 2  # pixels from the edge of a part that are dark, and that are light
ON_PAGE = 384  # pixels of the longer side, so that strokes are fine
DIMMED = 0.3  # light that the background keeps


@dataclass(frozen=True)
class _Found(Row):
    """A row that ends with the parts on the photograph."""

    mask: Mask
    boxes: tuple[tuple[int, int, int, int], ...]
    outlined: str

    def laid(self, size: tuple[int, int]) -> Pixels:
        """The photograph with a stroke around each part; behind a mask it is dimmed."""
        photo = photograph(self.photograph, size)
        if self.outlined == "mask":
            mask = smooth(self.mask, size)
            return stroked(dimmed(photo, mask), mask)
        for box in self.boxes:
            photo = stroked(photo, filled(box, self.mask.shape, size))
        return photo

    def on_page(self, name: str, quality: int) -> str:
        """The last of the three pictures as an <img>."""
        height, width = self.mask.shape
        alt = f"{name} with {self._words} outlined"
        pixels = self.laid(enlarged((height, width), ON_PAGE))
        return embed.image(pixels, alt, quality=quality, shown=(height, width))

    @property
    def _words(self) -> str:
        if self.outlined == "mask":
            return f"a part of {self.mask.mean():.0%} of its area" if self.mask.any() else "nothing"
        places = [f"{h} by {w} pixels at row {top}, column {left}" for top, left, h, w in self.boxes]
        return f"a box of {', and one of '.join(places)}" if places else "nothing"


def rows(result: Regions, most: int | None = None) -> list[Row]:
    """The rows of a heat map, each with its parts."""
    found: list[Row] = []
    for index, row in enumerate(heatmaps.rows(result, most)):
        boxes = tuple((b[0], b[1], b[2], b[3]) for b in result.boxes[index].tolist() if b[2])
        plain = {field.name: getattr(row, field.name) for field in fields(row)}
        found.append(_Found(**plain, mask=result.masks[index].numpy(), boxes=boxes, outlined=result.outlined))
    return found


def figure(result: Regions, theme: Theme = LIGHT) -> Plate:
    """One row a picture: photograph, map with its colour bar, and the photograph with what was found outlined."""
    return heatmaps.figure_of(result, rows(result, MOST), theme)


def html(result: Regions, *, quality: int = embed.QUALITY) -> str:
    """What the colours mean, and a <figure> for each picture."""
    return heatmaps.html_of(result, rows(result), quality)


# ---- on pixels


def filled(box: tuple[int, int, int, int], shape: tuple[int, ...], size: tuple[int, int]) -> Mask:
    """A box of a picture of ``shape`` as a mask at ``size``, far enough from the border for the whole stroke."""
    mask = np.zeros(size, bool)
    sides = []
    for start, length, whole, drawn in zip(box[:2], box[2:], shape, size, strict=True):
        ends = (round(start * drawn / whole), round((start + length) * drawn / whole))
        sides.append(slice(*(min(max(end, WIDE), max(WIDE, drawn - WIDE)) for end in ends)))
    mask[sides[0], sides[1]] = True
    return mask


def smooth(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask at ``size``, its edge without steps."""
    larger = Image.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(larger) >= 128


def dimmed(photo: Pixels, mask: Mask) -> Pixels:
    """The photograph, dark and grey outside the mask."""
    grey = (photo @ np.array([0.299, 0.587, 0.114]))[..., None]
    behind = DIMMED * (0.3 * photo + 0.7 * grey)
    mixed: Pixels = np.where(mask[..., None], photo, np.rint(behind)).astype(np.uint8)
    return mixed


def stroked(photo: Pixels, mask: Mask) -> Pixels:
    """A light line with dark ones at its sides along the edge of a mask, so that it is seen on any photograph."""
    drawn = photo.copy()
    room = np.pad(mask, WIDE, mode="edge")  # what goes on beyond the picture does not end with it
    for reach, light in ((WIDE, 0), (NARROW, 255)):
        outside = dilation(room, disk(reach - 1)) if reach > 1 else room
        band = outside & ~erosion(room, disk(reach))
        drawn[band[WIDE:-WIDE, WIDE:-WIDE]] = light
    return drawn
