"""Gradients of scores, plain or by a backward rule: the only file that calls ``autograd.grad``.

A rule changes how the signal passes rectifiers on its way back:

==========  ===========================================  =======================================================
rule        what passes a ReLU with input x, gradient g  source
==========  ===========================================  =======================================================
PLAIN       g where x > 0                                backpropagation (Simonyan 2013)
DECONVNET   g where g > 0                                Zeiler & Fergus 2014, section 2.1
GUIDED      g where x > 0 and g > 0                      Springenberg 2014, section 3.4
REDIRECTED  g                                            lucid's ``redirected_relu_grad`` (Olah et al. 2017)
==========  ===========================================  =======================================================

The rules are applied to the nodes of the autograd graph, not to modules: module, functional, tensor-method,
in-place and reused ReLUs, ReLU6, ``clamp(min=0)`` and ``threshold`` are all the same to them, on every device, and
nothing in the model is touched. Max-pooling sends the signal to the maximum's position in every rule, which is what
the "switches" of a deconvnet do.

Leaky and smooth rectifiers (LeakyReLU, PReLU, ELU, CELU, GELU, SiLU, hard-swish, Mish, softplus) have no published
rule. Here GUIDED lets the positive part of g through their derivative, and DECONVNET passes the positive part of g;
for a leak of zero both are the published rules.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor
from torch.autograd.graph import Node

from convscope.batching import is_out_of_memory
from convscope.errors import NetworkError, RuleError


@dataclass(frozen=True)
class GradientRule:
    """What a rectifier does to the signal on its way back."""

    name: str
    rectify_gradient: bool  # only the positive part of the arriving gradient passes
    forward_mask: bool  # the layer's own derivative is applied


PLAIN = GradientRule("plain", rectify_gradient=False, forward_mask=True)
DECONVNET = GradientRule("deconvnet", rectify_gradient=True, forward_mask=False)
GUIDED = GradientRule("guided", rectify_gradient=True, forward_mask=True)
#: for an ascent that begins where a unit is silent, and so would have no direction to go; explains nothing
REDIRECTED = GradientRule("redirected", rectify_gradient=False, forward_mask=False)
RULES = {rule.name: rule for rule in (PLAIN, DECONVNET, GUIDED)}


class RuleWarning(UserWarning):
    """A backward rule met something that may be a rectifier and that it cannot rewrite."""


#: nodes that rectify whatever their arguments
_RECTIFIERS = re.compile(
    r"(Relu|Threshold|LeakyRelu|RreluWithNoise|PreluKernel|Elu|Celu|Gelu|Silu|Hardswish|Mish|Softplus)Backward"
)
#: of them those whose derivative is 0 or 1 and whose gradient is a tensor of its own
_SWITCHES = re.compile(r"(Relu|Threshold|Hardtanh|ClampMin|Clamp)Backward")
#: nodes that rectify when their lower bound is zero: clamp(min=0), ReLU6
_CLAMPS = re.compile(r"(Hardtanh|ClampMin|Clamp)Backward")
#: activation functions written as their own autograd function, known by their name
_OWN = re.compile(r"relu|swish|silu|gelu|mish", re.IGNORECASE)
#: operators that people write rectifiers with
_SUSPECTS = re.compile(r"(Maximum|Where|CheckpointFunction|CompiledFunction)Backward")


def _lower_bound(node: Any) -> float | None:
    for attribute in ("_saved_min", "_saved_min_val"):
        value = getattr(node, attribute, None)
        if value is not None:
            return float(value) if not isinstance(value, Tensor) or value.numel() == 1 else None
    return None


def _rectifies(node: Node) -> bool:
    name = node.name()
    if _CLAMPS.match(name):
        return _lower_bound(node) == 0
    return bool(_RECTIFIERS.match(name) or ("Backward" in name and _is_python(node) and _OWN.search(name)))


def _is_python(node: Node) -> bool:
    return isinstance(node, torch.autograd.function.BackwardCFunction)


def _rectifies_nothing(node: Any) -> bool:
    """Whether it is an operator of our own, which says so of itself, as those of ``stem`` do."""
    return bool(getattr(node._forward_cls, "no_rectifier", False))


def _nodes(score: Tensor, wrt: Sequence[Tensor]) -> Iterator[Node]:
    """The graph's nodes between ``score`` and what it is differentiated by; all when one may lie behind another."""
    seen = {tensor.grad_fn for tensor in wrt if tensor.grad_fn is not None} if len(wrt) == 1 else set()
    stack = [score.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        stack.extend(following for following, _ in node.next_functions)


class _Rewriter:
    """Applies one rule to the rectifiers of a graph and counts those that a signal passed."""

    def __init__(self, rule: GradientRule) -> None:
        self.rule = rule
        self.rewritten = 0

    def attach(self, node: Node) -> Callable[[], None]:
        if not self.rule.forward_mask:
            return node.register_hook(self._instead).remove
        if _SWITCHES.match(node.name()):
            return node.register_hook(self._behind).remove
        return node.register_prehook(self._before).remove

    def _before(self, arriving: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.rewritten += 1
        return tuple(g if g is None else g.clamp(min=0) for g in arriving)

    def _behind(self, leaving: tuple[Tensor, ...], _arriving: tuple[Tensor, ...]) -> None:
        """The positive part of what a switch let through is what it lets through of the positive part, at no copy."""
        self.rewritten += 1
        leaving[0].clamp_(min=0)

    def _instead(self, leaving: tuple[Tensor, ...], arriving: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.rewritten += 1
        return (arriving[0].clamp(min=0) if self.rule.rectify_gradient else arriving[0], *leaving[1:])


def _differentiate(score: Tensor, wrt: Sequence[Tensor], retain_graph: bool) -> tuple[Tensor, ...]:
    if not score.requires_grad:
        raise NetworkError(
            "the score has no gradient: the network detaches its input or runs under torch.no_grad(), "
            "or nothing between the picture and the score can be differentiated"
        )
    live = [tensor for tensor in wrt if tensor.requires_grad]  # a frozen layer may not see the picture at all
    if not live:
        return tuple(torch.zeros_like(tensor) for tensor in wrt)
    try:
        grads = torch.autograd.grad(score, live, torch.ones_like(score), retain_graph=retain_graph, allow_unused=True)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise NetworkError(f"the network cannot be differentiated: {str(error).splitlines()[0]}") from error
    found = {id(tensor): grad for tensor, grad in zip(live, grads, strict=True) if grad is not None}
    return tuple(found[id(tensor)] if id(tensor) in found else torch.zeros_like(tensor) for tensor in wrt)


def _differentiate_by_rule(
    score: Tensor, wrt: Sequence[Tensor], rule: GradientRule, retain_graph: bool
) -> tuple[Tensor, ...]:
    rewriter = _Rewriter(rule)
    suspects = set()
    with ExitStack() as stack:
        for node in list(_nodes(score, wrt)):
            if _rectifies(node):
                stack.callback(rewriter.attach(node))
            elif _SUSPECTS.match(node.name()) or (_is_python(node) and not _rectifies_nothing(node)):
                suspects.add(node.name())
        found = _differentiate(score, wrt, retain_graph)
    names = ", ".join(sorted(suspects))
    if not rewriter.rewritten:
        seen = f" (it met {names}, which it cannot look into)" if names else ""
        raise RuleError(
            f"the {rule.name} rule found no rectifier between this unit and the picture{seen}: "
            "it would be the plain gradient; use the plain rule, or a deeper unit of an uncompiled network with ReLUs"
        )
    if suspects:
        warnings.warn(
            f"the {rule.name} rule left {names} as it is; if that is a rectifier, the picture is a mixture",
            RuleWarning,
            3,
        )
    return found


@overload
def gradient(score: Tensor, wrt: Tensor, rule: GradientRule = ..., *, retain_graph: bool = ...) -> Tensor: ...
@overload
def gradient(
    score: Tensor, wrt: Sequence[Tensor], rule: GradientRule = ..., *, retain_graph: bool = ...
) -> tuple[Tensor, ...]: ...
def gradient(
    score: Tensor, wrt: Tensor | Sequence[Tensor], rule: GradientRule = PLAIN, *, retain_graph: bool = False
) -> Tensor | tuple[Tensor, ...]:
    """The gradient of each picture's score with respect to ``wrt``, by a rule.

    Args:
        score: (N,) or scalar; the pictures of a batch must not mix, so that the gradient of the sum is each one's own.
        wrt: a tensor of the graph, or several: the pictures, or activations that :func:`observe` kept.
        rule: :data:`PLAIN`, :data:`DECONVNET` or :data:`GUIDED`.
        retain_graph: keep the graph for another call.

    Returns:
        For each of ``wrt`` a tensor of its shape, in score per unit of it; zeros where the score does not depend on it.

    Raises:
        RuleError: the rule rewrote nothing, so that the picture would be the plain gradient under another name.
        NetworkError: the score carries no graph, or torch cannot go back through it.

    Warns:
        RuleWarning: the graph holds operators that may be rectifiers in disguise and were left as they are.
    """
    tensors = [wrt] if isinstance(wrt, Tensor) else list(wrt)
    if rule == PLAIN:
        found = _differentiate(score, tensors, retain_graph)
    else:
        found = _differentiate_by_rule(score, tensors, rule, retain_graph)
    return found[0] if isinstance(wrt, Tensor) else found
