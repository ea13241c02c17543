"""Shape against texture: a row for each class, a mark for each network, and some of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convscope.behaviour.conflict import Count
from convscope.images import to_uint8
from convscope.results import Bias
from convscope.views import embed, tables
from convscope.views.pixels import Pixels, enlarged, photograph
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import BODY, DARK, HEAD, LIGHT, SMALL, Theme, measure, settled, shorten

NAMES, PLOT = 250, 820  # pixels: of the classes' names, and from all shape to all texture
ROW, APART = 46, 15  # of a class, and from one network's mark to the next within it
TOP, BOTTOM = 104, 60
DOT, GAP, LINES = 12, 22, 92  # of a mark; between pictures; the words under one
TILE, COLUMNS = 168, 6
TINY = 5.2  # points
PEOPLE = 0.959  # the mean of people in Geirhos et al. 2019, section 3.1


def figure(result: Bias, theme: Theme = LIGHT) -> Plate:
    """The chart, and some of the pictures under it."""
    sheet, top = framed(_size(result), heading(result), footer(result, 0, 0, ""), theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _classes(result: Bias) -> list[str]:
    return sorted({count.name for _, counts in result.series for count in counts[:-1]})


def _high(result: Bias) -> int:
    """Pixels of a class's row."""
    return max(ROW, APART * len(result.series) + 18)


def _chart(result: Bias) -> int:
    return TOP + _high(result) * (len(_classes(result)) + 1) + BOTTOM


def _tile(result: Bias) -> tuple[int, int]:
    assert result.examples is not None
    return enlarged((result.examples.shape[-2], result.examples.shape[-1]), TILE)


def _size(result: Bias) -> tuple[int, int]:
    width, height = NAMES + PLOT + 40, _chart(result)
    if result.examples is None or not len(result.examples):
        return width, height
    tile, rows = _tile(result), -(-len(result.examples) // COLUMNS)
    return max(width, COLUMNS * (tile[1] + GAP) - GAP), height + 60 + rows * (tile[0] + LINES)


def _draw(sheet: Sheet, result: Bias, x: int, y: int) -> None:
    _axis(sheet, result, x + NAMES, y)
    classes, high = _classes(result), _high(result)
    for row, name in enumerate([*classes, "all"]):
        middle = y + TOP + row * high + high / 2
        last = row == len(classes)
        words = shorten("all classes" if last else name, NAMES - 24, BODY, last)
        sheet.text(x + NAMES - 18, middle + 8, words, align="right", bold=last)
        sheet.rectangle(
            x + NAMES,
            middle + high / 2 - 1,
            PLOT,
            1,
            sheet.theme.quiet if row >= len(classes) - 1 else sheet.theme.line,
        )
        _marks(sheet, result, name, x + NAMES, middle)
    if result.examples is not None:
        _examples(sheet, result, x, y + _chart(result) + 40)


def _axis(sheet: Sheet, result: Bias, x: int, y: int) -> None:
    theme, bottom = sheet.theme, y + _chart(result) - BOTTOM
    left = x
    for place, (name, _) in enumerate(result.series):
        colour = theme.series[place % len(theme.series)]
        sheet.rectangle(left, y + 8, DOT, DOT, colour)
        sheet.text(left + DOT + 10, y + 22, name, colour=colour)
        left += round(DOT + 10 + measure(name, BODY) + 36)
    sheet.text(x, y + TOP - 16, "← all decisions for the shape", size=HEAD, bold=True)
    sheet.text(x + PLOT, y + TOP - 16, "all for the texture →", size=HEAD, bold=True, align="right")
    for share in (0, 0.25, 0.5, 0.75, 1):
        sheet.rectangle(x + share * PLOT, y + TOP, 1, bottom - y - TOP, theme.quiet if share == 0.5 else theme.line)
        align = "left" if share == 0 else "right" if share == 1 else "center"
        sheet.text(x + share * PLOT, bottom + 26, f"{1 - share:.0%}", size=SMALL, colour=theme.soft, align=align)
    at = x + (1 - PEOPLE) * PLOT
    for dash in range(y + TOP, bottom - 6, 14):
        sheet.rectangle(at - 1, dash, 2, 7, theme.soft)
    sheet.text(at, bottom + 50, "people in the paper", size=TINY, colour=theme.soft, align="center")


def _marks(sheet: Sheet, result: Bias, name: str, x: float, middle: float) -> None:
    """One for each network, with the interval; nothing where it decided for neither in all pictures."""
    begin = middle - APART * (len(result.series) - 1) / 2
    for place, (_, counts) in enumerate(result.series):
        count = _of(counts, name)
        if count is None or not count.shape + count.texture:
            continue
        colour, y = sheet.theme.series[place % len(sheet.theme.series)], begin + APART * place
        bias = count.bias
        sheet.rectangle(x + (1 - bias.high) * PLOT, y - 1, (bias.high - bias.low) * PLOT, 2, colour)
        size = DOT + 4 if name == "all" else DOT
        sheet.rectangle(x + (1 - bias.mean) * PLOT - size / 2, y - size / 2, size, size, colour)


def _of(counts: Sequence[Count], name: str) -> Count | None:
    return next((count for count in counts if count.name == name), None)


def _examples(sheet: Sheet, result: Bias, x: int, y: int) -> None:
    assert result.examples is not None
    size = _tile(result)
    for number, picture in enumerate(result.examples):
        left, top = x + number % COLUMNS * (size[1] + GAP), y + number // COLUMNS * (size[0] + LINES)
        sheet.picture(photograph(to_uint8(picture), size), left, top, f"example {number}")
        for line, words in enumerate(result.example_titles[number].split("\n")):
            colour = sheet.theme.ink if line == 2 else sheet.theme.soft
            text = shorten(words, size[1] + GAP - 4, TINY)
            sheet.text(left, top + size[0] + 22 + 20 * line, text, size=TINY, colour=colour)


def html(result: Bias, *, quality: int = embed.QUALITY) -> str:
    """The chart as one drawing, and the table beneath it."""
    alt = f"Shape bias of {', '.join(name for name, _ in result.series)} by class"
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}</figure>{tables.html(result, quality=quality)}'


def _on_page(result: Bias, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
