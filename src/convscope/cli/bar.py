"""How far a command is, on standard error: a spinner, then a bar with the time that is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from convscope import progress


def make_console(quiet: bool) -> Console:
    """Where progress, notes and errors go."""
    from rich.console import Console

    return Console(stderr=True, quiet=quiet, highlight=False)


@contextmanager
def watched(console: Console, name: str) -> Iterator[None]:
    """Show how far what runs in this block is: a bar after a second, and what it will cost where that is long."""
    from convscope import progress

    bar = _Bar(console, name)
    with bar, progress.listening(bar.told):
        yield


class _Forecast:
    """How many seconds a loop takes in all, by its speed since its first turn.

    The first turn also sets up what the others find ready; on a cold start it may take a hundred times as long.
    """

    def __init__(self) -> None:
        self._spent, self._share = 0.0, 1.0

    def seconds(self, now: progress.Progress) -> float | None:
        """None while there is too little to tell by."""
        if now.remaining is None:
            return None
        whole = now.spent + now.remaining
        share = now.spent / whole if whole else 0.0
        if share < self._share:  # the first turn, of this loop or of the next
            self._spent, self._share = now.spent, share
        if share > self._share and now.spent - self._spent >= AFTER:
            return self._spent + (now.spent - self._spent) * (1 - self._share) / (share - self._share)
        return whole if now.spent >= ENOUGH else None


class _Bar:
    """A spinner, and a bar with the time that is left once it takes longer than a second."""

    def __init__(self, console: Console, name: str) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._console, self._name = console, name
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=console, transient=True)
        self._spinner = console.status(f"{name} …")
        self._task: TaskID | None = None
        self._cost_said = False
        self._forecast = _Forecast()

    def __enter__(self) -> None:
        self._spinner.start()

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()
        if self._task is not None:
            self._bar.stop()

    def told(self, now: progress.Progress) -> None:
        """What :func:`convscope.progress.listening` calls."""
        seconds = self._forecast.seconds(now)
        if seconds is None:
            return
        if not self._cost_said and seconds > LONG:
            self._cost_said = True
            self._console.print(f"about {duration(seconds)}: {now.work}", markup=False)
        if now.elapsed > SHOWN and self._task is None and self._console.is_interactive:
            self._spinner.stop()
            self._task = self._bar.add_task(self._name, total=1.0, left="")
            self._bar.start()
        if self._task is not None:
            said = f"{self._name}: {now.label}" if now.label else self._name
            left = f"{now.fraction:4.0%}, {duration(max(seconds - now.spent, 0.0))} left"
            self._bar.update(self._task, completed=now.fraction, description=said, left=left)


AFTER = 0.5  # seconds behind the first turn before the time that is left is believed
ENOUGH = 5.0  # seconds after which the first turn alone is believed
SHOWN = 1.0  # seconds after which a bar appears
LONG = 10.0  # seconds whose cost is said beforehand


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
