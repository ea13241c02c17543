"""The rule of each operator: the reach of its result from that of its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convscope.receptive_field.calls import RULES, Call, Unfollowed, pointwise, rule, tensors_of
from convscope.receptive_field.reach import (
    ABSENT,
    EXACT,
    Array,
    Reach,
    Taps,
    broadcast,
    collapse,
    compressed,
    concatenate,
    cut,
    everything,
    measured,
    merge,
    mixed,
    nothing,
    permute,
    put,
    reshape,
    resized,
    scaled,
    sized,
    strictly,
    take,
)

for names in (
    ("hardswish", "prelu", "_prelu_kernel", "rrelu_with_noise", "native_dropout", "masked_fill", "where", "rsub"),
    ("_to_copy", "detach", "alias", "lift_fresh", "tril", "triu", "_conj", "complex", "expand", "bernoulli", "fill"),
):
    rule(*names)(pointwise)


@rule("zero", "normal", "uniform", "random", "exponential", "zeros_like", "ones_like", "empty_like", "full_like")
@rule("rand_like", "randn_like", "new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided")
def _constant(call: Call) -> list[Reach]:
    return [nothing(shape) for shape in call.shapes]


RULES["aten::fill_"] = lambda call: merge([call.reach(v) for v in tensors_of([call["value"]])], call.shape)
RULES["aten::bernoulli_"] = _constant


@rule("copy", "copy_")
def _copy(call: Call) -> Reach:
    return merge([call.reach("src")], call.shape)


@rule("view", "_unsafe_view", "_reshape_alias", "unsqueeze", "squeeze")
def _view(call: Call) -> Reach:
    if call.get("dtype") is not None:
        raise Unfollowed
    return reshape(call.first, call.shape)


@rule("as_strided")
def _as_strided(call: Call) -> Reach:
    if call.first.jump.any() or any(bounds[EXACT].size > 2 for bounds in call.first.bounds):
        raise Unfollowed
    return collapse(call.first, range(len(call.first.shape)), keep=False)  # all elements see the same


@rule("permute", "transpose", "t")
def _permute(call: Call) -> Reach:
    return permute(call.first, _order(call))


def _order(call: Call) -> list[int]:
    order = list(range(len(call.shape)))
    if call.name == "aten::permute":
        return [dim % len(order) for dim in call["dims"]]
    a, b = (call["dim0"], call["dim1"]) if call.name == "aten::transpose" else (0, -1)
    if order:
        order[a], order[b] = order[b], order[a]
    return order


@rule("slice", "select", "split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unbind")
def _cut(call: Call) -> list[Reach]:
    return [cut(call.first, *_region(call, index)) for index in range(len(call.shapes))]


def _region(call: Call, index: int) -> tuple[int, slice | int]:
    """The dim and the part of it that output ``index`` is a view of."""
    size = call.first.shape
    dim = call["dim"] % len(size)
    if call.name == "aten::slice":
        return dim, slice(call["start"], call["end"], call["step"])
    if call.name in ("aten::select", "aten::unbind"):
        return dim, call["index"] % size[dim] if call.name == "aten::select" else index
    start = sum(shape[dim] for shape in call.shapes[:index])
    return dim, slice(start, start + call.shapes[index][dim], 1)


def uncut(call: Call, index: int, part: Reach) -> Reach:
    """What the tensor depends on after output ``index``, a view of it, was written to."""
    rule = call.operator.rule
    if rule is _cut:
        return put(call.first, part, *_region(call, index))
    if rule is _permute:
        return permute(part, np.argsort(_order(call)).tolist())
    if rule is _view or (rule is pointwise and part.shape == call.first.shape):
        return reshape(part, call.first.shape)
    return everything(call.first.shape, call.tracer.size, part.inexact | call.first.inexact | {call.name})


@rule("cat", "stack")
def _cat(call: Call) -> Reach:
    reaches = [call.reach(tensor) for tensor in call["tensors"]]
    dim = call["dim"] % len(call.shape)
    if call.name == "aten::stack":
        reaches = [reshape(r, (*r.shape[:dim], 1, *r.shape[dim:])) for r in reaches]
    return concatenate([reach for reach in reaches if reach.shape != (0,)], dim)


@rule("repeat")
def _repeat(call: Call) -> Reach:
    ahead = len(call.shape) - len(call.first.shape)
    reach = reshape(call.first, (*[1] * ahead, *call.first.shape))
    for dim, count in enumerate(call["repeats"]):
        if count != 1:
            reach = take(reach, dim, np.tile(np.arange(reach.shape[dim]), count)[:, None])
    return reach


@rule("roll")
def _roll(call: Call) -> Reach:
    reach, dims = call.first, call["dims"]
    if not dims:
        reach, dims = reshape(reach, (math.prod(reach.shape),)), [0]
    for dim, shift in zip(dims, call["shifts"], strict=True):
        reach = take(reach, dim, np.roll(np.arange(reach.shape[dim]), shift)[:, None])
    return reshape(reach, call.shape)


@rule("flip")
def _flip(call: Call) -> Reach:
    reach = call.first
    for dim in call["dims"]:
        reach = take(reach, dim, np.arange(reach.shape[dim])[::-1, None], factor=-1)
    return reach


@rule("index_select")
def _index_select(call: Call) -> Reach:
    return take(call.first, call["dim"], _constants(call, call["index"]).reshape(-1, 1))


def _constants(call: Call, index: Tensor) -> Any:
    """The values of an index that does not depend on the picture."""
    if call.depends(index) or index.is_meta:
        raise Unfollowed
    return index.detach().cpu().numpy()


@rule("index")
def _index(call: Call) -> Reach:
    key: list[Any] = []
    for index in call["indices"]:
        values = None if index is None else _constants(call, index)
        key += [slice(None)] if values is None else values.nonzero() if values.dtype == bool else [values]
    dims = [dim for dim, part in enumerate(key) if not isinstance(part, slice)]
    rows, columns = (_indexed(bounds, call.first.shape, dims, tuple(key)) for bounds in call.first.bounds)
    return _remeasured(call, rows, columns)


def _indexed(bounds: Array, shape: Sequence[int], dims: Sequence[int], key: tuple) -> Array:
    full = [2, 2, *(shape[dim] if dim in dims else size for dim, size in enumerate(bounds.shape[2:]))]
    return np.moveaxis(np.moveaxis(np.broadcast_to(bounds, full), (0, 1), (-2, -1))[key], (-2, -1), (0, 1))


@rule("gather")
def _gather(call: Call) -> Reach:
    index, dim = _constants(call, call["index"]), call["dim"] % len(call.shape)
    reach = call.first
    for other, size in enumerate(index.shape):
        reach = reach if other == dim else cut(reach, other, slice(0, size))
    full = (np.broadcast_to(b, sized(b.shape, dim + 2, reach.shape[dim])) for b in reach.bounds)
    rows, columns = (np.take_along_axis(b, index[None, None], dim + 2) for b in full)
    return _remeasured(call, compressed(rows, range(2, rows.ndim)), compressed(columns, range(2, columns.ndim)))


def _remeasured(call: Call, rows: Array, columns: Array) -> Reach:
    steps = tuple(((size, measured(rows, dim), measured(columns, dim)),) for dim, size in enumerate(call.shape))
    return Reach(steps, (rows, columns), call.first.inexact)


# convolutions, pools and everything else with windows


def _windows(out: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    return np.arange(out)[:, None] * stride - padding + np.arange(kernel) * dilation


def _transposed_windows(out: int, kernel: int, stride: int, padding: int, dilation: int) -> Taps:
    """The inputs that reach each output of a transposed convolution; a gap between them shows nothing at all."""
    places = np.arange(out)[:, None] + padding - np.arange(kernel) * dilation
    return np.where(places % stride == 0, places // stride, ABSENT)


def _spans(first: Taps, stop: Taps) -> Taps:
    """Taps ``first[i] .. stop[i] - 1``, windows of different lengths."""
    taps = first[:, None] + np.arange((stop - first).max())
    return np.where(taps < stop[:, None], taps, ABSENT)


@rule("convolution", "_convolution", "convolution_overrideable")
def _convolution(call: Call) -> Reach:
    transposed, count = call["transposed"], len(call.shape) - 2
    settings = [call.spatial(name, count) for name in ("stride", "padding", "dilation")]
    windows = _transposed_windows if transposed else _windows
    reach = _channels(call.reach("input"), call["groups"], call.shape[1])
    for k, (stride, padding, dilation) in enumerate(zip(*settings, strict=True)):
        taps = windows(call.shape[k + 2], call["weight"].shape[k + 2], stride, padding, dilation)
        reach = take(reach, k + 2, taps, factor=1 / stride if transposed else stride)
    dynamic = [call.reach(call[name]) for name in ("weight", "bias") if call.depends(call[name])]
    return merge([reach, *(collapse(r, range(len(r.shape)), keep=False) for r in dynamic)], call.shape)


def _channels(reach: Reach, groups: int, out: int) -> Reach:
    """Channels mix within each group."""
    if groups == 1 or all(bounds.shape[3] == 1 for bounds in reach.bounds):
        return resized(collapse(reach, [1]), 1, out)
    batch, channels, *rest = reach.shape
    split = collapse(reshape(reach, (batch, groups, channels // groups, *rest)), [2], keep=False)
    return take(split, 1, np.arange(out)[:, None] // (out // groups))


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "mkldnn_max_pool2d", "avg_pool2d", "avg_pool3d")
def _pool(call: Call) -> Reach:
    count = 3 if "3d" in call.name else 2
    kernels = call.spatial("kernel_size", count)
    strides = call.spatial("stride", count) or kernels
    paddings = call.spatial("padding", count)
    dilations = call.spatial("dilation", count) if call.get("dilation") else [1] * count
    reach = call.first
    for k, (kernel, stride, padding, dilation) in enumerate(zip(kernels, strides, paddings, dilations, strict=True)):
        taps = _windows(call.shape[k - count], kernel, stride, padding, dilation)
        reach = take(reach, k - count, taps, factor=stride)
    return reach


@rule(
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_max_pool3d"
)
def _adaptive_pool(call: Call) -> Reach:
    reach = call.first
    for dim in range(-3 if "3d" in call.name else -2, 0):
        size, out = reach.shape[dim], call.shape[dim]
        if out == 1:
            reach = collapse(reach, [dim])
            continue
        index = np.arange(out)
        reach = take(reach, dim, _spans(index * size // out, -(-(index + 1) * size // out)), factor=size / out)
    return reach


@rule("unfold")
def _unfold(call: Call) -> Reach:
    dim = call["dimension"] % len(call.first.shape)
    reach = _unrolled(call.first, dim, _windows(call.shape[dim], call["size"], call["step"], 0, 1), call["step"], 1)
    order = [d for d in range(len(reach.shape)) if d != dim + 1]
    return permute(reach, [*order, dim + 1])


def _unrolled(reach: Reach, dim: int, taps: Taps, stride: int, dilation: int) -> Reach:
    """Windows side by side: ``dim`` becomes two, (windows, taps)."""
    flat = take(reach, dim, taps.reshape(-1, 1))
    rolled = reshape(flat, (*reach.shape[:dim], *taps.shape, *reach.shape[dim + 1 :]))
    steps = [scaled(reach.steps[dim], size, jump) for size, jump in zip(taps.shape, (stride, dilation), strict=True)]
    return replace(rolled, steps=(*reach.steps[:dim], *steps, *reach.steps[dim + 1 :]))


@rule("im2col")
def _im2col(call: Call) -> Reach:
    reach = call.first
    settings = zip(*(call.spatial(name, 2) for name in ("kernel_size", "stride", "padding", "dilation")), strict=True)
    for dim, (kernel, stride, padding, dilation) in zip((-3, -1), settings, strict=True):  # (..., C, oh, kh, ow, kw)
        place = len(reach.shape) + (dim + 1 if dim == -3 else dim)
        out = (reach.shape[place] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        reach = _unrolled(reach, place, _windows(out, kernel, stride, padding, dilation), stride, dilation)
    count = len(reach.shape)
    order = [*range(count - 4), count - 3, count - 1, count - 4, count - 2]
    return reshape(permute(reach, order), call.shape)


@rule("col2im")
def _col2im(call: Call) -> Reach:
    names = ("output_size", "kernel_size", "stride", "padding", "dilation")
    settings = list(zip(*(call.spatial(name, 2) for name in names), strict=True))
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in settings]
    lead = call.shape[:-2]
    reach = reshape(call.first, (*lead, settings[0][1], settings[1][1], *counts))
    for kernels, windows, (out, kernel, stride, padding, dilation) in zip((-4, -3), (-2, -1), settings, strict=True):
        taps = _transposed_windows(out, kernel, stride, padding, dilation)
        rows = [cut(reach, len(reach.shape) + kernels, index) for index in range(kernel)]
        laid = [take(row, windows, taps[:, index, None], factor=1 / stride) for index, row in enumerate(rows)]
        reach = merge(laid, laid[0].shape)
    return reach


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _pad(call: Call) -> Reach:
    reach = call.first
    pad = call.get("pad") or call["padding"]
    mode = {"reflection": "reflect", "replication": "edge"}.get(call.name.removeprefix("aten::").split("_")[0])
    for k in range(len(pad) // 2):
        before, after = pad[2 * k], pad[2 * k + 1]
        drawn = np.arange(-before, reach.shape[-1 - k] + after)
        taps = np.pad(np.arange(reach.shape[-1 - k]), (before, after), mode=mode) if mode else drawn  # type: ignore[call-overload]
        reach = take(reach, -1 - k, taps[:, None], drawn=drawn[:, None])
    return reach


@rule(
    *(f"upsample_{mode}{n}d" for mode in ("nearest", "linear", "bilinear", "trilinear", "bicubic") for n in (1, 2, 3))
)
@rule(*(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)), "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")
def _upsample(call: Call) -> Reach:
    reach, count = call.first, len(call.shape) - 2
    scales = [call.get(name) for name in (["scales"] if count == 1 else ["scales_d", "scales_h", "scales_w"][-count:])]
    kind = np.float64 if call.inputs[0].dtype == torch.float64 else np.float32  # torch rounds in the tensor's precision
    for dim, given in zip(range(-count, 0), scales, strict=True):
        size, out = reach.shape[dim], call.shape[dim]
        taps, drawn = _resampled(call.name, size, out, given, bool(call.get("align_corners")), kind)
        reach = take(reach, dim, taps, drawn=drawn, factor=size / out)
    return reach


def _resampled(name: str, size: int, out: int, given: float | None, corners: bool, kind: type) -> tuple[Taps, Taps]:
    """Taps of a resampling, inside the picture and nominally."""
    index: NDArray[Any] = np.arange(out, dtype=kind)
    scale = kind(1 / given if given else size / out)
    if "nearest" in name:
        index = index.astype(np.float32) + np.float32(0.5 if "exact" in name else 0)
        taps = np.minimum(np.floor(index * np.float32(scale)), size - 1).astype(np.int64)[:, None]
        return taps, taps
    if corners:
        scale = kind((size - 1) / max(out - 1, 1))
    if name.endswith("_aa"):
        return _antialiased(index, scale, size, 4 if "cubic" in name else 2, corners)
    source = index * scale if corners else (index + kind(0.5)) * scale - kind(0.5)
    if "cubic" in name:
        drawn = np.floor(source).astype(np.int64)[:, None] + np.arange(-1, 3)
        return drawn.clip(0, size - 1), drawn
    if size == out:
        taps = np.arange(out)[:, None]
        return taps, taps
    first, drawn = (np.floor(places).astype(np.int64)[:, None] + np.arange(2) for places in (source.clip(0), source))
    return first.clip(0, size - 1), drawn


def _antialiased(index: NDArray, scale: Any, size: int, taps: int, corners: bool) -> tuple[Taps, Taps]:
    support = taps / 2 * max(float(scale), 1)
    centre = scale * (index + 0.5)
    first, stop = (np.floor(centre + side * support + 0.5).astype(np.int64) for side in (-1, 1))
    return _spans(first.clip(0), stop.clip(None, size)), _spans(first, stop)


@rule("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(call: Call) -> Reach:
    *lead, channels, height, width = call.first.shape
    shuffle = call.name == "aten::pixel_shuffle"
    factor = call["upscale_factor"] if shuffle else call["downscale_factor"]
    n, r = len(lead), factor
    blocks = (channels // r**2, r, r, height, width) if shuffle else (channels, height // r, r, width // r, r)
    order = [0, 3, 1, 4, 2] if shuffle else [0, 2, 4, 1, 3]
    reach = permute(reshape(call.first, (*lead, *blocks)), [*range(n), *(n + k for k in order)])
    result = reshape(reach, call.shape)
    steps = [scaled(call.first.steps[dim], call.shape[dim], 1 / r if shuffle else r) for dim in (-2, -1)]
    return replace(result, steps=(*result.steps[:-2], *steps))


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(call: Call) -> Reach:
    batch, channels, *rest = call.shape
    groups = call["groups"]
    split = reshape(call.first, (batch, groups, channels // groups, *rest))
    return reshape(permute(split, [0, 2, 1, *range(3, len(split.shape))]), call.shape)


# reductions and whatever else mixes along dims


@rule(
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "norm", "median", "mode"
)
@rule(
    "linalg_vector_norm",
    "logsumexp",
    "argmax",
    "argmin",
    "all",
    "any",
    "aminmax",
    "nansum",
    "count_nonzero",
    "nanmedian",
)
@rule("kthvalue")
def _reduce(call: Call) -> Reach:
    if call.operator.pointwise:  # torch.max(a, b)
        return pointwise(call)
    return collapse(call.first, call.dims(), keep=bool(call.get("keepdim")))


@rule("_softmax", "_log_softmax", "_safe_softmax", "sort", "argsort", "topk")
def _mix(call: Call) -> Reach:
    dim = call.dims()[0]
    return resized(mixed(call.first, [dim]), dim, call.shape[dim])


@rule("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp")
def _cumulate(call: Call) -> Reach:
    reach, axis = strictly(call.first), call.dims()[0] + 2
    rows, columns = (np.maximum.accumulate(bounds, axis) for bounds in reach.bounds)
    return replace(reach, bounds=(rows, columns))


@rule("native_layer_norm", "_fused_rms_norm")
def _layer_norm(call: Call) -> Reach:
    ndim = len(call.first.shape)
    return mixed(call.first, range(ndim - len(call["normalized_shape"]), ndim))


@rule("native_group_norm")
def _group_norm(call: Call) -> Reach:
    batch, channels, *rest = call.first.shape
    groups = reshape(call.first, (batch, call["group"], channels // call["group"], *rest))
    return reshape(mixed(groups, range(2, len(groups.shape))), call.first.shape)


@rule("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm")
@rule("_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training", "_batch_norm_no_update")
@rule("_batch_norm_with_update")
def _batch_norm(call: Call) -> Reach:
    statistics = call.get("training", call.name.endswith("with_update"))
    return mixed(call.first, {*range(len(call.first.shape))} - {1}) if statistics else call.first


@rule("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "dot", "addmv")
def _matmul(call: Call) -> Reach:
    *bias, left, right = (call.reach(tensor) for tensor in tensors_of(call.inputs))
    left = collapse(left, [-1], keep=len(right.shape) > 1)
    right = collapse(right, [-2 if len(right.shape) > 1 else -1], keep=len(right.shape) > 1)
    if call.name == "aten::addbmm":
        left, right = collapse(left, [0], keep=False), collapse(right, [0], keep=False)
    return merge([left, right, *bias], call.shape)


@rule("glu")
def _glu(call: Call) -> Reach:
    dim = call["dim"] % len(call.shape)
    half = call.shape[dim]
    return merge([cut(call.first, dim, slice(0, half)), cut(call.first, dim, slice(half, None))], call.shape)


@rule(*(f"_scaled_dot_product_{kind}_attention" for kind in ("flash", "efficient", "cudnn", "fused")))
@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math_for_mps")
@rule("_scaled_dot_product_fused_attention_overrideable", "scaled_dot_product_attention")
def _attention(call: Call) -> Reach:
    if call.get("is_causal"):
        raise Unfollowed
    query, key, value = (call.reach(name) for name in ("query", "key", "value"))
    parts = [collapse(query, [-1]), collapse(key, [-2, -1]), collapse(value, [-2])]
    mask = call.get("attn_mask", call.get("attn_bias"))
    return merge([*parts, *([collapse(call.reach(mask), [-1])] if call.depends(mask) else [])], call.shape)


@rule("_native_multi_head_attention", "_transformer_encoder_layer_fwd")
def _fused_attention(call: Call) -> Reach:
    names = ("src",) if call.get("src") is not None else ("query", "key", "value")
    return broadcast(merge([collapse(call.reach(name), [1, 2]) for name in names], (call.shape[0], 1, 1)), call.shape)
