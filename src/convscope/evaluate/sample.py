"""The pictures that methods are judged on, with what the network says of them and what is known about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convscope.batching import batched
from convscope.errors import ImageError, OptionError
from convscope.images import check_images
from convscope.network import Network


@dataclass(frozen=True, eq=False)
class Sample:
    """N pictures, all explained for the class that the network predicts.

    Attributes:
        images: (N, 3, H, W) in [0, 1].
        targets, probabilities: of the predicted classes.
        labels: the true class of each, None where it is not known.
        names: what to call them.
        masks: (N, H, W), true on the object; None where nothing is known.
        files: where they lie, if in files.
        seed: of everything random.
    """

    network: Network
    images: Tensor
    targets: Sequence[int]
    probabilities: Sequence[float]
    labels: Sequence[int | None]
    names: Sequence[str]
    masks: Tensor | None = None
    files: Sequence[str] = ()
    seed: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        return self.images.shape[-2], self.images.shape[-1]

    def described(self) -> list[dict[str, Any]]:
        """What JSON says of each picture."""
        name = self.network.label
        labels = [None if label is None else name(label) for label in self.labels]
        columns = (self.names, map(name, self.targets), self.probabilities, labels)
        return [
            dict(zip(("name", "predicted", "probability", "label"), row, strict=True))
            for row in zip(*columns, strict=True)
        ]


def sample(
    network: Network,
    images: Tensor,
    *,
    labels: Sequence[int | str | None] | None = None,
    masks: Tensor | None = None,
    names: Sequence[str] | None = None,
    files: Sequence[str] = (),
    seed: int = 0,
) -> Sample:
    """The pictures with the network's predictions.

    Raises:
        UnknownTarget; OptionError for labels or names, and ImageError for masks, that do not fit the pictures.
    """
    images = check_images(images)
    count = len(images)
    for what, given in (("labels", labels), ("names", names)):
        if given is not None and len(given) != count:
            raise OptionError(f"{len(given)} {what} for {count} pictures; give one a picture")
    if masks is not None and masks.shape != (count, *images.shape[-2:]):
        raise ImageError(f"masks of shape {tuple(masks.shape)} do not fit pictures of shape {tuple(images.shape)}")
    shares, targets = answers(network, count, lambda part: images[part])
    return Sample(
        network, images, targets.tolist(), shares.amax(1).tolist(),
        [None if label is None else network.target(label) for label in labels or [None] * count],
        list(names or [f"picture {number + 1}" for number in range(count)]),
        None if masks is None else masks > 0.5, files, seed,
    )  # fmt: skip


def answers(network: Network, count: int, versions: Callable[[slice], Tensor]) -> tuple[Tensor, Tensor]:
    """(count, classes) probabilities and (count,) predicted classes of pictures that are made when they are needed."""
    with torch.no_grad():
        passes = batched(lambda part: network(versions(part)).float().softmax(1).cpu(), count, network.max_batch)
        shares = torch.cat(list(passes))
    return shares, shares.argmax(1)


def positive_share(values: Tensor, inside: Tensor) -> float:
    """How much of a map's (H, W) positive part lies ``inside``; 0 for a map that is nowhere positive."""
    positive = values.double().clamp(min=0)
    whole = float(positive.sum())
    return float(positive[inside].sum()) / whole if whole > 0 else 0.0


def without_nan(values: Sequence[float]) -> list[float | None]:
    """What JSON can hold."""
    return [None if math.isnan(value) else value for value in values]
