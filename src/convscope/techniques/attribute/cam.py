"""CAM: the class's own weights on the maps that a network averages before its classifier (Zhou 2016, section 2).

    S_c = sum over k of w_k,c mean over ij of A_k,ij + b_c,      M_c,ij = sum over k of w_k,c A_k,ij

The score is the mean of the map, plus the bias: nothing is approximated. That needs a network whose classifier is
linear on a global average pooling (ResNet, DenseNet, GoogLeNet, EfficientNet, ...), or one that averages a map a class
(SqueezeNet, Network in Network), whose map then is the class's own. Whether a network is one of them is measured, not
read off its layers: the maps that it averaged must give its scores.

Elsewhere Grad-CAM is the generalisation; where there is a CAM, Grad-CAM at these maps is it, divided by the number of
cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.batching import batched
from convscope.errors import NetworkError
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.registry import Target, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._cam import enlarged_and_fused, heatmap
from convscope.techniques.attribute._heat import describe


@technique(
    family="attribute",
    paper="Zhou et al. 2016, arXiv:1512.04150, section 2",
    see="Warm regions speak for the class, cold ones against it; the mean over cells is the score, less its bias.",
    caution="The map has only as many cells as the layer; its soft edges come from enlarging, not from the network.",
)
def cam(network: Network, images: Tensor, *, target: Target = None) -> Heatmap:
    """Where the evidence for a class is, exactly, for networks that average their last maps before a linear classifier.

    Args:
        network: a classifier that is linear on a global average pooling.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.

    Returns:
        ``values`` (N, H, W), signed, in score, enlarged to the pictures; ``cells`` (N, h, w), the resolution of the
        maps that the network averages: their mean, plus the bias, is the score.

    Raises:
        UnknownTarget; NetworkError for a network that has no CAM.
    """
    question = ask(network, target)
    passes = list(
        batched(lambda part: _cells(question.of_part(part, len(images)), images[part]), len(images), network.max_batch)
    )
    cells, scores, targets = (torch.cat(parts) for parts in zip(*passes, strict=True))
    values = enlarged_and_fused([cells], images)
    said = describe(question, values, scores, targets)
    return heatmap(images, [cells], values, [], "score; its mean, plus a bias, is the class's", **said)


def _cells(question: Question, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    network = question.network
    with _Averages() as averages:
        seen = observe(network, images, [OUTPUT])
    scores, targets = question.scores(seen)
    weights = _classifier(network, averages, network.check_logits(seen[OUTPUT]))
    maps = averages.maps.float() if averages.maps.dtype != torch.float64 else averages.maps
    return torch.einsum("nchw,nc->nhw", maps, weights[targets.to(weights.device)].to(maps)), scores, targets


class _Averages(TorchDispatchMode):
    """Keeps the maps (N, C, h, w) that a pass averaged over all positions last, and their means (N, C)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.maps = self.means = torch.empty(0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        maps = _averaged(func, args, result)
        if maps is not None:
            self.maps, self.means = maps, result.flatten(1)
        return result


def _averaged(func: Any, args: Sequence[Any], result: Any) -> Tensor | None:
    """(N, C, h, w) where an operator is a mean over all positions of maps in either layout."""
    aten = torch.ops.aten
    if func not in (aten.mean.dim, aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default) or args[0].ndim != 4:
        return None
    if func is not aten.mean.dim:
        return args[0] if math.prod(result.shape[2:]) == 1 else None
    dims = sorted(dim % 4 for dim in args[1] or ())
    return {(2, 3): args[0], (1, 2): args[0].movedim(-1, 1)}.get(tuple(dims))


def _classifier(network: Network, averages: _Averages, logits: Tensor) -> Tensor:
    """(classes, C) weights with which the averages are the scores, up to a bias."""
    means = averages.means
    if means.numel() and _near(averages.maps.mean((2, 3)), means):
        if means.shape == logits.shape and _near(means, logits):
            return torch.eye(means.shape[1], device=means.device)  # a map a class
        for info in reversed(network.layers()):
            part = network.module.get_submodule(info.name)
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                weights = part.weight.detach().flatten(1)
                if weights.shape == (logits.shape[1], means.shape[1]) and _near(_linear(part, means), logits):
                    return weights
    raise NetworkError(
        f"{network.name} does not end in a linear classifier on global average pooling, so it has no CAM; use gradcam, "
        "which equals it where there is one"
    )


def _linear(part: nn.Linear | nn.Conv2d, means: Tensor) -> Tensor:
    bias = None if part.bias is None else part.bias.detach()
    return F.linear(means.to(part.weight.dtype), part.weight.detach().flatten(1), bias)


def _near(found: Tensor, wanted: Tensor) -> bool:
    """Equal to half of the digits that the dtype holds."""
    tolerance = max(torch.finfo(found.dtype).eps, torch.finfo(wanted.dtype).eps) ** 0.5
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max())
