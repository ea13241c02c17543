"""The network that paints: strided convolutions down, residual blocks, upsampling and convolution up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.objectives import wide
from convscope.parameterizations import correlated

STEP = 4  # the sides of the deepest maps are these many times smaller than the picture's
CONTRAST = 4.0  # spread of [0, 1] becomes about that of a unit normal
LARGEST = 1024  # channels, blocks and styles that are believed of a file
WAVES = 32  # of which the grain is made
WAVELENGTHS = (6.0, 64.0)  # the shortest and the longest, in pixels
SMALLEST = 16  # pixels; smaller pictures are continued to this size, so that every map can be mirrored at its border

Moments: TypeAlias = tuple[Tensor, Tensor]  # mean and variance of each channel, each (N, C, 1, 1)


@dataclass(frozen=True)
class Shape:
    """What a stylist's weights look like.

    ``styles``: how many it knows. ``widths``: channels at a half and at a quarter of the resolution. ``blocks``:
    residual blocks at a quarter. ``fine``: channels of the last map at a half.
    """

    styles: int = 1
    widths: tuple[int, int] = (32, 64)
    blocks: int = 5
    fine: int = 16

    def noted(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> Shape:
        """From what :meth:`noted` gave; ValueError and TypeError for anything else."""
        shape = cls(**{**noted, "widths": tuple(noted["widths"])})
        numbers = (shape.styles, *shape.widths, shape.blocks, shape.fine)
        if len(shape.widths) != 2 or not all(isinstance(n, int) and 0 < n <= LARGEST for n in numbers):
            raise ValueError(f"impossible shape {dict(noted)}")
        return shape


class Convolution(nn.Module):
    """A convolution behind a border that mirrors the picture, which leaves no frame as zeros would."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.border = (kernel // 2,) * 4
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, bias=bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C', h / stride, w / stride)."""
        with torch.autocast(maps.device.type, enabled=False):  # which would widen what needs no arithmetic
            padded = F.pad(maps, self.border, mode="reflect")
        return self.convolution(padded)


class StyleNorm(nn.Module):
    """Instance norm with a scale and a shift for each style (Ulyanov et al. 2017; Dumoulin et al. 2017, section 2).

        scale[style] * (map - mean) / sqrt(variance + 1e-5) + shift[style]

    Mean and variance are each picture's own, over positions, so that pictures never mix. ``watch`` gets them and says
    which to use instead; that is how a picture in parts is given the moments of the whole.
    """

    def __init__(self, styles: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))
        self.watch: Callable[[Tensor], Moments] | None = None

    def forward(self, maps: Tensor, styles: Tensor) -> Tensor:
        """(N, C, h, w) and (N,) -> (N, C, h, w)."""
        if self.watch is None:  # a picture at a time it is what batch norm computes, in one pass over the maps
            rows = zip(maps.split(1), self.scale[styles], self.shift[styles], strict=True)
            found = [torch.batch_norm(m, s, b, None, None, True, 0.0, 1e-5, False) for m, s, b in rows]
            return torch.cat(found) if len(found) > 1 else found[0]
        mean, variance = self.watch(maps)
        scale = self.scale[styles][:, :, None, None] * (variance + 1e-5).rsqrt()
        shift = self.shift[styles][:, :, None, None] - mean * scale
        return torch.addcmul(shift.to(maps), maps, scale.to(maps))


def moments(maps: Tensor) -> Moments:
    """Mean and variance of each picture's channels, each (N, C, 1, 1), in float32 at least."""
    exact = wide(maps)
    mean = exact.mean((2, 3), keepdim=True)
    away = exact - mean
    return mean, (away * away).mean((2, 3), keepdim=True)  # six times as fast as torch.var_mean on channels-last maps


class Layer(nn.Module):
    """Convolution, style norm, and a rectifier unless it is the last of a residual block."""

    def __init__(
        self, styles: int, inputs: int, outputs: int, kernel: int, stride: int = 1, *, rectified: bool = True
    ) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, outputs, kernel, stride)
        self.norm = StyleNorm(styles, outputs)
        self.rectified = rectified

    def forward(self, maps: Tensor, styles: Tensor) -> Tensor:
        """(N, C, h, w) and (N,) -> (N, C', h / stride, w / stride)."""
        found = self.norm(self.convolution(maps), styles)
        return F.relu_(found) if self.rectified else found


class Residual(nn.Module):
    """Two layers, whose output is added to what they got."""

    def __init__(self, styles: int, channels: int) -> None:
        super().__init__()
        self.first = Layer(styles, channels, channels, 3)
        self.second = Layer(styles, channels, channels, 3, rectified=False)

    def forward(self, maps: Tensor, styles: Tensor) -> Tensor:
        """(N, C, h, w) and (N,) -> (N, C, h, w)."""
        return maps + self.second(self.first(maps, styles), styles)


class Stylist(nn.Module):
    """Photographs in, paintings out, in one pass (Johnson et al. 2016), with instance norm (Ulyanov et al. 2017).

    Departures from Johnson: the first convolution already halves the resolution and the last but one runs at a half,
    which costs a third and shows no difference; maps are enlarged smoothly before a convolution, where a transposed one
    leaves a checkerboard (Odena et al. 2016); a fourth input is a faint grain (:func:`grain`), without which a clear
    sky could only become another clear sky, since the same input has the same output everywhere (Ulyanov et al. 2016
    give noise for that reason); a picture is the sum of three, at a quarter, a half and the full resolution, in the
    decorrelated colours of photographs, so that training finds large patches of colour as fast as fine lines; the
    photograph's own colours, mixed anew for each style, are added before a sigmoid, so that training starts from a pale
    photograph.
    """

    def __init__(self, shape: Shape, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.shape, self.names = shape, tuple(names) or tuple(str(n) for n in range(shape.styles))
        styles, (half, quarter) = shape.styles, shape.widths
        self.down1 = Layer(styles, 4, half, 7, 2)
        self.down2 = Layer(styles, half, quarter, 3, 2)
        self.blocks = nn.ModuleList(Residual(styles, quarter) for _ in range(shape.blocks))
        self.up1 = Layer(styles, quarter, half, 3)
        self.up2 = Layer(styles, half, shape.fine, 3)
        self.coarse = Convolution(quarter, 3, 3, bias=True)
        self.middle = Convolution(half, 3, 3, bias=True)
        self.out = Convolution(shape.fine, 3, 5, bias=True)
        with torch.no_grad():
            for part in (self.coarse, self.middle, self.out):
                part.convolution.weight.mul_(0.3)  # the first pictures are the photographs, pale, but for colours
        self.palette = nn.Parameter(torch.eye(3).repeat(styles, 1, 1))

    @property
    def halo(self) -> int:
        """How many pixels around a pixel it looks at, at most, rounded up to whole steps."""
        reach = 3 + 2 + STEP * (2 * len(self.blocks) + 2) + STEP + 2 * 2 + 2 + 2
        return -(-reach // STEP) * STEP

    def forward(self, images: Tensor, styles: Tensor | int = 0, place: tuple[int, int] = (0, 0)) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> the same shape and range, painted.

        ``styles``: (N,) indices, or one for all. ``place``: row and column of the first pixel, where these are parts of
        a larger picture.
        """
        height, width = images.shape[-2:]
        chosen = torch.as_tensor(styles, device=images.device).expand(len(images))
        painted = self._painted(_continued(images), chosen, place)
        return painted[..., :height, :width].to(images.dtype)

    def _painted(self, images: Tensor, styles: Tensor, place: tuple[int, int]) -> Tensor:
        """The same for sides that are whole steps."""
        centred = images - 0.5
        faint = grain((images.shape[2], images.shape[3]), place).to(centred).expand(len(images), 1, -1, -1)
        maps = self.down2(self.down1(torch.cat([centred * CONTRAST, faint], 1), styles), styles)
        for block in self.blocks:
            maps = block(maps, styles)
        found = _doubled(_doubled(wide(self.coarse(maps))))
        maps = self.up1(_doubled(maps), styles)
        found = found + _doubled(wide(self.middle(maps)))
        found = found + self.out(_doubled(self.up2(maps, styles)))
        with torch.autocast(images.device.type, enabled=False):  # the last sums decide the colours
            own = torch.einsum("nij,njhw->nihw", self.palette[styles].to(centred), centred)
            return torch.sigmoid(correlated(found.to(own)) + own)


def grain(size: tuple[int, int], place: tuple[int, int] = (0, 0)) -> Tensor:
    """(H, W) of smooth noise with unit variance that never repeats, the same at a place whatever is cut out around it.

        sqrt(2 / K) sum over k of cos(u_k row + v_k column + phase_k)

    with K plane waves of random directions and of wavelengths from 6 to 64 pixels.
    """
    generator = torch.Generator().manual_seed(0)
    length, direction, phase = torch.rand(3, WAVES, generator=generator, dtype=torch.float64)
    longest = math.log(WAVELENGTHS[1] / WAVELENGTHS[0])
    frequency = 2 * math.pi / (WAVELENGTHS[0] * torch.exp(length * longest))
    angle = 2 * math.pi * direction
    rows, columns = (
        torch.arange(begin, begin + side, dtype=torch.float64) for begin, side in zip(place, size, strict=True)
    )
    down = rows[:, None] * (frequency * angle.sin()) + 2 * math.pi * phase
    right = columns[:, None] * (frequency * angle.cos())
    found = down.cos() @ right.cos().T - down.sin() @ right.sin().T
    return (found * math.sqrt(2 / WAVES)).float()


def _doubled(maps: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, C, 2 h, 2 w), smoothly, in the maps' own type."""
    with torch.autocast(maps.device.type, enabled=False):
        return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def _continued(images: Tensor) -> Tensor:
    """To whole steps, and to what the smallest maps need, as the last row and column go on."""
    down, right = (max(SMALLEST, -(-side // STEP) * STEP) - side for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
