"""Groups of maps: each with its mean, what is known of it, and some of its pictures under their maps."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from convscope.results import Clusters
from convscope.views import embed
from convscope.views.colour import Array, overlay, scale_of
from convscope.views.pixels import Pixels, enlarged, photograph, resized, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import BODY, DARK, HEAD, LIGHT, SMALL, Theme, settled, wrap

MEAN, TILE, GAP = 240, 200, 14  # pixels
WORDS = 400
TOP, DOWN = 44, 46  # above a group's pictures, and between groups
SPECTRUM = 190


def figure(result: Clusters, theme: Theme = LIGHT) -> Plate:
    """The eigenvalues, then a row a group."""
    sheet, top = framed(_size(result), heading(result), footer(result, 0, 0, ""), theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _tile(result: Clusters, target: int) -> tuple[int, int]:
    return enlarged((result.examples.shape[-2], result.examples.shape[-1]), target)


def _size(result: Clusters) -> tuple[int, int]:
    mean, tile = _tile(result, MEAN), _tile(result, TILE)
    width = mean[1] + GAP + WORDS + GAP + result.examples.shape[1] * (tile[1] + GAP) - GAP
    rows = len(result.means) * (TOP + max(mean[0], tile[0]) + DOWN) - DOWN
    return width, SPECTRUM + 110 + rows


def _draw(sheet: Sheet, result: Clusters, x: int, y: int) -> None:
    _spectrum(sheet, result, x, y)
    y += SPECTRUM + 110
    height = max(_tile(result, MEAN)[0], _tile(result, TILE)[0])
    for group in range(len(result.means)):
        _group(sheet, result, group, x, y + group * (TOP + height + DOWN))


def _group(sheet: Sheet, result: Clusters, group: int, x: int, y: int) -> None:
    theme, marked = sheet.theme, result.marks[group]
    colour = theme.accent if marked else theme.ink
    words = f"Group {group + 1}" + (": look here" if marked else "")
    sheet.text(x, y + 24, words, size=HEAD, bold=True, colour=colour)
    y += TOP
    mean, tile = _tile(result, MEAN), _tile(result, TILE)
    sheet.picture(_mean(result, group, mean), x, y, f"mean {group}")
    left = x + mean[1] + GAP + 10
    line = y + 20
    for fact in result.facts[group]:
        for part in wrap(fact[:1].upper() + fact[1:], WORDS - 24, SMALL):
            sheet.text(left, line, part, size=SMALL, colour=theme.ink)
            line += 26
        line += 10
    left = x + mean[1] + GAP + WORDS + GAP
    for place in range(result.shown[group]):
        sheet.picture(_laid(result, group, place, tile), left + place * (tile[1] + GAP), y, f"{group} {place}")


def _mean(result: Clusters, group: int, size: tuple[int, int]) -> Pixels:
    """The mean map on the mean picture, with the strongest place outlined."""
    large = result.example_maps.shape[-2:]
    mean = result.means[group].double().numpy()
    picture = photograph(to_pixels(result.mean_pictures[group].numpy()), size)
    scale = scale_of(mean, signed=False)
    stretched = np.asarray(resized(scale.colours(mean), size, smooth=True), float)
    strength = np.asarray(resized((255 * scale.positions(mean)).astype(np.uint8)[..., None].repeat(3, 2), size,
                                  smooth=True), float)[..., :1] / 255  # fmt: skip
    share = 0.85 * strength**0.8
    mixed = np.rint(0.62 * picture.mean(-1, keepdims=True) * (1 - share) + stretched * share).astype(np.uint8)
    spot = result.spots[group].numpy().reshape(large)
    return _outlined(mixed, spot, size)


def _outlined(pixels: Pixels, spot: Array, size: tuple[int, int]) -> Pixels:
    rows, columns = (np.arange(n) * m // n for n, m in zip(size, spot.shape, strict=True))
    mask = spot[rows[:, None], columns]
    inner = mask.copy()
    for _ in range(2):
        padded = np.pad(inner, 1, constant_values=False)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    drawn = pixels.copy()
    drawn[mask & ~inner] = 255
    return drawn


def _laid(result: Clusters, group: int, place: int, size: tuple[int, int]) -> Pixels:
    photo = to_pixels(result.examples[group, place].numpy())
    values = result.example_maps[group, place].double().numpy()
    coloured = overlay_in_colour(photo, values)
    return photograph(coloured, size)


def overlay_in_colour(photo: Pixels, values: Array) -> Pixels:
    """A map on a photograph that keeps its colours where the map says nothing."""
    scale = scale_of(values, signed=False)
    if scale.constant:
        return overlay(photo, values, scale)
    share = 0.85 * scale.strengths(values)[..., None] ** 1.2
    return np.rint(photo * (1 - share) + scale.colours(values) * share).astype(np.uint8)


def _spectrum(sheet: Sheet, result: Clusters, x: int, y: int) -> None:
    """Eigenvalues as dots, where the gap parts the groups from the rest."""
    theme = sheet.theme
    sheet.text(x, y + 22, "Eigenvalues of the graph", size=HEAD, bold=True)
    count = len(result.eigenvalues)
    axes = sheet.chart(x + 60, y + 46, 640, SPECTRUM - 20, "spectrum")
    at = np.arange(1, count + 1)
    axes.axvline(len(result.means) + 0.5, color=theme.quiet, linewidth=0.8, linestyle=(0, (4, 3)))
    for values, colour in ((result.chance, theme.quiet), (result.eigenvalues, theme.series[0])):
        axes.plot(at, values.numpy(), color=colour, linewidth=0.8, marker="o", markersize=4, markeredgewidth=0)
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=-0.05)
    left = x + 60 + 640 + 50
    for place, (words, colour) in enumerate(
        (("of these maps", theme.series[0]), ("of the same maps shuffled", theme.quiet))
    ):
        sheet.rectangle(left, y + 80 + 40 * place, 26, 5, colour)
        sheet.text(left + 38, y + 90 + 40 * place, words, size=BODY, colour=theme.soft)
    words = f"as many groups as eigenvalues left of the line: {len(result.means)}"
    sheet.text(left, y + 170, words, size=BODY, colour=theme.soft)


def html(result: Clusters, *, quality: int = embed.QUALITY) -> str:
    """The groups as one drawing, in the page's colours."""
    said = [f"group {place + 1}: {'; '.join(facts)}" for place, facts in enumerate(result.facts)]
    alt = ". ".join(said)
    drawing = embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)
    return f'<figure class="drawn">{drawing}</figure>'


def _on_page(result: Clusters, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return np.ascontiguousarray(sheet.plate.pixels())
