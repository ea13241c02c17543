"""Pictures in the plane as a page to move about in: each is shown on hover, and a word finds those that it names.

The page is one file with Bokeh's script and all thumbnails inside, and asks the network for nothing.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from convscope.extras import require
from convscope.results import Embedding
from convscope.views import pages
from convscope.views.embed import escape
from convscope.views.style import LIGHT, measured

POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; font-src data:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)
MANY = 3_000  # thumbnails from which they are kept smaller
NONE = "none"

#: Bright for what the words name, faint for the rest; nothing typed is everything.
FIND = """
const words = box.value_input.trim().toLowerCase().split(/\\s+/).filter(Boolean);
const said = source.data['said'], alpha = source.data['alpha'], size = source.data['size'];
let found = 0;
for (let i = 0; i < said.length; i++) {
  const fits = words.every(word => said[i].includes(word));
  found += fits;
  alpha[i] = !words.length ? usual : fits ? 1 : 0.05;
  size[i] = words.length && fits ? 1.6 * radius : radius;
}
count.text = words.length ? found + ' of ' + said.length : said.length + ' pictures';
source.change.emit();
"""


def page(result: Embedding) -> str:
    """The document: the plane and, where it is arranged so, the sheet of thumbnails below it."""
    resources = require("bokeh.resources", "index").INLINE
    script, division = require("bokeh.embed", "index").components(_layout(result))
    head = resources.render()
    measures = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _measures(result))
    body = f'<dl class="measures">{measures}</dl>{division}{script}'
    return pages.document(result, body, head=head, policy=POLICY)


def _measures(result: Embedding) -> list[tuple[str, str]]:
    summary = result.summaries[0] if result.summaries else {}
    numbers = {name: value for name, value in summary.items() if isinstance(value, (int, float))}
    return [(name.replace("_", " "), measured(value)) for name, value in numbers.items()]


def _layout(result: Embedding) -> Any:
    models = require("bokeh.models", "index")
    plotting = require("bokeh.plotting", "index")
    count = len(result.values)
    radius, usual = float(np.clip(500 / np.sqrt(max(count, 1)), 4, 14)), 0.85 if count < MANY else 0.65
    source = models.ColumnDataSource(_columns(result, radius, usual))
    plot = plotting.figure(
        sizing_mode="stretch_width", height=900, match_aspect=True, output_backend="webgl",
        tools="pan,wheel_zoom,box_zoom,reset,save", active_scroll="wheel_zoom", toolbar_location="above",
    )  # fmt: skip
    plot.axis.visible = plot.grid.visible = False
    plot.toolbar.logo = None
    plot.outline_line_color = LIGHT.line
    drawn = plot.scatter("x", "y", source=source, size="size", fill_color="colour", line_color=None, fill_alpha="alpha")
    card = models.HoverTool(
        renderers=[drawn], tooltips=_card(result), attachment="right", point_policy="snap_to_data", limit=1
    )
    plot.add_tools(card)
    box = models.TextInput(placeholder="a class, or part of a file's name", width=320)
    told = models.Div(text=f"{count:,} pictures")
    arguments = {"source": source, "box": box, "count": told, "usual": usual, "radius": radius}
    box.js_on_change("value_input", models.CustomJS(args=arguments, code=FIND))
    return models.Column(models.Row(box, told), plot, sizing_mode="stretch_width")


def _columns(result: Embedding, radius: float, usual: float) -> dict[str, Any]:
    points = result.values.double().numpy()
    count = len(points)
    fields = {f"field{place}": list(values) for place, values in enumerate(result.fields.values())}
    names = list(result.names) or [""] * count
    groups = [NONE] * count if result.groups is None else [_named(result, int(g)) for g in result.groups]
    said = [" ".join(map(str, each)).lower() for each in zip(names, groups, *fields.values(), strict=True)]
    return {
        "x": points[:, 0], "y": points[:, 1], "colour": _colours(result), "name": names, "group": groups,
        "picture": _thumbnails(result), "said": said, "alpha": np.full(count, usual), "size": np.full(count, radius),
        **fields,
    }  # fmt: skip


def _named(result: Embedding, group: int) -> str:
    return result.group_names[group] if 0 <= group < len(result.group_names) else NONE if group < 0 else str(group)


def _colours(result: Embedding) -> list[str]:
    if result.groups is None:
        return [LIGHT.series[0]] * len(result.values)
    kinds, places = np.unique(result.groups.numpy(), return_inverse=True)
    if len(kinds) <= len(LIGHT.series):
        table = list(LIGHT.series)
    else:
        table = [to_hex(colormaps["turbo"](0.05 + 0.9 * place / (len(kinds) - 1))) for place in range(len(kinds))]
    return [table[place] if kinds[place] >= 0 else LIGHT.quiet for place in places]


def _thumbnails(result: Embedding) -> list[str]:
    """A data URI a picture, the smaller the more there are."""
    pixels = result.thumbnails.permute(0, 2, 3, 1).numpy()
    quality = 70 if len(pixels) < MANY else 45
    return [_uri(each, quality) for each in pixels]


def _uri(pixels: np.ndarray, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _card(result: Embedding) -> str:
    """What is shown of the picture under the pointer."""
    lines = "".join(
        f'<div style="color:#696c75">{escape(name)}: @field{place}</div>' for place, name in enumerate(result.fields)
    )
    return (
        '<div style="width:150px;font:12px/1.35 system-ui,sans-serif"><img src="@picture" width="144" height="144" '
        f'style="display:block;border-radius:3px;margin-bottom:4px"><b>@group</b><div>@name</div>{lines}</div>'
    )
