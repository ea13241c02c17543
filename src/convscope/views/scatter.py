"""Points in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patheffects import Normal, Stroke

from convscope.results import Scatter
from convscope.views import embed
from convscope.views.colour import Array
from convscope.views.pixels import Pixels
from convscope.views.sheet import MARGIN, Plate, Sheet, bare, footer, framed, heading
from convscope.views.style import DARK, LIGHT, SMALL, Theme, measure, settled, shorten

SIDE = 1100  # pixels
FLATTEST = 0.55  # height of a frame, of its width
NAMED = 40  # points at most that have their names written beside them


def figure(result: Scatter, theme: Theme = LIGHT) -> Plate:
    """Points with one scale for both directions, coloured by group; names where they are few."""
    lost = int((~result.values.isfinite().all(1)).sum())
    left_out = [f"{lost} points are not finite and are not drawn."] if lost else []
    count = f"{len(result.values) - lost:,} points"
    notes = [*footer(result, 0, 0, ""), *left_out]
    sheet, top = framed(_size(result), heading(result, count), notes, theme)
    _draw(sheet, result, MARGIN, top)
    return sheet.plate


def _high(result: Scatter) -> int:
    """Pixels of the frame's height: as the points lie, since both directions have one scale."""
    points = result.values.double().numpy()
    points = points[np.isfinite(points).all(1)]
    across, down = np.ptp(points, axis=0) if len(points) else (1.0, 1.0)
    return round(SIDE * float(np.clip(down / across if across > 0 else 1.0, FLATTEST, 1.0)))


def _size(result: Scatter) -> tuple[int, int]:
    return SIDE, _high(result) + _legend_height(_groups(result)[0])


def _draw(sheet: Sheet, result: Scatter, x: int, y: int) -> None:
    theme, points = sheet.theme, result.values.double().numpy()
    finite = np.isfinite(points).all(1)
    kinds, groups = _groups(result)
    axes = sheet.axes(x, y, SIDE, _high(result), "points")
    _plain(axes, theme)
    size = float(np.clip(12_000 / max(len(points), 1), 2.0, 42.0))
    colours = [_colour(theme, int(g), len(kinds)) for g in groups[finite]]
    axes.scatter(
        points[finite, 0], points[finite, 1], s=size, c=colours, alpha=0.85 if len(points) < 3000 else 0.6, linewidths=0
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.06)
    if _legend_height(kinds) == 0 and result.group_names and len(points) > NAMED:
        _write_groups(axes, points[finite], groups[finite], [_called(result, kind) for kind in kinds], theme)
    elif len(result.names) == len(points) <= NAMED:
        _write_names(axes, points[finite], [n for n, there in zip(result.names, finite, strict=True) if there], theme)
    _legend(sheet, result, x, y + _high(result))


def _called(result: Scatter, kind: int) -> str:
    """The name of a group, nothing for the group of those that have none."""
    if not result.group_names:
        return f"group {kind}"
    return result.group_names[kind] if 0 <= kind < len(result.group_names) else ""


def _write_groups(axes: Axes, points: Array, groups: Array, names: Sequence[str], theme: Theme) -> None:
    """Each group's name at its median, the most compact groups first; none where another one stands."""
    middles = [np.median(points[groups == group], axis=0) for group in range(len(names))]
    spreads = [np.median(np.abs(points[groups == group] - m).sum(1)) for group, m in enumerate(middles)]
    axes.apply_aspect()  # only now is it known where the points stand
    taken: list[tuple[float, float, float, float]] = []
    for group in np.argsort(spreads, kind="stable"):
        x, y = axes.transData.transform(middles[group])
        name = shorten(names[group], 260, SMALL)
        half = measure(name, SMALL) / 2 + 4
        box = (x - half, y - 13, x + half, y + 13)
        if not name or any(box[0] < r and left < box[2] and box[1] < t and b < box[3] for left, b, r, t in taken):
            continue
        taken.append(box)
        axes.annotate(
            name, tuple(middles[group]), fontsize=SMALL, color=theme.ink, ha="center", va="center", parse_math=False,
            path_effects=[Stroke(linewidth=2.2, foreground=theme.paper, alpha=0.85), Normal()],
        )  # fmt: skip


def _plain(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor("none")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(theme.line)
        spine.set_linewidth(0.6)


def _write_names(axes: Axes, points: Array, names: Sequence[str], theme: Theme) -> None:
    middle = axes.get_xlim()[0] / 3 + axes.get_xlim()[1] * 2 / 3
    for place, name in zip(points, names, strict=True):
        left, aside = ("right", -5) if place[0] > middle else ("left", 5)  # names stay inside the frame
        axes.annotate(
            shorten(str(name), 260, SMALL), tuple(place), (aside, 0), textcoords="offset points", fontsize=SMALL,
            color=theme.soft, ha=left, va="center_baseline", parse_math=False,
        )  # fmt: skip


def _groups(result: Scatter) -> tuple[list[int], Array]:
    """The groups that occur, and the place of each point's among them."""
    if result.groups is None:
        return [], np.zeros(len(result.values), int)
    kinds, places = np.unique(result.groups.numpy(), return_inverse=True)
    return kinds.tolist(), places


def _colour(theme: Theme, place: int, count: int) -> tuple[float, ...]:
    if count <= len(theme.series):
        return to_rgba(theme.series[place])
    return tuple(colormaps["turbo"](0.05 + 0.9 * place / (count - 1)))


def _legend_height(kinds: list[int]) -> int:
    return 56 if 1 < len(kinds) <= 6 else 0


def _legend(sheet: Sheet, result: Scatter, x: float, y: int) -> None:
    kinds = _groups(result)[0]
    for place, kind in enumerate(kinds if _legend_height(kinds) else []):
        name = _called(result, kind) or "no group"
        sheet.rectangle(x, y + 30, 16, 16, sheet.theme.series[place])
        sheet.text(x + 26, y + 45, name, size=SMALL, colour=sheet.theme.soft)
        x += 26 + measure(name, SMALL) + 40


def html(result: Scatter, *, quality: int = embed.QUALITY) -> str:
    """The points as one drawing, in the page's colours."""
    alt = f"{len(result.values)} points in the plane"
    return f'<figure class="drawn">{embed.both_themes(_on_page(result, LIGHT), _on_page(result, DARK), alt)}</figure>'


def _on_page(result: Scatter, theme: Theme) -> Pixels:
    with settled():
        sheet = bare(_size(result), theme)
        _draw(sheet, result, 0, 0)
        return sheet.plate.pixels()
