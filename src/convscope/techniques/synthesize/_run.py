"""What the techniques that make pictures share: a run that can be stopped and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope.errors import OptionError
from convscope.hooks import OUTPUT, observe
from convscope.images import resize
from convscope.network import Network, laid_out
from convscope.optimize import State, Step, load_state
from convscope.progress import Cancelled

Every = Annotated[int, Field(ge=0, description="keep the picture of every so many steps, for an animation; 0: none")]
Resume = Annotated[
    str | Path | None, Field(description="state of a stopped run, which goes on from there with the same options")
]
Steps = Annotated[int, Field(ge=1, description="steps of the optimisation, one pass forward and back each")]
OTHER = "the saved state belongs to another run; give the same picture and the options of then, or leave out --resume"


@dataclass
class Run:
    """What a run gave.

    ``images`` (N, 3, H, W) clipped to [0, 1]; ``trace`` (steps, N) scores; ``frames`` for :class:`Synthesis`;
    ``notes`` why it ended early; ``state`` to go on from where it was stopped by the user.
    """

    images: Tensor
    trace: Tensor
    frames: list[tuple[int, Tensor]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    state: State | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of a ``Synthesis`` of those names."""
        return {"values": self.images, "trace": self.trace, "frames": self.frames, "state": self.state}

    def apart(self) -> list[Run]:
        """A run a picture."""
        return [replace(self, images=i[None], trace=t[:, None]) for i, t in zip(self.images, self.trace.T, strict=True)]

    def kept(self) -> dict[str, Any]:
        """What a state holds of a run that is finished."""
        return {"images": self.images, "trace": self.trace, "frames": self.frames, "notes": self.notes}


def collected(
    steps: Iterator[Step], *, every: int = 0, total: int = 0, begun: Mapping[str, Any] | None = None
) -> Run:  # fmt: skip
    """Go through a run to its end, or to where it is stopped: an interrupt after the first step keeps what is there.

    Args:
        steps: from :func:`convscope.optimize.optimize`.
        every: of how many steps a frame is kept; 0 keeps none.
        total: steps that were asked for, for the sentence on a run that was stopped.
        begun: the state that it goes on from, with the scores and frames of before.
    """
    scores: list[Tensor] = list((begun or {}).get("scores", ()))
    frames: list[tuple[int, Tensor]] = list((begun or {}).get("frames", ()))
    notes: list[str] = []
    step, state = None, None
    try:
        for step in steps:
            scores.append(step.score)
            if every and step.number % every == 0:
                frames.append((step.number, eight_bit(step.images)))
            if step.stopped:
                notes.append(step.stopped)
    except (KeyboardInterrupt, Cancelled):
        if step is None:
            raise
        state = {**step.state(), "scores": scores, "frames": frames, "images": step.images.cpu().clamp(0, 1)}
        notes.append(f"stopped after {step.number} of {total} steps")
    if step is None and begun:  # stopped after its last step
        return Run(begun["images"], torch.stack(scores), frames)
    if step is None:
        raise ValueError("a run of no steps has no picture")
    return Run(step.images.cpu().clamp(0, 1), torch.stack(scores), frames, notes, state)


class Sitting:
    """The runs of one call, one after another, so that it can be stopped in any of them and taken up again.

    A state holds the runs that were finished, and where the one was that was stopped. :meth:`run` hands the finished
    ones back without repeating them, goes on with that one, and makes the others.
    """

    def __init__(self, state: str | Path | None, *, every: int = 0) -> None:
        self._every = every
        self._begun: State | None = None if state is None else load_state(Path(state))
        found = (self._begun or {}).get("finished", [])
        self._finished = [Run(**kept) for kept in found]
        self._done: list[Run] = []

    def run(self, steps: Callable[[State | None], Iterator[Step]], *, total: int = 0) -> Run:
        """The next run; ``steps`` makes it, from the state that it was in or from its beginning."""
        return self.made(lambda begun: collected(steps(begun), every=self._every, total=total, begun=begun))

    def made(self, make: Callable[[State | None], Run]) -> Run:
        """The same for a run that is not a loop of steps."""
        if len(self._done) < len(self._finished):
            found = self._finished[len(self._done)]
        else:
            begun, self._begun = self._begun, None
            found = make(begun if begun and begun["parameters"] else None)  # else stopped between two runs
        if found.state is not None:
            found.state = {**found.state, **self.between()}
        self._done.append(found)
        return found

    def between(self) -> State:
        """The runs that are finished."""
        return {"finished": [run.kept() for run in self._done]}

    def stopped(self, run: Run, after: str) -> Run:
        """The last run, where the user stops before the next one has made a step."""
        state = {"parameters": [], **self.between()}
        return replace(run, state=state, notes=[*run.notes, f"stopped after {after}"])

    def through(self, runs: Iterable[Run]) -> Run:
        """The runs as one, up to the one that the user stops; those behind it are not begun."""
        found: list[Run] = []
        try:
            for run in runs:
                found.append(run)
                if run.state is not None:
                    break
        except (KeyboardInterrupt, Cancelled):
            if not found:
                raise
            found[-1] = self.stopped(found[-1], f"{len(found)} of several parts")
        if len(self._finished) > len(self._done) or self._begun:
            raise OptionError(OTHER)
        return joined(found)


def joined(runs: Sequence[Run]) -> Run:
    """The runs of passes that follow each other as one."""
    steps = min(len(run.trace) for run in runs)
    frames = [
        (parts[0][0], torch.cat([frame for _, frame in parts]))
        for parts in zip(*(run.frames for run in runs), strict=False)
    ]
    return Run(
        torch.cat([run.images for run in runs]), torch.cat([run.trace[:steps] for run in runs], 1), frames,
        list(dict.fromkeys(note for run in runs for note in run.notes)), runs[-1].state,
    )  # fmt: skip


def at_most(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) in their proportions with the longer side at most ``side``; smaller ones as they are."""
    height, width = images.shape[-2:]
    share = side / max(height, width)
    if share >= 1:
        return images
    return resize(images, (max(1, round(height * share)), max(1, round(width * share))))


def eight_bit(images: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] as uint8, rounded."""
    return (images.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def seen_again(network: Network, images: Tensor) -> Tensor:
    """(N, classes) logits of pictures as an 8-bit file holds them: what anyone who opens the file will find."""
    with torch.no_grad():
        saved = eight_bit(images).to(torch.float32) / 255
        return network.check_logits(observe(network, saved, [OUTPUT])[OUTPUT]).float().cpu()


def targets_of(
    network: Network, images: Tensor, layers: Sequence[str], make: Callable[[str, Tensor], Tensor]
) -> dict[str, Tensor]:
    """What is to be matched: ``make(layer, output)`` of each layer's output for ``images``, computed once, no graph."""
    with torch.no_grad():
        seen: Mapping[str, Tensor] = observe(network, laid_out(images), layers)
        return {name: make(name, seen[name]).detach() for name in layers}
