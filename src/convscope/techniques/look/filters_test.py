"""filters: the smoothness measure against its formula in loops, and on filters whose nature is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from convscope.errors import OptionError, UnknownLayer
from convscope.network import Network
from convscope.techniques.look.filters import filters
from convscope.vitals import smoothness


def von_neumann(weight: Tensor) -> float:
    """One minus half of the mean squared step over the sample variance, in loops."""
    steps, deviations, freedom = [], 0.0, 0
    for plane in weight:
        height, width = plane.shape
        mean = sum(float(v) for v in plane.flatten()) / (height * width)
        freedom += height * width - 1
        for y in range(height):
            for x in range(width):
                deviations += (float(plane[y, x]) - mean) ** 2
                steps += [(float(plane[y + 1, x]) - float(plane[y, x])) ** 2] if y + 1 < height else []
                steps += [(float(plane[y, x + 1]) - float(plane[y, x])) ** 2] if x + 1 < width else []
    return 1 - sum(steps) / len(steps) / 2 / (deviations / freedom)


def test_smoothness_equals_the_formula_in_loops() -> None:
    weights = torch.randn(4, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([von_neumann(w) for w in weights])
    torch.testing.assert_close(smoothness(weights), expected, rtol=1e-4, atol=1e-5)


def test_noise_has_none_and_a_slope_has_much_whatever_the_scale() -> None:
    noise = torch.randn(2000, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    assert abs(float(smoothness(noise).mean())) < 0.01
    assert abs(float(smoothness(noise * 1000).mean())) < 0.01
    slope = torch.arange(7.0).expand(1, 3, 7, 7)
    assert float(smoothness(slope)) > 0.9
    checkers = (torch.arange(7)[:, None] + torch.arange(7)) % 2 * 1.0
    assert float(smoothness(checkers.expand(1, 1, 7, 7))) < -0.9


def test_point_filters_and_empty_filters() -> None:
    assert bool(smoothness(torch.ones(2, 3, 1, 1)).isnan().all())
    assert smoothness(torch.zeros(2, 3, 3, 3)).tolist() == [0, 0]


def gabor(size: int = 7) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    turns = torch.arange(16.0).view(-1, 1, 1, 1) / 16 * 3.14159
    wave = torch.cos((x * turns.cos() + y * turns.sin()) * 3) * torch.exp(-(x**2 + y**2))
    return wave.expand(16, 3, size, size)


def first_layer(weight: Tensor) -> Network:
    convolution = nn.Conv2d(3, len(weight), weight.shape[-1])
    convolution.weight.data = weight.clone()
    return Network(nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="one", input_size=(16, 16))


def test_the_verdict_tells_trained_from_noisy() -> None:
    trained = filters(first_layer(gabor()))
    noisy = filters(first_layer(torch.randn(16, 3, 7, 7, generator=torch.Generator().manual_seed(0))))
    assert trained.summaries[0]["verdict"] == "smooth"
    assert noisy.summaries[0]["verdict"] == "noisy"
    torch.testing.assert_close(trained.values, gabor())
    assert trained.summaries[0]["filters"][3]["norm"] == pytest.approx(
        float(gabor()[3].square().sum().sqrt()), rel=1e-5
    )


def test_deeper_layers_are_drawn_by_input_channel_strongest_first() -> None:
    second = nn.Conv2d(4, 3, 3)
    second.weight.data = torch.zeros(3, 4, 3, 3)
    second.weight.data[2, 1] = 5.0
    second.weight.data[0, 3] = 2.0
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), second, nn.AdaptiveAvgPool2d(1), nn.Flatten()), input_size=(16, 16))
    found = filters(net, layer="1", outputs=2, inputs=2)
    assert found.tile_titles == ["2←1", "2←3", "0←1", "0←3"]
    assert found.tiles.shape == (1, 4, 1, 3, 3)
    assert found.tiles[0, :, 0, 0, 0].tolist() == [5, 0, 0, 2]
    assert found.columns == 2


def test_a_linear_layer_on_the_picture_gives_its_templates() -> None:
    linear = nn.Linear(3 * 4 * 6, 2)
    net = Network(nn.Sequential(nn.Flatten(), linear), name="softmax", input_size=(4, 6))
    found = filters(net)
    assert found.layer == "1"
    torch.testing.assert_close(found.values, linear.weight.detach().view(2, 3, 4, 6))


def test_layers_without_filters_get_a_sentence() -> None:
    with pytest.raises(
        OptionError, match="'1' \\(AdaptiveAvgPool2d\\) has no filters to draw; a convolution has, such as 0"
    ):
        filters(first_layer(gabor()), layer="1")
    with pytest.raises(UnknownLayer, match="no layer 'conv9'"):
        filters(first_layer(gabor()), layer="conv9")
