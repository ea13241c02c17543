"""Follows a forward pass operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from convscope.errors import OptionError
from convscope.receptive_field.calls import Call, Operator, tensors_of, unknown
from convscope.receptive_field.fields import Layout, ReceptiveField, layout_of, plane_of, summarised, without_grid
from convscope.receptive_field.reach import Reach, picture
from convscope.receptive_field.rules import uncut


@dataclass(eq=False)
class _Record:
    """What is known of one tensor. A view is worked out when it is asked for, from the tensor that it looks at."""

    reach: Reach | None = None
    writes: int = 0  # how often the memory was written to; a view is stale when its base has a higher count
    call: Call | None = None
    index: int = 0


class Tracer(TorchDispatchMode):
    """Follows every operator between ``images`` (N, 3, H, W) and the tensors that are asked for afterwards.

    ``images`` is the very tensor that the network is called with inside the ``with`` block, or that its input is made
    from there. Tensors are known by identity, and forgotten when the network drops them. Views share what is known of
    their memory, in-place operators included. Pictures of a batch count as one. It may be asked inside and afterwards.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if images.ndim < 2:
            raise OptionError(f"a picture has rows and columns, but this tensor has the shape {tuple(images.shape)}")
        self.size = (int(images.shape[-2]), int(images.shape[-1]))
        self._records: Any = WeakIdKeyDictionary()
        self._records[images] = _Record(picture(images.shape))
        self._operators: dict[Any, Operator] = {}
        self._leaks: frozenset[str] = frozenset()

    def field(
        self,
        tensor: Tensor,
        *,
        layout: Layout | None = None,
        grid: tuple[int, int] | None = None,
        prefix: int | None = None,
    ) -> ReceptiveField | None:
        """The receptive field of the units of ``tensor``, or None if it does not depend on the picture.

        Args:
            tensor: an activation that was computed inside the ``with`` block.
            layout: where rows and columns are: ``"NCHW"``, ``"NHWC"``, or ``"tokens"`` for (N, T, C) and (N, C, T). By
                default where the trace found them; a tensor that has none, or other dims, is one unit.
            grid: rows and columns of the tokens; by default a grid in the shape of the picture.
            prefix: tokens ahead of the grid (class token, registers); by default as few as leave such a grid.

        Raises:
            OptionError: the tensor does not have that layout, or its tokens do not fill a grid.
        """
        reach = self.reach_of(tensor)
        if reach is None:
            return None
        found = layout or layout_of(reach, self.size, given=grid is not None or prefix is not None)
        plane = without_grid(reach) if found is None else plane_of(reach, found, grid, prefix, self.size)
        return summarised(plane, self.size, self._leaks)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        operator = self._operators.get(func) or self._operators.setdefault(func, Operator(func))
        if operator.rule is unknown and operator.parts is not None:
            result = self._open(operator, args, kwargs)
        else:
            result = func(*args, **kwargs)
            self._follow(operator, args, kwargs, result)
        return result

    def _follow(self, operator: Operator, args: tuple, kwargs: dict[str, Any], result: Any) -> None:
        inputs = tensors_of((*args, *kwargs.values()))
        if not operator.view and not any(tensor in self._records for tensor in inputs):
            return
        results = list(tensors_of([result]))
        call = Call(self, operator, args, kwargs, results)
        if not results:
            self._leak(call)
        elif operator.view:
            for index, tensor in enumerate(results):
                if tensor is not call.inputs[0]:
                    self._records[tensor] = _Record(writes=-1, call=call, index=index)
        else:
            for tensor, reach in zip(results, call.outputs(), strict=True):
                self._write(tensor, reach)

    def _open(self, operator: Operator, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Follow a composite operator part by part; one whose parts do not show is taken for the whole picture."""
        assert operator.parts is not None
        with self:
            result = operator.parts(*args, **kwargs)
        results = list(tensors_of([result]))
        call = Call(self, operator, args, kwargs, results)
        if any(map(call.depends, tensors_of(call.inputs))) and not any(map(call.depends, results)):
            for tensor, reach in zip(results, call.whole(), strict=True):
                self._write(tensor, reach)
        return result

    def _leak(self, call: Call) -> None:
        if any(call.depends(tensor) for tensor in tensors_of(call.inputs)):
            self._leaks |= {call.name}

    def reach_of(self, tensor: Tensor) -> Reach | None:
        record = self._records.get(tensor)
        if record is None or record.call is None:
            return record and record.reach
        base = self._base(record)
        if record.writes != base.writes:
            record.reach, record.writes = _seeing(record.call.outputs()[record.index]), base.writes
        return record.reach

    def _base(self, record: _Record) -> _Record:
        """The record of the tensor that a view, or a view of a view, looks at."""
        while record.call is not None:
            record = self._records.setdefault(record.call.inputs[0], _Record())
        return record

    def _write(self, tensor: Tensor, reach: Reach) -> None:
        record = self._records.setdefault(tensor, _Record())
        if record.call is not None and record.call.shapes[record.index] != reach.shape:  # transpose_() of a view
            record = self._records[tensor] = _Record()
        record.reach = _seeing(reach)
        if record.call is None:
            record.writes += 1
            return
        self._write(record.call.inputs[0], uncut(record.call, record.index, reach))
        record.writes = self._base(record).writes


def _seeing(reach: Reach) -> Reach | None:
    return reach if reach.depends else None
