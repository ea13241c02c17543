"""Results without a network, for the tests of their pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from convscope.results import Heatmap, Provenance


@pytest.fixture
def provenance() -> Callable[..., Provenance]:
    def made(technique: str = "saliency", photographs: Sequence[str] = ()) -> Provenance:
        return Provenance(
            technique=technique, options={}, network="toy", weights="as given", layer=None, seed=None,
            precision="float32", device="cpu", photographs=tuple(photographs),
        )  # fmt: skip

    return made


@pytest.fixture
def heatmap(provenance: Callable[..., Provenance]) -> Callable[..., Heatmap]:
    """A heat map of given values on grey photographs."""

    def made(values: Tensor, *, signed: bool = True, photographs: Sequence[str] = (), **more: Any) -> Heatmap:
        images = more.pop("images", torch.full((len(values), 3, *values.shape[1:]), 0.5))
        return Heatmap(
            values=values, summaries=[{}] * len(values), images=images, signed=signed, quantity="score",
            provenance=provenance(photographs=photographs), **more,
        )  # fmt: skip

    return made
