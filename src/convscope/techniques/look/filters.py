"""The weights themselves: filters of convolutions, and templates where a linear layer sees the picture.

Whether training went well shows in them: well-trained first-layer filters are smooth, noisy ones mean too little
training, too little regularisation or too high a learning rate (CS231n, Understanding and visualizing networks).

Smoothness is one minus half of von Neumann's ratio (von Neumann 1941): the mean squared step between neighbours over
the variance. Independent noise has 0 on average, whatever its scale; a constant slope comes close to 1.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.network import Network
from convscope.registry import Layer, technique
from convscope.results import Pictures
from convscope.vitals import NOISY, smoothness


@technique(
    family="look",
    order=3,
    paper="Krizhevsky et al. 2012, figure 3; CS231n notes, Understanding and visualizing networks",
    see="Edges, bars and colour blobs with smooth profiles; a salt-and-pepper filter has learned little.",
    caution=(
        "Only the first layer speaks about pixels. Deeper filters weigh other channels, and by themselves say little."
    ),
)
def filters(
    network: Network,
    *,
    layer: Layer = None,
    outputs: Annotated[int, Field(ge=1, description="how many filters to draw, strongest first in deeper layers")] = 64,
    inputs: Annotated[int, Field(ge=1, description="of how many input channels, strongest first (deeper layers)")] = 16,
) -> Pictures:
    """The filters of a convolution, or the class templates of a linear layer that sees the picture itself.

    Args:
        network: any network.
        layer: a convolution or such a linear layer; the first one for None.
        outputs, inputs: how many to draw. A layer on colour is drawn in colour, in order; a deeper one as rows of
            filters with a column an input channel, strongest first.

    Returns:
        ``values``: the layer's weights, untouched, (outputs, inputs per group, kh, kw). The summary holds, for each
        filter, ``norm`` (Euclidean) and ``smoothness`` (below 1, about 0 for noise, None for 1x1), their means, and a
        ``verdict``: smooth, noisy or point (1x1).

    Raises:
        OptionError: the layer has no filters that can be drawn.
    """
    name = layer or _first(network)
    weights = _weights(network, name)
    norms, smooth = weights.flatten(1).norm(dim=1), smoothness(weights)
    colour = weights.shape[1] == 3
    tiles, titles, columns = _in_colour(weights, outputs) if colour else _by_channel(weights, outputs, inputs)
    return Pictures(
        values=weights, layer=name, tiles=tiles[None], tile_titles=titles, columns=columns, signed=True, each=colour,
        quantity="weight", per_picture=False, summaries=[_summary(name, weights, norms, smooth)],
        titles=[_title(name, weights, tiles, colour)],
    )  # fmt: skip


def _first(network: Network) -> str:
    modules = dict(network.module.named_modules())
    for info in network.layers():
        if isinstance(modules[info.name], nn.Conv2d) or _template(network, modules[info.name]) is not None:
            return info.name
    raise OptionError(f"{network.name} has no convolution, and no linear layer that sees the picture itself")


def _template(network: Network, part: nn.Module) -> Tensor | None:
    """(outputs, channels, H, W) weights of a linear layer as wide as the picture."""
    channels = network.mean.numel()
    shape = (channels, *network.input_size)
    if isinstance(part, nn.Linear) and part.in_features == channels * network.input_size[0] * network.input_size[1]:
        return part.weight.unflatten(1, shape)
    return None


def _weights(network: Network, name: str) -> Tensor:
    network.layer(name)
    part = network.module.get_submodule(name)
    found = part.weight if isinstance(part, nn.Conv2d) else _template(network, part)
    if found is None:
        parts = {i.name: network.module.get_submodule(i.name) for i in network.layers()}
        drawable = [n for n, p in parts.items() if isinstance(p, nn.Conv2d)]
        others = f"; a convolution has, such as {', '.join(drawable[:5])}" if drawable else ""
        raise OptionError(f"layer {name!r} ({type(part).__name__}) has no filters to draw{others}")
    return found.detach().float().cpu()


def _in_colour(weights: Tensor, outputs: int) -> tuple[Tensor, list[str], int | None]:
    return weights[:outputs], [str(i) for i in range(min(outputs, len(weights)))], None


def _by_channel(weights: Tensor, outputs: int, inputs: int) -> tuple[Tensor, list[str], int]:
    rows = weights.flatten(1).norm(dim=1).argsort(descending=True)[:outputs]
    columns = weights.movedim(1, 0).flatten(1).norm(dim=1).argsort(descending=True)[:inputs]
    chosen = weights[rows][:, columns]
    titles = [f"{o}←{i}" for o in rows.tolist() for i in columns.tolist()]
    return chosen.flatten(0, 1)[:, None], titles, len(columns)


def _summary(name: str, weights: Tensor, norms: Tensor, smooth: Tensor) -> dict[str, Any]:
    mean = float(smooth.mean())
    verdict = "point" if mean != mean else "smooth" if mean >= NOISY else "noisy"
    each = [
        {"norm": n, "smoothness": None if s != s else s} for n, s in zip(norms.tolist(), smooth.tolist(), strict=True)
    ]
    return {
        "layer": name, "shape": list(weights.shape), "verdict": verdict, "mean_norm": float(norms.mean()),
        "mean_smoothness": None if verdict == "point" else mean, "filters": each,
    }  # fmt: skip


def _title(name: str, weights: Tensor, tiles: Tensor, colour: bool) -> str:
    outputs, inputs, height, width = weights.shape
    what = "in colour" if colour else "rows: filters, columns: input channels, strongest first"
    drawn = len(tiles) if colour else f"{len(tiles)} of {outputs * inputs:,}"
    return (
        f"{name}: {drawn} kernels of {height}×{width}, {what}"
        if not colour
        else f"{name}: {drawn} of {outputs} filters, {height}×{width}, {what}"
    )
