"""What every measure is: a function from methods and pictures to one number a picture and column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from convscope import progress
from convscope.errors import ConvscopeError
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample


@dataclass(frozen=True)
class Column:
    """One number that a measure gives.

    ``better`` is 1 where more is better, -1 where less is, 0 where neither; ``chance`` what a map without any
    knowledge gets, where that is known beforehand.
    """

    key: str
    title: str
    better: int
    chance: float | None = None


@dataclass(frozen=True)
class Scores:
    """What one method got: for each column one number a picture (or mosaic), and anything else worth keeping.

    ``error`` says why there are none.
    """

    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


Run = Callable[[Sequence[Maps], Sample, Mapping[str, Tensor]], Mapping[str, Scores]]
"""From methods, pictures, and each method's maps (N, H, W) by its name, to each method's scores by its name."""


@dataclass(frozen=True)
class Measure:
    """A measure by name, with the sentence that the command line shows."""

    name: str
    columns: Sequence[Column]
    run: Run
    paper: str
    says: str


def each(methods: Sequence[Maps], run: Callable[[Maps], Scores]) -> dict[str, Scores]:
    """The scores of every method; one that cannot on this network says so and spares the others."""
    found = {}
    for method in progress.over(methods, "methods"):
        try:
            found[method.name] = run(method)
        except ConvscopeError as error:
            found[method.name] = Scores(error=str(error))
    return found
