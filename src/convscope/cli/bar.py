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

    def __enter__(self) -> None:
        self._spinner.start()

    def __exit__(self, *_: object) -> None:
        self._spinner.stop()
        if self._task is not None:
            self._bar.stop()

    def told(self, now: progress.Progress) -> None:
        """What :func:`convscope.progress.listening` calls."""
        if now.remaining is None or now.spent < AFTER:
            return
        if not self._cost_said and now.spent + now.remaining > LONG:
            self._cost_said = True
            self._console.print(f"about {duration(now.spent + now.remaining)}: {now.work}", markup=False)
        if now.elapsed > SHOWN and self._task is None and self._console.is_interactive:
            self._spinner.stop()
            self._task = self._bar.add_task(self._name, total=1.0, left="")
            self._bar.start()
        if self._task is not None:
            said = f"{self._name}: {now.label}" if now.label else self._name
            left = f"{now.fraction:4.0%}, {duration(now.remaining)} left"
            self._bar.update(self._task, completed=now.fraction, description=said, left=left)


AFTER = 0.5  # seconds before the time that is left is believed: the first pass of all takes longer
SHOWN = 1.0  # seconds after which a bar appears
LONG = 10.0  # seconds whose cost is said beforehand


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
