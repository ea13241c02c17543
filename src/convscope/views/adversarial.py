"""A picture before and after an attack, their difference as it is and enlarged, and what the network says of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import numpy as np

from convscope.images import to_uint8
from convscope.results import Adversarial
from convscope.views import embed
from convscope.views.colour import Array
from convscope.views.pixels import Pixels, enlarged, photograph, tiny
from convscope.views.sheet import MARGIN, Plate, Sheet, blocks, footer, framed, heading, picture_name
from convscope.views.style import BODY, HEAD, LIGHT, SMALL, Theme, measure, number, percent, shorten, wrap

MOST = 16  # pictures in one figure; the rest are said
SOME = 6  # of those that share one change, on a page too
GAP = 18
HEAD_ROOM, WORDS = 46, 34  # pixels for a block's title, and for the line under its pictures
STEP, BAR = 50, 38  # pixels from one class to the next, and of one
LINE = 26
TINY = 6.0  # points, where a name has no room


def figure(result: Adversarial, theme: Theme = LIGHT) -> Plate:
    """One block a picture: original, changed picture, difference, enlarged difference; bars and what changed below."""
    count = min(len(result.values), MOST if result.per_picture else SOME)
    columns = 1 if count <= 3 else 2
    side = 400 if count == 1 else 300 if count <= 3 else 232
    size = enlarged((result.values.shape[-2], result.values.shape[-1]), side)
    panel = max(size[1], 200)
    classes = max((len(names) for names in result.names), default=2)
    under = max(STEP * (classes - 1) + BAR, LINE * 4)
    block = (4 * panel + 3 * GAP, HEAD_ROOM + size[0] + WORDS + under)
    width, height, corners = blocks(count, *block, columns=columns, gap=72, down=48)
    notes = footer(result, len(result.values), count, "pictures")
    sheet, first = framed((width, height), heading(result), notes, theme)
    for index, (x, y) in enumerate(corners):
        _draw(sheet, result, index, (MARGIN + x, first + y), size, panel)
    return sheet.plate


@singledispatch
def panels(result: Adversarial, index: int) -> list[tuple[str, Pixels]]:
    """(name, pixels) of the four pictures. Differences lie around mid-grey, a level of change a level of 255.

    A kind of result that shows others registers a function for itself.
    """
    original, changed = result.originals[index], result.values[index]
    change = (changed - original).double().numpy()
    factor = number(result.factor)
    return [
        ("original", to_uint8(original)),
        ("changed", to_uint8(changed)),
        ("difference, grey is none", _around_grey(change)),
        (f"difference × {factor}", _around_grey(change * result.factor)),
    ]


def _around_grey(change: Array) -> Pixels:
    """(3, H, W) in [-1, 1] to (H, W, 3): nothing is mid-grey, and what is too much for it is full."""
    return np.moveaxis(np.rint(128 + 255 * change).clip(0, 255).astype(np.uint8), 0, -1)


def _title(result: Adversarial, index: int) -> str:
    title = result.titles[index] if index < len(result.titles) else ""
    name = picture_name(result, result.place(index))
    return f"{title}   ({name})" if title and name else title or name


def _lines(result: Adversarial, index: int) -> Sequence[str]:
    return result.captions[index] if index < len(result.captions) else []


def _draw(
    sheet: Sheet, result: Adversarial, index: int, at: tuple[int, int], size: tuple[int, int], panel: int
) -> None:  # fmt: skip
    (x, y), whole = at, 4 * panel + 3 * GAP
    sheet.text(x, y + 24, shorten(_title(result, index), whole, HEAD, True), size=HEAD, bold=True)
    y += HEAD_ROOM
    for place, (name, pixels) in enumerate(panels(result, index)):
        left = x + place * (panel + GAP)
        sheet.picture(photograph(pixels, size), left, y, name)
        words = shorten(name, panel, SMALL)
        sheet.text(left, y + size[0] + 22, words, size=SMALL, colour=sheet.theme.soft)
    y += size[0] + WORDS
    names = result.names[index]
    for place, shares in enumerate((result.before[index], result.after[index])):
        for row, (name, share) in enumerate(zip(names, shares, strict=True)):
            _bar(sheet, name, share, (x + place * (panel + GAP), y + row * STEP), panel, best=share == max(shares))
    left, room = x + 2 * (panel + GAP), 2 * panel + GAP
    lines = [line for words in _lines(result, index) for line in wrap(words, room, SMALL)]
    for row, line in enumerate(lines[:4]):
        sheet.text(left, y + 20 + row * LINE, line, size=SMALL, colour=sheet.theme.soft)


def _bar(sheet: Sheet, name: str, share: float, at: tuple[int, int], width: int, *, best: bool) -> None:
    (x, y), theme, value = at, sheet.theme, percent(share)
    colour = theme.ink if best else theme.soft
    whole = measure(name, BODY, best) + 12 + measure(value, BODY, best)
    size = BODY if whole <= width else TINY
    room = width - measure(value, size, best) - 12
    sheet.text(x, y + 20, shorten(name, room, size, best), size=size, bold=best, colour=colour)
    sheet.text(x + width, y + 20, value, size=size, bold=best, align="right", colour=colour)
    sheet.rectangle(x, y + 29, width, 7, theme.line)
    sheet.rectangle(x, y + 29, width * min(max(share, 0.0), 1.0), 7, theme.accent if best else theme.soft)


# ---- as a part of a page


def html(result: Adversarial, *, quality: int = embed.QUALITY) -> str:
    """A <figure> for each picture: four pictures in a row, and the classes under the first two; of pictures that share
    one change some."""
    total = len(result.values)
    count = total if result.per_picture else min(total, SOME)
    figures = "\n".join(_figure(result, index, quality) for index in range(count))
    said = f'<p class="unit">{count} of {total} pictures are drawn.</p>' if count < total else ""
    return f'{said}<div class="figures pairs">{figures}</div>'


def _figure(result: Adversarial, index: int, quality: int) -> str:
    drawn = [
        embed.image(pixels, f"{name}: {_title(result, index)}", quality=quality, pixelated=tiny(pixels))
        for name, pixels in panels(result, index)
    ]
    names = [f"<span>{embed.escape(name)}</span>" for name, _ in panels(result, index)]
    shares = (result.before[index], result.after[index])
    under = [_list(result.names[index], each) for each in shares] + [_said(result, index), ""]
    cells = "".join(
        f"<div>{picture}{name}{words}</div>" for picture, name, words in zip(drawn, names, under, strict=True)
    )
    text = embed.caption(_title(result, index))
    return f'<figure>{text}<div class="four">{cells}</div></figure>'


def _list(names: Sequence[str], shares: Sequence[float]) -> str:
    items = "".join(
        f"<li{' class=best' if share == max(shares) else ''}><span>{embed.escape(name)}</span>"
        f'<span class="share">{percent(share)}</span><i style="width: {100 * min(max(share, 0.0), 1.0):.2f}%"></i></li>'
        for name, share in zip(names, shares, strict=True)
    )
    return f"<ol>{items}</ol>"


def _said(result: Adversarial, index: int) -> str:
    return "".join(f"<p>{embed.escape(line)}</p>" for line in _lines(result, index))
