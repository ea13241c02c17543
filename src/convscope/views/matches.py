"""Points found again: the picture with its points, the others with theirs, the picture put together, and how exact."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from convscope.results import Matches
from convscope.views import embed
from convscope.views.colour import Array
from convscope.views.pixels import Pixels, enlarged, photograph, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import BODY, DARK, HEAD, LIGHT, SMALL, Theme, measure, settled, shorten

TILE, GAP, TOP, DOWN = 300, 16, 74, 44  # pixels
CHART = (560, 300)  # width and height
DOTS = ("#ff4b3e", "#2aa7ff", "#ffd21f", "#35d07f", "#e07bff", "#ff9a3d", "#59e0e0", "#c6e44f", "#ff7fa5", "#9d8cff",
        "#b9f2ff", "#f2d0a4")  # fmt: skip
RETURN = 1 / 12  # of the longer side: a way back that leads farther off is doubtful
WAYS = {"network": "this layer", "SIFT": "SIFT, at its best size", "anywhere": "pointing anywhere"}


def figure(result: Matches, theme: Theme = LIGHT) -> Plate:
    """A row a picture, and the curves of the check below."""
    sheet, top = framed(_size(result), heading(result), footer(result, 0, 0, ""), theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _tile(result: Matches) -> tuple[int, int]:
    return enlarged((result.images.shape[-2], result.images.shape[-1]), TILE)


def _size(result: Matches) -> tuple[int, int]:
    height, width = _tile(result)
    columns = 2 + result.others.shape[1]
    chart = 90 + CHART[1] + 100 if result.found else 0
    return columns * (width + GAP) + 40, len(result.images) * (TOP + height + DOWN) - DOWN + chart


def _draw(sheet: Sheet, result: Matches, x: int, y: int) -> None:
    height, _ = _tile(result)
    for picture in range(len(result.images)):
        _row(sheet, result, picture, x, y + picture * (TOP + height + DOWN))
    if result.found:
        _check(sheet, result, x, y + len(result.images) * (TOP + height + DOWN) + 20)


def _row(sheet: Sheet, result: Matches, picture: int, x: int, y: int) -> None:
    theme, (height, width) = sheet.theme, _tile(result)
    title = result.titles[picture] if picture < len(result.titles) else ""
    sheet.text(x, y + 24, shorten(title, 4 * width, HEAD, True), size=HEAD, bold=True)
    step, top = width + GAP, y + TOP
    heads = [(x, "points of the picture"), (x + step + 20, "found in others"),
             (x + (1 + result.others.shape[1]) * step + 40, "from pieces of others")]  # fmt: skip
    for left, words in heads:
        sheet.text(left, y + 58, shorten(words, 2 * width, SMALL), size=SMALL, colour=theme.soft)
    points = np.concatenate([result.points[picture].numpy(), np.zeros((result.points.shape[1], 2))], 1)
    _pointed(sheet, result, result.images[picture].numpy(), points, x, top, f"{picture} own")
    for place, other in enumerate(result.others[picture]):
        found = result.values[picture, place].double().numpy()
        _pointed(sheet, result, other.numpy(), found, x + 20 + (1 + place) * step, top, f"{picture} {place}")
    made = photograph(to_pixels(result.rebuilt[picture].float().numpy()), (height, width))
    sheet.picture(made, heads[2][0], top, f"{picture} rebuilt")


def _pointed(sheet: Sheet, result: Matches, image: Array, points: Array, x: int, y: int, label: str) -> None:
    height, width = _tile(result)
    factor = height / image.shape[1]
    axes = sheet.axes(x, y, width, height, label)
    axes.set_axis_off()
    axes.imshow(photograph(to_pixels(image), (height, width)), interpolation="nearest", aspect="auto")
    doubtful = points[:, 3] > RETURN * max(image.shape[1:])
    for place, (row, column) in enumerate(points[:, :2]):
        at, colour = ((column + 0.5) * factor - 0.5, (row + 0.5) * factor - 0.5), DOTS[place % len(DOTS)]
        face = "none" if doubtful[place] else colour
        axes.plot(*at, "o", markersize=7.5, markerfacecolor=face, markeredgecolor="#101010", markeredgewidth=2.2)
        axes.plot(*at, "o", markersize=7.5, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.2)
        if not doubtful[place]:
            axes.annotate(str(place + 1), at, ha="center", va="center_baseline", fontsize=4.6, color="#101010")
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _check(sheet: Sheet, result: Matches, x: int, y: int) -> None:
    theme = sheet.theme
    sheet.text(x, y + 24, "How exact: points of bent pictures, where the truth is known", size=HEAD, bold=True)
    axes = sheet.chart(x + 70, y + 60, CHART[0], CHART[1], "check")
    colours = {"network": theme.series[0], "SIFT": theme.series[2], "anywhere": theme.soft}
    at = np.array(result.tolerances)
    for way, shares in result.found.items():
        mean, low, high = shares.double().numpy()
        style = (0, (4, 3)) if way == "anywhere" else "solid"
        axes.plot(at, mean, color=colours[way], linewidth=1.3, linestyle=style, marker="o", markersize=3.2)
        if way != "anywhere":
            axes.fill_between(at, low, high, color=colours[way], alpha=0.18, linewidth=0)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    words = "found within this share of the longer side →"
    sheet.text(x + 70, y + 60 + CHART[1] + 56, words, size=SMALL, colour=theme.soft)
    left, top = x + 70 + CHART[0] + 60, y + 110
    for way in result.found:
        sheet.rectangle(left, top - 9, 30, 5, colours[way])
        sheet.text(left + 44, top, WAYS.get(way, way), size=BODY, colour=theme.ink)
        top += 42
    doubt = "hollow: the way back leads elsewhere"
    sheet.text(left, top + 10, shorten(doubt, 2 * measure(doubt, SMALL), SMALL), size=SMALL, colour=theme.soft)


def html(result: Matches, *, quality: int = embed.QUALITY) -> str:
    """The rows and the check as one drawing, in the page's colours."""
    alt = f"Points of {len(result.images)} pictures found again in others; {'; '.join(result.notes)}"
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}</figure>'


def _on_page(result: Matches, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
