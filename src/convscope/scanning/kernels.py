"""The inner loop over the maps of a layer, compiled by numba: everything that is asked of a value while it is at hand.

Values come as the bits of float32 (int32, ``shift`` 0) or of bfloat16 (int16, ``shift`` 16), channels first or last.
Each call works on a range of channels, so that several run side by side without touching each other's numbers. Behind
a rectifier nothing is negative, and then the bits of numbers are ordered as the numbers are: that is tried first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from convscope.index import BINS, EVERY

F = TypeVar("F", bound=Callable[..., Any])
TILE = 64  # channels side by side, where these come last
BLOCK = 1024  # places of a map of which the bins are kept until they are counted
SIDE = np.int32((BINS - 1) // 2)
MAGNITUDE = np.int32(0x7FFFFFFF)
OCTAVE = np.int32(22)  # keeps a float's exponent and the first bit behind it
BELOW = np.int32(((127 - 12) << 1) - 1)  # of what lies just below 2^-12
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
def _key(bits: Any) -> Any:
    """A whole number that is larger where the float is, and back again."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & MAGNITUDE))


@compiled
def _octave(bits: Any) -> Any:
    """How many bins a float that is not negative lies from the innermost, by its bits."""
    return min(max(np.int32(np.int32(bits >> OCTAVE) - BELOW), np.int32(0)), SIDE)


@compiled
def _bins(part: NDArray[Any], by: Any, bins: NDArray[Any]) -> None:
    """The bins of floats of any sign."""
    for i in range(len(part)):
        raw = np.int32(np.int32(part[i]) << by)
        octave, sign = _octave(np.int32(raw & MAGNITUDE)), np.int32(raw >> np.int32(31))
        bins[i] = np.int32(SIDE + np.int32(np.int32(octave ^ sign) - sign))


@compiled
def _highest(plane: NDArray[Any], by: Any) -> Any:
    """The bits of the largest of floats of any sign."""
    top = LOWEST
    for place in range(len(plane)):
        top = max(top, _key(np.int32(np.int32(plane[place]) << by)))
    return _key(top)


@compiled
def _found(plane: NDArray[Any], by: Any, wanted: Any) -> Any:
    """The first place of these bits."""
    for place in range(len(plane)):
        if np.int32(np.int32(plane[place]) << by) == wanted:
            return place
    return -1


@compiled
def _gets_in(peak: Any, values: NDArray[Any]) -> Any:
    """Whether a peak belongs among the strongest so far, (k,): of equal ones the earlier does, and zero never."""
    return peak != 0 and peak > values[-1]


@compiled
def _insert(peak: Any, id: Any, place: Any, values: NDArray[Any], kept: NDArray[Any], places: NDArray[Any]) -> None:
    """Put it where it belongs among the strongest so far, (k,)."""
    slot = len(values) - 1
    while slot > 0 and peak > values[slot - 1]:
        values[slot], kept[slot], places[slot] = values[slot - 1], kept[slot - 1], places[slot - 1]
        slot -= 1
    values[slot], kept[slot], places[slot] = peak, id, place


@compiled
def _sweep(part: NDArray[Any], by: Any) -> Any:
    """Sum, sum of squares, how many are zero, and the largest bits."""
    some, power, none, top = np.float32(0), np.float32(0), np.int32(0), LOWEST
    for i in range(len(part)):
        raw = np.int32(np.int32(part[i]) << by)
        value = _number(raw)
        some += value
        power += value * value
        none += np.int32(np.int32(raw & MAGNITUDE) == 0)
        top = max(top, raw)
    return some, power, none, top


@compiled
def _count(bins: NDArray[Any], counts: NDArray[Any]) -> None:
    """Four counts (4, BINS) in turn, for one must not wait for the one before it."""
    whole = len(bins) // 4 * 4
    for i in range(0, whole, 4):
        for turn in range(4):
            counts[turn, bins[i + turn]] += 1
    for i in range(whole, len(bins)):
        counts[0, bins[i]] += 1


@compiled
def first(
    bits: NDArray[Any], shift: int, start: int, stop: int, ids: NDArray[Any], zeros: NDArray[Any],
    silent: NDArray[Any], total: NDArray[Any], squares: NDArray[Any], maximum: NDArray[Any], histogram: NDArray[Any],
    values: NDArray[Any], kept: NDArray[Any], places: NDArray[Any],
) -> None:  # fmt: skip
    """Add channels ``start`` to before ``stop`` of (N, C, P), of the pictures ``ids``, to the state: (C, ...) each.

    Finding a bin and counting it takes as long as all else, so histograms are of one picture in ``EVERY``.
    """
    by = np.int32(shift)
    bins, counts = np.zeros(BLOCK, np.uint8), np.zeros((4, BINS), np.int32)
    for channel in range(start, stop):
        counts[:] = 0
        for picture in range(len(bits)):
            plane = bits[picture, channel]
            top = LOWEST
            for begin in range(0, len(plane), BLOCK):
                part = plane[begin : begin + BLOCK]
                some, power, none, high = _sweep(part, by)
                if ids[picture] % EVERY == 0:
                    _bins(part, by, bins)
                    _count(bins[: len(part)], counts)
                total[channel] += some
                squares[channel] += power
                zeros[channel] += none
                top = max(top, high)
            top = top if top >= 0 else _highest(plane, by)
            peak = _number(top)
            silent[channel] += peak <= 0
            maximum[channel] = max(maximum[channel], peak)
            if _gets_in(peak, values[channel]):
                place = _found(plane, by, top)
                _insert(peak, ids[picture], place, values[channel], kept[channel], places[channel])
        for i in range(BINS):
            histogram[channel, i] += counts[0, i] + counts[1, i] + counts[2, i] + counts[3, i]


@compiled
def last(
    bits: NDArray[Any], shift: int, start: int, stop: int, ids: NDArray[Any], zeros: NDArray[Any],
    silent: NDArray[Any], total: NDArray[Any], squares: NDArray[Any], maximum: NDArray[Any], histogram: NDArray[Any],
    values: NDArray[Any], kept: NDArray[Any], places: NDArray[Any],
) -> None:  # fmt: skip
    """The same of (N, P, C)."""
    by = np.int32(shift)
    some, power = np.zeros(TILE, np.float32), np.zeros(TILE, np.float32)
    none, top, bins = np.zeros(TILE, np.int32), np.zeros(TILE, np.int32), np.zeros(TILE, np.uint8)
    counts = np.zeros((TILE, BINS), np.int32)
    for begin in range(start, stop, TILE):
        width = min(TILE, stop - begin)
        counts[:] = 0
        for picture in range(len(bits)):
            tile = bits[picture]
            top[:] = LOWEST
            for place in range(len(tile)):
                part = tile[place, begin : begin + width]
                for i in range(width):
                    raw = np.int32(np.int32(part[i]) << by)
                    value = _number(raw)
                    some[i] += value
                    power[i] += value * value
                    none[i] += np.int32(np.int32(raw & MAGNITUDE) == 0)
                    top[i] = max(top[i], raw)
                if ids[picture] % EVERY == 0:
                    _bins(part, by, bins)
                    for i in range(width):
                        counts[i, bins[i]] += 1
                if place % 64 == 63 or place == len(tile) - 1:  # sums in single precision stay short
                    for i in range(width):
                        total[begin + i] += some[i]
                        squares[begin + i] += power[i]
                        zeros[begin + i] += none[i]
                    some[:], power[:], none[:] = 0, 0, 0
            for i in range(width):
                channel = begin + i
                high = top[i] if top[i] >= 0 else _highest(tile[:, channel], by)
                peak = _number(high)
                silent[channel] += peak <= 0
                maximum[channel] = max(maximum[channel], peak)
                if _gets_in(peak, values[channel]):
                    place = _found(tile[:, channel], by, high)
                    _insert(peak, ids[picture], place, values[channel], kept[channel], places[channel])
        for i in range(width):
            for each in range(BINS):
                histogram[begin + i, each] += counts[i, each]
