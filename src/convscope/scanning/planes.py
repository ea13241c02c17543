"""One pass over the maps of a layer: maximum and its place, sums, zeros and histogram of every channel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from convscope.index import BINS

_SHIFT = 22  # keeps a float's exponent and the first bit behind it: half an octave
_FIRST = (127 - 12) << 1  # of 2^-12, the lowest edge above zero
_SIDE = (BINS - 1) // 2  # bins above the innermost one, and as many below


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
    """Add (N, C, H, W) maps of the pictures ``ids`` to the state."""
    values = maps.flatten(2).float()
    count = values.shape[2]
    state["seen"] += (len(values), len(values) * count)
    peaks, places = values.max(2)
    state["zeros"] += (values == 0).sum((0, 2)).cpu().numpy()
    state["silent"] += (peaks <= 0).sum(0).cpu().numpy()
    state["total"] += values.double().sum((0, 2)).cpu().numpy()
    state["squares"] += values.double().square().sum((0, 2)).cpu().numpy()
    state["maximum"][:] = np.maximum(state["maximum"], peaks.amax(0).cpu().numpy())
    state["histogram"] += histogram(values)
    rank(peaks.cpu().numpy(), places.cpu().numpy(), ids, state)


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
    """Put the strongest place of each picture, (N, C), where it belongs among the strongest so far."""
    for peak, place, id in zip(peaks, places, ids, strict=True):
        better = np.flatnonzero((peak > state["values"][:, -1]) & (peak != 0))
        if len(better):
            fresh = {"values": peak[better, None], "places": place[better, None]}
            fresh["ids"] = np.full((len(better), 1), id)
            _insert(state, better, fresh)


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
