"""What stays at hand from pass to pass: memory that was freed, and what was made of tensors that do not change.

The C library of Linux returns a block above 32 MB to the system as soon as it is freed, so that every pass over large
maps gets fresh pages, which the system has to clear: a tenth of a pass of VGG-16. Inside :func:`kept` it holds on to
them. And what passes of ever other shapes have freed it keeps anyway, in pieces that fit nothing else, so that a
process whose tensors take 0.4 GB can grow to 2.5 GB: :func:`give_back` returns it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

GROWTH = 256 * 2**20  # bytes by which a run may have made the process grow before what was freed is given back
SLACK = 128 * 2**20  # bytes by which it may grow from pass to pass within a run

# Of glibc's malloc.h: numbers of the options of mallopt, and what they are in a process that frees large blocks.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
SMALL = {**USUAL, TRIM_THRESHOLD: 2**31 - 1}  # blocks below 32 MB stay
KEEPING = {**SMALL, MMAP_MAX: 0}  # all stay

_lock = threading.Lock()
_inside = 0  # blocks of ``kept`` that are open, in all threads
_holding = 0  # those of them that keep freed memory of any size
_setting = USUAL
_made = WeakIdKeyDictionary()  # tensor to its version, and function to what that made of it


def resident() -> int:
    """Bytes of memory that this process has now, or at its most where only that is known; 0 where nothing is."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return freed memory to the system, where the C library holds on to it."""
    if (trim := _function("malloc_trim")) is not None:
        trim(ctypes.c_size_t(0))


@contextmanager
def kept(*, freed: bool = True) -> Iterator[None]:
    """A block in which what :func:`once` has made and memory that was ``freed`` stay at hand; behind it all that goes.

    For memory it is a setting of the whole process, and only of speed. Without ``freed`` large blocks go back at once:
    passes of ever other shapes would leave holes that fit nothing else. Without glibc nothing is set.
    """
    before = resident()
    _entered(freed)
    try:
        yield
    finally:
        if not sys.is_finalizing():  # a loop that was left open ends with Python, where little is still there
            _left(freed, before)


def _entered(freed: bool) -> None:
    global _inside, _holding
    with _lock:
        _inside, _holding = _inside + 1, _holding + freed
        _settle()


def _left(freed: bool, before: int) -> None:
    global _inside, _holding
    with _lock:
        _inside, _holding = _inside - 1, _holding - freed
        _settle()
        if not _inside:
            _made.clear()
    if not _inside and resident() - before > GROWTH:
        give_back()


def _settle() -> None:
    """The setting that the open blocks ask for, if it is another one."""
    global _setting
    wanted = KEEPING if _holding else SMALL if _inside else USUAL
    if wanted is not _setting:
        _setting = wanted
        _set(wanted)


def once(tensor: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    """What ``make`` makes of a tensor: inside :func:`kept` once, until the tensor changes, elsewhere each time."""
    if not _inside:
        return make(tensor)
    with _lock:
        version, found = _made.get(tensor, (None, {}))
        if version != tensor._version:
            _made[tensor] = tensor._version, (found := {})
    if make not in found:
        with _disable_current_modes():  # what watches or writes down a pass is told nothing of it
            found[make] = make(tensor)
    return found[make]


def _set(options: dict[int, int]) -> None:
    if (change := _function("mallopt")) is not None and _function("malloc_trim") is not None:  # musl has the first only
        for number, value in options.items():
            change(ctypes.c_int(number), ctypes.c_int(value))


@functools.cache
def _function(name: str) -> Any:
    """One of the C library's own, of which only glibc has these; None where it is not there."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # no such thing on this system
        return None
