"""One pass over the maps of a layer: maximum and its place, sums, zeros and histogram of every channel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from convscope.index import BINS, EVERY

_SHIFT = 22  # keeps a float's exponent and the first bit behind it: half an octave
_FIRST = (127 - 12) << 1  # of 2^-12, the lowest edge above zero
_SIDE = (BINS - 1) // 2  # bins above the innermost one, and as many below
_LINE = 32  # channels whose bfloat16 numbers share a line of memory, where channels come last
_WORTH = 200_000  # values for which another thread is worth waking
_ADDED = ("zeros", "silent", "total", "squares", "maximum", "histogram", "values", "ids", "places")  # by the kernels
FIELDS = (*_ADDED, "seen", "grid")


def empty(channels: int, count: int) -> dict[str, np.ndarray]:
    """The state of one layer before any picture."""
    whole = {name: np.zeros(channels, np.int64) for name in ("zeros", "silent")}
    return whole | {
        "values": np.full((channels, count), -np.inf, np.float32),
        "ids": np.full((channels, count), -1, np.int64),
        "places": np.full((channels, count), -1, np.int64),
        "total": np.zeros(channels), "squares": np.zeros(channels), "maximum": np.full(channels, -np.inf, np.float32),
        "histogram": np.zeros((channels, BINS), np.int64),
        "seen": np.zeros(2, np.int64), "grid": np.zeros(2, np.int64),
    }  # fmt: skip


def gather(maps: Tensor, ids: np.ndarray, state: dict[str, np.ndarray]) -> None:
    """Add (N, C, H, W) maps of the pictures ``ids`` to the state: by compiled loops where numba is installed."""
    maps = maps.cpu() if maps.device.type == "mps" else maps  # which has no double precision
    state["seen"] += (len(maps), len(maps) * maps[0, 0].numel())
    kernels = _kernels() if maps.device.type == "cpu" else None
    if kernels is None:
        _by_torch(maps, ids, state)
    else:
        _by_loops(kernels, maps, ids, state)


def _by_torch(maps: Tensor, ids: np.ndarray, state: dict[str, np.ndarray]) -> None:
    values = maps.flatten(2).float()
    peaks, places = (found.cpu().numpy() for found in values.max(2))
    state["zeros"] += (values == 0).sum((0, 2)).cpu().numpy()
    state["silent"] += (peaks <= 0).sum(0)
    state["total"] += values.double().sum((0, 2)).cpu().numpy()
    state["squares"] += values.double().square().sum((0, 2)).cpu().numpy()
    state["maximum"][:] = np.maximum(state["maximum"], peaks.max(0))
    state["histogram"] += histogram(values[torch.from_numpy(ids % EVERY == 0).to(values.device)])
    rank(peaks, places, ids, state)


# ---- compiled


@lru_cache(maxsize=1)
def _kernels() -> ModuleType | None:
    try:
        return importlib.import_module("convscope.scanning.kernels")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "numba":
            return None
        raise


@lru_cache(maxsize=1)
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), "convscope-maps")


def _by_loops(kernels: ModuleType, maps: Tensor, ids: np.ndarray, state: dict[str, np.ndarray]) -> None:
    bits, shift, channels_last = _bits(maps)
    run: Callable[..., None] = kernels.last if channels_last else kernels.first
    fields = [state[name] for name in _ADDED]
    shares = _shares(maps.shape[1], maps.numel())
    others = [_helpers().submit(run, bits, shift, *share, ids, *fields) for share in shares[1:]]
    run(bits, shift, *shares[0], ids, *fields)
    for other in others:
        other.result()


def _shares(channels: int, values: int) -> list[tuple[int, int]]:
    """Ranges of channels, one a thread, of no less than a line of memory, where there is enough to do."""
    threads = min(torch.get_num_threads(), max(1, values // _WORTH), -(-channels // _LINE))
    each = -(-channels // threads)
    return [(start, min(start + each, channels)) for start in range(0, channels, each)]


def _bits(maps: Tensor) -> tuple[np.ndarray, int, bool]:
    """The maps' bits as (N, C, P) or (N, P, C), how far they stand from float32's, and whether channels come last."""
    plain = maps.detach() if maps.dtype in (torch.float32, torch.bfloat16) else maps.detach().float()
    channels_last = not plain.is_contiguous() and plain.is_contiguous(memory_format=torch.channels_last)
    flat = plain.permute(0, 2, 3, 1).flatten(1, 2) if channels_last else plain.contiguous().flatten(2)
    if plain.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy(), 16, channels_last
    return flat.view(torch.int32).numpy(), 0, channels_last


# ---- by torch


def bins(values: Tensor) -> Tensor:
    """The bin of each float32, by its bits."""
    bits = values.contiguous().view(torch.int32)
    octave = ((bits & 0x7FFFFFFF) >> _SHIFT) - _FIRST + 1
    octave = octave.clamp(0, _SIDE)
    return torch.where(bits < 0, _SIDE - octave, _SIDE + octave).long()


def histogram(values: Tensor) -> np.ndarray:
    """(C, BINS) of (N, C, P) float32."""
    channels = values.shape[1]
    offset = torch.arange(channels, device=values.device).view(1, -1, 1) * BINS
    counts = torch.bincount((bins(values) + offset).flatten(), minlength=channels * BINS)
    return counts.view(channels, BINS).cpu().numpy()


def rank(peaks: np.ndarray, places: np.ndarray, ids: np.ndarray, state: dict[str, np.ndarray]) -> None:
    """Put the peaks (N, C) of a batch, and where they are, where they belong among the strongest so far."""
    fresh = np.where((peaks == 0) | np.isnan(peaks), np.float32(-np.inf), peaks).T
    better = np.flatnonzero(fresh.max(1) > state["values"][:, -1])
    found = {"values": fresh, "ids": np.broadcast_to(ids, fresh.shape), "places": places.T}
    found = {name: each[better] for name, each in found.items()}
    for name in ("ids", "places"):
        found[name] = np.where(np.isneginf(found["values"]), -1, found[name])
    _insert(state, better, found)


def _insert(state: dict[str, np.ndarray], rows: np.ndarray, fresh: dict[str, np.ndarray]) -> None:
    joined = {name: np.concatenate([state[name][rows], fresh[name]], 1) for name in ("values", "ids", "places")}
    order = np.argsort(-joined["values"], axis=1, kind="stable")[:, : state["values"].shape[1]]
    for name, array in joined.items():
        state[name][rows] = np.take_along_axis(array, order, 1)


def merged(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The state behind two runs of pictures, the first in front; of equal values the first's stays in front."""
    sums = ("zeros", "silent", "total", "squares", "histogram", "seen")
    found = {name: first[name] + second[name] for name in sums}
    found["maximum"] = np.maximum(first["maximum"], second["maximum"])
    found["grid"] = second["grid"] if second["seen"][0] else first["grid"]
    strongest = {name: first[name].copy() for name in ("values", "ids", "places")}
    _insert(strongest, np.arange(len(strongest["values"])), second)
    return found | strongest


def finished(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Shares, mean and spread instead of sums; rows and columns instead of places."""
    pictures, values = np.maximum(state["seen"], 1)
    width = max(int(state["grid"][1]), 1)
    there = state["ids"] >= 0
    mean = state["total"] / values
    return {
        "values": np.where(there, state["values"], np.nan).astype(np.float32), "ids": state["ids"],
        "rows": np.where(there, state["places"] // width, -1), "columns": np.where(there, state["places"] % width, -1),
        "zeros": state["zeros"] / values, "silent": state["silent"] / pictures, "mean": mean,
        "spread": np.sqrt(np.maximum(state["squares"] / values - mean**2, 0)), "maximum": state["maximum"],
        "histogram": state["histogram"],
    }  # fmt: skip
