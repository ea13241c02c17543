"""Style transfer: the content of a photograph in the style of a painting (Gatys, Ecker & Bethge 2016, CVPR).

A picture is found whose deep layer agrees with the photograph's position by position, and whose layers have the Gram
matrices of the painting: which channels answer together, wherever that is. With maps F of the picture, P of the
photograph, Gram matrices G of the picture and A of the painting,

    loss = α Σ_l w_l Σ (F_l - P_l)² / Σ P_l²  +  β Σ_l w_l Σ (G_l - A_l)² / Σ A_l²
           +  β * colours * squared distance of the colours  +  tv * total variation a pixel

Departures: the paper divides by constants that leave its layers orders of magnitude apart, and its α/β means another
number on every network. Here each layer counts in shares of its target's own size, so that a picture which has nothing
of the painting loses about β. The third term is no paper's: the first filters of many networks see edges alone, and
their Gram matrices leave plain areas the photograph's colours, or bleach them; it compares where on the scale colours
lie, of means of 4 to 16 pixels a side, and not their places (``colours`` 0 leaves it out, and the loss is Gatys's).
Content and style layers are the last of each resolution, since names differ between
networks. Average pooling, which the paper recommends, would change the network, and nothing here does. The run begins
with the photograph at a small size and goes on at twice the size each time (Gatys et al. 2016, arXiv:1611.07865,
section 6, has two such sizes), which spares steps at the full size and lets strokes grow larger than the deepest
layer's receptive field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.errors import ImageError, NetworkError, OptionError
from convscope.images import resize
from convscope.network import Network
from convscope.registry import Picture, Seed, pictures_of, technique
from convscope.regularizers import Colours, Regularizer
from convscope.results import Synthesis
from convscope.techniques.synthesize._art import swirls
from convscope.techniques.synthesize._colours import luminance, matched, same_spread
from convscope.techniques.synthesize._gram import Aim, Region, grams_of, shares_of
from convscope.techniques.synthesize._layers import stages
from convscope.techniques.synthesize._run import (
    Every,
    Resume,
    Run,
    Sitting,
    Steps,
    at_most,
    eight_bit,
)
from convscope.techniques.synthesize._style import (
    RATES,
    Numbers,
    Plan,
    Pyramid,
    levels,
    noise,
    scaled,
    smoothing,
    style_layers,
    weights,
    wide,
)
from convscope.techniques.synthesize._tiles import Cover, Size, covering, grids_of, maps_of

Kept = Literal["luminance", "match"]
COARSER = (8, 16)  # pixels a side whose mean colours are compared; finer ones change nothing that is seen
Several = str | Sequence[str] | None
Positive = Annotated[float, Field(gt=0)]


@technique(
    family="synthesize",
    order=6,
    keeps_size=True,
    paper=(
        "Gatys, Ecker & Bethge 2016, CVPR, doi:10.1109/CVPR.2016.265, sections 2.1 to 2.3; colours: Gatys et al. 2016, "
        "arXiv:1606.05897, sections 3 and 4; regions and sizes: Gatys et al. 2016, arXiv:1611.07865, sections 3 and 6"
    ),
    see="The painting's strokes and colours on the photograph's things: what stays is content, what changes is style.",
    caution=(
        "Style is what the Gram matrices of these layers hold, no more: composition and motifs are not in them. What "
        "counts as content is likewise what one layer of this network keeps."
    ),
    quick={"style": torch.rand(3, 40, 32, generator=torch.Generator().manual_seed(5)), "steps": 2},
    example={"style": swirls, "steps": 40},
)
def style(
    network: Network,
    images: Tensor,
    *,
    style: Annotated[Picture, Field(description="the painting, or several that are mixed")] = None,
    style_weight: Annotated[
        Positive | Sequence[Positive] | None,
        Field(description="share of each painting, in their order; alike if left out"),
    ] = None,
    style_scale: Annotated[
        float, Field(gt=0, description="size of the paintings: their longer side over the photograph's")
    ] = 1.0,
    style_size: Annotated[
        int | None, Field(ge=16, description="longer side of the paintings in pixels, instead of style-scale")
    ] = None,
    alpha: Annotated[float, Field(ge=0, description="weight of the content")] = 1.0,
    beta: Annotated[float, Field(gt=0, description="weight of the style")] = 20.0,
    content_layer: Annotated[Several, Field(description="layers whose maps stay, instead of one rather deep")] = None,
    style_layer: Annotated[
        Several, Field(description="layers whose Gram matrices are the style, instead of the last of each resolution")
    ] = None,
    layer_weight: Annotated[
        Positive | Sequence[Positive] | None, Field(description="weight of each style layer; alike if left out")
    ] = None,
    centred: Annotated[bool, Field(description="take the mean out of each channel first: covariances")] = False,
    keep_colours: Annotated[
        Kept | None,
        Field(
            description="keep the photograph's colours: change only its luminance, or match the painting to it first"
        ),
    ] = None,
    mask: Annotated[
        Picture, Field(description="one a painting, white where in the photograph it belongs, as large as you like")
    ] = None,
    start: Annotated[Literal["content", "noise"], Field(description="picture to begin with")] = "content",
    photograph: Annotated[Picture, Field(description="picture to begin with instead")] = None,
    parameters: Annotated[
        Numbers, Field(description="what is moved: Fourier coefficients in decorrelated colours, or the pixels")
    ] = "fourier",
    colours: Annotated[
        float, Field(ge=0, description="weight of how far colours are from the paintings', squared, in shares of beta")
    ] = 5.0,
    tv: Annotated[float, Field(ge=0, description="weight of total variation, which smooths")] = 0.0,
    optimizer: Annotated[Literal["lbfgs", "adam"], Field(description="how to go down")] = "lbfgs",
    rate: Annotated[
        float | None, Field(gt=0, description="learning rate: 1 of lbfgs, 0.05 of adam if left out")
    ] = None,
    steps: Annotated[Steps, Field(description="steps at each size, one pass forward and back each")] = 60,
    scales: Annotated[
        int | None, Field(ge=1, description="sizes, each twice the one before; from 200 pixels on if left out")
    ] = None,
    tile: Annotated[
        int | None, Field(ge=64, description="go over the picture in tiles of so many pixels; for sizes above 1024")
    ] = None,
    size: Annotated[int, Field(ge=16, description="longer side of the picture at most, in pixels")] = 512,
    every: Every = 0,
    seed: Seed = 0,
    resume: Resume = None,
) -> Synthesis:
    """The photograph's content in the style of one or several paintings, by gradient descent on the pixels.

    Args:
        network: any network that takes pictures of several sizes.
        images: (3, H, W) or (N, 3, H, W) photographs in [0, 1]; made smaller where the longer side is above ``size``.
        style: files or tensors (3, h, w), each of any size. Where there are several without masks, their Gram matrices
            are averaged by ``style_weight``.
        style_scale, style_size: strokes grow with it. A painting is never enlarged beyond its own size.
        alpha, beta: what counts is their ratio; more ``beta`` means less of the photograph.
        content_layer, style_layer, layer_weight: of the network. By default the content is the last stage but one, and
            the style all stages alike.
        centred: covariances instead of Gram matrices.
        keep_colours: ``luminance`` transfers the luminance only, of a painting whose luminance has the photograph's
            mean and spread; ``match`` gives the painting the mean and covariance of the photograph's colours first.
        mask: as many as paintings; grey counts in part. Resized to the photograph.
        start, photograph, seed: where to begin; the noise is the same for all photographs.
        colours: of several paintings their mixture; left out where masks give each a place of its own.
        tv: of the sum of squared differences of neighbours, over the number of pixels.
        optimizer, rate, steps: of each size. L-BFGS leaves the pixels free and clips at the end, since its memory
            does not know of clipping; Adam clips after each step.
        scales: fewer where the smallest would have a side below 48 pixels.
        tile: the result is the same but for rounding, memory stays bounded by the tile, and steps cost a third more,
            and margins. Chosen when a side is above 1024 pixels and the network allows it.
        size: of the longer side.
        every: of how many steps, over all sizes, a picture is kept.
        resume: a state, for the same options and photographs.

    Returns:
        ``values`` (N, 3, H, W) in [0, 1]; ``originals`` the photographs. ``trace`` is minus the loss above without its
        last two terms, and begins anew at each size. Summaries hold the layers and sizes.

    Raises:
        UnknownLayer; OptionError where there is no painting, where weights or masks do not fit, and for tiles on a
        network that sees the whole picture at once; ImageError for pictures too small for a layer and for black masks.
    """
    paintings = pictures_of(style)
    if not paintings:
        raise OptionError("style needs a painting: --style PICTURE, or style= a file or tensor, or several")
    images = at_most(wide(images), size)
    sizes = levels((images.shape[-2], images.shape[-1]), scales)
    layers = _Layers.of(network, content_layer, style_layer, layer_weight, alpha, beta)
    masks = _masks(mask, len(paintings), sizes[-1])
    shares = weights(style_weight, len(paintings), "style weights", "paintings")
    cover, notes = covering(network, layers.all, sizes[-1], tile)
    side = style_size or round(style_scale * max(sizes[-1]))
    sitting = Sitting(resume, every=every)

    def one(place: int) -> Run:
        content = images[place : place + 1].to(network.device)
        scene = _Scene(network, layers, content, paintings, shares, masks, centred, cover).coloured(keep_colours)
        begin = _first(scene.content, start, pictures_of(photograph), seed)
        plan = Plan(
            network, sizes, scene.at(side), steps, optimizer, rate or RATES[optimizer], cover,
            lambda at: smoothing(tv, at) + scene.colours(beta * colours, side, at), parameters,
            keep_colours == "luminance",
        )  # fmt: skip
        run = sitting.run(lambda begun: Pyramid(plan, begin, begun).steps(), total=len(sizes) * steps)
        return recoloured(run, content.cpu()) if keep_colours == "luminance" else run

    run = sitting.through(one(place) for place in progress.over(len(images), "photographs"))
    done = len(run.images)
    about = {
        "content_layers": list(layers.alpha),
        "style_layers": list(layers.beta),
        "sizes": [f"{w}x{h}" for h, w in sizes],
    }
    return Synthesis(
        **run.fields(), notes=[*notes, *run.notes], layer=list(layers.beta)[-1], originals=images[:done],
        titles=["style"] * done, quantity="content and style", summaries=[about] * done,
    )  # fmt: skip


# ---- what is wanted


@dataclass(frozen=True)
class _Layers:
    """Content and style layers with their weights."""

    alpha: Mapping[str, float]
    beta: Mapping[str, float]

    @property
    def all(self) -> list[str]:
        return sorted({*self.alpha, *self.beta})

    @classmethod
    def of(
        cls, network: Network, content: Several, style: Several, each: Any, alpha: float, beta: float
    ) -> _Layers:  # fmt: skip
        found = stages(network)
        kept = style_layers(network, content) or [found[max(0, len(found) - 2)]]
        painted = style_layers(network, style) or found
        shares = weights(each, len(painted), "layer weights", "style layers")
        return cls(
            dict.fromkeys(kept, alpha / len(kept)),
            {name: beta * share for name, share in zip(painted, shares, strict=True)},
        )


@dataclass(frozen=True)
class _Scene:
    """A photograph (1, 3, H, W), the paintings at their own sizes, and where in the photograph each belongs."""

    network: Network
    layers: _Layers
    content: Tensor
    paintings: Sequence[Tensor]
    shares: Sequence[float]
    masks: Sequence[Tensor]
    centred: bool
    cover: Cover

    def coloured(self, how: Kept | None) -> _Scene:
        """With the colours changed so that the photograph's can be kept."""
        if how is None:
            return self
        if how == "match":
            return replace(self, paintings=[matched(p, self.content[0]).clamp(0, 1) for p in self.paintings])
        grey = luminance(self.content)
        paintings = [same_spread(luminance(p), grey).clamp(0, 1).expand(3, -1, -1) for p in self.paintings]
        return replace(self, content=grey.expand(-1, 3, -1, -1), paintings=paintings)

    def colours(self, weight: float, side: int, size: Size) -> list[Regularizer]:
        """That the picture is to have the colours of the paintings, at this size as large as :meth:`at` has them."""
        if self.masks or not weight:
            return []
        full = max(self.content.shape[-2:])
        seen = [at_most(p[None].to(self.content), round(side * max(size) / full)) for p in self.paintings]
        return [Colours(weight, seen, self.shares, COARSER)]

    def at(self, side: int) -> Callable[[Size], Aim]:
        """What is wanted at a size of the photograph; ``side`` is the paintings' longer one at its full size."""
        full = max(self.content.shape[-2:])
        return lambda size: self._aim(size, round(side * max(size) / full))

    def _aim(self, size: Size, side: int) -> Aim:
        content = scaled(self.content, size)
        maps = (
            maps_of(self.network, content, list(self.layers.alpha), self.cover)
            if any(self.layers.alpha.values())
            else {}
        )
        painted = [self._grams(painting, side) for painting in self.paintings]
        regions = self._regions(painted, size) if self.masks else [Region(_mixed(painted, self.shares))]
        return Aim(self.network, maps, regions, self.layers.alpha, self.layers.beta, self.centred)

    def _grams(self, painting: Tensor, side: int) -> dict[str, Tensor]:
        seen = at_most(painting[None].to(self.content), side)
        try:
            return grams_of(self.network, seen, list(self.layers.beta), self.cover, centred=self.centred)
        except NetworkError as error:
            height, width = seen.shape[-2:]
            raise ImageError(
                f"a painting of {width}x{height} pixels is too small for the style layers ({error}); give a larger "
                "one, raise --style-scale, lower --scales, or choose shallower layers"
            ) from error

    def _regions(self, painted: Sequence[Mapping[str, Tensor]], size: Size) -> list[Region]:
        grids = grids_of(self.network, self.content.new_zeros(1, 3, *size), list(self.layers.beta), self.cover)
        return [
            Region(grams, share, shares_of(mask.to(self.content), grids))
            for grams, share, mask in zip(painted, self.shares, self.masks, strict=True)
        ]  # fmt: skip


def _mixed(painted: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The mean Gram matrices of several paintings."""
    return {
        name: torch.stack([share * grams[name] for grams, share in zip(painted, shares, strict=True)]).sum(0)
        for name in painted[0]
    }


def _masks(given: Any, count: int, size: Size) -> list[Tensor]:
    """(H, W) each, in [0, 1]."""
    found = [resize(mask, size).mean(0) for mask in pictures_of(given)]
    if found and len(found) != count:
        raise OptionError(f"{len(found)} masks for {count} paintings; give one a painting, or none")
    for number, mask in enumerate(found, 1):
        if not bool((mask > 0).any()):
            raise ImageError(
                f"mask {number} is black all over, so that its painting has no place; make its region white"
            )
    return found


def _first(content: Tensor, start: str, photograph: Sequence[Tensor], seed: int) -> Tensor:
    """(1, 3, H, W) to begin with."""
    if photograph:
        return scaled(photograph[0][None], (content.shape[-2], content.shape[-1])).to(content)
    if start == "content":
        return content
    return noise(content, (content.shape[-2], content.shape[-1]), seed)


# ---- colours


def recoloured(run: Run, content: Tensor) -> Run:
    """The run with the luminance of its pictures and the colours of the photograph (1, 3, H, W)."""
    frames = [(number, eight_bit(_with_colours(frame.float() / 255, content))) for number, frame in run.frames]
    return replace(run, images=_with_colours(run.images, content), frames=frames)


def _with_colours(grey: Tensor, content: Tensor) -> Tensor:
    """In YIQ a change of Y alone is the same change of R, G and B."""
    return (content + luminance(grey) - luminance(content)).clamp(0, 1)
