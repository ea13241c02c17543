"""The inner loop over the maps of a layer, compiled by numba: everything that is asked of a value while it is at hand.

Values come as the bits of float32 (int32, ``shift`` 0) or of bfloat16 (int16, ``shift`` 16), channels first or last.
Each call works on a range of channels, so that several run side by side without touching each other's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from convscope.index import BINS

F = TypeVar("F", bound=Callable[..., Any])
TILE = 64  # values side by side: places, or channels where these come last
SIDE = np.int32((BINS - 1) // 2)
MAGNITUDE = np.int32(0x7FFFFFFF)
OCTAVE = np.int32(22)  # keeps a float's exponent and the first bit behind it
BELOW = np.int32(((127 - 12) << 1) - 1)  # of what lies below 2^-12
LOWEST = np.int32(-0x80000000)


def compiled(function: F) -> F:
    """Compiled at the first call and kept on disk for later processes, where there is a folder for that.

    Sums may be added up in another order, so that the compiler makes vectors of them; that order is then fixed.
    """
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"}}
    try:
        return cast(F, numba.njit(cache=True, **options)(function))
    except (RuntimeError, OSError):
        return cast(F, numba.njit(**options)(function))


def _by_bits(_typing: Any, bits: Any) -> Any:
    """The float32 that has these bits: a reading of the same 32 bits, for which numba has no function."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


_number = cast(Callable[[Any], Any], intrinsic(_by_bits))


@compiled
def _bin(bits: Any) -> Any:
    """The bin of a float by its bits."""
    octave = np.int32(np.int32(np.int32(bits & MAGNITUDE) >> OCTAVE) - BELOW)
    octave = min(max(octave, np.int32(0)), SIDE)
    return np.int32(SIDE - octave) if bits < 0 else np.int32(SIDE + octave)


@compiled
def _key(bits: Any) -> Any:
    """A whole number that is larger where the float is, and back again."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & MAGNITUDE))


@compiled
def first(
    bits: NDArray[Any], shift: int, start: int, stop: int, peaks: NDArray[Any], zeros: NDArray[Any],
    total: NDArray[Any], squares: NDArray[Any], histogram: NDArray[Any],
) -> None:  # fmt: skip
    """Channels ``start`` to before ``stop`` of (N, C, P): fills ``peaks`` (N, C), adds to the others, (C, ...)."""
    pictures, _, places = bits.shape
    by = np.int32(shift)
    some, power = np.zeros(TILE, np.float32), np.zeros(TILE, np.float32)
    none, top, bins = np.zeros(TILE, np.int32), np.zeros(TILE, np.int32), np.zeros(TILE, np.uint8)
    counts = np.zeros((4, BINS), np.int32)  # four, for a count must not wait for the one before it
    for channel in range(start, stop):
        counts[:] = 0
        for picture in range(pictures):
            some[:], power[:], none[:], top[:] = 0, 0, 0, LOWEST
            plane = bits[picture, channel]
            for begin in range(0, places, TILE):
                part = plane[begin : begin + TILE]
                width = len(part)
                for i in range(width):
                    raw = np.int32(np.int32(part[i]) << by)
                    value = _number(raw)
                    some[i] += value
                    power[i] += value * value
                    none[i] += np.int32(np.int32(raw & MAGNITUDE) == 0)
                    top[i] = max(top[i], _key(raw))
                    bins[i] = _bin(raw)
                for i in range(width):
                    counts[i & 3, bins[i]] += 1
            for i in range(TILE):
                total[channel] += some[i]
                squares[channel] += power[i]
                zeros[channel] += none[i]
            peaks[picture, channel] = _number(_key(top.max()))
        for i in range(BINS):
            histogram[channel, i] += counts[0, i] + counts[1, i] + counts[2, i] + counts[3, i]


@compiled
def last(
    bits: NDArray[Any], shift: int, start: int, stop: int, peaks: NDArray[Any], zeros: NDArray[Any],
    total: NDArray[Any], squares: NDArray[Any], histogram: NDArray[Any],
) -> None:  # fmt: skip
    """The same of (N, P, C)."""
    by = np.int32(shift)
    some, power = np.zeros(TILE, np.float32), np.zeros(TILE, np.float32)
    none, top, bins = np.zeros(TILE, np.int32), np.zeros(TILE, np.int32), np.zeros(TILE, np.uint8)
    counts = np.zeros((TILE, BINS), np.int32)
    for begin in range(start, stop, TILE):
        width = min(TILE, stop - begin)
        counts[:] = 0
        for picture in range(bits.shape[0]):
            top[:] = LOWEST
            for place in range(bits.shape[1]):
                part = bits[picture, place, begin : begin + width]
                for i in range(width):
                    raw = np.int32(np.int32(part[i]) << by)
                    value = _number(raw)
                    some[i] += value
                    power[i] += value * value
                    none[i] += np.int32(np.int32(raw & MAGNITUDE) == 0)
                    top[i] = max(top[i], _key(raw))
                    bins[i] = _bin(raw)
                for i in range(width):
                    counts[i, bins[i]] += 1
                if place % 64 == 63 or place == bits.shape[1] - 1:  # sums in single precision stay short
                    for i in range(width):
                        total[begin + i] += some[i]
                        squares[begin + i] += power[i]
                        zeros[begin + i] += none[i]
                    some[:], power[:], none[:] = 0, 0, 0
            for i in range(width):
                peaks[picture, begin + i] = _number(_key(top[i]))
        for i in range(width):
            for each in range(BINS):
                histogram[begin + i, each] += counts[i, each]


@compiled
def insert(
    peaks: NDArray[Any], ids: NDArray[Any], values: NDArray[Any], kept: NDArray[Any], places: NDArray[Any]
) -> None:
    """Put peaks (N, C) of the pictures ``ids`` where they belong among the strongest so far, (C, k).

    Of equal ones the earlier stays in front. The place of a picture that gets in is still to be found: it is marked by
    -2 minus its number in the batch.
    """
    pictures, channels = peaks.shape
    most = values.shape[1]
    for picture in range(pictures):
        for channel in range(channels):
            peak = peaks[picture, channel]
            if peak == 0 or not peak > values[channel, most - 1]:
                continue
            slot = most - 1
            while slot > 0 and peak > values[channel, slot - 1]:
                values[channel, slot] = values[channel, slot - 1]
                kept[channel, slot] = kept[channel, slot - 1]
                places[channel, slot] = places[channel, slot - 1]
                slot -= 1
            values[channel, slot] = peak
            kept[channel, slot] = ids[picture]
            places[channel, slot] = -2 - picture


@compiled
def where_first(bits: NDArray[Any], shift: int, picture: int, channels: NDArray[Any], places: NDArray[Any]) -> None:
    """Of (N, C, P): the first place of the maximum in each of these channels of a picture."""
    by = np.int32(shift)
    for i in range(len(channels)):
        plane = bits[picture, channels[i]]
        best, found = LOWEST, 0
        for place in range(len(plane)):
            key = _key(np.int32(np.int32(plane[place]) << by))
            if key > best:
                best, found = key, place
        places[i] = found


@compiled
def where_last(bits: NDArray[Any], shift: int, picture: int, channels: NDArray[Any], places: NDArray[Any]) -> None:
    """The same of (N, P, C)."""
    by = np.int32(shift)
    best = np.full(len(channels), LOWEST)
    for place in range(bits.shape[1]):
        row = bits[picture, place]
        for i in range(len(channels)):
            key = _key(np.int32(np.int32(row[channels[i]]) << by))
            if key > best[i]:
                best[i], places[i] = key, place
