from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from convscope.batching import batched, is_out_of_memory


class Memory:
    """Runs slices of which only so many pictures fit; notes the sizes that were tried."""

    def __init__(self, fits: int, error: Callable[[], BaseException] = lambda: torch.OutOfMemoryError("full")) -> None:
        self.fits, self.error, self.tried = fits, error, list[int]()

    def __call__(self, part: slice) -> list[int]:
        pictures = list(range(1000))[part]
        self.tried.append(len(pictures))
        if len(pictures) > self.fits:
            raise self.error()
        return pictures


def flat(memory: Memory, count: int, size: int) -> list[int]:
    return [picture for part in batched(memory, count, size) for picture in part]


@pytest.mark.parametrize(("count", "size"), [(1, 1), (1, 8), (7, 3), (8, 4), (9, 4), (5, 100)])
def test_each_picture_once_and_in_order(count: int, size: int) -> None:
    memory = Memory(fits=1000)
    assert flat(memory, count, size) == list(range(count))
    assert max(memory.tried) <= size
    assert len(memory.tried) == -(-count // size)


def test_no_pictures_no_passes() -> None:
    memory = Memory(fits=1)
    assert flat(memory, 0, 4) == []
    assert memory.tried == []


def test_halves_what_does_not_fit_and_stays_with_it() -> None:
    memory = Memory(fits=3)
    assert flat(memory, 20, 16) == list(range(20))
    assert memory.tried == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]


def test_halves_the_pictures_there_are_and_not_the_limit() -> None:
    memory = Memory(fits=3)
    assert flat(memory, 6, 1024) == list(range(6))
    assert memory.tried == [6, 3, 3]


def test_memory_that_runs_out_later() -> None:
    memory = Memory(fits=4)
    found = []
    for part in batched(memory, 12, 4):
        found += part
        memory.fits = 1
    assert found == list(range(12))
    assert memory.tried == [4, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: MemoryError(),
        lambda: RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:81] DefaultCPUAllocator: not enough memory: you tried"),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"),
    ],
    ids=["cuda", "python", "linux", "windows", "mps"],
)
def test_every_way_of_running_out(error: Callable[[], BaseException]) -> None:
    assert is_out_of_memory(error())
    memory = Memory(2, error)
    assert flat(memory, 5, 4) == list(range(5))
    assert memory.tried == [4, 2, 2, 1]
    with pytest.raises(type(error())):
        flat(Memory(0, error), 5, 4)


def test_out_of_memory_for_real() -> None:
    def run(part: slice) -> int:
        pictures = part.stop - part.start
        torch.empty((2**61 if pictures > 2 else 1,), dtype=torch.uint8)
        return pictures

    assert list(batched(run, 4, 4)) == [2, 2]


def test_one_picture_that_does_not_fit_is_an_error() -> None:
    memory = Memory(fits=0)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        flat(memory, 5, 4)
    assert memory.tried == [4, 2, 1]


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), KeyboardInterrupt()], ids=type)
def test_other_errors_are_no_matter_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)
    memory = Memory(fits=2, error=lambda: error)
    with pytest.raises(type(error)):
        flat(memory, 8, 4)
    assert memory.tried == [4]


def test_what_did_not_fit_is_let_go_before_the_next_try() -> None:
    tried: list[weakref.ref[Tensor]] = []

    def run(part: slice) -> int:
        assert all(reference() is None for reference in tried)
        large = torch.zeros(part.stop - part.start)
        tried.append(weakref.ref(large))
        if len(large) > 1:
            raise torch.OutOfMemoryError("full")
        return len(large)

    gc.disable()
    try:
        assert list(batched(run, 2, 2)) == [1, 1]
    finally:
        gc.enable()
