"""The first convolution's gradient by the pixels, two to three times as fast as the usual one on a CPU.

Most networks begin with a large kernel at a stride s, and its gradient by the three colours is the least efficient part
of a pass back: a sixth of the pass of a light network. With o the place of an output and t that within the kernel,

    dL/dx[i] = Σ_{o, t: s o + t = i + p} g[o] w[t]

and where i + p = s q + r, only t = r + s j meet it, at o = q - j. So the pixels of each phase r are a plain
convolution of g with every s-th weight, turned round. All 3 s² phases are one convolution at the outputs' resolution,
whose channels are then laid out as pixels (Shi et al. 2016, arXiv:1609.05158, figure 1). The same products are added up
in another order.

The network is not touched: :func:`stems` notices the convolution as it runs. Weights keep their own gradient; one of
the gradient (a second derivative) leaves the stem's weights out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

COLOURS = 4  # channels at most that the input of such a convolution has


def stems(images: Tensor) -> AbstractContextManager[Any]:
    """A block in which the convolution of these pictures gets the faster gradient, if they need one on a CPU."""
    wanted = images.requires_grad and torch.is_grad_enabled() and images.device.type == "cpu"
    return _Stems() if wanted else nullcontext()


class _Stems(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.conv2d and (stem := _stem(*args, **(kwargs or {}))) is not None:
            return stem
        return function(*args, **(kwargs or {}))


def pixel_gradient(
    slopes: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """(N, C, H, W): the gradient by the input of a convolution, of ``slopes`` (N, O, h, w) by its output.

    Args:
        weight: (O, C, k, l). stride, padding: of the convolution.
        size: (H, W) of its input.
    """
    kernels = _phases(weight, stride)
    found = F.conv2d(slopes, kernels, padding=(kernels.shape[2] - 1, kernels.shape[3] - 1))
    found = F.pixel_shuffle(found, stride)
    down, across = (length + pad for length, pad in zip(size, padding, strict=True))
    missing = max(0, down - found.shape[2]), max(0, across - found.shape[3])  # no output has seen these pixels
    found = F.pad(found, (0, missing[1], 0, missing[0])) if any(missing) else found
    return found[:, :, padding[0] : down, padding[1] : across]


def _phases(weight: Tensor, stride: int) -> Tensor:
    """(C s², O, k / s, l / s): of each colour and phase the weights that meet it, turned round; zeros fill up."""
    filters, colours, *kernel = weight.shape
    down, across = (-(-length // stride) for length in kernel)
    weight = F.pad(weight, (0, across * stride - kernel[1], 0, down * stride - kernel[0]))
    split = weight.reshape(filters, colours, down, stride, across, stride).permute(1, 3, 5, 0, 2, 4)
    kernels = split.flip(4, 5).reshape(-1, filters, down, across)
    return kernels.contiguous(memory_format=torch.channels_last)


def _stem(
    images: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:  # fmt: skip
    """The convolution with its faster way back; None if it is not one of those that gain."""
    if not (images.requires_grad and images.ndim == 4 and images.dtype == weight.dtype):
        return None
    if groups != 1 or weight.shape[1] > COLOURS or isinstance(padding, str) or _two(dilation) != (1, 1):
        return None
    down, across = _two(stride)
    if down != across or down == 1:
        return None
    output = F.conv2d(images.detach(), weight, bias, stride, padding)
    return _FromPixels.apply(output, images, weight.detach(), down, _two(padding))  # type: ignore[no-untyped-call]


def _two(value: Any) -> tuple[int, int]:
    down, across = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return int(down), int(across)


class _FromPixels(torch.autograd.Function):
    """The output of a convolution as it is, with the way back to the pixels; the one to the weights is its own."""

    no_rectifier = True  # so that no backward rule has to ask

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, images: Tensor, weight: Tensor, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.geometry, ctx.dtype = (stride, padding, (images.shape[2], images.shape[3])), images.dtype
        ctx.mark_dirty(output)  # no copy, and an in-place rectifier may follow
        return output

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        found = pixel_gradient(slopes, weight.to(slopes.dtype), *ctx.geometry)
        return slopes, found.to(ctx.dtype), None, None, None
