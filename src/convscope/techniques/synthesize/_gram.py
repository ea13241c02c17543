"""Styles as Gram matrices: of a whole picture or of regions, at once or in tiles that add up.

A style is what a layer's channels do together, wherever that is. With maps f and shares t of positions p,

    G = Σ_p t_p² f_p f_p' / Σ_p t_p²      t = 1 for the whole picture (Gatys et al. 2016, arXiv:1611.07865, section 3)

and, centred, the covariance G - m m' with m = Σ_p t_p² f_p / Σ_p t_p². These are sums over positions, so a picture can
be gone over in tiles: :class:`Tiled` first sums them up without a graph, and then takes each tile's part of the
derivative from dL/dG. A tile is seen with a margin as wide as the receptive fields, of which nothing is counted, so
the gradient is that of the whole picture but for rounding. It takes two passes forward where the whole takes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from convscope import progress
from convscope.backward import gradient
from convscope.errors import ImageError
from convscope.network import Network
from convscope.objectives import Objective, squared_distance
from convscope.techniques.synthesize._tiles import Cover, Size, Tile, layer_maps, size_of

EVERYWHERE = (slice(None), slice(None))
AT_ONCE = 1024  # positions that are summed in bfloat16


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
    """(N, C, C): the sum over positions of f f', in at least float32."""
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)  # of channels-last maps a view
    if maps.dtype != torch.bfloat16:
        rows = rows.to(torch.promote_types(maps.dtype, torch.float32))
    return _Products.apply(rows)  # type: ignore[no-untyped-call]


class _Products(torch.autograd.Function):
    """F'F of rows F (N, positions, C). As it is symmetric, its way back is one product: F (S + S')."""

    no_rectifier = True

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return _in_parts(rows) if rows.dtype == torch.bfloat16 else torch.bmm(rows.transpose(1, 2), rows)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        return torch.bmm(rows, (slopes + slopes.transpose(1, 2)).to(rows.dtype))


def _in_parts(rows: Tensor) -> Tensor:
    """In bfloat16 a thousand positions at a time, whose sums are rounded to it and added up in float32.

    That is as fine as the maps are, and twice as fast as to widen them.
    """
    count = -(-rows.shape[1] // AT_ONCE)
    if rows.shape[1] % count:  # padding by nothing would be a copy
        rows = F.pad(rows, (0, 0, 0, -rows.shape[1] % count))
    parts = rows.reshape(len(rows) * count, -1, rows.shape[2])
    return torch.bmm(parts.transpose(1, 2), parts).float().unflatten(0, (len(rows), count)).sum(1)


def grams_of(
    network: Network, images: Tensor, layers: Sequence[str], cover: Cover, *, centred: bool
) -> dict[str, Tensor]:
    """Layer to the Gram matrix (N, C, C) of the whole picture, without a graph."""
    sums: dict[str, Moments] = {}
    with torch.no_grad():
        for tile in cover.parts(size_of(images)):
            for name, maps in layer_maps(network, tile.of(images), layers).items():
                found = moments(tile.counted(name, maps), centred=centred)
                sums[name] = sums[name] + found if name in sums else found
    return {name: found.gram(centred=centred) for name, found in sums.items()}


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
            rows, columns = where[name]
            distance = squared_distance(maps[name], target[..., rows, columns])
            parts.append(-self.alpha[name] * distance / self._sizes[name])
        return torch.stack(parts).sum(0) if parts else 0.0

    @cached_property
    def _sizes(self) -> dict[str, Tensor]:
        """Layer to the (N,) squared length of the content there."""
        return {n: target.square().sum((1, 2, 3)).clamp(min=1e-12) for n, target in self.content.items()}


def shares_of(mask: Tensor, grids: Mapping[str, Size]) -> dict[str, Tensor]:
    """Layer to (h, w): the mean of a mask (H, W) in [0, 1] over the pixels that belong to each position of its grid.

    Raises ImageError where nothing of it is left.
    """
    found = {name: F.adaptive_avg_pool2d(mask[None], grid)[0] for name, grid in grids.items()}
    if not all(bool(share.any()) for share in found.values()):
        raise ImageError("a mask is black all over, so that its style has no place; make its region white")
    return found


# ---- in tiles


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
        maps = layer_maps(self.aim.network, part, sorted(self.aim.layers))
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
