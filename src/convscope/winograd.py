"""3x3 convolutions with 2.25 times fewer multiplications: Winograd's minimal filtering (Lavin & Gray 2016).

Each tile of 2x2 outputs sees 4x4 inputs d and takes 36 products with a 3x3 filter g. Turned by three small matrices,

    Y = A' [ (G g G') * (B' d B) ] A,        * element by element, summed over input channels

it takes 16, which are sixteen matrix products over all tiles. The numbers are those of the plain convolution but for
rounding, which is no larger. The turning costs reading and writing, so it pays where channels are many: from 256
filters on 128 channels the plain convolution of oneDNN takes 1.3 to 1.8 times as long on one core. The paper is
arXiv:1509.09308, section 4.1; only its F(2x2, 3x3) is here, since larger tiles round worse.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FEWEST_CHANNELS = 128  # of the input, and
FEWEST_WEIGHTS = 2**15  # channels times filters, from which it pays
MOST_MARGIN = 1.35  # computed over wanted outputs, where sizes are odd
_G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def suits(filters: int, channels: int, rows: int, columns: int) -> bool:
    """Whether it pays for that many (rows, columns) of outputs."""
    margin = (rows + rows % 2) * (columns + columns % 2) / (rows * columns)
    return channels >= FEWEST_CHANNELS and filters * channels >= FEWEST_WEIGHTS and margin <= MOST_MARGIN


def turned(weight: Tensor) -> Tensor:
    """(16, C, O): the filters (O, C, 3, 3) as :func:`convolved` takes them, G g G'."""
    by = torch.tensor(_G).to(weight)
    rows = torch.tensordot(by, weight, ([1], [2]))  # (4, O, C, 3)
    return torch.tensordot(rows, by, ([3], [1])).permute(0, 3, 2, 1).flatten(0, 1).contiguous()


def convolved(values: Tensor, filters: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, O, H - 2, W - 2), channels last, of (N, C, H, W) and turned ``filters``; best if channels are last."""
    height, width = (size - 2 for size in values.shape[2:])
    values = F.pad(values.movedim(1, 3), (0, 0, 0, width % 2, 0, height % 2))
    tiles = _tiles(values)
    products = torch.bmm(tiles.view(16, -1, values.shape[3]), filters)
    found = _outputs(products.view(4, 4, *tiles.shape[2:5], -1), bias)
    return found[:, :height, :width].movedim(3, 1)


def _tiles(values: Tensor) -> Tensor:
    """(4, 4, N, H / 2 - 1, W / 2 - 1, C): B' d B of each tile of (N, H, W, C)."""
    count, height, width, channels = values.shape
    rows = values.new_empty(4, count, height // 2 - 1, width, channels)
    _differences([values[:, i : height - 2 + i : 2] for i in range(4)], rows)
    tiles = values.new_empty(4, 4, count, height // 2 - 1, width // 2 - 1, channels)
    _differences([rows[:, :, :, i : width - 2 + i : 2] for i in range(4)], tiles.transpose(0, 1))
    return tiles


def _differences(d: list[Tensor], into: Tensor) -> None:
    """B' d along one axis."""
    torch.sub(d[0], d[2], out=into[0])
    torch.add(d[1], d[2], out=into[1])
    torch.sub(d[2], d[1], out=into[2])
    torch.sub(d[1], d[3], out=into[3])


def _outputs(products: Tensor, bias: Tensor | None) -> Tensor:
    """(N, H, W, O): A' M A of each tile of (4, 4, N, H / 2, W / 2, O), side by side."""
    _, _, count, rows, columns, filters = products.shape
    half = products.new_empty(2, *products.shape[1:])
    _sums(products, half)
    found = products.new_empty(count, rows, 2, columns, 2, filters)
    _sums(half.transpose(0, 1), found.permute(4, 2, 0, 1, 3, 5))
    return (found if bias is None else found.add_(bias)).view(count, 2 * rows, 2 * columns, filters)


def _sums(m: Tensor, into: Tensor) -> None:
    """A' m along the first axis."""
    torch.add(m[0], m[1], out=into[0]).add_(m[2])
    torch.sub(m[1], m[2], out=into[1]).sub_(m[3])
