"""One operator call, and the table of rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from convscope.receptive_field.reach import Reach, broadcast, collapse, everything, merge, nothing

if TYPE_CHECKING:
    from convscope.receptive_field.tracer import Tracer


class Unfollowed(Exception):
    """The rule of an operator does not cover this call."""


COMPOSITE = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.CompositeExplicitAutograd)


class Operator:
    """What there is to know of an operator apart from a call of it."""

    def __init__(self, func: Any) -> None:
        self.name: str = func._schema.name
        self.defaults: dict[str, Any] = {argument.name: argument.default_value for argument in func._schema.arguments}
        self.pointwise = torch.Tag.pointwise in func.tags
        self.view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        rule = RULES.get(self.name) or RULES.get(self.name.removesuffix("_"))
        self.rule: Rule = rule or (pointwise if self.pointwise else unknown)
        self.parts = next(
            (partial(func._op_dk, key) for key in COMPOSITE if func.has_kernel_for_dispatch_key(key)), None
        )


class Call:
    """One call of an operator: its arguments by name, the reach of its tensors, the shapes of what it returned."""

    def __init__(
        self, tracer: Tracer, operator: Operator, args: tuple, kwargs: dict[str, Any], results: list[Tensor]
    ) -> None:
        self.tracer = tracer
        self.operator = operator
        self.name = operator.name.removesuffix("_")
        self.arguments = operator.defaults.copy()
        self.arguments.update(zip(operator.defaults, args, strict=False), **kwargs)
        self.inputs = [value for name, value in self.arguments.items() if name != "out"]
        self.shapes = [tuple(result.shape) for result in results]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    @property
    def first(self) -> Reach:
        """Reach of the first argument."""
        return self.reach(self.inputs[0])

    def reach(self, tensor: Tensor | str | None) -> Reach:
        """Reach of a tensor, or of the argument of that name; a constant's sees nothing."""
        tensor = self[tensor] if isinstance(tensor, str) else tensor
        return nothing(()) if tensor is None else self.tracer.reach_of(tensor) or nothing(tensor.shape)

    def depends(self, tensor: Tensor | None) -> bool:
        return tensor is not None and self.tracer.reach_of(tensor) is not None

    def dims(self) -> list[int]:
        """The argument ``dim`` as a list; nothing given means every dim."""
        dim = self.get("dim")
        ndim = len(self.first.shape)
        dims = list(range(ndim)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else list(dim)
        return [d % ndim for d in dims] if ndim else []

    def spatial(self, name: str, count: int) -> list[int]:
        """An argument given once, or once for each of ``count`` spatial dims."""
        value = self[name]
        values = [value] if isinstance(value, int) else list(value)
        return values * count if len(values) == 1 else values

    def outputs(self) -> list[Reach]:
        """Reach of everything that the operator returned."""
        if not any(self.depends(tensor) for tensor in tensors_of(self.inputs)):
            return [nothing(shape) for shape in self.shapes]
        try:
            answer = self.operator.rule(self)
        except Unfollowed:
            answer = unknown(self)
        return answer if isinstance(answer, list) else [self._fitted(answer, shape) for shape in self.shapes]

    def _fitted(self, answer: Reach, shape: tuple[int, ...]) -> Reach:
        """By-products of another shape (statistics) are taken to depend on all that the result depends on."""
        if answer.shape == shape or not math.prod(shape):
            return answer if answer.shape == shape else nothing(shape)
        return broadcast(collapse(answer, range(len(answer.shape)), keep=False), shape)

    def whole(self) -> list[Reach]:
        """Everything, and the operator noted as one that was not followed."""
        noted = frozenset({self.operator.name}).union(*(self.reach(t).inexact for t in tensors_of(self.inputs)))
        return [everything(shape, self.tracer.size, noted) for shape in self.shapes]


def tensors_of(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among values, those in lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, Tensor))


Rule = Callable[[Call], "Reach | list[Reach]"]
AnyRule = TypeVar("AnyRule", bound=Rule)
RULES: dict[str, Rule] = {}
"""A rule for each operator, by name; in-place forms use the rule of the plain one. It gives the reach of the result."""


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Enter a function in :data:`RULES` as the rule of these ATen operators."""

    def enter(function: AnyRule) -> AnyRule:
        RULES.update({f"aten::{name}": function for name in names})
        return function

    return enter


def unknown(call: Call) -> list[Reach]:
    """An operator without a rule: everything."""
    return call.whole()


def pointwise(call: Call) -> Reach:
    """Each element depends on the same one of every argument."""
    return merge(map(call.reach, tensors_of(call.inputs)), call.shape)
