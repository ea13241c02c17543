"""Pictures in the plane: as points, or as thumbnails at their places."""

from __future__ import annotations

from convscope.results import Embedding
from convscope.views import embed, scatter
from convscope.views.pixels import Pixels, resized
from convscope.views.sheet import MARGIN, Plate, footer, framed, heading
from convscope.views.style import LIGHT, Theme

SIDE = 1600  # pixels of a sheet's longer side within a figure
PAGE = 1000  # and on a page


def figure(result: Embedding, theme: Theme = LIGHT) -> Plate:
    """Points coloured by group with the groups' names among them; or the sheet of thumbnails."""
    if result.places is None:
        return scatter.figure(result, theme)
    pixels = _sheet(result, SIDE)
    shown = int((result.places[:, 0] >= 0).sum())
    head = heading(result, f"{shown:,} pictures at {result.lattice[0]} × {result.lattice[1]} places")
    sheet, top = framed((pixels.shape[1], pixels.shape[0]), head, footer(result, 0, 0, ""), theme)
    sheet.picture(pixels, MARGIN, top, "sheet")
    return sheet.plate


def _sheet(result: Embedding, longest: int) -> Pixels:
    pixels = result.sheet()
    share = longest / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[0] * share)), max(1, round(pixels.shape[1] * share))
    return pixels if share >= 1 else resized(pixels, size, smooth=True)


def html(result: Embedding, *, quality: int = embed.QUALITY) -> str:
    """The points as one drawing, or the sheet as one picture."""
    if result.places is None:
        return scatter.html(result, quality=quality)
    pixels = _sheet(result, PAGE)
    alt = f"{len(result.values)} thumbnails, those that are alike beside each other"
    uri = embed.data_uri(pixels, quality=min(quality, 80))
    size = f'width="{pixels.shape[1]}" height="{pixels.shape[0]}"'
    return f'<figure class="drawn"><img src="{uri}" alt="{embed.escape(alt)}" {size}></figure>'
