"""DeepLIFT by the rescale rule, by captum (Shrikumar 2017, section 3.5.1).

Differences from a baseline take the place of gradients. A unit with input x, output y, and x', y' for the baseline
hands its contribution back times

    m = (y - y') / (x - x')        the derivative where x = x'

and linear layers by their weights; a pixel's share is its own difference times what arrives, so the map's sum is
S(I) - S(B) (the paper's summation-to-delta). How far it misses that is said in the summary.

The rule is captum's and is put on a copy of the network in which each rectifier is a module of its own: functional,
reused and in-place ones are all seen. captum knows six activations by name; here every one that works element by
element takes its rule. Max-pooling over windows that overlap, of which captum loses a part, is taken apart into windows
that do not. Products of activations (gates) and layer norms pass the gradient of the picture, and the error shows it.
A unit without a position is asked about where the picture's own is strongest, for the baseline too. Pictures run one by
one, each with its baseline.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.batching import batched
from convscope.extras import require
from convscope.hooks import observe
from convscope.network import Network
from convscope.objectives import Question, Unit, ask
from convscope.registry import Layer, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import BaselineOption, answers, baseline_of, held, wide, with_completeness
from convscope.techniques.attribute._twin import Twin, twin

NEAR = 1e-6  # differences below this are too small to divide by


@technique(
    family="attribute",
    exact=True,
    paper="Shrikumar et al. 2017, arXiv:1704.02685, section 3.5.1",
    see="Warm pixels raise the score by differing from the baseline, cold ones lower it.",
    caution=(
        "What looks like the baseline can have no share: with a black one, black pixels never matter. Compare two "
        "baselines before trusting a detail."
    ),
)
def deeplift(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    baseline: BaselineOption = "black",
) -> Heatmap:
    """Each pixel's share in the difference of scores from a baseline, by differences instead of gradients.

    Args:
        network: one that torch.fx can follow; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the picture's strongest.
        baseline: ``black``, ``mean`` (the colour that the network subtracts) or ``blur`` (Gaussian, a tenth of the
            longer side).

    Returns:
        ``values`` (N, H, W), signed, in score before the softmax, summed over colours. Each summary holds
        ``baseline_score`` and ``completeness``: the map's ``sum``, the ``wanted`` difference of scores and the
        ``error`` between them.

    Raises:
        UnknownTarget, UnknownLayer, OptionError; MissingExtra without captum; NetworkError for a network that torch.fx
        cannot follow.
    """
    captum = require("captum.attr", "deeplift")
    question = ask(network, target, layer=layer, unit=unit)
    scores, targets = answers(question, images)
    copied = twin(held(question, targets))
    _prepare(copied.module)
    starts = baseline_of(network, wide(images), baseline)

    def one(part: slice) -> tuple[Tensor, Tensor]:
        asked = _placed(held(question, targets[part]), images[part])
        copied.check(images[part], asked, scores[part])
        return _lifted(captum, copied, asked, images[part], starts[part]), answers(asked, starts[part])[0]

    values, without = (torch.cat(parts) for parts in zip(*batched(one, len(images), 1), strict=True))
    said = with_completeness(describe(question, values, scores, targets), values, scores, without)
    said["notes"] = [*said["notes"], *copied.remarks()]
    return Heatmap(
        values=values, images=images, signed=True, quantity="share in the score", layer=question.layer, **said
    )


def _placed(question: Question, image: Tensor) -> Question:
    """The question about the place where a channel is strongest in this picture (1, 3, H, W)."""
    if question.layer is None or question.unit is None or question.unit.position is not None:
        return question
    seen = observe(question.network, image, question.layers)[question.layer]
    channel = question.network.maps(question.layer, seen)[0, question.unit.channel]
    row, column = divmod(int(channel.argmax()), channel.shape[1])
    return replace(question, unit=Unit(question.unit.channel, (row, column)))


class _Scored(nn.Module):
    """The copy with one score a picture for its output: (N, 1)."""

    def __init__(self, copied: Twin, question: Question) -> None:
        super().__init__()
        self.inner = copied.module
        self._copied, self._question = copied, question

    def forward(self, inputs: Tensor) -> Tensor:
        return self._copied.scores(inputs, self._question)[:, None]


def _lifted(captum: Any, copied: Twin, question: Question, image: Tensor, start: Tensor) -> Tensor:
    """(1, H, W) for one picture (1, 3, H, W) and its baseline, on the CPU."""
    method = captum.DeepLift(_Scored(copied, question), eps=NEAR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it sets hooks, which it does on the copy
        shares = method.attribute(copied.normalised(image), copied.normalised(start), target=0)
    return shares.detach().sum(1).cpu()


# ---- the copy as captum needs it

#: Activations that take the rescale rule, and that captum does not know by their type.
_ELEMENTWISE = (
    nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Mish, nn.SELU, nn.CELU, nn.PReLU,
)  # fmt: skip
_KNOWN = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d)


class _Alone(nn.Module):
    """An activation with an input of its own: captum changes the gradient of the input, whoever else reads it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.activation(maps.clone())
        return found


class _Windows(nn.Module):
    """Max-pooling with its windows laid side by side: none overlaps another."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self._shape = pool
        self.kernel, self.stride, self.padding = (_pair(v) for v in (pool.kernel_size, pool.stride, pool.padding))
        self.pool = nn.MaxPool2d(self.kernel)

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.pool(self._side_by_side(maps))
        return found

    def _side_by_side(self, maps: Tensor) -> Tensor:
        with torch.no_grad():
            out = self._size(maps)
        sides = zip(out, self.kernel, self.stride, self.padding, maps.shape[2:], strict=True)
        pads = [(p, (o - 1) * s + k - length - p) for o, k, s, p, length in sides]
        lowest = torch.finfo(maps.dtype).min
        padded = F.pad(maps, (*pads[1], *pads[0]), value=lowest)
        windows = padded.unfold(2, self.kernel[0], self.stride[0]).unfold(3, self.kernel[1], self.stride[1])
        laid = windows.transpose(3, 4)  # rows of windows, rows of one, windows of a row, columns of one
        return laid.reshape(*maps.shape[:2], out[0] * self.kernel[0], out[1] * self.kernel[1])

    def _size(self, maps: Tensor) -> tuple[int, int]:
        shape = F.max_pool2d(maps, self.kernel, self.stride, self.padding, ceil_mode=self._shape.ceil_mode).shape
        return shape[2], shape[3]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _prepare(module: nn.Module) -> None:
    """Put what captum's rules can be put on in the place of each activation and max-pool."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.MaxPool2d) and _pair(child.dilation) == (1, 1):
            setattr(module, name, _Windows(child))
        elif type(child) in _KNOWN:
            setattr(module, name, _Alone(child))
        elif type(child) in _ELEMENTWISE:
            setattr(module, name, _Alone(_as_known(child)))
        else:
            _prepare(child)


def _as_known(activation: nn.Module) -> nn.Module:
    """An activation under the type of one whose rule, that of every function of one number, captum knows."""
    known = nn.Sigmoid()
    known.__dict__["forward"] = activation.forward
    return known
