from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from convscope.winograd import convolved, suits, turned


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def by_hand(values: Tensor, weight: Tensor) -> Tensor:
    """Every output a sum of products, one after the other."""
    count, _, height, width = values.shape
    found = values.new_zeros(count, len(weight), height - 2, width - 2)
    for row in range(height - 2):
        for column in range(width - 2):
            seen = values[:, None, :, row : row + 3, column : column + 3]
            found[:, :, row, column] = (seen * weight).sum((2, 3, 4))
    return found


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 3), (3, 6), (7, 4), (10, 9)])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_convolution(height: int, width: int, biased: bool) -> None:
    values, weight = random(2, 5, height, width), random(7, 5, 3, 3)
    bias = random(7) if biased else None
    expected = by_hand(values, weight) + (0 if bias is None else bias.view(-1, 1, 1))
    for form in (torch.contiguous_format, torch.channels_last):
        found = convolved(values.contiguous(memory_format=form), turned(weight), bias)
        assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_one_filter_of_one_weight_moves_the_picture() -> None:
    values = torch.arange(36.0).view(1, 1, 6, 6)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 2, 0] = 3
    assert torch.equal(convolved(values, turned(weight)), 3 * values[:, :, 2:, :4])


def test_it_rounds_little_worse_than_the_plain_convolution() -> None:
    values, weight = random(4, 256, 10, 10), random(128, 256, 3, 3)
    exact = F.conv2d(values, weight)
    plain = (F.conv2d(values.float(), weight.float()) - exact).abs().max()
    ours = (convolved(values.float(), turned(weight.float())) - exact).abs().max()
    assert ours < 4 * plain  # how plain rounds depends on the processor, in whose order it adds up


def test_channels_come_last() -> None:
    found = convolved(random(2, 5, 6, 8), turned(random(7, 5, 3, 3)))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("filters", "channels", "rows", "columns", "expected"),
    [(256, 128, 8, 8, True), (128, 128, 8, 8, False), (512, 64, 8, 8, False), (512, 512, 3, 3, False)],
)
def test_where_it_pays(filters: int, channels: int, rows: int, columns: int, expected: bool) -> None:
    assert suits(filters, channels, rows, columns) == expected
