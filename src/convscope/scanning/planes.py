"""One pass over the maps of a layer: maximum and its place, sums, zeros and histogram of every channel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from convscope.index import BINS

_SHIFT = 22  # keeps a float's exponent and the first bit behind it: half an octave
_FIRST = (127 - 12) << 1  # of 2^-12, the lowest edge above zero
_SIDE = (BINS - 1) // 2  # bins above the innermost one, and as many below
_LINE = 32  # channels whose bfloat16 numbers share a line of memory, where channels come last
_WORTH = 200_000  # values for which another thread is worth waking
FIELDS = (
    "zeros", "silent", "values", "ids", "places", "total", "squares", "maximum", "histogram", "seen", "grid",
)  # fmt: skip
Places: TypeAlias = Callable[[int, np.ndarray], np.ndarray]
"""Where, in a picture of the batch, each of these channels has its first maximum."""


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
    peaks, places = _by_torch(maps, state) if kernels is None else _by_loops(kernels, maps, state)
    state["silent"] += (peaks <= 0).sum(0)
    state["maximum"][:] = np.maximum(state["maximum"], peaks.max(0))
    if kernels is None:
        rank(peaks, places, ids, state)
    else:
        kernels.insert(peaks, ids, state["values"], state["ids"], state["places"])
        _find(places, state["places"])


def _find(places: Places, marked: np.ndarray) -> None:
    """Ask for the places (C, k) that are only marked by the number of their picture."""
    rows, slots = np.nonzero(marked < -1)
    pictures = -2 - marked[rows, slots]
    for picture in np.unique(pictures):
        those = pictures == picture
        marked[rows[those], slots[those]] = places(int(picture), rows[those])


def _by_torch(maps: Tensor, state: dict[str, np.ndarray]) -> tuple[np.ndarray, Places]:
    values = maps.flatten(2).float()
    peaks, places = values.max(2)
    state["zeros"] += (values == 0).sum((0, 2)).cpu().numpy()
    state["total"] += values.double().sum((0, 2)).cpu().numpy()
    state["squares"] += values.double().square().sum((0, 2)).cpu().numpy()
    state["histogram"] += histogram(values)
    found = places.cpu().numpy()
    return peaks.cpu().numpy(), lambda picture, channels: found[picture, channels]


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


def _by_loops(kernels: ModuleType, maps: Tensor, state: dict[str, np.ndarray]) -> tuple[np.ndarray, Places]:
    bits, shift, channels_last = _bits(maps)
    count, channels = maps.shape[:2]
    peaks = np.empty((count, channels), np.float32)
    sums = [peaks, *(state[name] for name in ("zeros", "total", "squares", "histogram"))]
    run: Callable[..., None]
    run, where = (kernels.last, kernels.where_last) if channels_last else (kernels.first, kernels.where_first)
    shares = _shares(channels, maps.numel())
    others = [_helpers().submit(run, bits, shift, *share, *sums) for share in shares[1:]]
    run(bits, shift, *shares[0], *sums)
    for other in others:
        other.result()

    def places(picture: int, wanted: np.ndarray) -> np.ndarray:
        found = np.zeros(len(wanted), np.int64)
        where(bits, shift, picture, wanted, found)
        return found

    return peaks, places


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


def rank(peaks: np.ndarray, places: Places, ids: np.ndarray, state: dict[str, np.ndarray]) -> None:
    """Put the peaks (N, C) of a batch where they belong among the strongest so far; ``places`` tells where they are.

    Where a picture stands is asked for those alone that get in, which are few after the first pictures.
    """
    fresh = np.where((peaks == 0) | np.isnan(peaks), np.float32(-np.inf), peaks)
    better = np.flatnonzero(fresh.max(0) > state["values"][:, -1])
    if not len(better):
        return
    kept = state["values"].shape[1]
    values = np.concatenate([state["values"][better], fresh[:, better].T], 1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :kept]
    joined = {"values": values, "ids": np.concatenate([state["ids"][better], np.tile(ids, (len(better), 1))], 1)}
    joined["ids"][np.isneginf(values)] = -1
    joined["places"] = np.concatenate([state["places"][better], np.full((len(better), len(ids)), -1)], 1)
    for name, array in joined.items():
        state[name][better] = np.take_along_axis(array, order, 1)
    for picture in range(len(ids)):
        rows, slots = np.nonzero((order == kept + picture) & (state["ids"][better] >= 0))
        if len(rows):
            state["places"][better[rows], slots] = places(picture, better[rows])


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
