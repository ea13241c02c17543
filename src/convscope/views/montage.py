"""Many small pictures: filters, feature maps and patches as grids, on one scale or each on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from convscope.results import Pictures
from convscope.views import embed
from convscope.views.colour import Array, Scale, scale_of, symmetric_colour, upper_end
from convscope.views.heatmaps import NARROW, colour_bar
from convscope.views.pixels import Pixels, enlarged, on_paper, photograph, resized, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, blocks, footer, framed, heading, picture_name
from convscope.views.style import HEAD, LIGHT, SMALL, Theme, measure, shorten, wrap

LARGEST = 260  # pixels of a tile
MANY = 3 * 32 * 32  # values of a tile from which a few extreme ones are cut off
LABELLED = 40  # pixels of a tile below which its title is left out
LINE = 18  # pixels from line to line of a tile's title
LEGEND = 130  # pixels for scale and marks
MOST = 12  # groups in one figure; the rest are said
ACCENT = (0xD0, 0x4A, 0x2A)  # outline of a marked tile, on paper of either colour
BLANK = (0x80, 0x80, 0x88)  # of a marked tile without content

Composite: TypeAlias = tuple[Pixels, tuple[int, int], int]  # as composed() gives it


@dataclass(frozen=True)
class Grid:
    """Tiles in colour (K, h, w, 3) and what is known of them."""

    tiles: Pixels
    columns: int
    marks: npt.NDArray[np.bool_]
    flat: npt.NDArray[np.bool_]
    scale: Scale | None

    @property
    def rows(self) -> int:
        """Rows of tiles, the last of which may not be full."""
        return math.ceil(len(self.tiles) / self.columns)

    def caption(self, mark: str) -> str:
        """How many tiles are marked and how that looks; nothing when none is."""
        count = int(self.marks.sum())
        if not count:
            return ""
        look = "hatched" if bool(self.flat[self.marks].all()) else "outlined"
        return f"{look}: {mark or 'marked'} ({count} of {len(self.marks)})"


# ---- from numbers to colours


def grids(result: Pictures, most: int | None = None) -> list[Grid]:
    """One grid a group; on one scale for all groups, unless each tile has its own."""
    tiles = result.tiles.float().numpy().astype(np.float64)
    count = len(tiles) if most is None else min(most, len(tiles))
    scale = None if result.each or tiles.shape[2] == 3 else scale_of(tiles, signed=result.signed)
    bound = float(np.nanmax(np.abs(tiles), initial=0.0))
    return [_grid(result, tiles[group], group, scale, bound) for group in range(count)]


def _grid(result: Pictures, tiles: Array, group: int, scale: Scale | None, bound: float) -> Grid:
    coloured = _in_colour(result, tiles, bound) if tiles.shape[1] == 3 else _mapped(result, tiles[:, 0], scale)
    count, height, width = coloured.shape[:3]
    flat = tiles.reshape(count, -1)
    marks = np.zeros(count, bool) if result.marks is None else result.marks[group].numpy().astype(bool)
    columns = result.columns or columns_for(count, height, width)
    return Grid(coloured, min(columns, max(count, 1)), marks, np.ptp(flat, axis=1) == 0, scale)


def _mapped(result: Pictures, tiles: Array, scale: Scale | None) -> Pixels:
    if scale is not None:
        return scale.colours(tiles)
    own = [scale_of(tile, signed=result.signed, robust=None) for tile in tiles]
    return np.stack([s.colours(tile) for s, tile in zip(own, tiles, strict=True)])


def _in_colour(result: Pictures, tiles: Array, bound: float) -> Pixels:
    """Signed colours around mid-grey; unsigned ones in [0, 1] as they are, others stretched from zero."""
    tiles = np.nan_to_num(tiles)
    largest = np.abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    if result.signed and _cut(result):
        largest = np.array([upper_end(np.abs(tile)) for tile in tiles])[:, None, None, None]
    if result.signed:
        return symmetric_colour(tiles, largest if result.each else bound)
    most = largest if result.each else max(bound, 1.0)
    scaled = np.divide(tiles, most, out=np.zeros_like(tiles), where=np.asarray(most) > 0).clip(0, 1)
    return np.rint(np.moveaxis(scaled, 1, -1) * 255).astype(np.uint8)


def _cut(result: Pictures) -> bool:
    """Whether a few extreme values are cut off: in tiles so large that these would make all else grey."""
    return result.each and result.signed and math.prod(result.tiles.shape[2:]) >= MANY


def _beside(result: Pictures, group: int) -> str:
    """The name of the photograph beside a group; none of a picture that stands for several, as a facet does."""
    return picture_name(result, group) if result.per_picture else ""


def columns_for(count: int, height: int, width: int) -> int:
    """Columns that make a grid near a square, rather wider than high, and fill its last row where possible."""

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        proportion = math.log(columns * width / (rows * height)) - 0.2
        return max(abs(proportion) - 0.25, 0.0) + 1.5 * (rows * columns - count) / count

    middle = math.sqrt(count * height / width)
    candidates = range(max(1, int(middle / 2)), min(count, math.ceil(middle * 2.5)) + 1)
    return min(candidates, key=cost, default=1)


# ---- from tiles to one picture


def composed(grid: Grid, target: int, size: tuple[int, int] | None = None) -> Composite:
    """(H, W, 4) of the whole grid about ``target`` wide, the size (height, width) of a tile in it, and the gap.

    Gaps are transparent. Tiles are enlarged by a whole factor; only those that are too large are made smaller. Few
    tiles make a smaller grid, and so do so many rows that it would be more than twice as high as wide. ``size``
    (height, width) of a tile can be given instead.
    """
    height, width = grid.tiles.shape[1:3]
    room = min(target / grid.columns, max(LARGEST, 0.35 * target), 2 * target / grid.rows * width / height)
    gap = max(2, min(10, round(0.06 * room)))
    size = size or _tile_size(height, width, room - gap)
    canvas = np.zeros((grid.rows * (size[0] + gap) - gap, grid.columns * (size[1] + gap) - gap, 4), np.uint8)
    for index, tile in enumerate(grid.tiles):
        row, column = divmod(index, grid.columns)
        y, x = row * (size[0] + gap), column * (size[1] + gap)
        canvas[y : y + size[0], x : x + size[1]] = _tile(tile, size, bool(grid.marks[index]), bool(grid.flat[index]))
    return canvas, size, gap


def _tile_size(height: int, width: int, room: float) -> tuple[int, int]:
    if width > 1.3 * room:
        return max(1, round(height * room / width)), max(1, round(room))
    factor = max(1, int(room // width))
    return height * factor, width * factor


def _tile(tile: Pixels, size: tuple[int, int], marked: bool, flat: bool) -> Pixels:
    """(h, w, 4): the tile, outlined where it is marked, hatched where there is nothing in it to see."""
    if marked and flat:
        return _hatched(size)
    drawn = np.dstack([resized(tile, size, smooth=False), np.full(size, 255, np.uint8)])
    if marked:
        edge = max(1, min(4, min(size) // 12))
        inside = np.zeros(size, bool)
        inside[edge:-edge, edge:-edge] = True
        drawn[~inside] = (*ACCENT, 255)
    return drawn


def _hatched(size: tuple[int, int]) -> Pixels:
    """Fine diagonals on next to nothing, for paper of either colour."""
    period = max(4, min(14, min(size) // 5))
    rows, columns = np.indices(size)
    lines = (rows + columns) % period < max(1, period // 5)
    alpha = np.where(lines, 120, 34).astype(np.uint8)
    return np.dstack([np.full(size, channel, np.uint8) for channel in BLANK] + [alpha])


# ---- as a figure


@dataclass(frozen=True)
class Layout:
    """Where things stand in the block of one group, in pixels; ``photo`` is (height, width)."""

    photo: tuple[int, int] | None
    width: int
    top: int
    labels: int
    height: int

    @property
    def left(self) -> int:
        """Where the grid begins."""
        return self.photo[1] + 36 if self.photo else 0


def figure(result: Pictures, theme: Theme = LIGHT) -> Plate:
    """One block a group: its photograph where there is one, its grid, the scale and how many tiles are marked."""
    drawn = grids(result, MOST)
    columns = 1 if len(drawn) <= 3 else 2 if len(drawn) <= 6 else 3
    target = 1200 if len(drawn) == 1 else {1: 880, 2: 600, 3: 440}[columns]
    photo = _photo_size(result, min(target // 2, 420))
    alone = (
        enlarged((result.tiles.shape[-2], result.tiles.shape[-1]), max(photo))
        if photo and len(drawn[0].tiles) == 1
        else None
    )
    composites = [composed(grid, target, alone) for grid in drawn]
    layout = _layout(result, drawn, composites, photo)
    width, height, corners = blocks(len(drawn), layout.width, layout.height, columns=columns, gap=72, down=40)
    notes = footer(result, len(result.tiles), len(drawn), "groups")
    head = heading(result, result.quantity, _scaled(result) if result.each else "")
    sheet, first = framed((width, height), head, notes, theme)
    for index, (x, y) in enumerate(corners):
        _draw(sheet, result, index, drawn[index], composites[index], (MARGIN + x, first + y), layout)
    return sheet.plate


def _photo_size(result: Pictures, side: int) -> tuple[int, int] | None:
    return None if result.images is None else enlarged((result.images.shape[-2], result.images.shape[-1]), side)


def _layout(
    result: Pictures, drawn: list[Grid], composites: list[Composite], photo: tuple[int, int] | None
) -> Layout:  # fmt: skip
    labels = _label_height(result, drawn[0], composites[0][1][1])
    legend = LEGEND if any(_says(result, grid) for grid in drawn) else 0
    tall = [c[0].shape[0] + labels * g.rows for c, g in zip(composites, drawn, strict=True)]
    body = max(*tall, photo[0] + 40 + legend) if photo else max(tall) + legend
    widest = max(max(c[0].shape[1] for c in composites), 0 if photo else 2 * NARROW)
    top = 46 if any(result.titles) else 0
    return Layout(photo, (photo[1] + 36 if photo else 0) + widest, top, labels, top + body)


def _scaled(result: Pictures) -> str:
    """Which tiles share a scale, and what it leaves out."""
    if not result.each:
        return "all tiles on one scale"
    cut = ", the strongest half per cent cut off" if result.tiles.shape[2] == 3 and _cut(result) else ""
    return f"each tile on its own scale{cut}"


def _says(result: Pictures, grid: Grid) -> bool:
    return grid.scale is not None or bool(grid.caption(result.mark))


def tile_title(result: Pictures, group: int, index: int) -> str:
    """The title of one tile: titles are given for one group or for all of them in a row."""
    titles, count = result.tile_titles, result.tiles.shape[1]
    position = group * count + index if len(titles) > count else index
    return titles[position] if position < len(titles) else ""


def _label_height(result: Pictures, grid: Grid, width: int) -> int:
    """Pixels under each row of tiles for their titles, of one line or several; none where they would not fit."""
    titles = [tile_title(result, 0, index) for index in range(len(grid.tiles))]
    lines = [line for title in titles for line in title.split("\n")]
    fits = any(lines) and width >= LABELLED and all(measure(line, 5.0) <= width + 2 for line in lines)
    return 4 + LINE * max(title.count("\n") + 1 for title in titles) if fits else 0


def _draw(
    sheet: Sheet, result: Pictures, group: int, grid: Grid, composite: Composite, at: tuple[int, int], layout: Layout
) -> None:
    x, y = at
    if layout.top and group < len(result.titles):
        sheet.text(x, y + 24, shorten(result.titles[group], layout.width, HEAD, True), size=HEAD, bold=True)
    y += layout.top
    _tiles(sheet, result, group, grid, composite, (x + layout.left, y), layout.labels)
    if layout.photo is None or result.images is None:
        bottom = y + composite[0].shape[0] + layout.labels * grid.rows
        _legend(sheet, result, grid, x, bottom + 16, min(layout.width, 3 * NARROW))
        return
    shown = photograph(to_pixels(result.images[group].float().numpy()), layout.photo)
    sheet.picture(shown, x, y, "photograph")
    name = shorten(_beside(result, group), layout.photo[1], SMALL)
    sheet.text(x, y + layout.photo[0] + 26, name, size=SMALL, colour=sheet.theme.soft)
    _legend(sheet, result, grid, x, y + layout.photo[0] + 50, layout.photo[1])


def _legend(sheet: Sheet, result: Pictures, grid: Grid, x: int, y: int, width: int) -> None:
    """The scale and what the marks mean: under the photograph, or under the grid where there is none."""
    if grid.scale is not None:
        colour_bar(sheet, grid.scale, x, y, width)
        y += 72
    marked = grid.caption(result.mark)
    for line in wrap(marked[:1].upper() + marked[1:], max(width, 2 * NARROW), SMALL) if marked else []:
        sheet.text(x, y + 20, line, size=SMALL, colour=sheet.theme.soft)
        y += 26


def _tiles(
    sheet: Sheet, result: Pictures, group: int, grid: Grid, composite: Composite, at: tuple[int, int], labels: int
) -> None:
    """The grid, cut into rows where titles stand between them."""
    (x, y), (pixels, size, gap) = at, composite
    paper = on_paper(pixels, sheet.theme.paper)
    if not labels:
        sheet.picture(paper, x, y, f"grid {group}")
        return
    for row in range(grid.rows):
        start = row * (size[0] + gap)
        sheet.picture(paper[start : start + size[0]], x, y + start + labels * row, f"grid {group} row {row}")
    for index in range(len(grid.tiles)):
        row, column = divmod(index, grid.columns)
        middle = x + column * (size[1] + gap) + size[1] / 2
        base = y + row * (size[0] + gap + labels) + size[0] + 18
        for number, line in enumerate(tile_title(result, group, index).split("\n")):
            sheet.text(middle, base + LINE * number, line, size=5.0, align="center", colour=sheet.theme.soft)


# ---- as a part of a page


def html(result: Pictures, *, quality: int = embed.QUALITY) -> str:
    """What the colours mean, and a <figure> for each group."""
    drawn = grids(result)
    said = _unit(result)
    unit = f'<p class="unit">{embed.escape(said)}</p>' if said else ""
    kind = "figures wide" if len(drawn) > 1 else "figures single"
    figures = "\n".join(_figure(result, index, grid, quality) for index, grid in enumerate(drawn))
    return f'{unit}<div class="{kind}">{figures}</div>'


def _unit(result: Pictures) -> str:
    layer = f"Layer {result.layer}. " if result.layer else ""
    if result.tiles.shape[2] == 3 and not result.signed:
        return layer.strip()
    colour = f"Colour: {result.quantity or 'the number'}"
    zero = ", with zero in grey" if result.signed else ""
    return f"{layer}{colour}{zero}; {_scaled(result)}."


def _figure(result: Pictures, group: int, grid: Grid, quality: int) -> str:
    title = result.titles[group] if group < len(result.titles) else ""
    name = _beside(result, group)
    pixels = composed(grid, 1400 if len(result.tiles) == 1 else 900)[0]  # about twice of what a page shows
    marked = grid.caption(result.mark)
    what = title or result.quantity or "pictures"
    alt = f"Grid of {len(grid.tiles)} tiles: {what}{'; ' if marked else ''}{marked}"
    shown_at = (pixels.shape[0] // 2, pixels.shape[1] // 2)
    exact = quality >= embed.QUALITY
    tiles = embed.image(pixels, alt, quality=quality, lossless=exact, largest=max(pixels.shape), shown=shown_at)
    photo = ""
    if result.images is not None:
        shown = to_pixels(result.images[group].float().numpy())
        photo = f"<div>{embed.image(shown, f'Photograph: {name or group + 1}', quality=quality)}</div>"
    bar = embed.colour_bar(grid.scale) if grid.scale is not None else ""
    text = embed.caption(title or name, [name if title else "", marked, _numbered(result, group)], stacked=True)
    layout = ("beside even" if len(grid.tiles) == 1 else "beside") if photo else "alone"
    return f'<figure>{text}<div class="{layout}">{photo}<div class="grid">{tiles}{bar}</div></div></figure>'


def _numbered(result: Pictures, group: int) -> str:
    titles = [tile_title(result, group, index) for index in range(result.tiles.shape[1])]
    if any("\n" in title for title in titles):  # each says something of its own
        return " · ".join(title.replace("\n", ": ", 1).replace("\n", ", ") for title in titles)
    first, last = (titles[0], titles[-1]) if titles else ("", "")
    return f"{first} to {last}, row by row" if first and last and result.tiles.shape[1] > 1 else ""
