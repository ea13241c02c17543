"""What style transfer and textures share: Gram matrices of regions, runs from coarse to fine, tiles that add up.

A style is what a layer's channels do together, wherever that is. With maps f and shares t of positions p,

    G = Σ_p t_p² f_p f_p' / Σ_p t_p²      t = 1 for the whole picture (Gatys et al. 2016, arXiv:1611.07865, section 3)

and, centred, the covariance G - m m' with m = Σ_p t_p² f_p / Σ_p t_p². These are sums over positions, so a picture can
be gone over in tiles: :class:`Tiled` first sums them up without a graph, and then takes each tile's part of the
derivative from dL/dG. A tile is seen with a margin as wide as the receptive fields, of which nothing is counted, so
the gradient is that of the whole picture but for rounding. It takes two passes forward where the whole takes one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope import progress
from convscope.backward import gradient
from convscope.errors import ImageError, OptionError
from convscope.hooks import observe
from convscope.images import resize
from convscope.network import Network
from convscope.objectives import Objective
from convscope.optimize import Optimiser, State, Step, Swept, optimize
from convscope.parameterizations import Fourier, Parameterization, Pixels
from convscope.receptive_field import ReceptiveField
from convscope.regularizers import Regularizer, TotalVariation
from convscope.techniques.synthesize._lbfgs import LBFGS
from convscope.techniques.synthesize._run import Run, joined

Size = tuple[int, int]
EVERYWHERE = (slice(None), slice(None))
LARGEST = 1024  # longer side, in pixels, up to which a picture is optimised as a whole unless it is said otherwise
TILE = 512
AT_ONCE = 1024  # positions that are summed in bfloat16
BEGINNING = 200  # longer side, in pixels, that a run begins at unless it is said otherwise
SMALLEST = 48  # shorter side of the smallest size
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the Y of YIQ
RATES = {"lbfgs": 1.0, "adam": 0.05}
Numbers = Literal["fourier", "pixels"]


# ---- sums over positions


@dataclass(frozen=True)
class Moments:
    """Sums over positions p of maps f with shares t: ``second`` (N, C, C) Σ t² f f', ``first`` (N, C) Σ t² f, Σ t²."""

    second: Tensor
    first: Tensor
    total: float

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.second + other.second, self.first + other.first, self.total + other.total)

    def gram(self, *, centred: bool = False) -> Tensor:
        """(N, C, C)."""
        mean = self.first / self.total
        product = self.second / self.total
        return product - mean[:, :, None] * mean[:, None] if centred else product


def moments(maps: Tensor, share: Tensor | None = None, *, centred: bool = False) -> Moments:
    """Of maps (N, C, h, w), each position counted by its ``share`` (h, w); in at least float32.

    ``first`` is computed where ``centred`` asks for it, and zero otherwise.
    """
    shared = maps if share is None else maps * share.to(maps)
    total = maps.shape[2] * maps.shape[3] if share is None else float(share.square().sum())
    first = shared.new_zeros(shared.shape[:2], dtype=torch.promote_types(maps.dtype, torch.float32))
    if centred:
        first = (shared if share is None else shared * share.to(maps)).sum((2, 3), dtype=first.dtype)
    return Moments(_products(shared), first, total)


def _products(maps: Tensor) -> Tensor:
    """(N, C, C): the sum over positions of f f', in at least float32.

    In bfloat16 a thousand positions at a time, whose sums are rounded to it: that is as fine as the maps are, and
    twice as fast as to widen them.
    """
    if maps.dtype != torch.bfloat16:
        rows = maps.to(torch.promote_types(maps.dtype, torch.float32)).flatten(2)
        return _symmetric(rows @ rows.detach().transpose(1, 2))
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)  # of channels-last maps a view
    count = -(-rows.shape[1] // AT_ONCE)
    rows = F.pad(rows, (0, 0, 0, -rows.shape[1] % count)).reshape(len(maps) * count, -1, rows.shape[2])
    parts = torch.bmm(rows.transpose(1, 2), rows.detach())
    return _symmetric(parts.float().unflatten(0, (len(maps), count)).sum(1))


def _symmetric(products: Tensor) -> Tensor:
    """F F' from F times a constant F': the same numbers and derivative, by one product less on the way back."""
    return products + products.transpose(1, 2) - products.detach()


# ---- what a picture is to be like


@dataclass(frozen=True)
class Region:
    """A part of the picture with a style of its own.

    ``grams`` layer to (1, C, C); ``weight`` of it in the sum; ``shares`` layer to (h, w), what of each position belongs
    to it, None for the whole picture.
    """

    grams: Mapping[str, Tensor]
    weight: float = 1.0
    shares: Mapping[str, Tensor] | None = None

    def share(self, layer: str) -> Tensor | None:
        return None if self.shares is None else self.shares[layer]


@dataclass(frozen=True)
class Aim:
    """Content, position by position, and styles, by their Gram matrices; maximised, at most 0.

        - Σ_l α_l Σ (F_l - P_l)² / Σ P_l²  -  Σ_r w_r Σ_l β_l Σ (G_rl - A_rl)² / Σ A_rl²

    over layers l and regions r (Gatys et al. 2016, equations 1 to 7, each layer in shares of its target's own size).

    Attributes:
        content: layer to maps (N or 1, C, h, w) of the content, P.
        regions: styles, A.
        alpha, beta: weights of content and style layers.
        centred: whether Gram matrices are of centred features.
    """

    network: Network
    content: Mapping[str, Tensor]
    regions: Sequence[Region]
    alpha: Mapping[str, float]
    beta: Mapping[str, float]
    centred: bool = False

    @property
    def layers(self) -> frozenset[str]:
        return frozenset(self.content) | frozenset(self.beta)

    def objective(self) -> Objective:
        """It, of the whole picture at once."""

        def score(activations: Mapping[str, Tensor]) -> Tensor:
            maps = {name: self.network.maps(name, activations[name]) for name in self.layers}
            sums = {
                (number, name): moments(maps[name], region.share(name), centred=self.centred)
                for number, region in enumerate(self.regions) for name in self.beta
            }  # fmt: skip
            return self.style_score(sums) + self.content_score(maps, dict.fromkeys(self.content, EVERYWHERE))

        return Objective(self.layers, score, "content and style" if self.content else "style")

    def style_score(self, sums: Mapping[tuple[int, str], Moments]) -> Tensor:
        """(N,) from the sums of each region and layer."""
        parts = []
        for (number, name), found in sums.items():
            region = self.regions[number]
            target = region.grams[name]
            distance = (found.gram(centred=self.centred) - target).flatten(1).square().sum(1)
            size = target.square().sum().clamp(min=1e-12)
            parts.append(-region.weight * self.beta[name] * distance / size)
        return torch.stack(parts).sum(0)

    def content_score(self, maps: Mapping[str, Tensor], where: Mapping[str, tuple[slice, slice]]) -> Tensor | float:
        """(N,) of maps that stand at ``where`` of the whole; nothing without content."""
        parts = []
        for name, target in self.content.items():
            size = target.flatten(1).square().sum(1).clamp(min=1e-12)
            rows, columns = where[name]
            difference = maps[name].to(target.dtype) - target[..., rows, columns]
            parts.append(-self.alpha[name] * difference.flatten(1).square().sum(1) / size)
        return torch.stack(parts).sum(0) if parts else 0.0


def shares_of(mask: Tensor, grids: Mapping[str, Size]) -> dict[str, Tensor]:
    """Layer to (h, w): the mean of a mask (H, W) in [0, 1] over the pixels that belong to each position of its grid.

    Raises ImageError where nothing of it is left.
    """
    found = {name: F.adaptive_avg_pool2d(mask[None], grid)[0] for name, grid in grids.items()}
    if not all(bool(share.any()) for share in found.values()):
        raise ImageError("a mask is black all over, so that its style has no place; make its region white")
    return found


# ---- tiles


@dataclass(frozen=True)
class Span:
    """One side of a tile: pixels ``low`` to ``high`` are seen, ``start`` to ``end`` counted; None is the border."""

    low: int
    high: int
    start: int
    end: int | None

    def counted(self, stride: int) -> slice:
        """Which positions of the tile's map count."""
        return slice((self.start - self.low) // stride, None if self.end is None else (self.end - self.low) // stride)

    def place(self, stride: int) -> slice:
        """Where they stand in the map of the whole picture."""
        return slice(self.start // stride, None if self.end is None else self.end // stride)


@dataclass(frozen=True)
class Tile:
    """A piece of a picture, and which of its positions count."""

    rows: Span
    columns: Span
    strides: Mapping[str, Size]

    def of(self, images: Tensor) -> Tensor:
        """Its pixels, margin included; a view."""
        return images[..., self.rows.low : self.rows.high, self.columns.low : self.columns.high]

    def counted(self, name: str, maps: Tensor) -> Tensor:
        """What of its maps (N, C, h, w) counts."""
        down, right = self.strides[name]
        return maps[..., self.rows.counted(down), self.columns.counted(right)]

    def place(self, name: str) -> tuple[slice, slice]:
        down, right = self.strides[name]
        return self.rows.place(down), self.columns.place(right)


@dataclass(frozen=True)
class Cover:
    """How pictures are gone over: as a whole, or in tiles of about ``side`` pixels, not counting margins.

    Tiles begin where the strides of all layers meet, so that each position of each map is computed in one tile as in
    the whole picture, from all the pixels that it sees.
    """

    layers: Sequence[str]
    side: int | None = None
    grid: _Grid | None = None

    @classmethod
    def tiled(cls, network: Network, layers: Sequence[str], side: int) -> Cover:
        """In tiles.

        Raises OptionError for networks of which the above is not so: something global, whose receptive field is the
        picture; positions that matter; operators that could not be followed.
        """
        grid = _Grid.of(network, layers)
        grid.check(network, layers)
        return cls(layers, side, grid)

    def parts(self, size: Size) -> list[Tile]:
        """The tiles of a picture; a single one where it is no larger than a tile."""
        if self.grid is None or self.side is None or max(size) <= self.side:
            spans = [Span(0, length, 0, None) for length in size]
            return [Tile(spans[0], spans[1], dict.fromkeys(self.layers, (1, 1)))]
        return self.grid.tiles(size, self.side)


@dataclass(frozen=True)
class _Grid:
    """Strides of layers, where they all meet (``step``), and how far beyond that a position sees (``margin``)."""

    strides: Mapping[str, Size]
    step: int
    margin: int

    @classmethod
    def of(cls, network: Network, layers: Sequence[str]) -> _Grid:
        fields = {name: _local(network, name) for name in layers}
        order = [info.name for info in network.layers()]
        deepest = max(order.index(name) for name in layers)
        met = [
            network.receptive_fields[name].stride for name in order[: deepest + 1] if name in network.receptive_fields
        ]
        every = [int(s) for stride in met for s in stride if s >= 1 and s == int(s)]
        step = math.lcm(*every)
        reach = 0.0
        for field in fields.values():
            for size, stride, offset in zip(field.size, field.stride, field.offset, strict=True):
                half = (size - 1) / 2
                reach = max(reach, half - offset, half + offset - stride + 1)
        strides = {name: (int(field.stride[0]), int(field.stride[1])) for name, field in fields.items()}
        return cls(strides, step, math.ceil(reach / step) * step)

    def tiles(self, size: Size, side: int) -> list[Tile]:
        spans = [self._spans(length, max(1, side // self.step) * self.step) for length in size]
        return [Tile(rows, columns, self.strides) for rows in spans[0] for columns in spans[1]]

    def _spans(self, length: int, core: int) -> list[Span]:
        """The last one takes what is left, up to half a tile more, so that none is a sliver."""
        starts = list(range(0, max(1, length - core // 2), core))
        ends: list[int | None] = [*starts[1:], None]
        return [
            Span(max(0, start - self.margin), length if end is None else min(length, end + self.margin), start, end)
            for start, end in zip(starts, ends, strict=True)
        ]

    def check(self, network: Network, layers: Sequence[str]) -> None:
        """Whether tiles of a picture of noise say what the whole says: a proof by trial, on as little as will do."""
        side = 2 * self.margin + 2 * self.step
        noise = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(network.device)
        with torch.no_grad():
            expected = _maps(network, noise, layers)
            for tile in self.tiles((side, side), self.margin + self.step):
                found = _maps(network, tile.of(noise), layers)
                for name in layers:
                    rows, columns = tile.place(name)
                    here, there = tile.counted(name, found[name]), expected[name][..., rows, columns]
                    loose = 0.05 if network.precision == "bfloat16" else 1e-3
                    if here.shape != there.shape or (here - there).abs().max() > loose * expected[name].abs().max():
                        raise OptionError(_untiled(network, name, "depends on where in the picture it looks"))


def _local(network: Network, name: str) -> ReceptiveField:
    """The receptive field of a layer that looks at a part of the picture only."""
    network.layer(name)
    field = network.receptive_fields.get(name)
    if field is None or field.inexact:
        raise OptionError(_untiled(network, name, "cannot be followed back to the pixels"))
    if field.whole:
        raise OptionError(_untiled(network, name, "sees the whole picture at once"))
    if any(stride < 1 or stride != int(stride) for stride in field.stride):
        raise OptionError(_untiled(network, name, "does not stand at every so many pixels"))
    return field


def _untiled(network: Network, name: str, why: str) -> str:
    return (
        f"{network.name} cannot be gone over in tiles: layer {name!r} {why}; choose layers before it, or a smaller "
        "picture without tiles"
    )


def _maps(network: Network, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    seen = observe(network, images, layers)
    return {name: network.maps(name, seen[name]) for name in layers}


def maps_of(network: Network, images: Tensor, layers: Sequence[str], cover: Cover) -> dict[str, Tensor]:
    """Layer to maps (N, C, h, w) of the whole picture in at least float32, without a graph."""
    rows: dict[str, list[tuple[tuple[slice, slice], Tensor]]] = {name: [] for name in layers}
    with torch.no_grad():
        for tile in cover.parts(_size(images)):
            for name, found in _maps(network, tile.of(images), layers).items():
                wide = found.to(torch.promote_types(found.dtype, torch.float32))
                rows[name].append((tile.place(name), tile.counted(name, wide)))
    return {name: _assembled(pieces) for name, pieces in rows.items()}


def _assembled(pieces: Sequence[tuple[tuple[slice, slice], Tensor]]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0][1]
    (rows, columns), last = pieces[-1]  # which reaches to both ends
    sizes = ((rows.start or 0) + last.shape[-2], (columns.start or 0) + last.shape[-1])
    found = last.new_empty(*last.shape[:2], *sizes)
    for (rows, columns), piece in pieces:
        found[..., rows, columns] = piece
    return found


def grams_of(
    network: Network, images: Tensor, layers: Sequence[str], cover: Cover, *, centred: bool
) -> dict[str, Tensor]:
    """Layer to the Gram matrix (N, C, C) of the whole picture, without a graph."""
    sums: dict[str, Moments] = {}
    with torch.no_grad():
        for tile in cover.parts(_size(images)):
            for name, maps in _maps(network, tile.of(images), layers).items():
                found = moments(tile.counted(name, maps), centred=centred)
                sums[name] = sums[name] + found if name in sums else found
    return {name: found.gram(centred=centred) for name, found in sums.items()}


@dataclass(frozen=True)
class Tiled:
    """An :class:`Aim` that is gone over in tiles."""

    aim: Aim
    parts: Sequence[Tile]

    def sweep(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) scores, and their derivatives by the pixels."""
        score, slopes = self._summed(images)
        total = torch.zeros_like(images)
        for tile in progress.over(self.parts, "tiles"):
            part = tile.of(images).detach().clone().requires_grad_()
            maps = self._counted(tile, part)
            content = self.aim.content_score(maps, {name: tile.place(name) for name in self.aim.content})
            linear = self._linear(tile, maps, slopes)
            tile.of(total).add_(gradient(linear + content, part))
            score = score + (content.detach() if isinstance(content, Tensor) else content)
        return score, total

    def _counted(self, tile: Tile, part: Tensor) -> dict[str, Tensor]:
        maps = _maps(self.aim.network, part, sorted(self.aim.layers))
        return {name: tile.counted(name, found) for name, found in maps.items()}

    def _moments(self, tile: Tile, maps: Mapping[str, Tensor]) -> dict[tuple[int, str], Moments]:
        found = {}
        for number, region in enumerate(self.aim.regions):
            for name in self.aim.beta:
                share = region.share(name)
                rows, columns = tile.place(name)
                here = None if share is None else share[rows, columns]
                found[number, name] = moments(maps[name], here, centred=self.aim.centred)
        return found

    def _summed(self, images: Tensor) -> tuple[Tensor, dict[tuple[int, str], tuple[Tensor, Tensor]]]:
        """The style's score, and its derivative by the sums of each region and layer."""
        sums: dict[tuple[int, str], Moments] = {}
        with torch.no_grad():
            for tile in self.parts:
                for key, found in self._moments(tile, self._counted(tile, tile.of(images))).items():
                    sums[key] = sums[key] + found if key in sums else found
        leaves = {k: Moments(s.second.requires_grad_(), s.first.requires_grad_(), s.total) for k, s in sums.items()}
        with torch.enable_grad():
            score = self.aim.style_score(leaves)
        slopes = gradient(score, [t for s in leaves.values() for t in (s.second, s.first)])
        return score.detach(), dict(zip(leaves, zip(slopes[::2], slopes[1::2], strict=True), strict=True))

    def _linear(
        self, tile: Tile, maps: Mapping[str, Tensor], slopes: Mapping[tuple[int, str], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """(N,) whose derivative by the tile is the style's: the sums are replaced by their slopes."""
        parts = [
            (found.second * slopes[key][0]).flatten(1).sum(1) + (found.first * slopes[key][1]).sum(1)
            for key, found in self._moments(tile, maps).items()
        ]
        return torch.stack(parts).sum(0)


def grids_of(network: Network, images: Tensor, layers: Sequence[str], cover: Cover) -> dict[str, Size]:
    """Layer to the rows and columns of its map of the whole picture."""
    found = {}
    tile = cover.parts(_size(images))[-1]  # which reaches to both ends
    with torch.no_grad():
        for name, maps in _maps(network, tile.of(images), layers).items():
            here, places = tile.counted(name, maps), tile.place(name)
            found[name] = ((places[0].start or 0) + here.shape[-2], (places[1].start or 0) + here.shape[-1])
    return found


def covering(network: Network, layers: Sequence[str], size: Size, side: int | None) -> tuple[Cover, list[str]]:
    """How a picture is gone over, and what to say of it: in tiles where they are asked for, or where it is large.

    A large picture on a network that has no tiles is optimised as a whole.
    """
    if side is not None:
        return Cover.tiled(network, layers, side), []
    if max(size) <= LARGEST:
        return Cover(layers), []
    try:
        return Cover.tiled(network, layers, TILE), []
    except OptionError as error:
        return Cover(layers), [str(error)]


# ---- colours


def luminance(images: Tensor) -> Tensor:
    """(..., 1, H, W): the Y of YIQ, of (..., 3, H, W)."""
    return (images * torch.tensor(LUMA).to(images).view(3, 1, 1)).sum(-3, keepdim=True)


def matched(picture: Tensor, like: Tensor) -> Tensor:
    """(3, h, w) with the mean and covariance of the colours of another picture (3, H, W); not clipped.

    x -> S_like^(1/2) S^(-1/2) (x - m) + m_like, the linear map of arXiv:1606.05897, section 3, with symmetric roots.
    Variances along the colour axes count as at least 1e-7, so that a grey picture has an inverse.
    """
    (mean, spread), (mean_like, spread_like) = _colours(picture), _colours(like)
    root = _power(spread_like, 0.5) @ _power(spread, -0.5)
    pixels = root @ (picture.flatten(1).double() - mean) + mean_like
    return pixels.view_as(picture).to(picture)


def _colours(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3, 1) and covariance (3, 3) in double precision."""
    pixels = picture.flatten(1).double()
    mean = pixels.mean(1, keepdim=True)
    return mean, (pixels - mean) @ (pixels - mean).T / pixels.shape[1]


def _power(spread: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(spread)
    return vectors * values.clamp(min=1e-7) ** exponent @ vectors.T


# ---- to begin with, and to end


def wide(images: Tensor) -> Tensor:
    """In at least float32 and one order of memory: rounding that differs grows from step to step."""
    return images.to(torch.promote_types(images.dtype, torch.float32)).contiguous()


def noise(like: Tensor, size: Size, seed: int) -> Tensor:
    """(1, 3, H, W) of noise with the colours of a picture (1, 3, h, w), coarse rather than fine.

    Its spectrum falls as that of photographs. Fine noise, and colours that the picture lacks, are hardly seen by any
    network, and would stay to the end.
    """
    found = Fourier(1, size, seed=seed).images().detach().to(like)
    return matched(found[0], like[0])[None].clamp(0, 1)


def until_stopped(runs: Iterator[Run]) -> Run:
    """The runs one after another as one; what the user stops is the last of them, and others are not begun."""
    found = []
    for run in runs:
        found.append(run)
        if run.state is not None:
            break
    return joined(found)


# ---- options


def style_layers(network: Network, given: str | Sequence[str] | None) -> list[str]:
    """Names that exist, each once."""
    names = [given] if isinstance(given, str) else list(dict.fromkeys(given or []))
    for name in names:
        network.layer(name)
    return names


def weights(given: float | Sequence[float] | None, count: int, what: str, things: str) -> list[float]:
    """One a thing, in proportion to what is given, that sum to 1."""
    found = [given] if isinstance(given, (int, float)) else list(given or [1.0] * count)
    if len(found) != count:
        raise OptionError(f"{len(found)} {what} for {count} {things}; give one each, or none")
    return [weight / sum(found) for weight in found]


def smoothing(weight: float, size: Size) -> list[Regularizer]:
    """Total variation over the number of pixels."""
    return [TotalVariation(weight / (size[0] * size[1]))] if weight else []


# ---- from coarse to fine


def levels(size: Size, scales: int | None) -> list[Size]:
    """Sizes that double up to ``size``, the smallest first.

    As many as ``scales``, but none with a shorter side below 48 pixels; left out, those with a longer side of 200 or
    more.
    """
    found = [size]
    while scales is None or len(found) < scales:
        share = 0.5 ** len(found)
        smaller = (round(size[0] * share), round(size[1] * share))
        if min(smaller) < SMALLEST or (scales is None and max(smaller) < BEGINNING):
            break
        found.append(smaller)
    return found[::-1]


@dataclass(frozen=True)
class Plan:
    """What stays the same all through a run; ``aim`` and ``regularizers`` make what is wanted at a size."""

    network: Network
    sizes: Sequence[Size]
    aim: Callable[[Size], Aim]
    steps: int
    optimizer: Literal["lbfgs", "adam"]
    rate: float
    cover: Cover
    regularizers: Callable[[Size], Sequence[Regularizer]]
    parameters: Numbers = "fourier"
    grey: bool = False

    def moved(self, images: Tensor) -> Parameterization:
        """What makes these pictures to begin with. The pixels of L-BFGS are free: it does not know of clipping."""
        found: Parameterization
        if self.parameters == "fourier":
            found = Fourier.of(images).to(images.device)
        else:
            found = Pixels(images, bounds=None if self.optimizer == "lbfgs" else (0.0, 1.0))
        return Grey(found) if self.grey else found


OPTIMIZERS: Mapping[str, Optimiser] = {"lbfgs": LBFGS, "adam": "adam"}


class Grey:
    """The luminance of another parameterization's pictures, in all three channels."""

    def __init__(self, coloured: Parameterization) -> None:
        self._coloured = coloured

    def parameters(self) -> list[Tensor]:
        return self._coloured.parameters()

    def images(self) -> Tensor:
        return luminance(self._coloured.images()).expand(-1, 3, -1, -1)

    def project(self) -> None:
        self._coloured.project()


class Pyramid:
    """A run at each size, every one from what the one before has made."""

    def __init__(self, plan: Plan, images: Tensor, state: State | None = None) -> None:
        self.plan, self.images, self.level = plan, images, 0
        self._inner = state
        if state is not None:
            self.level = _level(state, len(plan.sizes))

    def steps(self) -> Iterator[Step]:
        """Every step of every size."""
        for level in progress.over(range(self.level, len(self.plan.sizes)), "sizes"):
            self.level = level
            for step in self._steps_here():
                yield step
                if step.stopped:
                    return

    def _steps_here(self) -> Iterator[Step]:
        plan, size = self.plan, self.plan.sizes[self.level]
        moved = plan.moved(scaled(self.images, size))
        inner, self._inner = self._inner, None
        for step in optimize(
            plan.network, self._aim(size), moved, steps=plan.steps, optimizer=OPTIMIZERS[plan.optimizer],
            rate=plan.rate, regularizers=plan.regularizers(size), resume=inner,
        ):  # fmt: skip
            number = self.level * plan.steps + step.number
            yield Moment(number, step.score, step.penalty, step.stopped, step._loop, step, self.level, plan.sizes[-1])
        self.images = moved.images().detach()

    def _aim(self, size: Size) -> Objective | Swept:
        aim, parts = self.plan.aim(size), self.plan.cover.parts(size)
        return aim.objective() if len(parts) == 1 else Tiled(aim, parts)


def _level(state: State, count: int) -> int:
    level = state.get("level")
    if not isinstance(level, int) or not 0 <= level < count:
        raise OptionError("the saved state belongs to another run; give the same picture and the options of then")
    return level


@dataclass(frozen=True)
class Moment(Step):
    """A step at one size, as one of the whole run."""

    _step: Step
    _level: int
    _size: Size

    @cached_property
    def images(self) -> Tensor:
        """At full size."""
        return scaled(self._step.images, self._size)

    def state(self) -> State:
        """The state of this size's own run, and which size it is."""
        return {**self._step.state(), "level": self._level}


def _size(images: Tensor) -> Size:
    return images.shape[-2], images.shape[-1]


def scaled(images: Tensor, size: Size) -> Tensor:
    """(N, 3, H, W) at another size, by the smoothest filter there is, in [0, 1]."""
    if _size(images) == tuple(size):
        return images
    return resize(images, size, mode="bicubic")
