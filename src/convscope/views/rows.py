"""Rows of tiles, each with its name: patches and what a network sees in them, pictures and their neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convscope.results import Panel, Rows
from convscope.views import embed
from convscope.views.colour import symmetric_colour, upper_end
from convscope.views.pixels import Pixels, resized, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, footer, framed, heading, picture_name
from convscope.views.style import HEAD, LIGHT, SMALL, Theme, measure, shorten

WIDTH, BROAD = 1560, 1980  # pixels that a row takes at most, and that several in blocks take
LARGEST, SMALLEST = 230, 64  # pixels of a tile
GAP, BETWEEN, BELOW = 6, 44, 30  # pixels between tiles, panels and rows
NAMES = 230  # pixels for the names of rows
LINE = 19  # pixels of a caption
HEADER = 38  # pixels for the names of panels, of rows, and of sections
TINY = 16  # a side below which the squares of a tile are the point
MOST = 48  # rows in one figure
OUTLINE = np.array([0xFF, 0x5A, 0x1F], np.uint8)


@dataclass(frozen=True)
class Layout:
    """Where things stand, in pixels."""

    tile: int
    columns: int
    lines: int
    caption: int
    names: int
    photo: int
    across: int
    block: tuple[int, int]  # width and height of a row
    panel: tuple[int, int]


def figure(result: Rows, theme: Theme = LIGHT) -> Plate:
    """Row by row; the first row of each section stands under its name, and the panels' names over the first row."""
    layout = layout_of(result)
    places, body = _placed(result, layout)
    notes = footer(result, len(result.titles), len(places), "rows")
    sheet, top = framed(body, heading(result), notes, theme)
    for row, (x, y) in enumerate(places):
        _section(sheet, result, row, MARGIN + x, top + y)
        _row(sheet, result, layout, row, MARGIN + x, top + y)
    for x, y in places if not result.stacked else []:
        if y == places[0][1]:
            _panel_names(sheet, result, layout, MARGIN + x, top)
    return sheet.plate


# ---- where things stand


def layout_of(result: Rows) -> Layout:
    """Tiles as large as the width allows, and as many rows beside each other as fit."""
    count = max(len(tiles) for panel in result.panels for tiles in panel.tiles)
    columns = min(result.columns or count, count)
    beside = 1 if result.stacked else len(result.panels)
    titled_left = result.columns is None and not result.stacked
    longest = max(
        [measure(row_title(result, row), HEAD, True) for row in range(len(result.titles))]
        + [measure(s, SMALL) for s in _under(result)]
    )
    names = min(NAMES, math.ceil(longest) + 24) if titled_left else 0
    share = 1 if result.images is None else columns * beside / (columns * beside + 2)
    room = (WIDTH - names - BETWEEN * (beside - 1)) * share
    tile = int(np.clip(room / (columns * beside) - GAP, SMALLEST, LARGEST))
    if result.columns is not None:
        tile = min(tile, 86)  # three blocks of two panels stand beside each other
    lines, caption = math.ceil(count / columns), _caption_height(result, tile)
    panel = columns * (tile + GAP) - GAP, lines * (tile + GAP + caption) - GAP
    photo = 2 * tile if result.images is not None else 0
    width = names + beside * panel[0] + (beside - 1) * BETWEEN + (photo + BETWEEN if photo else 0)
    stacked = len(result.panels) * (panel[1] + HEADER) + (len(result.panels) - 1) * GAP
    height = max(photo + HEADER, stacked) if result.stacked else panel[1]
    above = 0 if titled_left else HEADER + (LINE + 4) * bool(result.subtitles)
    across = max(1, (BROAD + 2 * BETWEEN) // (width + 2 * BETWEEN)) if result.columns is not None else 1
    return Layout(tile, columns, lines, caption, names, photo, across, (width, height + above), panel)


def row_title(result: Rows, row: int) -> str:
    """The title of a row, or the name of its picture where it has none."""
    return result.titles[row] or picture_name(result, row) or f"picture {row + 1}"


def _under(result: Rows) -> list[str]:
    return [line for subtitle in result.subtitles for line in subtitle.split("\n")]


def _caption_height(result: Rows, tile: int) -> int:
    lines = [caption.count("\n") + 1 for panel in result.panels for row in panel.captions for caption in row if caption]
    return LINE * max(lines) + 8 if lines and tile >= SMALLEST + 16 else 0


def _begins(result: Rows, row: int) -> bool:
    """Whether a section begins with that row."""
    return bool(result.sections) and (row == 0 or result.sections[row] != result.sections[row - 1])


def _placed(result: Rows, layout: Layout) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """The corner (x, y) of every row that is drawn, and the (width, height) of all."""
    y, column, places = 0 if result.stacked else HEADER, 0, []
    for row in range(min(len(result.titles), MOST)):
        if column == layout.across or (row and _begins(result, row)):
            y, column = y + layout.block[1] + BELOW, 0
        y += HEADER + 14 if _begins(result, row) else 0
        places.append((column * (layout.block[0] + 2 * BETWEEN), y))
        column += 1
    used = max(x for x, _ in places) + layout.block[0]
    return places, (used, y + layout.block[1])


# ---- drawing


def _section(sheet: Sheet, result: Rows, row: int, x: int, y: int) -> None:
    if _begins(result, row):
        sheet.text(x, y - 22, result.sections[row], size=HEAD, bold=True)
        sheet.rectangle(x, y - 10, sheet.width - MARGIN - x, 1, sheet.theme.line)


def _panel_names(sheet: Sheet, result: Rows, layout: Layout, x: int, y: int) -> None:
    x += layout.names + (layout.photo + BETWEEN if layout.photo else 0)
    for place, panel in enumerate(result.panels):
        left = x + place * (layout.panel[0] + BETWEEN)
        sheet.text(left, y + 20, shorten(panel.name, layout.panel[0], SMALL), size=SMALL, colour=sheet.theme.soft)


def _row(sheet: Sheet, result: Rows, layout: Layout, row: int, x: int, y: int) -> None:
    y = _names(sheet, result, layout, row, x, y)
    x += layout.names
    if layout.photo and result.images is not None:
        _photo(sheet, result, layout, row, x, y)
        x += layout.photo + BETWEEN
    for panel in result.panels:
        if result.stacked:
            sheet.text(x, y + 20, shorten(panel.name, layout.panel[0], SMALL), size=SMALL, colour=sheet.theme.soft)
            y += HEADER - 8
        _panel(sheet, panel, layout, row, x, y)
        if result.stacked:
            y += layout.panel[1] + 8 + GAP
        else:
            x += layout.panel[0] + BETWEEN


def _names(sheet: Sheet, result: Rows, layout: Layout, row: int, x: int, y: int) -> int:
    """The row's name, at its left or above it; where the rest of it begins."""
    under = result.subtitles[row].split("\n") if result.subtitles else []
    width = layout.names - 18 if layout.names else layout.block[0]
    sheet.text(x, y + 22, shorten(row_title(result, row), width, HEAD, True), size=HEAD, bold=True)
    for number, line in enumerate(under):
        sheet.text(x, y + 48 + 24 * number, shorten(line, width, SMALL), size=SMALL, colour=sheet.theme.soft)
    return y if layout.names else y + HEADER + (LINE + 4) * bool(result.subtitles)


def _photo(sheet: Sheet, result: Rows, layout: Layout, row: int, x: int, y: int) -> None:
    assert result.images is not None
    image = result.images[row].float().numpy()
    below = HEADER - 8 if result.stacked else 0
    sheet.picture(_fitted(to_pixels(image), layout.photo, sheet.theme), x, y + below, f"photograph {row}")
    name = shorten(picture_name(result, row), layout.photo, SMALL) if result.titles[row] else ""
    sheet.text(x, y + below + layout.photo + 24, name, size=SMALL, colour=sheet.theme.soft)


def _panel(sheet: Sheet, panel: Panel, layout: Layout, row: int, x: int, y: int) -> None:
    for index, pixels in enumerate(pictures(panel, row, layout.tile)):
        line, column = divmod(index, layout.columns)
        left = x + column * (layout.tile + GAP)
        top = y + line * (layout.tile + GAP + layout.caption)
        sheet.picture(_fitted(pixels, layout.tile, sheet.theme), left, top, f"{panel.name} {row} {index}")
        if layout.caption and panel.captions:
            _caption(sheet, panel.captions[row][index], left, top + layout.tile, layout.tile)


def _caption(sheet: Sheet, caption: str, x: int, y: int, width: int) -> None:
    for number, line in enumerate(caption.split("\n") if caption else []):
        sheet.text(x, y + 20 + LINE * number, shorten(line, width, 5.2), size=5.2, colour=sheet.theme.soft)


def _fitted(pixels: Pixels, side: int, theme: Theme) -> Pixels:
    """In the middle of a square of paper."""
    height, width = pixels.shape[:2]
    size = max(1, round(height * side / max(height, width))), max(1, round(width * side / max(height, width)))
    drawn = resized(pixels, size, smooth=max(height, width) >= TINY)
    if size == (side, side):
        return drawn
    square = np.full((side, side, 3), [int(theme.paper[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    square[top : top + size[0], left : left + size[1]] = drawn
    return square


def pictures(panel: Panel, row: int, side: int) -> list[Pixels]:
    """The tiles of a row in colour (h, w, 3), at least ``side`` large, with their boxes outlined."""
    tiles = panel.tiles[row].float().numpy()
    found = []
    for index, tile in enumerate(tiles):
        shape = tile.shape[1:]
        scale = max(1.0, side / max(shape))
        size = max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))
        coloured = _signed(tile) if panel.signed else to_pixels(tile)
        drawn = resized(coloured, size, smooth=max(shape) >= TINY)
        if panel.boxes:
            drawn = outlined(drawn, panel.boxes[row][index].tolist(), size[0] / shape[0], size[1] / shape[1])
        found.append(drawn)
    return found


def _signed(tile: np.ndarray) -> Pixels:
    bound = upper_end(np.abs(tile)) if tile.size and np.abs(tile).max() > 0 else 1.0
    return symmetric_colour(tile, bound)


def outlined(pixels: Pixels, box: list[float], down: float, across: float) -> Pixels:
    """With a box (top, left, bottom, right) drawn, whose pixels are ``down`` and ``across`` times as large here."""
    height, width = pixels.shape[:2]
    edge = max(2, round(max(height, width) / 75))
    top, bottom = (int(np.clip(round(place * down), 0, height)) for place in (box[0], box[2]))
    left, right = (int(np.clip(round(place * across), 0, width)) for place in (box[1], box[3]))
    drawn = pixels.copy()
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    inside[top + edge : bottom - edge, left + edge : right - edge] = False
    drawn[inside] = OUTLINE
    return drawn


# ---- as a part of a page


def html(result: Rows, *, quality: int = embed.QUALITY) -> str:
    """A <figure> a row, with a list of tiles for each panel."""
    parts = [f'<p class="unit">Layer {embed.escape(result.layer)}.</p>'] if result.layer and not result.sections else []
    for row in range(len(result.titles)):
        if _begins(result, row):
            parts.append(f'<h4 class="section">{embed.escape(result.sections[row])}</h4>')
        parts.append(_figure(result, row, quality))
    return f'<div class="rows">{"".join(parts)}</div>'


def _figure(result: Rows, row: int, quality: int) -> str:
    under = result.subtitles[row].replace("\n", " · ") if result.subtitles else ""
    photo = ""
    if result.images is not None:
        name = picture_name(result, row) if result.titles[row] else ""
        shown = embed.image(
            to_pixels(result.images[row].float().numpy()), name or f"Photograph {row + 1}", quality=quality
        )
        photo = f'<div class="photo">{shown}<p class="unit">{embed.escape(name)}</p></div>'
    panels = "".join(_tiles(panel, row, result.columns, quality) for panel in result.panels)
    kind = "panels stacked" if result.stacked else "panels"
    caption = embed.caption(row_title(result, row), [under], stacked=True)
    return f'<figure class="row">{caption}<div class="line">{photo}<div class="{kind}">{panels}</div></div></figure>'


def _tiles(panel: Panel, row: int, columns: int | None, quality: int) -> str:
    captions = panel.captions[row] if panel.captions else [""] * len(panel.tiles[row])
    items = []
    for pixels, caption in zip(pictures(panel, row, 112), captions, strict=True):
        said = f"<figcaption>{embed.escape(caption).replace(chr(10), '<br>')}</figcaption>" if caption else ""
        alt = caption.replace("\n", ", ") or panel.name
        items.append(f"<figure>{embed.image(pixels, alt, quality=quality)}{said}</figure>")
    tiles = f'<div class="tiles" style="--columns: {columns or len(captions)}">{"".join(items)}</div>'
    return f'<div><p class="unit">{embed.escape(panel.name)}</p>{tiles}</div>'
