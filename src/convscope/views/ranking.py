"""A photograph beside the names that fit it best, with a bar for the share of each."""

from __future__ import annotations

from collections.abc import Sequence

from convscope.results import Ranking
from convscope.views import embed
from convscope.views.pixels import enlarged, photograph, tiny, to_pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, blocks, footer, framed, heading, picture_name
from convscope.views.style import BODY, HEAD, LIGHT, Theme, measure, percent, shorten

MOST = 24  # pictures in one figure; the rest are said
WORDS = 470  # pixels for names and bars
STEP = 47.0  # pixels at least from one name to the next


def figure(result: Ranking, theme: Theme = LIGHT) -> Plate:
    """One block a picture, in two or three columns where there are many."""
    count = min(len(result.names), MOST)
    columns = 1 if count <= 2 else 2 if count <= 12 else 3
    photo = enlarged((result.images.shape[-2], result.images.shape[-1]), 360 if columns == 1 else 280)
    lines = max(len(names) for names in result.names)
    top = 46 if any(_title(result, i) for i in range(count)) else 0
    block = (max(photo[1], 120) + 40 + WORDS, top + max(photo[0], round(STEP * (lines - 1)) + 38))
    width, height, corners = blocks(count, *block, columns=columns, gap=80, down=56)
    notes = footer(result, len(result.names), count, "pictures")
    sheet, first = framed((width, height), heading(result), notes, theme)
    for index, (x, y) in enumerate(corners):
        _draw(sheet, result, index, MARGIN + x, first + y, photo, top)
    return sheet.plate


def _title(result: Ranking, index: int) -> str:
    given = result.titles[index] if index < len(result.titles) else ""
    return given or picture_name(result, index)


def _draw(sheet: Sheet, result: Ranking, index: int, x: int, y: int, photo: tuple[int, int], top: int) -> None:
    title = _title(result, index)
    if title:
        room = max(photo[1], 120) + 40 + WORDS
        sheet.text(x, y + 24, shorten(title, room, HEAD, True), size=HEAD, bold=True)
    y += top
    sheet.picture(photograph(to_pixels(result.images[index].float().numpy()), photo), x, y, "photograph")
    names, shares = result.names[index], result.shares[index]
    step = min(80.0, max(STEP, (photo[0] - 38) / max(len(names) - 1, 1)))  # the last bar ends with the photograph
    x += max(photo[1], 120) + 40
    for place, (name, share) in enumerate(zip(names, shares, strict=True)):
        _bar(sheet, name, share, x, y + place * step, first=place == 0)


def _bar(sheet: Sheet, name: str, share: float, x: float, y: float, *, first: bool) -> None:
    theme, value = sheet.theme, percent(share)
    colour = theme.ink if first else theme.soft
    room = WORDS - measure(value, BODY, first) - 24
    sheet.text(x, y + 20, shorten(name, room, BODY, first), bold=first, colour=colour)
    sheet.text(x + WORDS, y + 20, value, bold=first, align="right", colour=colour)
    sheet.rectangle(x, y + 31, WORDS, 7, theme.line)
    sheet.rectangle(x, y + 31, WORDS * min(max(share, 0.0), 1.0), 7, theme.accent if first else theme.soft)


def html(result: Ranking, *, quality: int = embed.QUALITY) -> str:
    """A <figure> for each picture, with an ordered list of names."""
    return '<div class="figures">' + "\n".join(_figure(result, i, quality) for i in range(len(result.names))) + "</div>"


def _figure(result: Ranking, index: int, quality: int) -> str:
    pixels = to_pixels(result.images[index].float().numpy())
    name = _title(result, index) or f"picture {index + 1}"
    photo = embed.image(pixels, f"Photograph: {name}", quality=quality, pixelated=tiny(pixels))
    found = listed(result.names[index], result.shares[index])
    return f'<figure>{embed.caption(name)}<div class="ranking"><div>{photo}</div>{found}</div></figure>'


def listed(names: Sequence[str], shares: Sequence[float]) -> str:
    """Names with a bar for the share of each."""
    items = "".join(
        f'<li><span>{embed.escape(label)}</span><span class="share">{percent(share)}</span>'
        f'<i style="width: {100 * min(max(share, 0.0), 1.0):.2f}%"></i></li>'
        for label, share in zip(names, shares, strict=True)
    )
    return f"<ol>{items}</ol>"
