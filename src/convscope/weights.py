"""Weights and biases as a pass wants them, rounded and laid out once a run instead of once a pass.

Autocast rounds every weight anew at each pass, and a convolution of maps with their channels next to each other lays
its weights out like them at each call. For VGG-16 that is 138 million numbers, and two thirds of the time of a pass
over one picture in bfloat16 on a CPU that multiplies such numbers.
The network is not touched: :func:`at_hand` notices products with parameters as they run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from convscope import memory

_PRODUCTS = {torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose1d, torch.conv_transpose2d, F.linear}


def at_hand(images: Tensor, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """A block in which products of these pictures with parameters, in this ``dtype``, find the weights ready."""
    return _AtHand(dtype) if dtype == torch.bfloat16 or channels_last(images) else nullcontext()


def channels_last(maps: Tensor) -> bool:
    """Whether the channels of (N, C, H, W) maps lie next to each other in memory."""
    return maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()


def laid_out(weight: Tensor) -> Tensor:
    """A weight (O, I, k, l) with the order of memory of channels-last maps; inside ``memory.kept`` laid out once."""
    return weight if weight.is_contiguous(memory_format=torch.channels_last) else memory.once(weight, _last)


class _AtHand(TorchFunctionMode):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _PRODUCTS and len(args) > 1:
            ready = [self._ready(args[0], w) if isinstance(w, nn.Parameter) else w for w in args[1:3]]
            args = (args[0], *ready, *args[3:])
        return function(*args, **(kwargs or {}))

    def _ready(self, maps: Tensor, weight: Tensor) -> Tensor:
        if self._dtype == torch.bfloat16 and weight.dtype == torch.float32:
            made = memory.once(weight, _rounded)
        elif self._dtype == weight.dtype and weight.ndim == 4 and channels_last(maps):
            made = laid_out(weight)
        else:
            return weight
        return _Made.apply(weight, made) if weight.requires_grad and torch.is_grad_enabled() else made  # type: ignore[no-untyped-call]


def _last(weight: Tensor) -> Tensor:
    return weight.detach().contiguous(memory_format=torch.channels_last)


def _rounded(weight: Tensor) -> Tensor:
    form = torch.channels_last if weight.ndim == 4 else torch.preserve_format
    return weight.detach().to(torch.bfloat16, memory_format=form)


class _Made(torch.autograd.Function):
    """A weight in another form, of the same derivative."""

    no_rectifier = True  # so that no backward rule has to ask

    @staticmethod
    def forward(ctx: Any, weight: Tensor, made: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        return made.detach()

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        return slopes.to(ctx.dtype), None
