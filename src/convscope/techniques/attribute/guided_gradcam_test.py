"""guided_gradcam against the product of its two factors, and against captum's."""

from __future__ import annotations

import pytest
import torch
from captum.attr import GuidedBackprop, LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.network import Network
from convscope.techniques.attribute.guided_gradcam import guided_gradcam

pytest_plugins = "convscope.techniques.attribute._examples_test"

pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks")


def factors(net: Network, pictures: Tensor, target: int) -> Tensor:
    """(N, 3, H, W), by captum; its guided gradients are per unit of the normalised picture."""
    plain = nn.Sequential(*(nn.ReLU() if isinstance(part, nn.ReLU) else part for part in net.module))
    inputs = net.normalise(pictures).requires_grad_()
    lines = GuidedBackprop(plain).attribute(inputs, target=target) / net.std.view(1, 3, 1, 1)
    coarse = LayerGradCam(plain, plain[3]).attribute(inputs, target=target).detach()
    large = F.interpolate(coarse, pictures.shape[-2:], mode="bilinear", align_corners=False)
    return lines.detach() * large.clamp(min=0)


@pytest.mark.parametrize("target", [0, 1, 2])
def test_equals_captums_factors_multiplied(deep: Network, pictures: Tensor, target: int) -> None:
    expected = factors(deep, pictures, target)
    found = guided_gradcam(deep, pictures, target=target, layer="relu2")
    strongest = expected.gather(1, expected.abs().argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(found.values, strongest, rtol=1e-4, atol=1e-6)
    summed = guided_gradcam(deep, pictures, target=target, layer="relu2", reduce="sum")
    torch.testing.assert_close(summed.values, expected.sum(1), rtol=1e-4, atol=1e-6)
    lengths = guided_gradcam(deep, pictures, target=target, layer="relu2", reduce="l2")
    torch.testing.assert_close(lengths.values, expected.square().sum(1).sqrt(), rtol=1e-4, atol=1e-6)
    assert (found.signed, summed.signed, lengths.signed) == (True, True, False)


def test_where_gradcam_finds_nothing_it_says_so(averaging: Network, pictures: Tensor) -> None:
    averaging.module.fc.weight.data[1] = -1.0
    found = guided_gradcam(averaging, pictures[:1], target="bee")
    assert found.values.abs().max() == 0
    assert found.notes == ["the map for bee is constant (0): no pixel stands out"]
    assert found.cells is None
