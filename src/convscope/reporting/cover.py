"""What a page begins with: a photograph, the answer in one sentence, and what network gave it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from convscope.network import Network
from convscope.reporting.page import Opening
from convscope.results import Ranking
from convscope.views import embed
from convscope.views.pixels import resized, to_pixels
from convscope.views.ranking import listed
from convscope.views.style import percent

LARGEST = 840  # pixels of a cover's longer side
UNSURE = 0.5  # probability below which an answer is called unsure


def called(network: Network) -> str:
    """The network in a sentence."""
    named = {"builtin": "the built-in network", "builtin-robust": "the robust built-in network"}
    return named.get(network.name) or network.name.rpartition(":")[2]


def capital(text: str) -> str:
    """With a capital at its beginning."""
    return text[:1].upper() + text[1:]


def about(network: Network) -> list[tuple[str, str]]:
    """What there is to know of a network, as names and values."""
    height, width = network.input_size
    found = [
        ("Network", network.name),
        ("Weights", network.weights),
        ("Parameters", f"{sum(p.numel() for p in network.module.parameters()):,}"),
        ("Classes", f"{network.classes:,}"),
        ("Picture", f"{width} × {height} pixels"),
    ]
    return found + ([("Defence", str(network.defence))] if network.defence else [])


def answer(network: Network, names: Sequence[str], shares: Sequence[float]) -> str:
    """What the network says of a photograph, as HTML of one or two sentences."""
    first, rest = f"<strong>{embed.escape(names[0])}</strong>", ""
    if len(names) > 1:
        rest = f" Next comes {embed.escape(names[1])}, with {percent(shares[1])}."
    verb = "says" if shares[0] >= UNSURE else "is not sure, and says"
    return f"{embed.escape(capital(called(network)))} {verb} {first}, with a probability of {percent(shares[0])}.{rest}"


def cover(network: Network, name: str, photograph: Tensor, found: Ranking, quality: int) -> Opening:
    """The photograph (3, h, w) large; the answer, and the classes that come first."""
    names, shares = found.names[0], found.shares[0]
    height, width = network.input_size
    caption = f"{embed.escape(name)}<span>cut as the network sees it, which gets {width} × {height} pixels of it</span>"
    figure = f"<figure>{large(photograph, f'Photograph: {name}', quality)}<figcaption>{caption}</figcaption></figure>"
    said = f'<p class="says">{answer(network, names, shares)}</p><div class="ranking">{listed(names, shares)}</div>'
    return Opening(figure, said)


def large(photograph: Tensor, alt: str, quality: int) -> str:
    """An <img> of a photograph (3, h, w) larger than those within a page."""
    pixels = to_pixels(photograph.float().cpu().numpy())
    share = min(1.0, LARGEST / max(pixels.shape[:2]))
    size = (round(pixels.shape[0] * share), round(pixels.shape[1] * share))
    uri = embed.data_uri(resized(pixels, size, smooth=True), quality=min(quality, 85))
    return f'<img src="{uri}" alt="{embed.escape(alt)}" width="{size[1]}" height="{size[0]}">'


def strip(pictures: Sequence[tuple[str, str, str, Tensor]], quality: int) -> str:
    """Small photographs beside each other: (address on the page or nothing, name, words, (3, h, w))."""
    items = []
    for address, name, words, image in pictures:
        picture = embed.image(to_pixels(image.float().cpu().numpy()), f"Photograph: {name}", quality=quality)
        text = f"<figcaption>{embed.escape(name)}<span>{embed.escape(words)}</span></figcaption>"
        figure = f"<figure>{picture}{text}</figure>"
        items.append(f'<li><a href="#{address}">{figure}</a></li>' if address else f"<li>{figure}</li>")
    return f'<ul class="strip">{"".join(items)}</ul>'
