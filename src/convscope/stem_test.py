from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.network import Network
from convscope.stem import pixel_gradient, stems


def nodes(value: Tensor) -> set[str]:
    """Names of the nodes of its graph."""
    found, stack = set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None:
            found.add(node.name())
            stack.extend(following for following, _ in node.next_functions)
    return found


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(
    stride=st.integers(2, 5), kernel=st.tuples(st.integers(1, 8), st.integers(1, 8)), colours=st.integers(1, 4),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)), more=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    count=st.integers(1, 2),
)  # fmt: skip
def test_equals_autograds(
    stride: int, kernel: tuple[int, int], colours: int, padding: tuple[int, int], more: tuple[int, int], count: int
) -> None:
    """Also where the last pixels are seen by no output, and where kernels are smaller than the stride."""
    size = (kernel[0] + more[0], kernel[1] + more[1])
    images, weight = drawn(count, colours, *size).requires_grad_(), drawn(5, colours, *kernel, seed=1)
    output = F.conv2d(images, weight, stride=stride, padding=padding)
    slopes = drawn(*output.shape, seed=2)
    (wanted,) = torch.autograd.grad(output, images, slopes)
    torch.testing.assert_close(pixel_gradient(slopes, weight, stride, padding, size), wanted)


def network_of(*layers: nn.Module) -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    return Network(module=module, name="own", input_size=(24, 20))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "resnet's": lambda: nn.Conv2d(3, 6, 7, stride=2, padding=3, bias=False),
    "patches": lambda: nn.Conv2d(3, 6, 4, stride=4),
    "pixels at the rim repeated": lambda: nn.Conv2d(3, 6, 5, stride=2, padding=2, padding_mode="reflect"),
    "squares not": lambda: nn.Conv2d(3, 6, (3, 5), stride=(2, 2), padding=(1, 0)),
}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "stride of one": lambda: nn.Conv2d(3, 6, 3),
    "two strides": lambda: nn.Conv2d(3, 6, 3, stride=(2, 3)),
    "with holes": lambda: nn.Conv2d(3, 6, 3, stride=2, dilation=2),
    "in groups": lambda: nn.Conv2d(3, 6, 3, stride=2, groups=3),
    "padding by a word": lambda: nn.Conv2d(3, 6, 3, padding="same"),
}


def compared(network: Network) -> tuple[Tensor, Tensor]:
    """The network's logits, and those of its module by itself; gradients of both are asserted to be equal."""
    images = drawn(2, 3, 24, 20).requires_grad_()
    weights = [p for p in network.module.parameters() if p.requires_grad]
    found, alone = network.forward(images), network.module(network.normalise(images))
    torch.testing.assert_close(found, alone, rtol=0, atol=0)
    wrt = [images, *weights]
    ours, theirs = (torch.autograd.grad(logits.square().sum(), wrt, retain_graph=True) for logits in (found, alone))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)
    return found, alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("behind", [nn.Identity(), nn.ReLU(inplace=True)], ids=["as it is", "overwritten"])
def test_the_networks_gradients_are_the_modules(kind: str, frozen: bool, behind: nn.Module) -> None:
    """Of pixels and of weights, and with a rectifier that overwrites the convolution's output."""
    network = network_of(KINDS[kind](), behind, nn.Conv2d(6, 6, 3))
    network.module.requires_grad_(not frozen)
    found, alone = compared(network)
    assert "_FromPixelsBackward" in nodes(found) - nodes(alone)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_convolutions_are_left_alone(kind: str) -> None:
    found, _ = compared(network_of(OTHERS[kind](), nn.ReLU()))
    assert "_FromPixelsBackward" not in nodes(found)


def test_nothing_where_pictures_need_no_gradient() -> None:
    network = network_of(KINDS["patches"]())
    assert "_FromPixelsBackward" not in nodes(network.forward(drawn(1, 3, 24, 20)))


def test_in_bfloat16_as_fine_as_autograds() -> None:
    images, weight = torch.rand(1, 3, 32, 32).requires_grad_(), torch.randn(8, 3, 7, 7)
    exact = torch.autograd.grad(F.conv2d(images, weight, stride=2).square().sum(), images)[0]
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.conv2d(images, weight, stride=2)
        with stems(images):
            ours = F.conv2d(images, weight, stride=2)
    assert ours.dtype == torch.bfloat16
    off = [
        (torch.autograd.grad(value.float().square().sum(), images)[0] - exact).norm() / exact.norm()
        for value in (ours, plain)
    ]
    assert off[0] < 1.5 * off[1]
