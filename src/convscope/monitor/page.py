"""The monitor's page: what the network looks like now, how it came there, and what to make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from convscope import __version__
from convscope.monitor.measure import MEMORY, Record
from convscope.reporting.page import styles
from convscope.results import Pictures
from convscope.views import embed
from convscope.views.lines import Line, colours, lines
from convscope.views.montage import composed, grids
from convscope.views.pages import shell
from convscope.views.pixels import Pixels
from convscope.views.style import number, percent
from convscope.vitals import NOISY, Finding, dead_channels, gradient_flow, noisy_filters, together, update_size

RENEWED = 10  # seconds after which a browser reads the page again
FILTERS = 64  # drawn at most
RECENT = 5  # records whose mean the readings are of
EARLY = 100  # steps before which filters have had no time to become smooth

_STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); gap: 2.25rem 3rem; }
.chart h3 { font-size: 1.1rem; margin-bottom: .25rem; }
.chart p { color: var(--soft); font-size: .85rem; margin-bottom: .6rem; min-height: 2.7em; }
.readings { max-width: 60rem; margin: 2rem 0 0; padding: 0; list-style: none; font-size: .95rem; }
.readings li { padding: .6rem 1rem; border-left: 3px solid var(--line); margin-bottom: .6rem; }
.readings li.grave { border-color: var(--accent); background: var(--raised); }
.readings b { font-weight: 600; }
.readings span { display: block; color: var(--soft); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 26rem)); gap: 1rem 3rem; }
.key { display: flex; align-items: center; gap: .75rem; font-size: .85rem; color: var(--soft); margin: 0 0 1.5rem; }
.key i { flex: 0 0 9rem; height: .35rem; border-radius: 2px; }
section { padding: clamp(2rem, 5vw, 3.5rem) 0 0; }
section > h2 { font-size: clamp(1.5rem, 3vw, 2.1rem); margin-bottom: 1.25rem; }
"""

#: (quantity, heading, what it says, logarithmic, value to compare with, whole of 0 to 1)
_CHARTS: tuple[tuple[str, str, str, bool, float | None, bool], ...] = (
    ("update", "Step over weights", "How much one step changes a layer, as a share of its size. About 0.001 is usual: "
     "much more, and the learning rate is too high; much less, and the layer hardly learns.", True, 1e-3, False),
    ("gradient", "Gradient over weights", "The size of the loss's gradient over that of the weights. Lines that lie "
     "orders of magnitude apart starve or shake some of the layers.", True, None, False),
    ("dead", "Dead channels", f"Share of a layer's channels that were never above zero in the last {MEMORY} records. "
     "Rising steps mean that the learning rate kills them.", False, None, True),
    ("zeros", "Zeros", "Share of zeros behind the rectifier. Half is where most networks begin; near one, a layer "
     "sleeps.", False, None, True),
    ("smoothness", "Smoothness of filters", "Noise has 0, and well-trained filters of the first layers have more than "
     f"{NOISY:g}. It should rise.", False, NOISY, False),
    ("size", "Size of weights", "Euclidean norm of a layer. Growth without end asks for weight decay.", True, None,
     False),
)  # fmt: skip


def page(
    name: str, records: Sequence[Record], first: Tensor | None, now: Tensor | None, elapsed: float, *, running: bool
) -> str:
    """The whole page; ``first`` and ``now`` are the filters of the first layer at the start and now."""
    step = f"step {records[-1].step:,}" if records else "the start"
    refresh = f'<meta http-equiv="refresh" content="{RENEWED}">' if running else ""
    title = f"{name} at {step}"
    body = f"""<div class="sheet">
<header>
<p class="brand">convscope</p>
<h1>{embed.escape(title)}</h1>
{_facts(records, elapsed, running)}
{_readings(records)}
</header>
<main>
{_filters(first, now)}
{_charts(records)}
</main>
<footer>
<p>Made by convscope {embed.escape(__version__)}. {_cost(records, elapsed)}</p>
</footer>
</div>"""
    return shell(title, body, styles() + _STYLE, head=refresh)


def _facts(records: Sequence[Record], elapsed: float, running: bool) -> str:
    losses = [record.loss for record in records if math.isfinite(record.loss)]
    facts = {
        "Training": "is running; this page renews itself" if running else "has ended",
        "Time": f"{elapsed / 60:.1f} minutes" if elapsed >= 90 else f"{elapsed:.0f} seconds",
        "Loss": f"{number(losses[0], 3)} at first, {number(fmean(losses[-RECENT:]), 3)} now" if losses else "not told",
        "Layers": str(len(records[-1].layers)) if records else "–",
    }
    items = "".join(f"<div><dt>{key}</dt><dd>{embed.escape(value)}</dd></div>" for key, value in facts.items())
    return f'<dl class="facts">{items}</dl>'


def _cost(records: Sequence[Record], elapsed: float) -> str:
    spent = sum(record.seconds for record in records)
    if not records or not elapsed:
        return ""
    each = 1000 * spent / len(records)
    return f"Watching took {number(each)} ms for each record, {percent(spent / elapsed)} of the time in all."


# ---- what to make of it


def readings(records: Sequence[Record]) -> list[Finding]:
    """What the last records say, the grave first; nothing before there is anything to say."""
    if not records:
        return []
    last, step = records[-RECENT:], records[-1].step
    layers = list(last[-1].layers)
    found = [_of_layer(layer, last, step, min(len(records), MEMORY)) for layer in layers]
    said = [finding for each in found for finding in each]
    ends = [(layer, _recent(last, layer, "gradient")) for layer in layers]
    ends = [(layer, value) for layer, value in ends if math.isfinite(value)]
    if len(ends) > 1 and ends[-1][1] > 0:
        flow = gradient_flow(ends[0][0], ends[-1][0], ends[0][1] / ends[-1][1])
        said += [flow] if flow else []
    if not math.isfinite(records[-1].loss) and any(math.isfinite(r.loss) for r in records):
        said.append(Finding("loss", "it is no number any more", "the training has diverged: lower the rate", True))
    return together(said)


def _recent(records: Sequence[Record], layer: str, kind: str) -> float:
    values = [record.layers[layer][kind] for record in records if layer in record.layers]
    values = [value for value in values if math.isfinite(value)]
    return fmean(values) if values else math.nan


def _of_layer(layer: str, last: Sequence[Record], step: int, records: int) -> list[Finding]:
    first = layer == next(iter(last[-1].layers))
    update, smooth = _recent(last, layer, "update"), _recent(last, layer, "smoothness")
    found = [
        dead_channels(layer, last[-1].layers[layer]["dead"], f"the last {records} records"),
        update_size(layer, update) if math.isfinite(update) else None,
        noisy_filters(layer, smooth) if first and step >= EARLY else None,
    ]
    return [finding for finding in found if finding is not None]


def _readings(records: Sequence[Record]) -> str:
    found = readings(records)
    if not found:
        return '<ul class="readings"><li>Nothing stands out.</li></ul>' if records else ""
    items = "".join(
        f"<li{' class=grave' if f.grave else ''}><b>{embed.escape(f.where)}: {embed.escape(f.sign)}</b>"
        f"<span>{embed.escape(f.meaning[:1].upper() + f.meaning[1:])}.</span></li>"
        for f in found[:8]
    )
    more = f"<li>{len(found) - 8} more of the kind.</li>" if len(found) > 8 else ""
    return f'<ul class="readings">{items}{more}</ul>'


# ---- pictures


def filter_tiles(filters: Tensor) -> Pixels:
    """(H, W, 4): the filters of one layer as a grid, in colour where they see colour, each on its own scale."""
    shown = filters[:FILTERS] if filters.shape[1] == 3 else filters[:FILTERS].mean(1, keepdim=True)
    result = Pictures(values=filters, summaries=[], tiles=shown[None], signed=True, each=True)
    return composed(grids(result)[0], 640)[0]


def _filters(first: Tensor | None, now: Tensor | None) -> str:
    if first is None or now is None:
        return ""
    changed = float((now - first).norm() / first.norm())
    pair = "".join(
        f"<figure>{embed.caption(title, [words])}{embed.image(filter_tiles(torch.as_tensor(f)), alt, lossless=True)}"
        "</figure>"
        for title, words, f, alt in (
            ("At the start", f"{len(first)} filters", first, "Filters at the start"),
            ("Now", f"moved by {number(changed)} of their size", now, "Filters now"),
        )
    )
    return f'<section><h2>Filters of the first layer</h2><div class="pair">{pair}</div></section>'


def _charts(records: Sequence[Record]) -> str:
    if not records:
        return ""
    layers = list(records[-1].layers)
    bar = ", ".join(colours(9))
    key = (
        f'<p class="key"><span>{embed.escape(layers[0])}</span><i style="background: linear-gradient(90deg, {bar})">'
        f"</i><span>{embed.escape(layers[-1])}</span><span>· a line names its layer under the pointer</span></p>"
    )
    loss = Line("loss", [r.step for r in records], [r.loss for r in records])
    told = any(math.isfinite(value) for value in loss.values)
    drawn = [_chart("Loss", "As it was told, of single batches.", lines([loss], "loss"))] if told else []
    drawn += [_of_kind(records, layers, *chart) for chart in _CHARTS if _has(records, chart[0])]
    return f'<section><h2>Layer by layer</h2>{key}<div class="charts">{"".join(drawn)}</div></section>'


def _has(records: Sequence[Record], kind: str) -> bool:
    return any(math.isfinite(each[kind]) for record in records for each in record.layers.values())


def _of_kind(
    records: Sequence[Record], layers: Sequence[str], kind: str, heading: str, text: str, logarithmic: bool,
    guide: float | None, unit: bool,
) -> str:  # fmt: skip
    at = [record.step for record in records]
    given = [Line(layer, at, [r.layers.get(layer, {}).get(kind, math.nan) for r in records]) for layer in layers]
    return _chart(heading, text, lines(given, heading, logarithmic=logarithmic, guide=guide, unit=unit))


def _chart(heading: str, text: str, drawing: str) -> str:
    return f'<div class="chart"><h3>{embed.escape(heading)}</h3><p>{embed.escape(text)}</p>{drawing}</div>'
