"""What the network sees in a photograph."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope.batching import batched
from convscope.network import Network
from convscope.registry import technique
from convscope.results import Ranking


@technique(
    family="look",
    order=1,
    see=(
        "The bars are the network's probabilities. Ask whether the right class is there at all, and how far ahead"
        " it is."
    ),
    caution=(
        "A probability says how the scores compare, not how often the network is right: a picture of no known "
        "class gets a confident answer too."
    ),
)
def classify(
    network: Network,
    images: Tensor,
    *,
    top: Annotated[int, Field(ge=1, description="how many classes to name")] = 5,
) -> Ranking:
    """The classes that the network finds most probable, best first.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1]; used at their own size, see ``network.prepare``.
        top: how many classes to name.

    Returns:
        ``values`` (N, classes): the logits. Each summary holds ``predictions``, best first, with ``label``,
        ``index`` and ``probability``.
    """
    with torch.no_grad():
        logits = torch.cat(list(batched(lambda part: network(images[part]), len(images), network.max_batch)))
    probabilities = logits.double().softmax(1)
    best = probabilities.topk(min(top, logits.shape[1]), dim=1)
    summaries = [
        {"predictions": [_prediction(network, i, p) for p, i in zip(shares, indices, strict=True)]}
        for shares, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    return Ranking(
        values=logits,
        summaries=summaries,
        images=images,
        names=[[p["label"] for p in s["predictions"]] for s in summaries],
        shares=[[p["probability"] for p in s["predictions"]] for s in summaries],
    )


def _prediction(network: Network, index: int, probability: float) -> dict[str, Any]:
    return {"label": network.label(index), "index": index, "probability": probability}
