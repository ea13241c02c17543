"""How far a long computation is: told to whoever listens, and stopped by them, without passing anything down.

    def told(now: Progress) -> None:
        print(f"{now.fraction:.0%}, {now.remaining} s to go")

    with progress.listening(told):
        convscope.occlusion(network, images)

Loops say what they go over, ``for window in progress.over(windows, "windows")``, and ``batched`` says it for passes.
A loop within a loop fills the part that one turn of the outer loop has. Nothing listens by default, and then a loop
costs nothing more. What listens belongs to the context (``contextvars``): to one thread, or to one asynchronous task.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeAlias, TypeVar, overload

T = TypeVar("T")

#: Share of what is left that a loop takes where others may follow it: how many will is not known.
_SHARE = 0.95


class Cancelled(BaseException):
    """Raised by a listener to stop what is running; like an interrupt, it passes handlers of errors."""


@dataclass(frozen=True)
class Loop:
    """One of the loops that are running: ``done`` of ``total`` turns, which are ``label`` (plural, ``windows``)."""

    label: str
    done: int
    total: int


@dataclass(frozen=True)
class Progress:
    """What a listener is told.

    Attributes:
        fraction: done, in [0, 1]; never falls, begins at 0, and ends at 1 when all went well.
        elapsed: seconds since the listening began.
        spent: seconds that the outermost loop of more than one turn has taken so far.
        remaining: seconds that it takes from now on at its speed so far; None while it has none.
        loops: those that are running, the outermost first.
    """

    fraction: float
    elapsed: float
    spent: float
    remaining: float | None
    loops: Sequence[Loop]

    @property
    def label(self) -> str:
        """What the innermost loop with more than one turn goes over."""
        return next((loop.label for loop in reversed(self.loops) if loop.total > 1), "")

    @property
    def work(self) -> str:
        """What is done in all: ``3 pictures × 729 windows``."""
        return " × ".join(f"{loop.total:,} {loop.label}" for loop in self.loops if loop.total > 1)


Listener: TypeAlias = Callable[[Progress], None]


def _silent(now: Progress) -> None:
    """Listens no more."""


@dataclass(eq=False)
class _Level:
    """A loop, of whose ``total`` a ``turn`` is done at once; ``covered`` is how much of it inner loops have done."""

    label: str
    total: int
    done: int = 0
    turn: int = 1
    covered: float = 0.0
    began: float = field(default_factory=lambda: time.perf_counter())

    @property
    def single(self) -> bool:
        """Whether one turn is all of it, so that only the loops within it say how far it is."""
        return self.turn >= self.total

    def fraction(self, within: float) -> float:
        """``within`` is the fraction of the loop inside its present turn."""
        here = self.covered + _SHARE * (1 - self.covered) * within
        return here if self.single else min((self.done + self.turn * here) / self.total, 1.0)


@dataclass(eq=False)
class _Run:
    """One listener, and the loops that run for it."""

    listener: Listener
    start: float = field(default_factory=lambda: time.perf_counter())
    levels: list[_Level] = field(default_factory=lambda: [_Level("", 1)])
    last: float = 0.0

    def enter(self, label: str, total: int) -> _Level:
        self.levels.append(_Level(label, total))
        self.tell()
        return self.levels[-1]

    def advance(self, level: _Level) -> None:
        self._drop_inside(level)
        level.done += level.turn
        level.covered = level.covered if level.single else 0.0
        self.tell()

    def leave(self, level: _Level) -> None:
        """All of its share is covered now; of a loop of one turn only what the loops within it have covered."""
        if level not in self.levels:
            return
        self._drop_inside(level)
        outer = self.levels[self.levels.index(level) - 1]
        whole = level.covered if level.single else 1.0
        outer.covered += _SHARE * (1 - outer.covered) * whole
        self.levels.remove(level)

    def _drop_inside(self, level: _Level) -> None:
        """Loops that an error left behind."""
        if level in self.levels:
            del self.levels[self.levels.index(level) + 1 :]

    def _fraction(self, levels: Sequence[_Level]) -> float:
        found = 0.0
        for level in reversed(levels):
            found = level.fraction(found)
        return found

    def _times(self, now: float) -> tuple[float, float | None]:
        """Seconds that the outermost loop of several turns has taken, and those that it will take."""
        place = next((i for i, level in enumerate(self.levels) if not level.single), len(self.levels))
        if place == len(self.levels):
            return 0.0, None
        spent, share = now - self.levels[place].began, self._fraction(self.levels[place:])
        return spent, spent * (1 - share) / share if share > 0 else None

    def tell(self, whole: bool = False) -> None:
        now = time.perf_counter()
        self.last = 1.0 if whole else max(self.last, self._fraction(self.levels))
        spent, remaining = self._times(now)
        loops = tuple(Loop(level.label, level.done, level.total) for level in self.levels[1:])
        try:
            self.listener(Progress(self.last, now - self.start, spent, 0.0 if whole else remaining, loops))
        except Cancelled:
            self.listener = _silent  # what is stopped may still tidy up and hand back what it has
            raise


# ---- steps of an optimisation


@dataclass(eq=False)
class Steps:
    """How many steps were ``done`` in a block, of ``most`` at most, and the block around it."""

    most: int | None = None
    around: Steps | None = None
    done: int = 0


_steps: ContextVar[Steps | None] = ContextVar("convscope_steps", default=None)


@contextmanager
def counted(most: int | None = None) -> Iterator[Steps]:
    """Count the steps that are done in this block.

    After ``most`` of them :class:`Cancelled` is raised, as if the user had stopped there: that is how a picture of a
    run that was stopped is made again.
    """
    steps = Steps(most, _steps.get())
    token = _steps.set(steps)
    try:
        yield steps
    finally:
        _steps.reset(token)


def stepped() -> bool:
    """Said by a loop when a step is done and all is as the next one needs it; whether no more are wanted."""
    used_up, steps = False, _steps.get()
    while steps is not None:
        steps.done += 1
        used_up = used_up or steps.done == steps.most
        steps = steps.around
    return used_up


@dataclass
class Held:
    """Whether Ctrl-C was ``pressed`` in a block that held it back."""

    pressed: bool = False

    def release(self) -> None:
        """Interrupt now what was to be interrupted then."""
        if self.pressed:
            raise KeyboardInterrupt


@contextmanager
def undisturbed() -> Iterator[Held]:
    """Hold Ctrl-C back in this block, so that no step is left half done; pressed twice it gets through."""
    held = Held()

    def hold(number: int, frame: FrameType | None) -> None:
        if held.pressed:
            raise KeyboardInterrupt
        held.pressed = True

    main = threading.current_thread() is threading.main_thread()  # the one that is interrupted
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield held
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_listening: ContextVar[_Run | None] = ContextVar("convscope_progress", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of every turn of every loop in this block, and once at its end.

    The listener may raise: :class:`Cancelled` stops the computation between two passes and comes out of this block,
    unless a technique hands back what it has so far. It is told no more after that.
    """
    run = _Run(listener)
    token = _listening.set(run)
    try:
        run.tell()
        yield
        run.tell(whole=True)
    finally:
        _listening.reset(token)


@overload
def over(items: int, label: str, total: int | None = None) -> Iterator[int]: ...
@overload
def over(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]: ...
def over(items: Iterable[T] | int, label: str, total: int | None = None) -> Iterator[T] | Iterator[int]:
    """The items one by one, or the numbers below ``items``, telling the listener before each and after the last.

    Args:
        items: to go over; what has no length is gone over at once to know its number, unless ``total`` says it.
        label: what they are, in the plural: ``windows``.
        total: how many there are.
    """
    found: Iterable = range(items) if isinstance(items, int) else items
    run = _listening.get()
    if run is None:
        return iter(found)
    if total is None and not hasattr(found, "__len__"):
        found = list(found)
    return _counted(run, found, label, len(found) if total is None else total)  # type: ignore[arg-type]


def _counted(run: _Run, items: Iterable[T], label: str, total: int) -> Iterator[T]:
    with counting(label, total, run) as counter:
        for item in items:
            yield item
            counter.done()


@contextmanager
def counting(label: str, total: int, run: _Run | None = None) -> Iterator[Counter]:
    """A loop that says itself how far it is, for turns of several at once."""
    run = run or _listening.get()
    if run is None:
        yield Counter()
        return
    level = run.enter(label, total)
    try:
        yield _Counter(run, level)
    finally:
        run.leave(level)


class Counter:
    """How a loop says how far it is; this one says it to nobody."""

    def turn(self, size: int) -> None:
        """The turn that begins is of so many, 1 if nothing is said."""

    def done(self) -> None:
        """A turn is over."""


class _Counter(Counter):
    """Says it to a listener."""

    def __init__(self, run: _Run, level: _Level) -> None:
        self._run, self._level = run, level

    def turn(self, size: int) -> None:
        self._level.turn = size

    def done(self) -> None:
        self._run.advance(self._level)
