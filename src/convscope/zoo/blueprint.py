"""What a place that networks come from says about one of them: how to build it, and how it sees pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from torch import Tensor, nn

State: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Description:
    """How pictures enter a network and what its classes are called; ``None`` where this source does not say.

    Attributes:
        mean, std: one number a channel, of pictures in [0, 1].
        input_size: (height, width) in pixels.
        crop: share of the resized picture's side that is kept, in (0, 1].
        labels: one name a class.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input_size: tuple[int, int] | None = None
    crop: float | None = None
    labels: tuple[str, ...] | None = None

    def over(self, other: Description) -> Description:
        """This description, its gaps filled from ``other``."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return Description(**{name: getattr(other, name) if value is None else value for name, value in mine.items()})


@dataclass(frozen=True)
class Blueprint:
    """One network that can be built, before it has weights.

    Attributes:
        name: what messages call it.
        build: makes it with fresh weights from torch's generator, for so many classes, or its own number for None.
        pretrained: makes it with the weights of its own hub; returns where they came from as well.
        classes: how many ``build(None)`` gives, None when the number cannot be chosen.
        description: of the pretrained network; labels hold for ``classes`` classes only.
        translate: turns the keys of weights from elsewhere into this network's.
        adapt: this blueprint as weights from a file need it, when their shapes say more than the number of classes.
        convert: a last try to load weights whose keys do not fit, for so many classes; raises anything when it cannot.
    """

    name: str
    build: Callable[[int | None], nn.Module]
    pretrained: Callable[[], tuple[nn.Module, str]]
    classes: int | None = None
    description: Description = field(default_factory=Description)
    translate: Callable[[State], State] | None = None
    adapt: Callable[[State], Blueprint] | None = None
    convert: Callable[[State, int | None], nn.Module] | None = None


def first_line(error: BaseException) -> str:
    """What an exception says, shortened to its first line; its type when it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
