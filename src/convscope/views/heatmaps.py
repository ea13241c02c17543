"""Heat maps: the photograph, the map with its scale, and the map on the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convscope.results import Heatmap
from convscope.views import embed
from convscope.views.colour import Array, Scale, overlay, scale_of
from convscope.views.pixels import Pixels, enlarged, photograph, resized, tiny, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, blocks, footer, framed, heading, picture_name
from convscope.views.style import BODY, HEAD, LIGHT, SMALL, Theme, measure, shorten

MOST = 24  # pictures in one figure; the rest are said
GAP = 18
EXACT = 160  # pixels of a side up to which a page holds every pixel of a map
NARROW = 150  # the least width of a column, for the words that stand in it


@dataclass(frozen=True)
class Row:
    """What is drawn of one picture.

    ``photograph`` and ``overlay`` are (H, W, 3). ``map`` is (h, w, 3): the numbers as they were computed, in cells
    where those are coarser than pixels.
    """

    title: str
    name: str
    photograph: Pixels
    map: Pixels
    overlay: Pixels
    scale: Scale
    cells: tuple[int, int] | None

    @property
    def map_words(self) -> str:
        """What stands at the map."""
        return f"{self.cells[0]} × {self.cells[1]} cells" if self.cells else ""

    def laid(self, size: tuple[int, int]) -> Pixels:
        """The last of the three pictures at that size: the map on the photograph."""
        return photograph(self.overlay, size)

    def map_on_page(self, alt: str, quality: int) -> str:
        """The second of the three pictures as an <img>, exact where it is small."""
        small = max(self.map.shape[:2]) <= EXACT
        exact = small and (quality >= embed.QUALITY or self.cells is not None)
        shown = (self.photograph.shape[0], self.photograph.shape[1])
        return embed.image(self.map, alt, quality=quality, lossless=exact, pixelated=small, shown=shown)

    def on_page(self, name: str, quality: int) -> str:
        """The last of the three pictures as an <img>."""
        alt = f"The same map laid on {name} in grey"
        return embed.image(self.overlay, alt, quality=quality, pixelated=tiny(self.photograph))


def rows(result: Heatmap, most: int | None = None, scale: Scale | None = None) -> list[Row]:
    """The pictures of a heat map, each with a scale of its own, or all on one: the given one, or theirs."""
    count = len(result.values) if most is None else min(most, len(result.values))
    if scale is None and result.shared:
        scale = scale_of(_numbers(result, slice(None)), signed=result.signed)
    return [_row(result, index, scale) for index in range(count)]


def _numbers(result: Heatmap, part: int | slice) -> Array:
    """What a scale is made for: the cells where there are some."""
    values = result.values if result.cells is None else result.cells
    return values[part].float().numpy().astype(np.float64)


def _row(result: Heatmap, index: int, scale: Scale | None) -> Row:
    values = result.values[index].numpy().astype(np.float64)
    cells = None if result.cells is None else result.cells[index].float().numpy().astype(np.float64)
    photo = to_pixels(result.images[index].float().numpy())
    scale = scale or scale_of(_numbers(result, index), signed=result.signed)
    coarse = cells is not None and cells.size < values.size
    drawn = cells if cells is not None and coarse else values
    return Row(
        title=result.titles[index] if index < len(result.titles) else "",
        name=picture_name(result, index),
        photograph=photo,
        map=scale.colours(drawn),
        overlay=overlay(photo, values, scale),
        scale=scale,
        cells=(drawn.shape[0], drawn.shape[1]) if coarse else None,
    )


# ---- as a figure


def figure(result: Heatmap, theme: Theme = LIGHT) -> Plate:
    """One row a picture: photograph, map with its colour bar in the unit of the numbers, overlay. Two or three rows
    stand side by side where there are many pictures."""
    return figure_of(result, rows(result, MOST), theme)


def figure_of(result: Heatmap, drawn: Sequence[Row], theme: Theme) -> Plate:
    """The figure of these rows."""
    columns = 1 if len(drawn) <= 4 else 2 if len(drawn) <= 12 else 3
    height, width = enlarged((result.images.shape[-2], result.images.shape[-1]), {1: 420, 2: 300, 3: 240}[columns])
    step = max(width, NARROW) + GAP
    top, under = (46 if any(row.title or row.name for row in drawn) else 0), 74
    block = (3 * step - GAP, top + height + under)
    body_width, body_height, corners = blocks(len(drawn), *block, columns=columns, gap=72, down=34)
    notes = footer(result, len(result.values), len(drawn), "pictures")
    sheet, first = framed((body_width, body_height), heading(result, result.quantity), notes, theme)
    for row, (x, y) in zip(drawn, corners, strict=True):
        _draw(sheet, row, MARGIN + x, first + y, (height, width), step, top)
    return sheet.plate


def _draw(sheet: Sheet, row: Row, x: int, y: int, size: tuple[int, int], step: int, top: int) -> None:
    theme, width = sheet.theme, 3 * step - GAP
    if top:
        title = shorten(row.title or row.name, width, HEAD, True)
        sheet.text(x, y + 24, title, size=HEAD, bold=True)
        left = width - measure(title, HEAD, True) - 24
        if row.name and row.title and left > 80:
            sheet.text(x + width, y + 24, shorten(row.name, left, BODY), colour=theme.soft, align="right")
    y += top
    sheet.picture(photograph(row.photograph, size), x, y, "photograph")
    sheet.picture(resized(row.map, size, smooth=False), x + step, y, "map")
    sheet.picture(row.laid(size), x + 2 * step, y, "overlay")
    if row.map_words:
        sheet.text(x + 2 * step, y + size[0] + 44, row.map_words + ", enlarged", size=SMALL, colour=theme.soft)
    colour_bar(sheet, row.scale, x + step, y + size[0] + 12, max(size[1], NARROW))


def colour_bar(sheet: Sheet, scale: Scale, x: int, y: int, width: int, height: int = 10) -> None:
    """A bar with the numbers beneath it, and beneath those what lies beyond the scale."""
    soft = sheet.theme.soft
    if scale.remark:
        sheet.text(x, y + (20 if scale.constant else 58), shorten(scale.remark, width, SMALL), size=SMALL, colour=soft)
    if scale.constant:
        return
    bar = np.broadcast_to(scale.gradient(width)[None], (height, width, 3))
    sheet.picture(np.ascontiguousarray(bar), x, y, "colour bar")
    for place, text in scale.ticks():
        align = "left" if place == 0 else "right" if place == 1 else "center"
        sheet.text(x + place * width, y + 32, text, size=SMALL, align=align, colour=soft)
    if scale.beyond and not scale.remark:
        sheet.text(x + width, y + 58, scale.beyond, size=SMALL, align="right", colour=soft)


# ---- as a part of a page


def html(result: Heatmap, *, quality: int = embed.QUALITY) -> str:
    """What the colours mean, and a <figure> for each picture."""
    return html_of(result, rows(result), quality)


def html_of(result: Heatmap, drawn: Sequence[Row], quality: int) -> str:
    """The part of a page with these rows."""
    several = " All maps are on one scale." if result.shared else " Each map has a scale of its own."
    scale = several if len(result.values) > 1 else ""
    layer = f"Layer {result.layer}. " if result.layer else ""
    unit = f'<p class="unit">{embed.escape(f"{layer}Colour: {result.quantity}.{scale}")}</p>'
    figures = "\n".join(_figure(result, index, row, quality) for index, row in enumerate(drawn))
    return f'{unit}<div class="figures wide">{figures}</div>'


def _figure(result: Heatmap, index: int, row: Row, quality: int) -> str:
    name = row.name or (f"picture {index + 1}" if len(result.values) > 1 else "the picture")
    squares = tiny(row.photograph)
    photo = embed.image(row.photograph, f"Photograph: {name}", quality=quality, pixelated=squares)
    shape = (row.photograph.shape[0], row.photograph.shape[1])
    heat = row.map_on_page(_described(result, index, row, name), quality)
    laid = row.on_page(name, quality)
    remark = "" if row.scale.constant else row.scale.remark
    text = embed.caption(row.title or name, [name if row.title else "", row.map_words, remark])
    bar = embed.colour_bar(row.scale)
    narrow = f' style="max-width: {72 * shape[1] / shape[0]:.1f}rem"' if shape[0] > 1.5 * shape[1] else ""
    trio = f'<div class="trio"{narrow}><div>{photo}</div><div>{heat}{bar}</div><div>{laid}</div></div>'
    return f"<figure>{text}{trio}</figure>"


def _described(result: Heatmap, index: int, row: Row, name: str) -> str:
    """The map in words, for those who do not see it."""
    values = result.values[index]
    peak = int(values.abs().argmax())
    place = f"strongest at row {peak // values.shape[1]}, column {peak % values.shape[1]}"
    what = result.provenance.technique if result.provenance else "heat map"
    of = f" for {row.title}" if row.title else ""
    return f"{what[:1].upper()}{what[1:]}{of} on {name}: {row.scale.remark if row.scale.constant else place}"
