from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from convscope.backward import gradient
from convscope.errors import OptionError
from convscope.network import Network
from convscope.techniques.attribute.extremal_perturbation import (
    REACH,
    TEMPERATURE,
    HeldArea,
    Masked,
    extremal_perturbation,
    kernel,
    smooth_maximum,
)

SIZE = (32, 40)


class Spot(nn.Module):
    """Sure of class 0 when the fine checks in one place are in focus: blur takes their contrast away."""

    def forward(self, x: Tensor) -> Tensor:
        place = x[:, :, 6:14, 24:32]
        contrast = (place[..., 1:] - place[..., :-1]).abs().mean((1, 2, 3))
        return torch.stack([20 * contrast, torch.zeros_like(contrast)], 1)


def network() -> Network:
    return Network(Spot(), labels=("checks", "none"), input_size=SIZE, name="spot")


def checks() -> Tensor:
    rows, columns = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    return ((rows + columns) % 2).float().expand(1, 3, *SIZE).clone()


def test_the_mask_lies_where_the_network_looks() -> None:
    """Checks are everywhere; only those that the network reads have to stay in focus."""
    result = extremal_perturbation(network(), checks(), target=0, area=[0.08, 0.2], steps=80)
    heat = result.values[0]
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[6:14, 24:32] = True
    assert float(heat[inside].mean()) > 0.8
    assert float(heat[inside].mean()) > 4 * float(heat[~inside].mean())
    (summary,) = result.summaries
    for kept in summary["areas"]:
        assert kept["covered"] == pytest.approx(kept["area"], abs=0.05)
        assert kept["score"] > 0.7 * summary["score"]


def test_smooth_maxima_equal_a_loop_over_pixels_and_cells() -> None:
    step = 3
    cells = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    found = smooth_maximum(cells, kernel(step), step)
    for n in range(2):
        for y in range(12):
            for x in range(15):
                values = []
                for i in range(y // step - REACH, y // step + REACH + 1):
                    for j in range(x // step - REACH, x // step + REACH + 1):
                        p = float(cells[n, 0, min(max(i, 0), 3), min(max(j, 0), 4)])
                        distance = math.hypot((y + 0.5) / step - i - 0.5, (x + 0.5) / step - j - 0.5)
                        values.append(math.exp(-(max(0.0, distance - 1) ** 2) / 4) * p)
                weights = [math.exp(v / TEMPERATURE) for v in values]
                expected = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
                assert float(found[n, y, x]) == pytest.approx(expected, abs=1e-5)


def test_the_area_is_the_distance_of_sorted_values_by_hand() -> None:
    masked = Masked(checks()[0], 2)
    with torch.no_grad():
        masked.cells.copy_(torch.rand(masked.cells.shape, generator=torch.Generator().manual_seed(1)))
    held = HeldArea(masked, [0.1, 0.25], steps=10)
    first, second = (held(masked.images()).detach() for _ in range(2))
    for number, area in enumerate((0.1, 0.25)):
        values = sorted(masked.masks()[number].flatten().tolist())
        ones = len(values) - round((1 - area) * len(values))
        wanted = [0.0] * (len(values) - ones) + [1.0] * ones
        distance = sum((v - w) ** 2 for v, w in zip(values, wanted, strict=True)) / len(values)
        assert float(first[number]) == pytest.approx(300 * distance, rel=1e-4)
        assert float(second[number]) == pytest.approx(300 * 1.0035**80 * distance, rel=1e-4)


def test_the_area_differentiates_as_finite_differences_say() -> None:
    """In double precision and by a small step, since a larger one lets pixels change places in the order."""
    masked = Masked(checks()[0].double(), 1)
    masked.cells = masked.cells.detach().double().requires_grad_()
    masked._kernel = masked._kernel.double()
    generator = torch.Generator().manual_seed(1)
    cells = torch.rand(masked.cells.shape, generator=generator).double()
    direction = torch.randn(masked.cells.shape, generator=generator).double()

    def held(step: float) -> Tensor:
        with torch.no_grad():
            masked.cells.copy_(cells + step * direction)
        return HeldArea(masked, [0.25], steps=10)(masked.images()).sum()

    slope = float((gradient(held(0.0), masked.parameters())[0] * direction).sum())
    apart = (float(held(1e-5).detach()) - float(held(-1e-5).detach())) / 2e-5
    assert slope == pytest.approx(apart, rel=1e-5)


def test_a_mask_of_ones_shows_the_picture_and_one_of_zeros_its_blur() -> None:
    masked = Masked(checks()[0], 1)
    with torch.no_grad():
        masked.cells.fill_(0)
    blurred = masked.images()[0].detach()
    assert float(blurred.std()) < 0.05
    with torch.no_grad():
        masked.cells.fill_(5)
    masked.project()
    torch.testing.assert_close(masked.cells, torch.ones_like(masked.cells))
    near = masked.masks()
    torch.testing.assert_close(masked.images()[0], near[0] * checks()[0] + (1 - near[0]) * blurred, atol=1e-5, rtol=0)


def test_no_area_is_said() -> None:
    with pytest.raises(OptionError, match="area is empty"):
        extremal_perturbation(network(), checks(), area=[])
