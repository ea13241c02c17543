"""Textures: a picture of any size that looks like more of a sample.

``gram``, Gatys, Ecker & Bethge (2015): from noise, a picture is sought whose layers have the Gram matrices of the
sample: which channels answer together, wherever that is. With a few shallow layers that keeps colours and edges, and
each deeper one adds larger structure; ``strip`` shows it. The loss is

    Σ_l w_l Σ (G_l - A_l)² / Σ A_l²,        G, A of picture and sample, over their numbers of positions

so that the picture may be of another size than the sample. ``neighbour``, Efros & Leung (1999): the picture grows pixel
by pixel, each copied from where the sample looks as what is known around it; no network is asked.

Departures of ``gram``: the paper's constants leave its layers orders of magnitude apart, here each counts in shares of
its target's own size. Its noise is white, and it optimises pixels; here the numbers that are moved are Fourier
coefficients in decorrelated colours, and a run at half the size comes first. A second term holds the colours to the
sample's (:class:`~convscope.regularizers.Colours`; ``colours`` 0 leaves it out), since the first filters of many
networks are blind to plain areas, which would drift to black and white. It averages where VGG takes maxima; the
network here stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.errors import ImageError, NetworkError, OptionError
from convscope.network import Network
from convscope.optimize import State, Step
from convscope.registry import Seed, technique
from convscope.regularizers import Colours, Regularizer
from convscope.results import Synthesis
from convscope.techniques.synthesize._gram import Aim, Region, grams_of
from convscope.techniques.synthesize._layers import stages
from convscope.techniques.synthesize._neighbour import neighbour_texture
from convscope.techniques.synthesize._run import Every, Resume, Run, Sitting, Steps, at_most
from convscope.techniques.synthesize._style import (
    RATES,
    Numbers,
    Plan,
    Pyramid,
    levels,
    noise,
    smoothing,
    style_layers,
    weights,
    wide,
)
from convscope.techniques.synthesize._tiles import Cover, Size, covering

SAMPLES = {"gram": 256, "neighbour": 96}  # longer side of a sample at most, in pixels, unless it is said otherwise


@technique(
    family="synthesize",
    order=5,
    keeps_size=True,
    paper=(
        "Gatys, Ecker & Bethge 2015, arXiv:1505.07376, sections 2 and 3; Efros & Leung 1999, ICCV, "
        "doi:10.1109/ICCV.1999.790383, sections 2 and 3"
    ),
    see="What the layers keep of a picture once places are forgotten: from colours over edges to whole pieces.",
    caution=(
        "Only what is alike all over the sample is texture. Of a scene it shows what the layers remember, which is no "
        "picture of the scene."
    ),
    quick={"steps": 2, "size": "24,24"},
)
def texture(
    network: Network,
    images: Tensor,
    *,
    method: Annotated[
        Literal["gram", "neighbour"],
        Field(description="Gram matrices of the network's layers, or pixel by pixel from the sample"),
    ] = "gram",
    size: Annotated[
        int | str | None, Field(description="side of the texture in pixels, or HEIGHT,WIDTH; the sample's if left out")
    ] = None,
    sample_size: Annotated[
        int | None, Field(ge=16, description="longer side of the sample at most; 256, of the neighbour method 96")
    ] = None,
    layers: Annotated[
        str | Sequence[str] | None, Field(description="layers whose Gram matrices count; the last of each resolution")
    ] = None,
    layer_weight: Annotated[
        float | Sequence[float] | None, Field(description="weight of each layer; alike if left out")
    ] = None,
    strip: Annotated[bool, Field(description="one texture a layer, each with the layers up to there")] = False,
    centred: Annotated[bool, Field(description="take the mean out of each channel first: covariances")] = False,
    window: Annotated[
        int, Field(ge=3, description="of the neighbour method: side of the square that is compared, odd, in pixels")
    ] = 11,
    parameters: Annotated[
        Numbers, Field(description="what is moved: Fourier coefficients in decorrelated colours, or the pixels")
    ] = "fourier",
    colours: Annotated[
        float, Field(ge=0, description="weight of how far colours are from the sample's, squared, fine and coarse")
    ] = 5.0,
    tv: Annotated[float, Field(ge=0, description="weight of total variation, which smooths")] = 2.0,
    optimizer: Annotated[Literal["lbfgs", "adam"], Field(description="how to go down")] = "lbfgs",
    rate: Annotated[
        float | None, Field(gt=0, description="learning rate: 1 of lbfgs, 0.05 of adam if left out")
    ] = None,
    steps: Annotated[Steps, Field(description="steps at each size, one pass forward and back each")] = 100,
    scales: Annotated[
        int | None, Field(ge=1, description="sizes, each twice the one before; from 200 pixels on if left out")
    ] = None,
    tile: Annotated[
        int | None, Field(ge=64, description="go over the picture in tiles of so many pixels; for sizes above 1024")
    ] = None,
    every: Every = 0,
    seed: Seed = 0,
    resume: Resume = None,
) -> Synthesis:
    """A picture of any size that looks like more of the sample, by Gram matrices or pixel by pixel.

    Args:
        network: any network that takes pictures of several sizes; ``neighbour`` does not ask it.
        images: (3, h, w) or (N, 3, h, w) samples in [0, 1].
        method: ``gram`` or ``neighbour``.
        size: one number, or "H,W"; smaller or larger than the sample.
        sample_size: samples are made smaller to this. What repeats should be within the deepest layer's receptive
            field, or for ``neighbour`` within the window.
        layers, layer_weight, strip, centred: of ``gram``. The strip has the layers in the order in which the network
            reaches them.
        window: of ``neighbour``: about the size of the largest regular feature.
        colours: of ``gram``: weight of the squared distance of the colours.
        parameters, tv, optimizer, rate, steps, scales: of ``gram``, as in :func:`style`.
        tile: of ``gram``: the result is the same but for rounding, in bounded memory.
        every: of how many steps, over all sizes, a picture is kept.
        seed: of the noise, or of the draws, the same for all samples.
        resume: a state, for the same options and samples.

    Returns:
        ``values`` (N, 3, H, W) in [0, 1], or (N K, 3, H, W) for a strip of K layers, each sample's in a row;
        ``originals`` the samples. ``trace`` is minus the loss, and begins anew at each size; ``neighbour`` has none.

    Raises:
        UnknownLayer; OptionError for a size that is none, and for tiles on a network that sees the whole picture at
        once; ImageError for a sample too small for a layer; MissingExtra where numba is not installed.
    """
    samples = at_most(wide(images), sample_size or SAMPLES[method])
    sides = _sides(size, (samples.shape[-2], samples.shape[-1]))
    if method == "neighbour":
        return _neighbour(samples, sides, window, seed, Sitting(resume))
    order = [info.name for info in network.layers()]
    names = sorted(style_layers(network, layers) or stages(network), key=lambda name: order.index(_plain(name, order)))
    shares = weights(layer_weight, len(names), "layer weights", "layers")
    cover, notes = covering(network, names, sides, tile)
    sets = [names[: k + 1] for k in range(len(names))] if strip else [names]
    sitting = Sitting(resume, every=every)
    sizes = levels(sides, scales)

    def runs() -> Iterator[Run]:
        for sample in progress.over(samples, "samples"):
            begin = noise(sample[None].to(network.device), sides, seed)
            for chosen in progress.over(sets, "layer sets"):
                wanted = _Wanted(network, sample[None].to(network.device), dict(zip(names, shares, strict=True)), sides)
                plan = Plan(
                    network, sizes, wanted.of(chosen, cover, centred), steps, optimizer, rate or RATES[optimizer],
                    cover, partial(wanted.regularizers, tv, colours), parameters,
                )  # fmt: skip
                yield sitting.run(partial(_steps_of, plan, begin), total=len(sizes) * steps)

    run = sitting.through(runs())
    titles = ([f"up to {chosen[-1]}" for chosen in sets] * len(samples))[: len(run.images)]
    about = [{"layers": chosen, "sizes": [f"{w}x{h}" for h, w in sizes]} for chosen in sets] * len(samples)
    return Synthesis(
        **run.fields(), notes=[*notes, *run.notes], layer=names[-1], originals=samples, titles=titles,
        quantity="Gram matrices", summaries=about[: len(run.images)], columns=len(sets) if strip else None,
    )  # fmt: skip


def _steps_of(plan: Plan, begin: Tensor, state: State | None) -> Iterator[Step]:
    return Pyramid(plan, begin, state).steps()


def _plain(name: str, order: Sequence[str]) -> str:
    """Without the number of its run."""
    return name if name in order else name.rpartition(":")[0]


def _sides(given: int | str | None, sample: Size) -> Size:
    """(height, width)."""
    if given is None:
        return sample
    parts = str(given).replace("x", ",").split(",")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) >= 16 for part in parts):
        raise OptionError(f"{given!r} is no size: give a side in pixels, or HEIGHT,WIDTH, of at least 16")
    numbers = [int(part) for part in parts]
    return numbers[0], numbers[-1]


def _neighbour(samples: Tensor, sides: Size, window: int, seed: int, sitting: Sitting) -> Synthesis:
    """Efros and Leung's, one sample after another."""

    def grown(sample: Tensor, begun: State | None) -> Run:
        found = neighbour_texture(sample, sides, window=window, seed=seed, resume=begun)
        run = Run(found.picture.float()[None], torch.zeros(0, 1))
        if found.stopped:
            run.notes = [f"stopped with {float(found.known.float().mean()):.0%} of the pixels known"]
            run.state = found.state
        return run

    run = sitting.through(sitting.made(partial(grown, sample)) for sample in progress.over(samples, "samples"))
    done, about = len(run.images), {"method": "neighbour", "window": window}
    return Synthesis(
        values=run.images, summaries=[about] * done, titles=[f"window {window}"] * done, notes=run.notes,
        originals=samples[:done], state=run.state,
    )  # fmt: skip


@dataclass(frozen=True)
class _Wanted:
    """A sample (1, 3, h, w), the weights of layers, and the size of the finished texture."""

    network: Network
    sample: Tensor
    shares: dict[str, float]
    sides: Size

    def of(self, layers: Sequence[str], cover: Cover, centred: bool) -> Any:
        """What is wanted at each size: the sample is made smaller as the texture is."""
        total = sum(self.shares[name] for name in layers)

        def aim(size: Size) -> Aim:
            seen = self._seen(size)
            beta = {name: self.shares[name] / total for name in layers}
            return Aim(self.network, {}, [Region(self._grams(seen, layers, cover, centred))], {}, beta, centred)

        return aim

    def regularizers(self, tv: float, colours: float, size: Size) -> list[Regularizer]:
        """That the picture is to be smooth, and to have the colours of the sample."""
        return smoothing(tv, size) + ([Colours(colours, self._seen(size))] if colours else [])

    def _seen(self, size: Size) -> Tensor:
        return at_most(self.sample, round(max(self.sample.shape[-2:]) * max(size) / max(self.sides)))

    def _grams(self, seen: Tensor, layers: Sequence[str], cover: Cover, centred: bool) -> dict[str, Tensor]:
        try:
            return grams_of(self.network, seen, layers, cover, centred=centred)
        except NetworkError as error:
            height, width = seen.shape[-2:]
            raise ImageError(
                f"a sample of {width}x{height} pixels is too small for these layers ({error}); give a larger one, "
                "lower --scales, or choose shallower layers"
            ) from error
