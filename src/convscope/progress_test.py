"""Progress: nested loops as one fraction, nobody listening, stopping, threads."""

from __future__ import annotations

import contextvars
import itertools
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from convscope import progress
from convscope.batching import batched
from convscope.progress import Cancelled, Progress, counted, counting, listening, over, stepped, undisturbed


class Clock:
    """Stands for ``time.perf_counter``; goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", made)
    return made


def test_one_loop_by_hand(clock: Clock) -> None:
    told: list[Progress] = []
    with listening(told.append):
        for _ in over(["a", "b", "c", "d"], "windows"):
            clock.now += 2
    assert [round(now.fraction / 0.95, 6) for now in told[:-1]] == [0, 0, 0.25, 0.5, 0.75, 1]
    assert told[-1].fraction == 1
    assert [now.elapsed for now in told] == [0, 0, 2, 4, 6, 8, 8]
    assert [now.remaining for now in told[1:-1]] == [None, 6, 4, 2, 0]
    assert [now.loops[0].done for now in told[1:-1]] == [0, 1, 2, 3, 4]
    assert {(now.label, now.work) for now in told[1:-1]} == {("windows", "4 windows")}


def test_a_loop_within_a_loop_fills_one_turn_of_it(clock: Clock) -> None:
    told: list[Progress] = []
    with listening(told.append):
        for _ in over(2, "pictures"):
            for _ in over(1000, "windows"):
                clock.now += 0.01
    at = [now for now in told if now.loops and now.loops[-1].label == "windows" and now.loops[-1].done == 500]
    assert [round(now.fraction, 4) for now in at] == [round(0.95 * (n + 0.95 * 0.5) / 2, 4) for n in (0, 1)]
    assert at[0].work == "2 pictures × 1,000 windows"
    assert at[0].label == "windows"
    assert at[0].remaining == pytest.approx(5 * (1 - 0.2375) / 0.2375)


def test_the_time_left_is_of_the_first_loop_that_has_several_turns(clock: Clock) -> None:
    told: list[Progress] = []
    with listening(told.append):
        for _ in over(1, "pictures"):
            for _ in over(10, "channels"):
                clock.now += 0.01
            clock.now += 50
            for _ in over(10, "windows"):
                clock.now += 3
    at = [now for now in told if now.label == "windows" and now.loops[-1].done == 5]
    assert (at[0].spent, at[0].remaining) == (15, pytest.approx(15))
    assert at[0].work == "10 windows"


def flat(told: list[Progress]) -> list[float]:
    return [now.fraction for now in told]


def test_loops_one_after_another_never_fall_back() -> None:
    told: list[Progress] = []
    with listening(told.append):
        for _ in over(3, "a"):
            list(over(4, "b"))
            list(over(5, "c"))
        list(over(6, "d"))
    assert flat(told) == sorted(flat(told))
    assert (flat(told)[0], flat(told)[-1]) == (0, 1)
    assert all(f < 1 for f in flat(told)[:-1])


def test_a_loop_of_one_turn_covers_what_is_within_it() -> None:
    told: list[Progress] = []
    with listening(told.append):
        list(over(1, "pictures"))
        list(over(2, "steps"))
    assert flat(told) == pytest.approx([0, 0, 0, 0, 0.95 / 2, 0.95, 1])


def test_passes_count_their_pictures() -> None:
    told: list[Progress] = []
    with listening(told.append):
        list(batched(lambda part: list(over(2, "samples")), 5, 2))
    pictures = [now.loops[0].done for now in told if now.loops]
    assert sorted(set(pictures)) == [0, 2, 4, 5]
    half = next(now for now in told if len(now.loops) == 2 and now.loops[1].done == 1)
    assert half.fraction == pytest.approx(0.95 * 2 * 0.95 * 0.5 / 5)  # half of a turn of two


def test_without_a_listener_a_loop_is_the_items_themselves() -> None:
    items = [1, 2]
    assert type(over(items, "things")) is type(iter(items))
    assert list(over(3, "things")) == [0, 1, 2]
    assert list(itertools.islice(over(itertools.count(), "things"), 3)) == [0, 1, 2]
    with counting("things", 3) as counter:
        counter.turn(2)
        counter.done()


def test_without_a_listener_it_costs_next_to_nothing() -> None:
    def seconds(loop: Iterator[int]) -> float:
        start = time.perf_counter()
        for _ in loop:
            pass
        return time.perf_counter() - start

    plain = min(seconds(iter(range(200_000))) for _ in range(5))
    assert min(seconds(over(200_000, "things")) for _ in range(5)) < 3 * plain


def test_items_without_a_length_are_counted_first() -> None:
    told: list[Progress] = []
    with listening(told.append):
        assert list(over((n for n in range(3)), "things")) == [0, 1, 2]
        assert list(over((n for n in range(3)), "things", total=3)) == [0, 1, 2]
    assert {loop.total for now in told for loop in now.loops} == {3}


def test_a_listener_stops_it_and_hears_no_more() -> None:
    told: list[Progress] = []

    def stops(now: Progress) -> None:
        told.append(now)
        if now.loops and now.loops[0].done == 2:
            raise Cancelled

    done: list[int] = []
    with pytest.raises(Cancelled), listening(stops):
        done.extend(over(10, "steps"))
    assert done == [0, 1]
    with listening(stops):
        try:
            list(over(10, "steps"))
        except Cancelled:
            heard = len(told)
        list(over(10, "steps"))  # tidying up
    assert len(told) == heard


def test_steps_are_counted_in_every_block_and_stop_where_they_are_used_up() -> None:
    with counted() as outer, counted(3) as inner:
        assert [stepped() for _ in range(4)] == [False, False, True, False]
    assert (outer.done, inner.done) == (4, 4)
    with counted(2):
        stepped()
        with counted():
            assert stepped()  # the block around has no more
    assert not stepped()


def test_an_interrupt_waits_for_the_end_of_what_must_not_be_disturbed() -> None:
    done = []
    with undisturbed() as interrupt:
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done
    with pytest.raises(KeyboardInterrupt):
        interrupt.release()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with undisturbed():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):  # pressed again: at once
            signal.raise_signal(signal.SIGINT)
    with undisturbed() as interrupt:
        pass
    interrupt.release()


def test_a_cancel_passes_handlers_of_errors() -> None:
    assert not issubclass(Cancelled, Exception)


def test_a_loop_that_an_error_left_does_not_stay() -> None:
    told: list[Progress] = []
    kept = []
    with listening(told.append):
        for _ in over(2, "pictures"):
            inner = over(5, "windows")
            kept.append(inner)  # as a traceback would keep it
            next(inner)
    assert max(len(now.loops) for now in told) == 2
    assert [now.loops[0].done for now in told if len(now.loops) == 1] == [0, 1, 2]


def test_listeners_are_nested_and_each_is_told_its_own() -> None:
    outer: list[Progress] = []
    inner: list[Progress] = []
    with listening(outer.append):
        with listening(inner.append):
            list(over(3, "inside"))
        list(over(3, "outside"))
    assert {now.label for now in inner} == {"", "inside"}
    assert {now.label for now in outer} == {"", "outside"}


def test_each_thread_has_its_own_listener() -> None:
    told: dict[str, list[Progress]] = {"one": [], "two": []}
    barrier = threading.Barrier(2)

    def work(name: str) -> None:
        with listening(told[name].append):
            for _ in over(20, name):
                barrier.wait(10)

    threads = [threading.Thread(target=contextvars.copy_context().run, args=(work, name)) for name in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for name, heard in told.items():
        assert {now.label for now in heard} == {"", name}
        assert flat(heard) == sorted(flat(heard))
        assert len(heard) == 23
