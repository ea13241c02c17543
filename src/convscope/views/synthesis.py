"""Pictures that were made: each with its title, beside the photograph that it came from, and how its score rose."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from convscope.images import to_uint8
from convscope.results import Synthesis
from convscope.views import embed
from convscope.views.colour import Array
from convscope.views.pixels import Pixels, enlarged, photograph, tiny
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, blocks, footer, framed, heading, picture_name
from convscope.views.style import DARK, HEAD, LIGHT, SMALL, Theme, number, settled, shorten

MOST = 24  # pictures in one figure; the rest are said
GAP = 18
CURVE, LEFT, UNDER = 120, 84, 46  # pixels of a curve's height, and what is written at its left and under it
NARROW = 300  # the least width of a curve


def figure(result: Synthesis, theme: Theme = LIGHT) -> Plate:
    """One block a picture: its title, the photograph that it was made from where there is one, and the picture; the
    curve of what was maximised under it."""
    count = min(len(result.values), MOST)
    size = enlarged((result.values.shape[2], result.values.shape[3]), _target(count))
    first = 0 if result.originals is None else _beside(result, size)[1] + GAP
    top = 46 if any(_title(result, index) for index in range(count)) else 0
    curve = 24 + CURVE + UNDER if _has_curve(result) else 0
    width = max(first + size[1], LEFT + NARROW if curve else 0)
    columns = result.columns or _columns(count, width, top + size[0] + curve)
    body_width, body_height, corners = blocks(count, width, top + size[0] + curve, columns=columns, gap=48, down=36)
    notes = footer(result, len(result.values), count, "pictures")
    sheet, begin = framed((body_width, body_height), heading(result), notes, theme)
    for index, (x, y) in enumerate(corners):
        _draw(sheet, result, index, (MARGIN + x, begin + y + top), size, width)
    return sheet.plate


def _target(count: int) -> int:
    """Pixels of a picture's longer side."""
    return 560 if count == 1 else 400 if count <= 4 else 300 if count <= 9 else 224


def _columns(count: int, width: int, height: int) -> int:
    return max(1, min(count, round(math.sqrt(1.3 * count * height / width))))


def _has_curve(result: Synthesis) -> bool:
    return result.trace is not None and len(result.trace) > 1


def _beside(result: Synthesis, size: tuple[int, int]) -> tuple[int, int]:
    """Size (height, width) of the photograph that stands beside a picture of that size: of the same height."""
    assert result.originals is not None
    height, width = result.originals.shape[-2:]
    return size[0], min(max(1, round(size[0] * width / height)), 2 * size[0])


def _title(result: Synthesis, index: int) -> str:
    return result.titles[index] if index < len(result.titles) else ""


def _original(result: Synthesis, index: int) -> Pixels:
    assert result.originals is not None
    return to_uint8(result.originals[min(index, len(result.originals) - 1)])


def _draw(
    sheet: Sheet, result: Synthesis, index: int, at: tuple[int, int], size: tuple[int, int], width: int
) -> None:  # fmt: skip
    (x, y), title, left = at, _title(result, index), at[0]
    if title:
        sheet.text(x, y - 22, shorten(title, width, HEAD, True), size=HEAD, bold=True)
    if result.originals is not None:
        beside = _beside(result, size)
        sheet.picture(photograph(_original(result, index), beside), x, y, "original")
        left += beside[1] + GAP
    sheet.picture(photograph(to_uint8(result.values[index]), size), left, y, "picture")
    if _has_curve(result):
        _curve(sheet, result, index, x, y + size[0] + 24, width)


# ---- the curve


def _curve(sheet: Sheet, result: Synthesis, index: int, x: int, y: int, width: int) -> None:
    """How what was maximised rose, step by step."""
    theme = sheet.theme
    axes = sheet.chart(x + LEFT, y, width - LEFT, CURVE, f"curve {index}")
    values = _trace(result, index)
    axes.plot(np.arange(1, len(values) + 1), values, color=theme.series[0], linewidth=1.0)
    _scale(axes)
    words = shorten(f"{result.quantity} over {len(values)} steps", width - LEFT, SMALL)
    sheet.text(x + LEFT, y + CURVE + 26, words, size=SMALL, colour=theme.soft)


def _trace(result: Synthesis, index: int) -> Array:
    assert result.trace is not None
    values: Array = result.trace[:, index].double().numpy()
    return values


def _scale(axes: Axes) -> None:
    axes.tick_params(axis="x", length=0, labelsize=0)
    axes.set_xticks([])
    axes.margins(x=0.01, y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, 3)))


# ---- as a part of a page


def html(result: Synthesis, *, quality: int = embed.QUALITY) -> str:
    """A <figure> for each picture, with its photograph beside it, and the curve under it."""
    kind = "figures" if len(result.values) > 1 and result.originals is None else "figures wide"
    kind = "figures single" if len(result.values) == 1 else kind
    figures = "\n".join(_figure(result, index, quality) for index in range(len(result.values)))
    return f'<div class="{kind}">{figures}</div>'


def _figure(result: Synthesis, index: int, quality: int) -> str:
    title = _title(result, index) or f"picture {index + 1}"
    what = result.provenance.technique if result.provenance else "picture"
    pixels = to_uint8(result.values[index])
    made = embed.image(pixels, f"Made by {what}: {title}", quality=quality, pixelated=tiny(pixels))
    curve = _drawn_curve(result, index) if _has_curve(result) else ""
    text = embed.caption(title, [picture_name(result, index)])
    if result.originals is None:
        return f"<figure>{text}<div>{made}{curve}</div></figure>"
    original = _original(result, index)
    photo = embed.image(original, f"Photograph: {title}", quality=quality, pixelated=tiny(original))
    pair = f'<div class="beside even"><div>{photo}</div><div>{made}</div></div>'
    return f"<figure>{text}<div>{pair}{curve}</div></figure>"


def _drawn_curve(result: Synthesis, index: int) -> str:
    values = _trace(result, index)
    alt = f"{result.quantity}: from {number(values[0], 3)} to {number(values[-1], 3)} in {len(values)} steps"
    drawing = embed.both_themes(_on_page(result, index, LIGHT), _on_page(result, index, DARK), alt)
    return f'<div class="curve">{drawing}</div>'


def _on_page(result: Synthesis, index: int, theme: Theme) -> Pixels:
    with settled():
        sheet = bare((900, 12 + CURVE + UNDER), theme)
        _curve(sheet, result, index, 0, 12, 890)
        return sheet.plate.pixels()
