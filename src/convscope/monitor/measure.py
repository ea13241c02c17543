"""What the monitor reads of a network during one step of its training."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.hooks import watch
from convscope.vitals import channels_last, size_ratio, smoothness

MEMORY = 20  # records over which a channel must have stayed silent to be called dead
_NORMS = (
    nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm,
)  # fmt: skip
_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
_SMOOTH = (
    nn.GELU, nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.PReLU, nn.Sigmoid, nn.Tanh, nn.Mish, nn.Hardswish,
    nn.Softplus,
)  # fmt: skip
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WEIGHTED = (*_CONVOLUTIONS, nn.Linear)


@dataclass(frozen=True)
class Record:
    """One step as the monitor saw it.

    ``layers`` has for each layer with weights, in order: ``smoothness`` (of its filters), ``gradient`` (size of the
    loss's gradient over that of the weights), ``update`` (size of the step over that of the weights), ``size`` (of the
    weights), ``zeros`` (share of its rectified outputs) and ``dead`` (share of its channels that were never above zero
    in the last :data:`MEMORY` records); NaN for what it lacks.
    """

    step: int
    loss: float
    layers: Mapping[str, Mapping[str, float]]
    seconds: float = 0.0  # that the monitor took for it


KINDS = ("smoothness", "gradient", "update", "size", "zeros", "dead")


@dataclass(frozen=True)
class _Above:
    """What of one output is above zero: the share, and which channels (C,) at all."""

    share: Tensor
    channels: Tensor

    @classmethod
    def of(cls, output: Tensor) -> _Above:
        above = channels_last(output) > 0
        return cls(above.float().mean(), above.any(0))


class Watcher:
    """Reads one module; ``begin`` before the forward pass of a step that is to be recorded, ``finish`` behind its
    backward pass, ``updated`` behind the optimiser's step."""

    def __init__(self, module: nn.Module, layers: Sequence[str] | None = None) -> None:
        self.module = module
        parts = dict(module.named_modules())
        weighted = [name for name, part in parts.items() if isinstance(part, _WEIGHTED)]
        missing = [name for name in layers or () if name not in weighted]
        if missing or not weighted:
            known = f"those with weights are {', '.join(weighted[:6])}" if weighted else "it has none with weights"
            what = f"{missing[0]!r} is no layer with weights of" if missing else "there is nothing to watch in"
            raise NetworkError(f"{what} this module; {known}")
        self.layers = list(layers or weighted)
        kinds = (*_WEIGHTED, *_NORMS, *_RECTIFIERS, *_SMOOTH)
        self._parts = [name for name, part in parts.items() if isinstance(part, kinds)]
        self._functional = not any(isinstance(part, (*_RECTIFIERS, *_SMOOTH)) for part in parts.values())
        self._last = weighted[-1]
        self._silent: dict[str, deque[Tensor]] = {name: deque(maxlen=MEMORY) for name in weighted}
        self._kept: dict[str, Tensor] = {}
        self._end: Callable[[], None] = lambda: None
        self._reset()

    def _reset(self) -> None:
        self.seconds = 0.0  # spent within the passes
        self._seen: dict[str, list[_Above]] = {}
        self._forget()

    def _forget(self) -> None:
        self._current: str | None = None  # the layer with weights that ran last
        self._channels = 0  # of its output
        self._waiting: _Above | None = None  # what it gave so far, where a rectifier may follow that is no module

    # ---- activations

    def begin(self) -> None:
        """Watch the passes from now on."""
        self._reset()
        self._end()
        self._end = watch(self.module, [*self._parts, ""], self._see)

    def cease(self) -> None:
        """Watch no more."""
        self._end()
        self._end = lambda: None

    def _see(self, name: str, part: nn.Module, output: Tensor) -> None:
        if not self.module.training:  # a validation in between
            return
        start = time.perf_counter()
        self._read(name, part, output)
        self.seconds += time.perf_counter() - start

    def _read(self, name: str, part: nn.Module, output: Tensor) -> None:
        if name == "" or isinstance(part, _WEIGHTED):
            self._settle()
        if name and isinstance(part, _WEIGHTED):
            self._current, self._channels = name, _width(output)
            self._wait(output)
        elif self._current and _width(output) == self._channels:
            self._behind(self._current, part, output)

    def _wait(self, output: Tensor) -> None:
        """Functional rectifiers cannot be seen; what is not above zero before one is zero behind it."""
        if self._functional and self._current != self._last:
            self._waiting = _Above.of(output)

    def _behind(self, name: str, part: nn.Module, output: Tensor) -> None:
        """A norm is waited behind, a rectifier is read, and what else follows leaves no zeros."""
        if isinstance(part, _NORMS):
            self._wait(output)
            return
        if isinstance(part, _RECTIFIERS):
            self._seen.setdefault(name, []).append(_Above.of(output))
        self._forget()

    def _settle(self) -> None:
        if self._current and self._waiting:
            self._seen.setdefault(self._current, []).append(self._waiting)
        self._forget()

    # ---- weights

    def _weights(self) -> Iterator[tuple[str, nn.Module, Tensor]]:
        parts = dict(self.module.named_modules())
        for name in self.layers:
            weight = getattr(parts[name], "weight", None)
            if isinstance(weight, Tensor) and not isinstance(weight, nn.UninitializedParameter):
                yield name, parts[name], weight

    def finish(self) -> dict[str, dict[str, float]]:
        """The numbers of the step whose backward pass has run; the weights are kept until :meth:`updated`."""
        self.cease()
        found: dict[str, dict[str, Tensor]] = {}
        with torch.no_grad():
            for name, part, weight in self._weights():
                found[name] = {"size": weight.norm(), **self._of_weight(part, weight), **self._of_activity(name)}
                self._kept[name] = weight.detach().clone()
        return {name: _numbers(each) for name, each in found.items()}

    def _of_weight(self, part: nn.Module, weight: Tensor) -> dict[str, Tensor]:
        slope = {} if weight.grad is None else {"gradient": size_ratio(weight.grad, weight)}
        if not isinstance(part, nn.Conv2d) or max(part.kernel_size) == 1:
            return slope
        return {"smoothness": smoothness(weight.detach().float()).nanmean(), **slope}

    def _of_activity(self, name: str) -> dict[str, Tensor]:
        seen = self._seen.get(name)
        if not seen:
            return {}
        self._silent[name].append(~torch.stack([above.channels for above in seen]).any(0))
        always = torch.stack(list(self._silent[name])).all(0)
        return {"zeros": 1 - torch.stack([above.share for above in seen]).mean(), "dead": always.float().mean()}

    def updated(self) -> dict[str, float]:
        """How much the optimiser's step has changed each layer, as a share of its size."""
        with torch.no_grad():
            found = {
                name: size_ratio(weight - self._kept[name], self._kept[name])
                for name, _, weight in self._weights()
                if name in self._kept
            }
        self._kept = {}
        return _numbers(found)

    def filters(self) -> Tensor | None:
        """(outputs, inputs, h, w) of the first convolution whose filters are larger than a point."""
        for _, part, weight in self._weights():
            if isinstance(part, nn.Conv2d) and min(part.kernel_size) > 1:
                return weight.detach().float().cpu().clone()
        return None


def _width(output: Tensor) -> int:
    """How many channels an output has."""
    return output.shape[-1] if output.ndim in (2, 3) else output.shape[1] if output.ndim > 3 else 0


def _numbers(found: Mapping[str, Tensor]) -> dict[str, float]:
    """All at once: a GPU is waited for a single time."""
    if not found:
        return {}
    values = torch.stack([value.detach().float() for value in found.values()]).tolist()
    return {name: value if math.isfinite(value) else math.nan for name, value in zip(found, values, strict=True)}
