"""Many pictures in passes of a bounded size. Running out of memory halves the passes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from convscope import memory
from convscope.progress import Counter, counting

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the CPU of any system."""
    said = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)


def batched(
    run: Callable[[slice], T], count: int, size: int, label: str = "pictures", *, alike: bool = True
) -> Iterator[T]:
    """``run`` on consecutive slices of ``count`` pictures, at most ``size`` at once; half of it after out-of-memory.

    ``label`` is what they are called where progress is told, and ``alike`` whether all passes have maps of the same
    shapes, so that memory may stay at hand from one to the next. Raises the error of the last try when not even one
    picture fits.
    """
    level, most = (0, memory.SLACK) if alike else (memory.resident(), memory.GROWTH)
    with memory.kept(freed=alike), counting(label, count) as counter:
        for found in _passes(run, count, size, counter):
            yield found
            counter.done()
            del found
            level = level or memory.resident()  # that of passes of this kind
            if memory.resident() - level > most:
                memory.give_back()


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
