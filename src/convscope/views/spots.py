"""A picture of which a few pixels were changed: rings around them, and what is around them from near."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from convscope.images import to_uint8
from convscope.results import Spots
from convscope.views.adversarial import figure, html, panels
from convscope.views.pixels import Pixels, resized

__all__ = ["figure", "html", "near", "ringed"]  # the sheet is that of all adversarial pictures

NEAR = 7  # pixels to each side of one that is shown from near
SHOWN = 9  # pixels that are shown from near at most
SIDE = 420  # pixels of a panel from near
SHARP = 4  # a picture is enlarged so much before rings are drawn, so that they are round


@panels.register
def _(result: Spots, index: int) -> list[tuple[str, Pixels]]:
    """(name, pixels) of the four pictures."""
    original, changed = to_uint8(result.originals[index]), to_uint8(result.values[index])
    places = [(int(row), int(column)) for row, column in np.argwhere((original != changed).any(2))]
    if not places:
        return [("original", original), ("nothing changed", changed)]
    first = "the pixel" if len(places) == 1 else "the pixels"
    some = first if len(places) <= SHOWN else f"{SHOWN} of them"
    return [
        ("original", original),
        (f"changed: {first} in rings", ringed(changed, places)),
        (f"{some} from near, before", near(original, places)),
        ("after", near(changed, places)),
    ]


def ringed(picture: Pixels, places: list[tuple[int, int]]) -> Pixels:
    """(H s, W s, 3): the picture enlarged, with a white ring in a black one around each place."""
    height, width = picture.shape[:2]
    drawn = Image.fromarray(resized(picture, (height * SHARP, width * SHARP), smooth=False))
    pen = ImageDraw.Draw(drawn)
    radius = SHARP * (0.045 if len(places) <= SHOWN else 0.02) * max(height, width)
    for row, column in places:
        y, x = (SHARP * (at + 0.5) for at in (row, column))
        for more, thick, colour in ((0.0, 0.5, "black"), (-0.15, 0.2, "white")):
            reach = radius * (1 + 0.25 + more)
            box = (x - reach, y - reach, x + reach, y + reach)
            pen.ellipse(box, outline=colour, width=max(2, round(radius * thick)))
    return np.asarray(drawn)


def near(picture: Pixels, places: list[tuple[int, int]]) -> Pixels:
    """(S, S, 3): the surroundings of the first places, in a square of squares, each place framed."""
    shown = places[:SHOWN]
    across = math.ceil(math.sqrt(len(shown)))
    side = (SIDE - 6 * (across - 1)) // across
    sheet = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for number, place in enumerate(shown):
        top, left = (number // across) * (side + 6), (number % across) * (side + 6)
        sheet[top : top + side, left : left + side] = _around(picture, place, side)
    return sheet


def _around(picture: Pixels, place: tuple[int, int], side: int) -> Pixels:
    reach = [min(2 * NEAR + 1, length) for length in picture.shape[:2]]
    start = [min(max(at - NEAR, 0), length - r) for at, length, r in zip(place, picture.shape[:2], reach, strict=True)]
    part = picture[start[0] : start[0] + reach[0], start[1] : start[1] + reach[1]]
    drawn = Image.fromarray(resized(np.ascontiguousarray(part), (side, side), smooth=False))
    pen = ImageDraw.Draw(drawn)
    (y, x), (high, wide) = (a - s for a, s in zip(place, start, strict=True)), (side / r for r in reach)
    for out, colour in ((3, "black"), (2, "white")):
        pen.rectangle(
            (x * wide - out, y * high - out, (x + 1) * wide + out - 1, (y + 1) * high + out - 1), outline=colour
        )
    return np.asarray(drawn)
