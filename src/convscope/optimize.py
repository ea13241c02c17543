"""The one loop behind every picture that is made by optimisation.

    for step in optimize(network, objective, parameterization, steps=256):
        step.images      # (N, 3, H, W) as they are now

Class images, dreams, inversions, textures, styles and attacks differ in what they maximise (``objectives``), in what is
moved (``parameterizations``), in what is held against it (``regularizers``) and in how the network gets to see it
(``transforms``). The network runs no further than the deepest layer that the objective reads, and only the picture's
gradient is computed. Objectives are maximised; the sign flips here, once, for torch's optimisers.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from convscope import memory, progress
from convscope.backward import REDIRECTED, gradient
from convscope.errors import ConvscopeError, OptionError, RuleError
from convscope.hooks import observe
from convscope.images import atomic_write
from convscope.network import Network, laid_out
from convscope.objectives import Objective
from convscope.parameterizations import Parameterization, Pixels
from convscope.regularizers import Operation, Penalty, Regularizer, Shaping
from convscope.transforms import Transform, viewed

Optimiser: TypeAlias = Literal["adam", "sgd", "lbfgs"] | Callable[[list[Tensor], float], Optimizer]
State: TypeAlias = dict[str, Any]
MOST_HALVINGS = 8  # of the rate, before a run that overflows is given up


class NotFinite(ConvscopeError):
    """The objective overflowed, also at ever smaller steps."""


@runtime_checkable
class Swept(Protocol):
    """An objective that goes over the picture by itself, part by part, to save memory."""

    def sweep(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) scores of (N, 3, H, W) pictures, and their derivatives by the pixels."""
        ...


@dataclass(frozen=True)
class Step:
    """What one step found, and the pictures after it.

    Attributes:
        number: steps done, from 1.
        score: (N,) of the pictures before the step, penalties not counted, averaged over views.
        penalty: (N,) that was taken off it.
        stopped: why the run ends here before its time, or empty.
    """

    number: int
    score: Tensor
    penalty: Tensor
    stopped: str
    _loop: _Loop

    @cached_property
    def images(self) -> Tensor:
        """(N, 3, H, W), detached; of this moment, so read it before the next step."""
        with torch.no_grad():
            return self._loop.parameterization.images().detach().clone()

    def state(self) -> State:
        """All that is needed to go on from here: ``optimize(..., resume=state)``."""
        return self._loop.state()


def optimize(
    network: Network,
    objective: Objective | Swept,
    parameterization: Parameterization,
    *,
    steps: int,
    optimizer: Optimiser = "adam",
    rate: float = 0.05,
    regularizers: Sequence[Regularizer] = (),
    transforms: Sequence[Transform] = (),
    view: tuple[int, int] | None = None,
    seed: int = 0,
    resume: State | None = None,
    revive: bool = False,
) -> Iterator[Step]:
    """Move the parameters so that each picture's score rises.

    Args:
        network: whose activations the objective reads.
        objective: maximised, one score a picture. One that has ``sweep`` computes its own derivatives.
        parameterization: the pictures, and what is moved.
        steps: how many; one evaluation of score and gradient each.
        optimizer: ``adam``, ``sgd`` or ``lbfgs`` (for one picture, without line search), or a function from
            parameters and rate to a torch optimiser.
        rate: its learning rate, of the parameters' unit.
        regularizers: penalties, operations and shapings, in the order in which they act.
        transforms: random views, drawn anew at each step; all pictures get the same.
        view: (h, w) that views are cropped or padded to, for networks that take one size only.
        seed: of the views.
        resume: what :meth:`Step.state` gave; the run goes on as if it had never stopped.
        revive: for units behind a rectifier: while a picture's score is exactly zero, so that it has no gradient, it
            moves along the one that rectifiers do not stop (:data:`convscope.backward.REDIRECTED`).

    Yields:
        A :class:`Step` after each step. Where score or gradient overflow, the loop steps back to the last picture that
        had them, halves the rate and starts the optimiser anew; after eight times it ends with ``stopped`` set.

    Raises:
        OptionError: what does not go together, or a state of another run.
        NotFinite: the very first picture has no finite score.
    """
    loop = _Loop(network, objective, parameterization, optimizer, rate, regularizers, transforms, view, seed, revive)
    if resume is not None:
        loop.restore(resume)
    watcher = _watcher.get()
    with memory.kept():
        for _ in progress.over(range(loop.number, steps), "steps"):
            with progress.undisturbed() as interrupt:
                step = loop.advance()
                enough = progress.stepped()
            if watcher is not None:
                watcher(step)
            yield step
            interrupt.release()
            if enough:
                raise progress.Cancelled
            if step.stopped:
                return


_watcher: ContextVar[Callable[[Step], None] | None] = ContextVar("convscope_watcher", default=None)


@contextmanager
def watching(watcher: Callable[[Step], None]) -> Iterator[None]:
    """Show ``watcher`` each step of every run in this block, whichever technique makes it."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


class _Overflow(Exception):
    """Score or gradient is not finite."""


class _Loop:
    """Everything that a run carries from step to step."""

    def __init__(
        self, network: Network, objective: Objective | Swept, parameterization: Parameterization,
        optimizer: Optimiser, rate: float, regularizers: Sequence[Regularizer], transforms: Sequence[Transform],
        view: tuple[int, int] | None, seed: int, revive: bool,
    ) -> None:  # fmt: skip
        self.network, self.objective, self.parameterization = network, objective, parameterization
        self._kind, self._rate, self._regularizers = optimizer, rate, regularizers
        self._transforms, self._view, self._revive = transforms, view, revive
        self._generator = torch.Generator().manual_seed(seed)
        self._halvings = 0
        self.number = 0
        self._parameters = parameterization.parameters()
        self._check()
        self._optimizer = self._made()
        self._good: list[Tensor] | None = None

    def _check(self) -> None:
        if any(isinstance(r, Operation) for r in self._regularizers) and not isinstance(self.parameterization, Pixels):
            raise OptionError("blur, decay and clipping act on pixels; choose the pixel parameterization for them")
        if isinstance(self.objective, Swept) and self._transforms:
            raise OptionError("a picture that is gone over in tiles has no random views; leave out the transforms")
        if self._kind == "lbfgs" and any(len(p) > 1 for p in self._parameters):
            raise OptionError("lbfgs optimises one picture at a time, since it mixes what it moves; choose adam")

    def _made(self) -> Optimizer:
        if callable(self._kind):
            return self._kind(self._parameters, self._rate)
        if self._kind == "lbfgs":
            return torch.optim.LBFGS(
                self._parameters, lr=self._rate, max_iter=1, history_size=20, tolerance_grad=0.0, tolerance_change=0.0
            )
        return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self._kind](self._parameters, lr=self._rate)

    # ---- one step

    def advance(self) -> Step:
        """One step, or several tries of it where it overflows."""
        while True:
            try:
                return self._tried()
            except _Overflow:
                stopped = self._step_back()
                if stopped:
                    return Step(self.number, self._score, self._penalty, stopped, self)

    def _tried(self) -> Step:
        with torch.enable_grad():
            self._optimizer.step(self._evaluated)
        for operation in (r for r in self._regularizers if isinstance(r, Operation)):
            self._operate(operation)
        self.parameterization.project()
        self.number += 1
        return Step(self.number, self._score, self._penalty, "", self)

    def _evaluated(self) -> float:
        """Sets the parameters' gradients, and returns what torch minimises."""
        images = self.parameterization.images()
        score, penalty, slopes = self._swept(images) if isinstance(self.objective, Swept) else self._seen(images)
        if not _finite(score, penalty, *slopes):
            raise _Overflow
        self._score, self._penalty = torch.stack([score.detach(), penalty.detach()]).cpu()
        self._good = [p.detach().clone() for p in self._parameters]
        for parameter, slope in zip(self._parameters, slopes, strict=True):
            for shaping in (r for r in self._regularizers if isinstance(r, Shaping)):
                slope = shaping(slope, self.number)
            parameter.grad = (-slope).contiguous()  # of a channels-last pass it is not, and lbfgs flattens it
        return float((self._penalty - self._score).sum())

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """Score, penalty and their gradient, through the network at once."""
        assert isinstance(self.objective, Objective)
        views = images
        if self._transforms or self._view:
            views = viewed(images, self._transforms, self._generator, size=self._view)
        found = self.objective(observe(self.network, laid_out(views), self.objective.layers)).float()
        score = found.view(-1, len(images)).mean(0).to(images.device)  # the picture may live elsewhere
        penalty = self._penalised(images)
        silent = (score.detach() == 0) if self._revive else None
        if silent is None or not bool(silent.any()):
            return score, penalty, gradient(score - penalty, self._parameters)
        slopes = gradient(score - penalty, self._parameters, retain_graph=True)
        return score, penalty, self._revived(silent, score - penalty, slopes)

    def _revived(self, silent: Tensor, wanted: Tensor, slopes: Sequence[Tensor]) -> Sequence[Tensor]:
        """The slopes, those of silent pictures as if no rectifier stopped the signal."""
        try:
            through = gradient(wanted, self._parameters, REDIRECTED)
        except RuleError:  # no rectifier is to blame
            return slopes
        return [
            torch.where(silent.view(-1, *[1] * (slope.ndim - 1)), other, slope) if len(slope) == len(silent) else slope
            for slope, other in zip(slopes, through, strict=True)
        ]

    def _swept(self, images: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor]]:
        """The same where the objective goes over the picture by itself."""
        assert isinstance(self.objective, Swept)
        score, slopes = self.objective.sweep(self.network, images.detach())
        penalty = self._penalised(images)
        through = (images * slopes.to(images)).flatten(1).sum(1) - penalty
        return score.float(), penalty, gradient(through, self._parameters)

    def _penalised(self, images: Tensor) -> Tensor:
        found = [r(images) for r in self._regularizers if isinstance(r, Penalty)]
        return torch.stack(found).sum(0) if found else images.new_zeros(len(images))

    def _operate(self, operation: Operation) -> None:
        assert isinstance(self.parameterization, Pixels)
        pixels = self.parameterization.pixels
        assert pixels.grad is not None
        with torch.no_grad():
            pixels.copy_(operation(pixels, -pixels.grad, self.number))

    def _step_back(self) -> str:
        """To the last picture with a finite score, at half the rate; why that cannot be done any more, or nothing."""
        if self._good is None:
            raise NotFinite(
                f"the objective of {self.network.name} is not finite on the picture that this starts from; try "
                "--precision float32, another start, or smaller weights"
            )
        with torch.no_grad():
            for parameter, good in zip(self._parameters, self._good, strict=True):
                parameter.copy_(good)
        if self._halvings == MOST_HALVINGS:
            return (
                f"the objective overflowed at step {self.number + 1}, also at {self._rate:g} of a rate; here is "
                "the last picture before; lower --rate or use --precision float32"
            )
        self._halvings += 1
        self._rate /= 2
        self._optimizer = self._made()
        return ""

    # ---- to go on later

    def state(self) -> State:
        """Copies of all that changes."""
        return {
            "number": self.number, "rate": self._rate, "halvings": self._halvings,
            "parameters": [p.detach().cpu().clone() for p in self._parameters],
            "optimizer": copy.deepcopy(self._optimizer.state_dict()), "generator": self._generator.get_state(),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Takes up where :meth:`state` was taken."""
        shapes = [list(p.shape) for p in state["parameters"]]
        wanted = [list(p.shape) for p in self._parameters]
        if shapes != wanted:
            raise OptionError(
                f"the saved state belongs to another run: it moves {shapes} numbers, this one {wanted}; give the same "
                "options as then, or leave out --resume"
            )
        self.number, self._rate, self._halvings = state["number"], state["rate"], state["halvings"]
        with torch.no_grad():
            for parameter, saved in zip(self._parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        self._optimizer = self._made()
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])


def _finite(*values: Tensor) -> bool:
    """Whether all are, asked at once: only of infinities and of nan is zero times their sum not zero."""
    return bool(torch.stack([(v.detach() * 0).sum().float() for v in values]).sum() == 0)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, whole or not at all."""
    with atomic_write(path) as temporary:
        torch.save(dict(state), temporary)


def load_state(path: Path) -> State:
    """Read a state; no code in the file is run. OptionError when it is none."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OptionError(f"no file {path} to go on from; a stopped run writes one beside its picture") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
        raise OptionError(f"{path} is no saved state of a run ({type(error).__name__})") from None
    if not isinstance(found, dict) or "parameters" not in found:
        raise OptionError(f"{path} is no saved state of a run; a stopped run writes one beside its picture")
    return found
