"""A patch, how often it fools by its share of the picture, and what it looks like in use."""

from __future__ import annotations

import math

import numpy as np

from convscope.images import to_uint8
from convscope.results import Patch
from convscope.views import embed
from convscope.views.pixels import Pixels, enlarged, photograph, resized
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import DARK, HEAD, LIGHT, SMALL, Theme, settled, shorten

SIDE, APART = 380, 150  # pixels of the patch, and from it to the chart
PLOT, HIGH, TOP = 620, 300, 84  # of the chart
BAR, DOT = 2, 14
TILE, COLUMNS, GAP, WORDS = 272, 4, 22, 40


def figure(result: Patch, theme: Theme = LIGHT) -> Plate:
    """The patch, the chart beside it, and pictures under both."""
    sheet, top = framed(_size(result), heading(result), footer(result, 0, 0, ""), theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _tile(result: Patch) -> tuple[int, int]:
    assert result.examples is not None
    return enlarged((result.examples.shape[-2], result.examples.shape[-1]), TILE)


def _size(result: Patch) -> tuple[int, int]:
    width, height = SIDE + APART + PLOT, TOP + HIGH + 90
    if result.examples is None:
        return width, height
    tile, rows = _tile(result), math.ceil(len(result.examples) / COLUMNS)
    return max(width, COLUMNS * (tile[1] + GAP) - GAP), height + 30 + rows * (tile[0] + WORDS)


def _draw(sheet: Sheet, result: Patch, x: int, y: int) -> None:
    sheet.text(
        x, y + 24, shorten(f"a {result.form} for {result.target}", SIDE + APART - 40, HEAD, True), size=HEAD, bold=True
    )
    sheet.picture(patch_on(result, sheet.theme.paper), x, y + 44, "patch")
    _chart(sheet, result, x + SIDE + APART, y)
    if result.examples is None:
        return
    size, top = _tile(result), y + TOP + HIGH + 120
    for number, picture in enumerate(result.examples):
        left, row = x + number % COLUMNS * (size[1] + GAP), top + number // COLUMNS * (size[0] + WORDS)
        sheet.picture(photograph(to_uint8(picture), size), left, row, f"example {number}")
        sheet.text(left, row + size[0] + 24, shorten(result.example_titles[number], size[1], SMALL), size=SMALL)


def patch_on(result: Patch, paper: str) -> Pixels:
    """(S, S, 3): the patch on paper of that colour, squares of its own pixels."""
    colours = to_uint8(result.values[0])
    under = np.array([int(paper[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    inside = result.covered.numpy()[..., None]
    return resized(np.where(inside, colours, under), (SIDE, SIDE), smooth=False)


def _chart(sheet: Sheet, result: Patch, x: int, y: int) -> None:
    theme, top = sheet.theme, y + TOP
    sheet.text(x, y + 24, f"taken for {shorten(result.target, 380, HEAD, True)}", size=HEAD, bold=True)
    sheet.text(x, y + 52, "share of held-out pictures, with its 95 % interval", size=SMALL, colour=theme.soft)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        sheet.rectangle(x, top + (1 - share) * HIGH, PLOT, 1, theme.quiet if share == 0 else theme.line)
        sheet.text(x - 12, top + (1 - share) * HIGH + 7, f"{share:.0%}", size=SMALL, colour=theme.soft, align="right")
    most = max(result.shares)
    for kind, (values, colour) in enumerate(((result.controls, theme.soft), (result.rates, theme.accent))):
        for place, share in enumerate(result.shares):
            at = x + 40 + share / most * (PLOT - 80) + (4 if kind else -14)
            mean, low, high = values[place].tolist()
            if math.isfinite(mean):
                sheet.rectangle(at - BAR / 2, top + (1 - high) * HIGH, BAR, (high - low) * HIGH, colour)
                sheet.rectangle(at - DOT / 2, top + (1 - mean) * HIGH - DOT / 2, DOT, DOT, colour)
    for share in result.shares:
        at = x + 40 + share / most * (PLOT - 80) - 5
        sheet.text(at, top + HIGH + 28, f"{share:.0%}", size=SMALL, colour=theme.soft, align="center")
    sheet.text(x + 40, top + HIGH + 60, "of the picture covered", size=SMALL, colour=theme.soft)
    for place, (words, colour) in enumerate((("the patch", theme.accent), ("the same, untrained", theme.soft))):
        left = x + 290 + place * 130
        sheet.rectangle(left, top + HIGH + 48, DOT, DOT, colour)
        sheet.text(left + 22, top + HIGH + 60, words, size=SMALL, colour=colour)


def html(result: Patch, *, quality: int = embed.QUALITY) -> str:
    """All of it as one drawing."""
    rates = ", ".join(
        f"{mean:.0%} at {share:.0%}" for share, (mean, _, _) in zip(result.shares, result.rates.tolist(), strict=True)
    )
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), f"Patch for {result.target}: {rates}")
    return f'<figure class="drawn">{drawing}</figure>'


def _on_page(result: Patch, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
