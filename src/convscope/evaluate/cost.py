"""What a method costs: seconds a picture, and its arithmetic in passes.

A pass is what the network multiplies and adds for one picture going forward; a whole gradient is two or three, one
that ends at a late layer less than two, and incremental occlusion fewer than it has windows. Seconds are those of
this machine, with all pictures in one call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from convscope.evaluate.measures import Column, Measure, Scores
from convscope.evaluate.methods import Maps
from convscope.evaluate.sample import Sample
from convscope.network import Network


class TooMuch(BaseException):
    """Ends a computation whose arithmetic is over the budget; no code in between catches it."""


class Arithmetic(TorchDispatchMode):
    """Counts the multiplications of convolutions and matrix products, forward and backward."""

    def __init__(self, budget: float = math.inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done, self._budget = 0, budget

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes seconds

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        count = flop_registry.get(op._overloadpacket)
        if count is not None:
            self.done += count(*args, **(kwargs or {}), out_val=result)
            if self.done > self._budget:
                raise TooMuch
        return result


def one_pass(network: Network, image: Tensor) -> int:
    """The arithmetic of one picture (1, 3, H, W) going forward."""
    with torch.no_grad(), Arithmetic() as arithmetic:
        network(image)
    return arithmetic.done


def passes(network: Network, image: Tensor, run: Callable[[], object], *, most: float = math.inf) -> float:
    """The arithmetic of ``run`` in passes of one picture (1, 3, H, W); infinite as soon as it is over ``most``.

    NaN for a network that neither convolves nor multiplies matrices.
    """
    unit = one_pass(network, image)
    if not unit:
        run()
        return math.nan
    try:
        with Arithmetic(most * unit) as arithmetic:
            run()
    except TooMuch:
        return math.inf
    return arithmetic.done / unit


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What it gives, and the seconds that it took."""
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def run(methods: Sequence[Maps], sample: Sample, maps: Mapping[str, Tensor]) -> dict[str, Scores]:
    """Nothing more: :func:`convscope.evaluate.evaluate` counts and times the maps when it makes them."""
    return {method.name: Scores() for method in methods}


COST = Measure(
    "cost", [Column("passes", "passes a picture", -1), Column("seconds", "seconds a picture", -1)], run, "",
    "arithmetic in forward passes, and seconds, a picture",
)  # fmt: skip
