from __future__ import annotations

import gc
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.receptive_field import ReceptiveField, Tracer

Forward = Callable[[Tensor], Tensor]

# ---------------------------------------------------------------------- the slow reference: where does a NaN come out?


def hits(forward: Forward, images: Tensor, axis: int, places: Sequence[int], channel: int) -> np.ndarray:
    """(places, R, C): whether a unit turns NaN when one row (axis 0) or column (axis 1) of the picture does."""
    found = []
    for place in places:
        spoilt = images.clone()
        spoilt.select(axis + 2, place).fill_(torch.nan)
        with torch.no_grad():
            found.append(forward(spoilt).isnan().any(0).any(channel))
    return torch.stack(found).numpy()


def interval(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First place and one past the last, for every unit; 0 and 0 where there is none."""
    any_ = found.any(0)
    return np.where(any_, found.argmax(0), 0), np.where(any_, len(found) - found[::-1].argmax(0), 0)


def expected(forward: Forward, images: Tensor, channel: int) -> np.ndarray:
    """(R, C, 4): the boxes of all units."""
    top, bottom = interval(hits(forward, images, 0, range(images.shape[2]), channel))
    left, right = interval(hits(forward, images, 1, range(images.shape[3]), channel))
    boxes = np.stack([top, left, bottom, right], -1)
    return np.where((bottom > top)[..., None], boxes, 0)


def boxes(field: ReceptiveField) -> np.ndarray:
    return np.array([[field.box(row, column) for column in range(field.units[1])] for row in range(field.units[0])])


def trace(forward: Forward, images: Tensor, **options: Any) -> ReceptiveField:
    with torch.no_grad(), Tracer(images) as tracer:
        result = forward(images)
    field = tracer.field(result, **options)
    assert field is not None
    return field


def check(forward: Forward, size: tuple[int, int] = (20, 17), **options: Any) -> ReceptiveField:
    """Trace, compare with the reference, and hand the field on."""
    images = torch.rand(1, 3, *size, dtype=torch.float64)
    field = trace(forward, images, **options)
    channel = -1 if options.get("layout") == "NHWC" else 0
    np.testing.assert_array_equal(boxes(field), expected(forward, images, channel))
    assert not field.inexact
    return field


@pytest.fixture(autouse=True)
def _small_and_seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a hundred tiny passes: starting threads would cost more than they save
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def weight(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def conv(x: Tensor, kernel: int | tuple[int, int] = 3, *, out: int = 4, groups: int = 1, **options: Any) -> Tensor:
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    fixed = torch.ones(out, x.shape[1] // groups, *kernel, dtype=x.dtype)
    return F.conv2d(x, fixed, groups=groups, **options)


# ------------------------------------------------------------------------------------------------------ small networks


def valid_then_padded(x: Tensor) -> Tensor:
    x = conv(x, 3, stride=2)  # floors
    x = F.max_pool2d(x.relu(), 2)
    return conv(x, 3, padding=1)


def inception(x: Tensor) -> Tensor:
    x = conv(x, 3, stride=2, padding=1)
    branches = [conv(x, 1), conv(conv(x, 1), 3, padding=1), conv(x, 5, padding=2), conv(F.max_pool2d(x, 3, 1, 1), 1)]
    return conv(torch.cat(branches, 1), 3, padding=1)


def narrow_branch(x: Tensor) -> Tensor:
    """Only half of the channels of a concatenation are used again."""
    both = torch.cat([conv(x, 1), conv(x, 7, padding=3)], 1)
    return conv(both.chunk(2, 1)[0], 3, padding=1)


def grouped_branches(x: Tensor) -> Tensor:
    both = torch.cat([conv(x, 1), conv(x, 7, padding=3)], 1)
    return conv(both, 3, groups=2, padding=1)[:, 2:]


def residual(x: Tensor) -> Tensor:
    x = conv(x, 3, padding=1)
    y = conv(conv(x, 3, stride=2, padding=1).relu(), 3, padding=1)
    y += conv(x, 1, stride=2)
    return y.relu_()


def padded_shortcut(x: Tensor) -> Tensor:
    """ResNet's option A: channels padded with zeros."""
    x = conv(x, 3)
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)) + conv(x, 3, stride=2, padding=1, out=8)


def unet(x: Tensor) -> Tensor:
    one = conv(x, 3, padding=1).relu()
    two = conv(F.max_pool2d(one, 2), 3, padding=1).relu()
    three = conv(F.max_pool2d(two, 2), 3, padding=1)
    up = F.interpolate(three, size=two.shape[-2:], mode="nearest")
    up = conv(torch.cat([two, up], 1), 3, padding=1)
    up = F.interpolate(up, size=one.shape[-2:], mode="bilinear")
    return conv(torch.cat([one, up], 1), 3, padding=1)


def valid_unet(x: Tensor) -> Tensor:
    """The skip is cropped, and the way up padded, to fit."""
    one = conv(x, 3)
    up = F.conv_transpose2d(conv(F.avg_pool2d(one, 2), 3), weight(4, 4, 2, 2), stride=2)
    small = one[:, :, 2 : 2 + up.shape[2], 2 : 2 + up.shape[3]]
    padded = F.pad(up, (1, one.shape[3] - up.shape[3] - 1, 2, one.shape[2] - up.shape[2] - 2))
    return torch.cat(
        [F.pad(small + up, (1, 0, 0, 2))[:, :, 1:], (padded + one)[:, :, 1 : up.shape[2] + 2, : up.shape[3] + 1]], 1
    )


def shifted_windows(x: Tensor) -> Tensor:
    """A Swin block: roll, split into windows, mix within them, put back, roll back, add."""
    x = conv(x, 2, stride=2).permute(0, 2, 3, 1)
    n, h, w, c = x.shape
    y = F.layer_norm(x, (c,), eps=1).roll((-1, -2), (1, 2))
    y = y.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    y = F.scaled_dot_product_attention(y, y, y)
    y = y.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return (x + y.roll((1, 2), (1, 2))).permute(0, 3, 1, 2)


def hand_written_attention(x: Tensor) -> Tensor:
    """Windows of one row, matrix products and softmax written out."""
    x = conv(x, 2, stride=2).permute(0, 2, 3, 1)
    attention = torch.softmax(x @ x.transpose(-1, -2), -1)
    return torch.einsum("nhij,nhjc->nchi", attention, x)


def channel_shuffle(x: Tensor) -> Tensor:
    a, b = conv(x, 3, padding=1).chunk(2, 1)
    x = torch.cat([a, conv(b, 5, out=2, padding=2)], 1)
    x = F.channel_shuffle(x, 2)
    return conv(x.split(2, 1)[0], 1) + x.view(1, 2, 2, *x.shape[2:]).transpose(1, 2).reshape(x.shape)


def space_to_depth(x: Tensor) -> Tensor:
    x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    return conv(x, 3, padding=1)


def shuffled_pixels(x: Tensor) -> Tensor:
    x = F.pixel_unshuffle(x, 2)
    return conv(F.pixel_shuffle(conv(x, 3, padding=1), 2), 3)


def unfolded(x: Tensor) -> Tensor:
    x = F.unfold(x, (3, 2), dilation=(1, 2), padding=1, stride=(2, 1))
    return x.view(1, 18, 10, 17)


def folded(x: Tensor) -> Tensor:
    columns = F.unfold(x, 3, stride=2)
    mixed = columns.view(1, 3, 9, -1).sum(2, keepdim=True).expand(-1, -1, 9, -1).reshape(1, 27, -1)
    return F.fold(mixed, x.shape[-2:], 3, stride=2)


def assigned(x: Tensor) -> Tensor:
    """Upsampling by assignment, and a picture pasted into a buffer."""
    x = conv(x, 3)
    out = x.new_zeros(1, 4, x.shape[2] * 2, x.shape[3] * 2)
    out[:, :, ::2, ::2] = x
    out[:, :2, 1::2, 1::2] += x.roll(1, 2)[:, 2:]
    out[:, :, 5] = 0
    return conv(out, 2)


def stale_views(x: Tensor) -> Tensor:
    """A view that was taken before its memory was written to."""
    x = conv(x, 3, padding=1)
    top = x[:, :, :5]
    flat = x.flatten(2)
    x[:, :, 2:8].add_(x[:, :, 10:16])
    x[:, 1].zero_()
    return top[:, :, 1:] + flat.view(x.shape)[:, :, 6:10]


def picked(x: Tensor) -> Tensor:
    x = conv(x, 3)
    rows, columns = torch.tensor([4, 4, 0, 7]), torch.tensor([[9, 0], [3, 3]])
    x = x.index_select(2, rows)[:, :, :, columns].flatten(3)
    x = x[:, torch.tensor([True, False, True, True])]
    return x.gather(3, columns[:1].expand(1, 3, 4, 2) % 4)


def stacked(x: Tensor) -> Tensor:
    a, b, c = conv(x, 3).unbind(1)[:3]
    x = torch.stack([a, b.flip(1), c.flip((1, 2))], 1)
    return x.repeat(1, 1, 2, 1)[:, :, 3:-2].cumsum(2)


def reflected(x: Tensor) -> Tensor:
    x = F.pad(x, (2, 3, 1, 0), mode="reflect")
    x = F.pad(conv(x, 2), (1, 2, 0, 3), mode="replicate")
    return conv(F.pad(x, (1, 1, 2, 1), mode="circular"), 3)


def far_padding(x: Tensor) -> Tensor:
    """Units that see nothing at all."""
    return conv(conv(x, 3, padding=4, stride=2), 1, padding=1)


def strip_pooling(x: Tensor) -> Tensor:
    x = conv(x, 3)
    return x + x.mean(3, keepdim=True)


def local_contrast(x: Tensor) -> Tensor:
    return F.local_response_norm(torch.cat([conv(x, 1), conv(x, 5, padding=2)], 1), 3)[:, :3]


def tensor_unfold(x: Tensor) -> Tensor:
    x = conv(x, 3).unfold(2, 3, 2).unfold(3, 4, 3)
    return x.amax((-1, -2))


NETWORKS: dict[str, Forward] = {
    "chain": lambda x: conv(conv(x).relu(), 5, padding=2),
    "strided": lambda x: conv(conv(x, 3, stride=2, padding=1), 3, stride=3, padding=1),
    "dilated": lambda x: conv(conv(x, 3, dilation=2, padding=2), 3, dilation=3),
    "even kernels": lambda x: conv(conv(x, 2, padding=1), (4, 2), stride=2, padding=1),
    "unequal": lambda x: conv(x, (5, 1), stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
    "same": lambda x: conv(conv(x, (5, 3), padding="same"), (3, 5), padding="same", dilation=2),
    "asymmetric": lambda x: conv(F.pad(x, (0, 1, 2, 1)), 3, stride=2),
    "depthwise": lambda x: conv(conv(x, 3, out=3, groups=3, padding=1), 1),
    "ceil": lambda x: F.max_pool2d(F.max_pool2d(x, 3, 2, ceil_mode=True), 2, ceil_mode=True, padding=1),
    "dilated pool": lambda x: F.max_pool2d(x, 3, 2, padding=1, dilation=2),
    "average pool": lambda x: F.avg_pool2d(x, (3, 4), 3, padding=1, ceil_mode=True, count_include_pad=False),
    "transposed": lambda x: F.conv_transpose2d(conv(x), weight(4, 2, 3, 3), stride=2, padding=1, output_padding=1),
    "gaps": lambda x: F.conv_transpose2d(x, weight(3, 2, 2, 2), stride=3, dilation=2),
    "adaptive average": lambda x: conv(F.adaptive_avg_pool2d(conv(x), (7, 5)), 3, padding=1),
    "adaptive maximum": lambda x: F.adaptive_max_pool2d(x, (3, 11)),
    "adaptive beyond": lambda x: F.adaptive_avg_pool2d(conv(x, 3, stride=4), (7, 9)),
    "nearest": lambda x: conv(F.interpolate(conv(x, 3, stride=3), scale_factor=2), 3),
    "nearest-exact": lambda x: F.interpolate(conv(x, 3, stride=2), size=(13, 25), mode="nearest-exact"),
    "bilinear": lambda x: F.interpolate(conv(x, 3, stride=2), scale_factor=1.7, mode="bilinear"),
    "corners": lambda x: F.interpolate(conv(x, 3, stride=2), size=(15, 30), mode="bilinear", align_corners=True),
    "bicubic": lambda x: F.interpolate(conv(x, 3, stride=2), size=(20, 7), mode="bicubic"),
    "batch norm": lambda x: F.batch_norm(x, torch.zeros(3).double(), torch.ones(3).double()),
    "softmax": lambda x: conv(x).softmax(1),
    "glu": lambda x: F.glu(torch.cat([conv(x), conv(x, 5, padding=1)], 1), 1),
    "standardised": lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=0.1),
    "max of two": lambda x: torch.maximum(conv(x, 3, padding=1), conv(x, 3, padding=2, dilation=2)),
    "rotated": lambda x: conv(x.rot90(1, (2, 3)), (3, 2)),
    "hard": lambda x: F.hardswish(F.relu6(conv(x)) * F.hardsigmoid(conv(x)), inplace=True),
    "constants": lambda x: conv(torch.cat([torch.zeros_like(x)[:, :, :2], x, x.new_ones(1, 3, 1, 17)], 2), 2),
}
FUNCTIONS = [
    valid_then_padded, inception, narrow_branch, grouped_branches, residual, padded_shortcut, unet, valid_unet,
    hand_written_attention, channel_shuffle, unfolded, folded, assigned, stale_views,
    picked, stacked, reflected, far_padding, strip_pooling, local_contrast, tensor_unfold,
]  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_small_network(name: str) -> None:
    check(NETWORKS[name])


@pytest.mark.parametrize("forward", FUNCTIONS, ids=lambda function: function.__name__)
def test_function(forward: Forward) -> None:
    check(forward)


@pytest.mark.parametrize("forward", [space_to_depth, shifted_windows, shuffled_pixels])
def test_function_of_even_pictures(forward: Forward) -> None:
    check(forward, (16, 24))


# -------------------------------------------------------------------------------------- layouts, tokens, global layers


def tokens(x: Tensor) -> Tensor:
    """Patch embedding with a class token, and something pointwise and something along the channels."""
    x = conv(x, 4, stride=4).flatten(2).transpose(1, 2)
    x = torch.cat([x.new_zeros(1, 1, 4).expand(x.shape[0], -1, -1), x], 1) + 1
    return F.layer_norm(x, (4,), eps=1) @ torch.ones(4, 6, dtype=x.dtype)


def test_tokens() -> None:
    images = torch.rand(1, 3, 12, 20, dtype=torch.float64)
    field = trace(tokens, images)
    assert (field.units, field.size, field.stride, field.offset) == ((3, 5), (4, 4), (4.0, 4.0), (1.5, 1.5))
    grid = expected(lambda x: tokens(x)[:, 1:].transpose(1, 2).unflatten(2, (3, 5)), images, 0)
    np.testing.assert_array_equal(boxes(field), grid)
    assert field == trace(tokens, images, layout="tokens", grid=(3, 5), prefix=1) == trace(tokens, images, prefix=1)
    assert trace(tokens, images, grid=(1, 16)).box(0, 0) == (0, 0, 0, 0)  # the class token sees nothing yet


@pytest.mark.parametrize("options", [{"grid": (4, 5)}, {"grid": (3, 5), "prefix": 2}])
def test_tokens_that_do_not_fill_the_grid(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="16 tokens"):
        trace(tokens, torch.rand(1, 3, 12, 20, dtype=torch.float64), **options)


def test_tokens_without_a_grid() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)[:, :130]

    field = trace(forward, torch.rand(1, 3, 12, 12))
    assert (field.units, field.whole, field.box(0, 0)) == ((1, 1), True, (0, 0, 11, 12))
    assert trace(forward, torch.rand(1, 3, 12, 12), grid=(10, 12)).units == (10, 12)
    with pytest.raises(OptionError, match="give grid"):
        trace(forward, torch.rand(1, 3, 12, 12), layout="tokens")


def test_tokens_with_channels_first() -> None:
    images = torch.rand(1, 3, 12, 20, dtype=torch.float64)
    first, last = (
        trace(lambda x: conv(x, 3, stride=2).flatten(2), images, grid=(5, 9)),
        trace(lambda x: conv(x, 3, stride=2), images),
    )
    assert first == last
    np.testing.assert_array_equal(boxes(first), boxes(last))


def test_layouts() -> None:
    def last(x: Tensor) -> Tensor:
        return F.linear(conv(x, 3, stride=2).permute(0, 2, 3, 1), torch.ones(5, 4, dtype=x.dtype))

    found = check(lambda x: last(x).permute(0, 3, 1, 2))
    images = torch.rand(1, 3, 20, 17, dtype=torch.float64)
    assert trace(last, images) == trace(last, images, layout="NHWC") == found
    np.testing.assert_array_equal(boxes(trace(last, images)), boxes(found))
    assert trace(lambda x: conv(x)[0], images) == trace(conv, images)
    with pytest.raises(OptionError, match="not NHWC"):
        trace(lambda x: x.flatten(1), images, layout="NHWC")


ENCODER = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double().eval()
GLOBAL: dict[str, Forward] = {
    "pooled": lambda x: F.adaptive_avg_pool2d(conv(x), 1),
    "maximum": lambda x: F.adaptive_max_pool2d(conv(x), 1),
    "mean": lambda x: conv(x).mean((2, 3)),
    "flattened": lambda x: F.linear(conv(x, 3, stride=2).flatten(1), torch.ones(5, 288, dtype=x.dtype)),
    "flattened to a point": lambda x: F.linear(conv(x, (20, 17)).flatten(1), torch.ones(5, 4, dtype=x.dtype)),
    "gated": lambda x: x * conv(F.adaptive_avg_pool2d(x, 1), 1, out=3).sigmoid(),
    "group norm": lambda x: F.group_norm(conv(x, 3, stride=2), 2),
    "instance norm": lambda x: F.instance_norm(conv(x, 3, stride=2)),
    "batch norm in training": lambda x: F.batch_norm(conv(x), None, None, training=True),
    "attention": lambda x: F.scaled_dot_product_attention(*[conv(x, 3, stride=2).flatten(2).transpose(1, 2)] * 3),
    "normalised": lambda x: F.normalize(conv(x).flatten(1)),
    "dynamic": lambda x: F.conv2d(x, x.mean((0, 2, 3)).expand(2, 3).reshape(2, 3, 1, 1)),
    "encoder layer": lambda x: ENCODER(conv(x, 3, stride=2).flatten(2).transpose(1, 2)),
    "softmax": lambda x: conv(x).flatten(2).softmax(2).view(1, 4, 18, 15),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_global_layer(name: str) -> None:
    field = trace(GLOBAL[name], torch.rand(1, 3, 20, 17, dtype=torch.float64))
    assert field.whole
    assert not field.inexact
    assert field.size == (20, 17)
    assert {tuple(box) for box in boxes(field).reshape(-1, 4)} <= {(0, 0, 20, 17), (0, 0, 19, 17)}


def test_gated_layer_keeps_its_grid() -> None:
    field = trace(GLOBAL["group norm"], torch.rand(1, 3, 20, 16))
    assert (field.units, field.stride, field.offset) == ((9, 7), (2.0, 2.0), (9.5, 7.5))
    assert field.box(8, 6) == (0, 0, 19, 15)


def test_strip_pooling_is_global_along_one_axis() -> None:
    field = check(strip_pooling)
    assert (field.size, field.whole) == ((3, 17), False)


def test_windows_are_local_until_there_is_one() -> None:
    local, alone = (trace(shifted_windows, torch.rand(1, 3, *size, dtype=torch.float64)) for size in ((32, 32), (8, 8)))
    assert (local.size, local.whole, local.stride) == ((8, 8), False, (2.0, 2.0))
    assert local.box(5, 5) == (10, 4, 18, 12)  # its window, shifted by one row and two columns
    assert (alone.size, alone.whole) == ((8, 8), True)


# ------------------------------------------------------------------------------------------------------ textbook sizes


def chain(*steps: tuple[str, int, int, int]) -> Forward:
    """conv or pool, kernel, stride, padding, one after another."""

    def forward(x: Tensor) -> Tensor:
        for kind, kernel, stride, padding in steps:
            x = (
                conv(x, kernel, out=1, stride=stride, padding=padding)
                if kind == "conv"
                else F.max_pool2d(x, kernel, stride)
            )
        return x

    return forward


def resnet(blocks: Sequence[int], *, bottleneck: bool, stride_first: bool = False) -> Forward:
    def block(x: Tensor, stride: int) -> Tensor:
        one, two = (stride, 1) if stride_first or not bottleneck else (1, stride)
        y = conv(x, 1 if bottleneck else 3, out=1, stride=one, padding=0 if bottleneck else 1).relu()
        y = conv(y, 3, out=1, stride=two, padding=1)
        return F.relu(y + (conv(x, 1, out=1, stride=stride) if stride > 1 else x), inplace=True)

    def forward(x: Tensor) -> Tensor:
        x = F.max_pool2d(conv(x, 7, out=1, stride=2, padding=3), 3, 2, 1)
        for stage, count in enumerate(blocks):
            for index in range(count):
                x = block(x, 2 if stage and not index else 1)
        return x

    return forward


THREE, POOL = ("conv", 3, 1, 1), ("pool", 2, 2, 0)
ALEXNET = [("conv", 11, 4, 2), ("pool", 3, 2, 0), ("conv", 5, 1, 2), ("pool", 3, 2, 0), *[THREE] * 3]
VGG16 = [*[THREE] * 2, POOL, *[THREE] * 2, POOL, *[*[THREE] * 3, POOL] * 2, *[THREE] * 3]


@pytest.mark.parametrize("picture", [64, 224])
@pytest.mark.parametrize(
    ("forward", "size", "stride", "offset"),
    [
        (chain(*ALEXNET), 163, 16, 15),
        (chain(*ALEXNET, ("pool", 3, 2, 0)), 195, 32, 31),
        (chain(*VGG16), 196, 16, 7.5),
        (chain(*VGG16, POOL), 212, 32, 15.5),
        (resnet([2, 2, 2, 2], bottleneck=False), 435, 32, 0),
        (resnet([3, 4, 6, 3], bottleneck=True), 427, 32, 0),  # strides in the 3x3 convolutions, as torchvision has them
        (
            resnet([3, 4, 6, 3], bottleneck=True, stride_first=True),
            483,
            32,
            0,
        ),  # in the 1x1 convolutions, as in the paper
    ],
    ids=["AlexNet conv5", "AlexNet pool5", "VGG-16 conv5_3", "VGG-16 pool5", "ResNet-18", "ResNet-50", "ResNet-50 v1"],
)
def test_textbook_size(forward: Forward, size: int, stride: int, offset: float, picture: int) -> None:
    field = trace(forward, torch.rand(1, 3, picture, picture))
    assert (field.size, field.stride, field.offset) == ((size,) * 2, (stride,) * 2, (offset,) * 2)
    assert not field.whole


def test_nominal_size_of_a_single_unit() -> None:
    """A map of one pixel still knows its stride, and grows with every padded convolution."""
    field = trace(chain(*VGG16, POOL, THREE), torch.rand(1, 3, 32, 32))
    assert (field.units, field.size, field.stride) == ((1, 1), (276, 276), (32.0, 32.0))
    assert field.box(0, 0) == (0, 0, 32, 32)


def test_nominal_size_of_an_upsampled_map() -> None:
    """Nearest upsampling by 4 of a map of stride 4: three taps touch two old units, or one."""
    field = trace(
        lambda x: conv(F.interpolate(conv(x, 4, stride=4), scale_factor=4), padding=1), torch.rand(1, 3, 64, 64)
    )
    assert (field.size, field.stride) == ((8, 8), (1.0, 1.0))
    assert trace(lambda x: conv(x, 3, stride=2).flip(2), torch.rand(1, 3, 9, 9)).stride == (-2.0, 2.0)


# ------------------------------------------------------------------------------------ following tensors through a pass


def test_constants_have_no_field() -> None:
    images = torch.rand(1, 3, 8, 8)
    with Tracer(images) as tracer:
        constant = torch.ones(1, 3, 8, 8) * 2
        erased = conv(images).zero_()
        like = torch.zeros_like(images)
        stranger = images.clone()
    assert [tracer.field(tensor) for tensor in (constant, erased, like, torch.ones(2))] == [None] * 4
    assert tracer.field(stranger) == tracer.field(images)


def test_observed_copies_keep_their_field_and_the_rest_is_forgotten() -> None:
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad(), Tracer(images) as tracer:
        x = conv(images)
        kept = [
            x.detach(),
            x.clone(),
            x.contiguous(memory_format=torch.channels_last),
            x.half().float(),
            x.view(-1).view(x.shape),
        ]
        y = conv(x.relu_())
        for _ in range(50):
            y = conv(y, padding=1)
        del x
    gc.collect()
    assert len({tracer.field(tensor) for tensor in kept}) == 1
    assert len(tracer._records) < 10


def test_grad_mode_and_inference_mode_agree() -> None:
    images = torch.rand(1, 3, 20, 17)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Dropout(), nn.Flatten(2)).eval()

    def forward(x: Tensor) -> Tensor:
        x = layer(x).reshape(1, 2, 2, 20, 17).contiguous()
        halves = [F.layer_norm(part, (17,))[..., None].squeeze(-1) for part in x.chunk(2, 1)]
        return torch.cat(halves, 1).flatten(1, 2) @ torch.ones(17, 17)

    fields = []
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode(), Tracer(images) as tracer:
            result = forward(images)
        fields.append(tracer.field(result))
    assert fields[0] is not None
    assert (fields[0].size, fields[0].inexact) == ((3, 17), frozenset())
    assert fields[0] == fields[1] == fields[2]


def test_the_batch_does_not_matter() -> None:
    images = torch.rand(3, 3, 20, 17, dtype=torch.float64)
    for forward in (inception, unet, stacked):
        assert trace(forward, images) == trace(forward, images[:1])
        np.testing.assert_array_equal(boxes(trace(forward, images)), boxes(trace(forward, images[:1])))


def test_nothing_changes() -> None:
    images = torch.rand(1, 3, 20, 17, dtype=torch.float64)
    with torch.no_grad():
        plain = assigned(images)
        with Tracer(images):
            assert torch.equal(assigned(images), plain)


def test_an_unknown_operator_is_named_and_sees_everything() -> None:
    def forward(x: Tensor) -> Tensor:
        grid = F.affine_grid(torch.eye(2, 3)[None].double(), [1, 4, 9, 9], align_corners=False)
        return conv(F.grid_sample(conv(x), grid, align_corners=False))

    field = trace(forward, torch.rand(1, 3, 12, 12, dtype=torch.float64))
    assert field.inexact == {"aten::grid_sampler_2d"}
    assert (field.whole, field.units, field.box(3, 3)) == (True, (7, 7), (0, 0, 12, 12))


def test_indices_that_depend_on_the_picture_are_not_followed() -> None:
    def forward(x: Tensor) -> Tensor:
        return x.flatten(2).gather(2, x.flatten(2).argsort(2)[..., :9])

    assert trace(forward, torch.rand(1, 3, 12, 12)).inexact == {"aten::gather"}


def test_a_number_read_from_the_picture_is_noted() -> None:
    field = trace(lambda x: x / x.max().item(), torch.rand(1, 3, 12, 12))
    assert field.inexact == {"aten::_local_scalar_dense"}


def test_a_unit_outside_the_grid() -> None:
    field = trace(conv, torch.rand(1, 3, 12, 9))
    assert field.box(9, 6) == (9, 6, 12, 9)
    for unit in ((10, 0), (0, 7), (-1, 0)):
        with pytest.raises(OptionError, match="10 x 7"):
            field.box(*unit)


def test_a_picture_needs_rows_and_columns() -> None:
    with pytest.raises(OptionError, match="rows and columns"):
        Tracer(torch.rand(7))


# ----------------------------------------------------------------------------------------------------- random networks


def _convolution(draw: Any, x: Tensor) -> Forward:
    kernel, dilation = (draw(st.integers(1, 3)), draw(st.integers(1, 4))), draw(st.integers(1, 2))
    options = {"stride": draw(st.integers(1, 3)), "padding": draw(st.integers(0, 3)), "dilation": dilation}
    groups = draw(st.sampled_from([1, 2])) if x.shape[1] % 2 == 0 else 1
    return lambda y: conv(y, kernel, groups=groups, **options)


def _pooling(draw: Any, x: Tensor) -> Forward:
    kernel, ceil = draw(st.integers(1, 3)), draw(st.booleans())
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, kernel // 2))
    pool = draw(st.sampled_from([F.max_pool2d, F.avg_pool2d]))
    return lambda y: pool(y, kernel, stride, padding, ceil_mode=ceil)


def _adaptive(draw: Any, x: Tensor) -> Forward:
    size = (draw(st.integers(2, 9)), draw(st.integers(2, 9)))
    return lambda y: F.adaptive_avg_pool2d(y, size)


def _padding(draw: Any, x: Tensor) -> Forward:
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    return lambda y: F.pad(y, pads, mode=mode)


def _resizing(draw: Any, x: Tensor) -> Forward:
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]))
    # where two taps weigh 0 and 1, rounding decides which the two are, unless the scale is exact
    sizes = st.integers(2, 16) if "nearest" in mode else st.sampled_from([2, 4, 8, 16])
    size = [draw(sizes), draw(sizes)]
    return lambda y: F.interpolate(y, size, mode=mode)


def _moving(draw: Any, x: Tensor) -> Forward:
    amount, dim, step = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    moves = [
        lambda y: y.roll(amount, dim),
        lambda y: y.flip(dim),
        lambda y: y[:, :, ::step, :: 3 - step],
        lambda y: y.cumsum(dim),
        lambda y: y.unfold(2, min(step, y.shape[2]), 2).amax(-1),
        lambda y: F.conv_transpose2d(
            y, torch.ones(y.shape[1], 2, 3, 2, dtype=y.dtype), stride=step, padding=amount % 2
        ),
    ]
    return moves[draw(st.integers(0, len(moves) - 1))]


def _regrouping(draw: Any, x: Tensor) -> Forward:
    """Dims merged and split again: tokens, windows, another aspect."""
    amount, how = draw(st.integers(-3, 3)), draw(st.integers(0, 3))

    def regroup(y: Tensor) -> Tensor:
        n, c, h, w = y.shape
        if how == 0:
            return y.flatten(2).roll(amount, 2).view_as(y)
        if how == 1:
            return y.reshape(n, c, w, h).permute(0, 1, 3, 2)
        if how == 2:
            return F.pixel_shuffle(y.repeat_interleave(4, 1), 2)[:, :, ::2]
        y = y[:, :, : h // 2 * 2, : w // 2 * 2]
        windows = y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 4)
        mixed = windows.softmax(-1) if amount > 0 else windows @ torch.ones(4, 4, dtype=y.dtype)
        return mixed.view(n, h // 2, w // 2, c, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(y.shape) + y.roll(amount, 2)

    return regroup


def _joining(draw: Any, x: Tensor) -> Forward:
    """Two branches of different fields, brought to one size, and added, concatenated or written into one another."""
    one, two = (draw(st.sampled_from(STEPS[:4]))(draw, x) for _ in range(2))
    how = draw(st.integers(0, 3))

    def join(y: Tensor) -> Tensor:
        a, b = one(y), two(y)
        if how == 0:
            return torch.cat([a, F.interpolate(b, a.shape[2:])], 1)
        h, w, c = (min(a.shape[k], b.shape[k]) for k in (2, 3, 1))
        if how == 1:
            return a[:, :c, :h, :w] + b[:, :c, -h:, -w:]
        if how == 2:
            return torch.cat([a[..., :w], b[:, :1, :, :w].expand(-1, a.shape[1], -1, -1)], 2)
        a = a.clone()
        a[:, : max(c // 2, 1), :h, -w:] += b[:, : max(c // 2, 1), :h, :w]
        return a

    return join


STEPS: list[Callable[[Any, Tensor], Forward]] = [
    _convolution,
    _pooling,
    _adaptive,
    _padding,
    _resizing,
    _moving,
    _joining,
    _regrouping,
]


@st.composite
def networks(draw: Any) -> tuple[Forward, tuple[int, int]]:
    size = (draw(st.integers(7, 16)), draw(st.integers(7, 16)))
    x = torch.ones(1, 3, *size, dtype=torch.float64)
    steps: list[Forward] = []
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from(STEPS))(draw, x)
        try:
            y = step(x)
        except RuntimeError:  # a kernel larger than what is left
            continue
        if 0 not in y.shape and y.numel() < 40_000:
            steps, x = [*steps, step], y
    return lambda images: _run(steps, images), size


def _run(steps: Sequence[Forward], images: Tensor) -> Tensor:
    for step in steps:
        images = step(images)
    return images


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks())
def test_random_network(network: tuple[Forward, tuple[int, int]]) -> None:
    forward, size = network
    images = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad(), Tracer(images) as tracer:
        result = forward(images)
    field, wanted = tracer.field(result), expected(forward, images, 0)
    if field is None:
        assert not wanted.any()
        return
    np.testing.assert_array_equal(boxes(field), wanted)
    assert not field.inexact


# ------------------------------------------------------------------------------------------------- networks of others


@pytest.fixture(scope="module")
def torchvision_models() -> Any:
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:  # its C++ operators were built for another torch; classification does not need them
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)
        return importlib.import_module("torchvision.models")


KEPT: list[torch.library.Library] = []


def filled(factory: Callable[[], nn.Module]) -> nn.Module:
    """The network without its slow initialisation: any weights will do, as long as none is zero."""
    with torch.device("meta"):
        network = factory()
    network = network.to_empty(device="cpu").double().eval()
    for tensor in [*network.parameters(), *network.buffers()]:
        tensor.data.uniform_(0.01, 0.02) if tensor.is_floating_point() else tensor.data.zero_()
    for module in network.modules():
        getattr(module, "define_relative_position_index", lambda: None)()
    return network


MODELS: dict[str, tuple[int, list[str], dict[str, Any]]] = {
    "resnet18": (64, ["layer1", "layer2", "layer4"], {}),
    "densenet121": (64, ["features.transition1", "features.denseblock2", "features.norm5"], {}),
    "googlenet": (64, ["inception3a", "inception4c", "inception5b"], {"init_weights": False, "aux_logits": False}),
    "inception_v3": (96, ["Mixed_5b", "Mixed_6b", "Mixed_7c"], {"init_weights": False, "aux_logits": False}),
    "mobilenet_v2": (64, ["features.3", "features.18"], {}),
    "mobilenet_v3_small": (96, ["features.0", "features.1.block.0", "features.4"], {}),
    "squeezenet1_0": (65, ["features.3", "features.12"], {}),
    "shufflenet_v2_x0_5": (64, ["stage2.1", "stage3", "conv5"], {}),
    "swin_t": (96, ["features.0", "features.1.0", "features.1", "features.2", "features.3"], {}),
    "convnext_tiny": (96, ["features.0", "features.1", "features.3.1", "features.7"], {}),
    "vit_b_16": (
        64,
        ["conv_proj", "encoder.layers.encoder_layer_0.ln_1", "encoder"],
        {"image_size": 64, "num_layers": 1},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_torchvision_model(name: str, torchvision_models: Any) -> None:
    """A spoilt column reaches no unit outside its box, and every unit whose box ends at that column."""
    size, layers, options = MODELS[name]
    factory = torchvision_models.VisionTransformer if name == "vit_b_16" else getattr(torchvision_models, name)
    if name == "vit_b_16":
        options = {"patch_size": 16, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 32, **options}
    network = filled(lambda: factory(**options))
    images = torch.rand(1, 3, size, size + (32 if name in ("densenet121", "swin_t") else 0), dtype=torch.float64)
    outputs: dict[str, Tensor] = {}
    for layer in layers:
        keep = lambda module, inputs, output, layer=layer: outputs.__setitem__(layer, output.clone())  # noqa: E731
        network.get_submodule(layer).register_forward_hook(keep)
    with torch.no_grad(), Tracer(images) as tracer:
        network(images)
    fields = {layer: tracer.field(output) for layer, output in outputs.items()}
    if name in ("swin_t", "convnext_tiny"):  # channels last and channels first, found by themselves
        grids = [
            field and (field.units[0] * field.stride[0], field.units[1] * field.stride[1]) for field in fields.values()
        ]
        assert grids == [images.shape[2:]] * len(grids)
    for column in (0, 13, 31, size - 1):
        spoilt = images.clone()
        spoilt[..., column] = torch.nan
        with torch.no_grad():
            network(spoilt)
        for layer, field in fields.items():
            assert field is not None
            assert not field.inexact
            _compare_column(field, outputs[layer].isnan()[0], column, layer)


def _compare_column(field: ReceptiveField, found: Tensor, column: int, layer: str) -> None:
    if found.ndim == 2:  # tokens behind one class token
        found = found[1:].unflatten(0, field.units)
    hit = found.any(0 if tuple(found.shape[1:]) == field.units else -1).numpy()
    _, left, _, right = np.moveaxis(boxes(field), -1, 0)
    assert not (hit & ((column < left) | (column >= right))).any(), layer
    assert hit[(column == left) | (column == right - 1)].all(), layer


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
