"""Trainings that take hours: they can be stopped at any time, and keep what they have."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from convscope import progress
from convscope.errors import OptionError, OutputError
from convscope.images import atomic_write
from convscope.optimize import State, save_state


class Resumable(Protocol):
    """A step of a training that can be taken up again behind it."""

    @property
    def number(self) -> int: ...
    @property
    def loss(self) -> float: ...
    def state(self) -> State: ...


S = TypeVar("S", bound=Resumable)


@dataclass
class Trained(Generic[S]):
    """How a training ended: behind its last step, with the losses of the last hundred, and what to know of it."""

    last: S
    state: Path
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    notes: list[str] = field(default_factory=list)
    wrote: list[Path] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many were done, those before it was taken up again included."""
        return self.last.number

    @property
    def loss(self) -> float:
        """Mean of the last hundred steps."""
        return sum(self.losses) / max(1, len(self.losses))

    def wrote_first(self, path: Path) -> Trained[S]:
        """Now that the weights are safe: what a finished training would go on from is removed."""
        self.wrote.insert(0, path)
        if not self.notes:
            self.state.unlink(missing_ok=True)
        return self


def taken_up(state: State, mine: Mapping[str, Any], kind: str, needed: str, command: str) -> State:
    """The saved state, once it is known to belong to this training.

    Args:
        state: what was saved.
        mine: what this training was asked for, as the state's ``recipe`` holds it.
        kind: of training, for the sentence.
        needed: a key that every state of this kind has.
        command: what writes such states.

    Raises :class:`OptionError` for the state of another training, with what differs.
    """
    saved = state.get("recipe")
    if not isinstance(saved, dict) or needed not in state:
        raise OptionError(f"the saved state is of no {kind}; `convscope {command}` writes those")
    other = [name for name in mine if saved.get(name) != mine[name]]
    if other:
        raise OptionError(
            f"the saved state belongs to another training: its {other[0]} was {saved.get(other[0])!r} and is now "
            f"{mine[other[0]]!r}; give the same options as then, or leave out --resume"
        )
    return state


def descend(optimizer: Optimizer, parameters: Sequence[Parameter], slopes: Sequence[Tensor], rate: float) -> None:
    """One step of the optimizer at this rate, against gradients that were had by ``convscope.backward.gradient``."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.grad = slope
    optimizer.step()


def writable(path: Path, suffix: str) -> Path:
    """The path, checked before hours of training and not after them."""
    if path.suffix != suffix:
        raise OutputError(f"{path}: these weights are written as {suffix}; end the name in it")
    probe = path.with_suffix(".probe")
    with atomic_write(probe):
        pass
    probe.unlink()
    return path


def gone_through(state: Path, steps: Iterable[S], total: int, *, every: int) -> Trained[S]:
    """Go through a training; where it is stopped by an interrupt, what it goes on from is written to ``state``.

    Args:
        state: written every so many steps as well, for a training that breaks.
        steps: what a training yields.
        total: steps that were asked for, for the sentence on a training that was stopped.
        every: of how many steps the state is written.

    Raises :class:`OptionError` when there was nothing left to do.
    """
    found: Trained[S] | None = None
    try:
        for step in steps:
            found = found or Trained(step, state)
            found.last = step
            found.losses.append(step.loss)
            if step.number % every == 0 and step.number < total:
                save_state(state, step.state())
    except (KeyboardInterrupt, progress.Cancelled):
        if found is None:
            raise
        save_state(state, found.last.state())
        found.notes.append(f"stopped after {found.steps} of {total} steps; --resume {state} goes on")
        found.wrote.append(state)
    if found is None:
        raise OptionError(f"this training had its {total} steps already; ask for more, or leave out --resume")
    return found
