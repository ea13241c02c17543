"""Many pictures in passes of a bounded size: the one place that answers running out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU of any system."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)


def batched(run: Callable[[slice], T], count: int, size: int) -> Iterator[T]:
    """``run`` on consecutive slices of ``count`` pictures, at most ``size`` at once; half of it after out-of-memory.

    Raises the error of the last try when not even one picture fits.
    """
    start = 0
    while start < count:
        part = slice(start, min(start + size, count))
        try:
            done = run(part)
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
        yield done
        start = part.stop
