from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from convscope import memory
from convscope.batching import batched
from convscope.memory import kept


def needs_glibc() -> None:
    if not memory.resident() or memory._function("malloc_trim") is None:
        pytest.skip("this system's C library gives memory back by itself, or not at all")


FAULTS = """
import contextlib, resource, sys, torch
from torch import nn
from convscope.memory import kept
torch.set_num_threads(1)
network = nn.Sequential(*[part for _ in range(3) for part in (nn.Conv2d(12, 12, 1), nn.ReLU())])
images = torch.rand(1, 12, 1024, 1024, requires_grad=True)  # maps of 48 MB
def passes(count):
    for _ in range(count):
        torch.autograd.grad(network(images).sum(), images)
with kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    passes(2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    passes(3)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_passes_over_large_maps_find_the_memory_of_the_last_one() -> None:
    needs_glibc()
    plain, inside = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("plain", "kept")
    )
    assert inside < plain / 2  # pages that the system had to clear


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, int]]:
    """What the C library was told."""
    told: list[dict[int, int]] = []
    monkeypatch.setattr(memory, "_set", told.append)
    return told


def test_blocks_inside_blocks_change_it_once(changes: list[dict[int, int]]) -> None:
    with kept():
        with kept():
            assert changes == [memory.KEEPING]
        assert changes == [memory.KEEPING]
    assert changes == [memory.KEEPING, memory.USUAL]


def test_passes_of_other_shapes_keep_what_was_made_and_no_memory(changes: list[dict[int, int]]) -> None:
    tensor = torch.ones(2)
    for _ in batched(lambda part: part, 8, 2, alike=False):
        assert memory.once(tensor, torch.neg) is memory.once(tensor, torch.neg)
    assert changes == [memory.SMALL, memory.USUAL]
    assert not memory._made


def test_blocks_of_several_threads_that_overlap(changes: list[dict[int, int]]) -> None:
    opened, closed = threading.Event(), threading.Event()

    def other() -> None:
        with kept():
            opened.set()
            closed.wait(10)

    thread = threading.Thread(target=other)
    with kept():
        thread.start()
        opened.wait(10)
    assert changes == [memory.KEEPING]
    closed.set()
    thread.join()
    assert changes == [memory.KEEPING, memory.USUAL]


def test_an_error_and_a_loop_that_is_left_end_it(changes: list[dict[int, int]]) -> None:
    with pytest.raises(ValueError, match="x"), kept():
        raise ValueError("x")
    for _ in batched(lambda part: part, 8, 2):
        break
    assert changes == [memory.KEEPING, memory.USUAL] * 2


def test_a_loop_left_open_until_python_ends_says_nothing() -> None:
    code = "from convscope.batching import batched\nopen_ = batched(lambda part: part, 8, 2)\nnext(open_)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("alike", "grown", "times"), [(False, (101, 101, 101), 3), (True, (101, 101, 202), 1)])
def test_passes_of_other_shapes_may_grow_from_the_start_and_others_from_the_first(
    monkeypatch: pytest.MonkeyPatch, alike: bool, grown: tuple[int, ...], times: int
) -> None:
    size, given = [2**30], list[int]()
    monkeypatch.setattr(memory, "resident", lambda: size[0])
    monkeypatch.setattr(memory, "give_back", lambda: given.append(size[0]))
    monkeypatch.setattr(memory, "GROWTH", 100)
    monkeypatch.setattr(memory, "SLACK", 100)
    for part in batched(lambda part: part, 3, 1, alike=alike):
        size[0] = 2**30 + grown[part.start]
    assert len([at for at in given if at > 2**30]) == times + 1  # and one behind all


@pytest.mark.parametrize("there", [{}, {"mallopt": lambda *_: 1}], ids=["neither", "musl"])
def test_other_c_libraries_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, Callable[..., Any]]
) -> None:
    called = []
    functions = {name: lambda *given: called.append(given) for name in there}
    monkeypatch.setattr(memory, "_function", functions.get)
    with kept():
        torch.ones(3)
    memory.give_back()
    assert not called


def test_freed_memory_goes_back_between_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_glibc()
    monkeypatch.setattr(memory, "GROWTH", 2**23)
    monkeypatch.setattr(memory, "SLACK", 2**23)
    pinned: list[bytearray] = []

    def scattered(_part: slice) -> None:
        """64 MB in pieces between which something small stays, so that the heap cannot shrink by itself."""
        pieces = []
        for _ in range(1000):
            pieces.append(bytearray(2**16))
            pinned.append(bytearray(600))

    before, taken = memory.resident(), []
    for _ in batched(scattered, 4, 1):
        taken.append(memory.resident() - before)
    assert max(taken) > 2**25
    assert max(taken) < 3 * 2**25  # two passes', and not four
    assert memory.resident() - before < 2**24
