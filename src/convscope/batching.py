"""Many pictures in passes of a bounded size: the one place that looks after memory.

Running out of it halves the passes. And what passes of ever other shapes have freed is given back: the C library of
Linux keeps it, in pieces that fit nothing else, so that a process whose tensors take 0.4 GB can grow to 2.5 GB.
"""

from __future__ import annotations

import ctypes
import functools
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from convscope.progress import Counter, counting

T = TypeVar("T")
GROWTH = 384 * 2**20  # bytes by which passes may make the process grow before what they freed is given back
PAGE = 4096  # bytes; where pages are larger, memory is given back sooner than need be


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU of any system."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)


def batched(run: Callable[[slice], T], count: int, size: int, label: str = "pictures") -> Iterator[T]:
    """``run`` on consecutive slices of ``count`` pictures, at most ``size`` at once; half of it after out-of-memory.

    ``label`` is what they are called where progress is told. Raises the error of the last try when not even one
    picture fits.
    """
    before = resident()
    with counting(label, count) as counter:
        for found in _passes(run, count, size, counter):
            yield found
            counter.done()
            del found
            if resident() - before > GROWTH:
                give_back()


def resident() -> int:
    """Bytes of memory that this process takes; 0 where the system does not say so cheaply."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


@functools.cache
def _trim() -> Any:
    """The C library's function that gives freed memory back, of which only glibc has one."""
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no such thing on this system
        return None


def give_back() -> None:
    """Return freed memory to the system, where the C library holds on to it."""
    if (trim := _trim()) is not None:
        trim(ctypes.c_size_t(0))


def _passes(run: Callable[[slice], T], count: int, size: int, counter: Counter) -> Iterator[T]:
    start = 0
    while start < count:
        part = slice(start, min(start + size, count))
        counter.turn(part.stop - part.start)
        try:
            found = run(part)
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size = max(1, min(size, count - start) // 2)
            failed = True
        else:
            failed = False
        if failed:  # outside the handler, whose traceback holds the tensors that did not fit
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield found
        start = part.stop
