"""What the path and sample methods share: one class a picture, many versions of the picture, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import PLAIN
from convscope.batching import batched
from convscope.hooks import observe
from convscope.images import blurred
from convscope.network import Network
from convscope.objectives import Of, Question
from convscope.techniques.attribute.saliency import sensitivity

Baseline = Literal["black", "mean", "blur"]
BaselineOption = Annotated[
    Baseline,
    Field(description="picture without evidence: black, the mean colour that the network subtracts, or blurred"),
]
OfOption = Annotated[Of, Field(description="what to explain: the class score before the softmax, probability or loss")]
BLUR = 0.1  # standard deviation of a blurred baseline, of the picture's longer side


def asked_for(question: Question) -> str:
    """What a quantity is in: ``score``, ``probability`` or ``loss`` of a class, ``activation`` of a unit."""
    return "activation" if question.unit else question.of


def held(question: Question, targets: Tensor) -> Question:
    """The question with every picture held to the class (N,) that it was found to be; a unit stays what it is."""
    return question if question.unit else replace(question, target=targets.tolist())


def answers(question: Question, images: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) scores and (N,) classes of the pictures themselves, to which every version of a picture is held."""

    def some(part: slice) -> tuple[Tensor, Tensor]:
        asked = question.of_part(part, len(images))
        return asked.scores(observe(question.network, images[part], question.layers))

    passes = list(batched(some, len(images), question.network.at_once(images)))
    scores, targets = (torch.cat(parts) for parts in zip(*passes, strict=True))
    return scores.detach(), targets


def ends(question: Question, images: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) scores and (N,) classes of the pictures, and (N,) scores of where their paths begin for those classes."""

    def some(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        asked = question.of_part(part, len(images))
        seen = observe(question.network, torch.cat([starts[part], images[part]]), question.layers)
        first, last = ({n: v.chunk(2)[place] for n, v in seen.items()} for place in (0, 1))
        scores, targets = asked.scores(last)
        return scores, targets, held(asked, targets).scores(first)[0]

    passes = list(batched(some, len(images), max(1, question.network.at_once(images) // 2)))
    scores, targets, without = (torch.cat(parts) for parts in zip(*passes, strict=True))
    return scores.detach(), targets, without.detach()


def slopes_at(
    question: Question, target: int, count: int, versions: Callable[[slice], Tensor]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Gradients and scores at ``count`` versions of one picture, a few at a time.

    Args:
        target: the class that all versions are asked about; not read where a unit is.
        versions: from a slice of range(count) to (M, 3, H, W).

    Yields:
        The slice, (M, 3, H, W) gradients, (M,) scores.
    """
    asked = replace(question, target=target)

    def some(part: slice) -> tuple[slice, Tensor, Tensor]:
        slopes, scores, _ = sensitivity(asked, versions(part), PLAIN)
        wide = torch.promote_types(slopes.dtype, torch.float32)
        return part, slopes.to(wide), scores.to(wide)

    return batched(some, count, question.network.at_once(versions(slice(0, 1))), "samples")


def wide(images: Tensor) -> Tensor:
    """Pictures in at least float32, so that steps between two of them are not lost."""
    return images.to(torch.promote_types(images.dtype, torch.float32))


def baseline_of(network: Network, images: Tensor, kind: Baseline) -> Tensor:
    """(N, 3, H, W): the picture without evidence that belongs to each picture."""
    if kind == "black":
        return torch.zeros_like(images)
    if kind == "mean":
        return network.mean.to(images).view(1, -1, 1, 1).expand_as(images).clone()
    return blurred(images, BLUR * max(images.shape[-2:]))


def with_completeness(said: dict[str, Any], values: Tensor, scores: Tensor, without: Tensor) -> dict[str, Any]:
    """The fields of ``describe`` with, in each summary, how far the map's sum is from what it should add up to.

    Args:
        values: (N, H, W). scores, without: (N,) scores of the pictures and of their baselines.
    """
    summaries = []
    for summary, heat, score, base in zip(said["summaries"], values, scores.tolist(), without.tolist(), strict=True):
        total, wanted = float(heat.double().sum()), score - base
        error = {"sum": total, "wanted": wanted, "error": total - wanted}
        summaries.append({**summary, "baseline_score": base, "completeness": error})
    return {**said, "summaries": summaries}
