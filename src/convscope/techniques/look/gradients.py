"""How signals flow through a network, forward and back: the statistics that tell a healthy layer from a sick one.

Activations that shrink or grow from layer to layer, gradients that vanish or explode, ReLUs that are mostly zero and
weights whose gradient is tiny or huge beside them show here (Glorot & Bengio 2010, section 4; CS231n, Neural
networks 3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from convscope.backward import gradient
from convscope.batching import batched
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.registry import Target, technique
from convscope.results import Curve
from convscope.vitals import Moments, size_ratio

SERIES = (
    "activation mean", "activation spread", "activation zeros",
    "gradient mean", "gradient spread", "gradient zeros", "gradient norm ratio", "weight gradient ratio",
)  # fmt: skip


@technique(
    family="look",
    order=5,
    paper="Glorot & Bengio 2010, section 4; CS231n notes, Neural networks 3",
    see=(
        "Lines that stay level. A gradient that falls by orders of magnitude towards the input starves the early "
        "layers; a share of zeros near one is a layer that sleeps."
    ),
    caution=(
        "The numbers are of these few pictures and these weights: a trained network has small gradients where it "
        "is right."
    ),
)
def gradients(network: Network, images: Tensor, *, target: Target = None) -> Curve:
    """Mean, spread and zeros of each layer's activations and of the loss's gradient there, and how their norms compare.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1]; the statistics are over all of them.
        target: the true class for the loss (cross-entropy), one for all or one a picture; the predicted one for None.

    Returns:
        ``values`` (8, layers), rows as in ``series``: mean, spread (standard deviation) and share of exact zeros of
        the activations and of dL/da; the norm ratio |dL/da| / |dL/da of the last layer|; and |dL/dW| / |W| of the
        layer's weight, NaN where it has none or is frozen. The summary holds ``layers``, with the same by name.
    """
    names = _working_layers(network)
    weights = _weights(network, names)
    forward, backward = {n: Moments() for n in names}, {n: Moments() for n in names}
    slopes = {n: torch.zeros_like(w) for n, w in weights.items()}
    question = ask(network, target, of="loss")
    passes = batched(
        lambda part: _slopes(question.of_part(part, len(images)), images[part], names, weights),
        len(images),
        network.max_batch,
    )
    for part in passes:
        for name in names:
            forward[name].add(part.activations[name])
            backward[name].add(part.slopes[name])
        for name in weights:
            slopes[name] += part.weight_slopes[name]
    ratios = {n: float(size_ratio(slopes[n], weights[n])) / len(images) for n in weights}
    return _curve(network, names, forward, backward, ratios)


@dataclass(frozen=True)
class _Part:
    activations: dict[str, Tensor]
    slopes: dict[str, Tensor]
    weight_slopes: dict[str, Tensor]


def _working_layers(network: Network) -> list[str]:
    """Layers that hold no other layer, in order; those that only reshape change nothing and are left out."""
    parts = dict(network.module.named_modules())
    idle = ("Flatten", "Identity", "Dropout")
    leaves = [i for i in network.layers() if not any(True for _ in parts[i.name].children())]
    return [i.name for i in leaves if not i.kind.startswith(idle)]


def _weights(network: Network, names: Sequence[str]) -> dict[str, Tensor]:
    parts = {name: network.module.get_submodule(name) for name in names}
    found = {name: getattr(part, "weight", None) for name, part in parts.items()}
    return {n: w for n, w in found.items() if isinstance(w, Tensor) and w.requires_grad and w.ndim > 1}


def _slopes(question: Question, images: Tensor, names: Sequence[str], weights: dict[str, Tensor]) -> _Part:
    seen = observe(question.network, images.clone().requires_grad_(), [*names, OUTPUT])
    loss, _ = question.scores(seen)
    found = gradient(loss, [*(seen[n] for n in names), *weights.values()])
    split = len(names)
    return _Part(
        {n: seen[n].detach() for n in names},
        dict(zip(names, found[:split], strict=True)),
        dict(zip(weights, found[split:], strict=True)),
    )


def _curve(
    network: Network,
    names: Sequence[str],
    forward: dict[str, Moments],
    backward: dict[str, Moments],
    ratios: dict[str, float],
) -> Curve:
    last = math.sqrt(backward[names[-1]].squares) or math.nan
    columns = [
        (
            *forward[n].statistics, *backward[n].statistics,
            math.sqrt(backward[n].squares) / last, ratios.get(n, math.nan),
        )
        for n in names
    ]  # fmt: skip
    records = [
        {"name": n, **{s: None if v != v else v for s, v in zip(SERIES, c, strict=True)}}
        for n, c in zip(names, columns, strict=True)
    ]
    return Curve(
        values=torch.tensor(columns, dtype=torch.float64).T.contiguous(),
        summaries=[{"layers": records}], per_picture=False,
        series=SERIES, points=list(names), axis="layer, from the picture to the scores",
        panels=[
            ("activation spread", ["activation spread"], True),
            ("gradient spread", ["gradient spread"], True),
            ("share of zeros", ["activation zeros", "gradient zeros"], False),
            ("norm ratios", ["gradient norm ratio", "weight gradient ratio"], True),
        ],
        notes=_notes(records),
    )  # fmt: skip


def _notes(records: Sequence[dict[str, Any]]) -> list[str]:
    asleep = [r["name"] for r in records if (r["activation zeros"] or 0) > 0.99]
    flat = [r["name"] for r in records if r["gradient spread"] == 0]
    notes = []
    if asleep:
        notes.append(f"almost all zero for these pictures: {_listed(asleep)}")
    if flat:
        notes.append(f"no gradient at all: {_listed(flat)}")
    return notes


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
