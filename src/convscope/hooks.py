"""Read what any layer of a network computed: the only file that registers hooks.

``observe(network, images, ["layer4"])`` runs the network as far as it must and returns the outputs of the named
layers, still differentiable. Nothing in the module changes, also when the pass is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convscope.errors import NetworkError, UnknownLayer, nearest

OUTPUT = "(output)"
"""The name under which ``observe`` returns what the network itself returned: (N, classes) for a classifier."""


class Observable(Protocol):
    """What ``observe`` needs of a network; :class:`convscope.network.Network` is one."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def name(self) -> str: ...
    @property
    def calls(self) -> Mapping[str, int]:
        """How often each layer runs in one pass: a layer that runs twice must not stop the pass at its first run."""
        ...

    @property
    def views(self) -> int:
        """How many pictures the module gets for each that goes in: with one, layers have a row a picture."""
        ...

    def forward(self, images: Tensor) -> Tensor: ...


class Activations(dict[str, Tensor]):
    """Layer name to the layer's output, first dimension N."""

    def __missing__(self, name: str) -> Tensor:
        raise UnknownLayer(f"layer {name!r} was not observed{nearest(name, self)}; name it in observe()")


class _Reached(BaseException):
    """Ends a forward pass behind the deepest layer asked for; no model code catches it."""


@dataclass(frozen=True)
class _Wanted:
    layer: str  # the module's name
    call: int  # which of its runs, -1 for the last


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Dropout off and batch norm by its stored statistics, each module's train flag restored behind."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


def first_tensor(output: Any) -> Tensor | None:
    """The tensor of a layer's output: itself, or the first of a tuple or list that holds it."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


def _handed_on(output: Any, copy: Tensor) -> Any:
    if isinstance(output, Tensor):
        return copy
    if hasattr(output, "_fields"):  # a named tuple
        return type(output)(copy, *output[1:])
    return type(output)((copy, *output[1:]))


def _shares_memory(output: Tensor, inputs: Sequence[Any]) -> bool:
    return any(
        isinstance(i, Tensor) and i.untyped_storage().data_ptr() == output.untyped_storage().data_ptr() for i in inputs
    )


def _parse(network: Observable, modules: Mapping[str, nn.Module], names: Collection[str]) -> dict[str, _Wanted]:
    wanted = {}
    for name in names:
        layer, _, call = name.rpartition(":")
        if name in modules and name:
            wanted[name] = _Wanted(name, -1)
        elif layer in modules and call.isdecimal():
            wanted[name] = _Wanted(layer, int(call))
        elif name != OUTPUT:
            known = [n for n in modules if n]
            raise UnknownLayer(
                f"{network.name} has no layer {name!r}{nearest(name, known)} (`convscope layers` lists them)"
            )
    return wanted


class _Recorder:
    """Keeps what the wanted layers put out, and hands copies on."""

    def __init__(
        self, wanted: dict[str, _Wanted], calls: Mapping[str, int], leaves: Collection[str], whole: bool, careful: bool
    ) -> None:
        self.kept = Activations()
        self._careful = careful
        self._versions: dict[str, int] = {}
        self._wanted = wanted
        self._runs: dict[str, int] = {}
        self._leaves = leaves
        self._last: dict[str, int] = {}
        for w in wanted.values():
            run = w.call if w.call >= 0 else calls.get(w.layer, 1) - 1
            self._last[w.layer] = max(run, self._last.get(w.layer, 0))
        self._open = set(self._last)
        self._whole = whole

    def hook(self, layer: str) -> Callable[[nn.Module, Any, Any], Any]:
        names = [name for name, w in self._wanted.items() if w.layer == layer]

        def keep(_module: nn.Module, inputs: Any, output: Any) -> Any:
            run = self._runs[layer] = self._runs.get(layer, -1) + 1
            tensor = first_tensor(output)
            if tensor is None:
                raise NetworkError(
                    f"layer {layer!r} returns a {type(output).__name__}, not a tensor; observe a layer inside it"
                )
            due = [name for name in names if self._wanted[name].call in (-1, run)]
            if due:
                tensor = self._keep(tensor, inputs, due)
            if run >= self._last[layer]:
                self._open.discard(layer)
                if not self._open and not self._whole:
                    raise _Reached
            return _handed_on(output, tensor.clone()) if due and tensor.requires_grad else None

        return keep

    def _keep(self, tensor: Tensor, inputs: Any, names: Sequence[str]) -> Tensor:
        """Keep a layer's output, and return what was kept.

        An in-place ReLU behind this layer would change what was observed, so one of the two is a copy: the one that
        goes on where a graph has to lead through what was kept, else the kept one.
        """
        leaf = any(name in self._leaves for name in names)
        behind = tensor.requires_grad and any(name in self._leaves for name in self.kept if name not in names)
        if leaf and not behind:  # behind another leaf it stays connected with that one
            tensor = tensor.detach().clone().requires_grad_()
            torch.set_grad_enabled(True)  # from here on; observe() restores the mode
        elif not tensor.requires_grad or (self._careful and _shares_memory(tensor, inputs)):
            tensor = tensor.clone()  # behind an in-place or identity layer others hold its memory, too
        for name in names:
            self.kept[name] = tensor
            if tensor.requires_grad:  # the others are copies
                self._versions[name] = tensor._version
        return tensor

    def overwritten(self) -> bool:
        """Whether what was kept was changed behind its layer, by someone else who holds its memory."""
        return any(self.kept[name]._version != version for name, version in self._versions.items())


class _Replacement:
    """Hands on a tensor in place of what one run of a layer put out."""

    def __init__(self, value: Tensor, run: int) -> None:
        self.done = False
        self._value, self._left = value, run

    def __call__(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        self._left -= 1
        if self._left != -1:
            return None
        self.done = True
        return _handed_on(output, self._value.clone())  # an in-place layer behind must not change the caller's


def _replacements(
    network: Observable, modules: Mapping[str, nn.Module], given: Mapping[str, Tensor]
) -> dict[str, tuple[str, _Replacement]]:
    """Name to the layer's own name and the hook that replaces its output."""
    found = {}
    for name, wanted in _parse(network, modules, given).items():
        run = wanted.call if wanted.call >= 0 else network.calls.get(wanted.layer, 1) - 1
        found[name] = wanted.layer, _Replacement(given[name], run)
    return found


def observe(
    network: Observable,
    images: Tensor,
    layers: Collection[str],
    *,
    leaves: Collection[str] = (),
    replace: Mapping[str, Tensor] | None = None,
) -> Activations:
    """The outputs of ``layers`` for ``images``; the pass ends behind the deepest of them.

    Args:
        network: what to look into.
        images: (N, 3, H, W) in [0, 1]. When it requires a gradient, the activations can be differentiated with
            respect to it.
        layers: names as ``network.layers()`` gives them, or :data:`OUTPUT`. A layer that runs several times in a
            pass gives its last output; ``"relu:0"`` names its first.
        leaves: layers to differentiate with respect to. The graph starts at the first of them, its leaf: what lies
            before runs without one, at no cost in memory.
        replace: layer name to what the rest of the network gets instead of the layer's (first) output. Its first
            dimension may be another one than N, as long as the network hands nothing past the layer that does not
            broadcast: one picture and M replacements then give M outputs, and only what lies behind runs M times.

    Returns:
        Layer name to tensor. Without ``leaves`` and without a gradient on ``images`` nothing carries a graph.

    Raises:
        UnknownLayer: a name that the network lacks, or a layer that did not run.
    """
    names = [*layers, *(name for name in leaves if name not in layers)]
    modules = dict(network.module.named_modules())
    wanted = _parse(network, modules, names)
    whole = OUTPUT in names or not wanted
    if wanted and network.views > 1:
        raise NetworkError(
            f"behind a defence of {network.views} draws the layers of {network.name} have {network.views} answers to "
            "each picture; look inside behind one draw, without the number behind the second colon"
        )
    replaced = replace or {}
    differentiable = images.requires_grad or any(value.requires_grad for value in replaced.values())

    def attempt(careful: bool) -> tuple[_Recorder, dict[str, tuple[str, _Replacement]]]:
        recorder = _Recorder(wanted, {} if whole else network.calls, leaves, whole, careful)
        replacements = _replacements(network, modules, replaced)
        with ExitStack() as stack:
            stack.enter_context(evaluation_mode(network.module))
            stack.enter_context(torch.set_grad_enabled(differentiable))
            for layer, replacement in replacements.values():  # before the recorder, which keeps what is handed on
                stack.callback(modules[layer].register_forward_hook(replacement).remove)
            for layer in {w.layer for w in wanted.values()}:
                stack.callback(modules[layer].register_forward_hook(recorder.hook(layer)).remove)
            try:
                output = network.forward(images)
                if whole:
                    recorder.kept[OUTPUT] = output
            except _Reached:
                pass
        return recorder, replacements

    recorder, replacements = attempt(careful=False)
    if recorder.overwritten():  # hardly any network does that, and copies for fear of it would cost every pass
        recorder, replacements = attempt(careful=True)
    missing = [name for name in wanted if name not in recorder.kept]
    missing += [name for name, (_, replacement) in replacements.items() if not replacement.done]
    if missing:
        raise UnknownLayer(
            f"layer {missing[0]!r} of {network.name} did not run in this pass; `convscope layers` lists those that do"
        )
    return recorder.kept


class _Watcher:
    """Shows what the wanted layers put out to a callback, and keeps nothing."""

    def __init__(self, names: Collection[str], wanted: Mapping[str, _Wanted], calls: Mapping[str, int]) -> None:
        self.seen: set[str] = set()
        self._due: dict[tuple[str, int], list[str]] = {}
        for name in names:
            at = wanted[name]
            run = at.call if at.call >= 0 else calls.get(at.layer, 1) - 1
            self._due.setdefault((at.layer, run), []).append(name)
        self._runs: dict[str, int] = {}

    def hook(self, layer: str, receive: Callable[[str, Tensor], None]) -> Callable[[nn.Module, Any, Any], None]:
        def show(_module: nn.Module, _inputs: Any, output: Any) -> None:
            run = self._runs[layer] = self._runs.get(layer, -1) + 1
            for name in self._due.get((layer, run), ()):
                tensor = first_tensor(output)
                if tensor is None:
                    raise NetworkError(
                        f"layer {layer!r} returns a {type(output).__name__}, not a tensor; name a layer inside it"
                    )
                self.seen.add(name)
                receive(name, tensor)

        return show


def stream(
    network: Observable, images: Tensor, layers: Collection[str], receive: Callable[[str, Tensor], None]
) -> Tensor:
    """Run the whole network and show each layer's output to ``receive`` at the moment at which it is there.

    Nothing is copied and nothing kept, so that what is read is still in the caches. It is the layer's output even
    where an in-place layer follows, which has not run yet; and so it may change as soon as ``receive`` returns.

    Args:
        network: what to look into.
        images: (N, 3, H, W) in [0, 1].
        layers: names as for :func:`observe`, without :data:`OUTPUT`; a layer that runs several times shows its last
            run, ``"relu:0"`` its first.
        receive: gets a name and the tensor, which it must not change.

    Returns:
        What the network itself returned: (N, classes) for a classifier, without a graph.

    Raises:
        UnknownLayer: a name that the network lacks, or a layer that did not run.
    """
    modules = dict(network.module.named_modules())
    wanted = _parse(network, modules, layers)
    watcher = _Watcher(list(wanted), wanted, network.calls)
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(network.module))
        stack.enter_context(torch.no_grad())
        for layer in {w.layer for w in wanted.values()}:
            stack.callback(modules[layer].register_forward_hook(watcher.hook(layer, receive)).remove)
        output = network.forward(images)
    missing = [name for name in wanted if name not in watcher.seen]
    if missing:
        raise UnknownLayer(
            f"layer {missing[0]!r} of {network.name} did not run in this pass; `convscope layers` lists those that do"
        )
    return output


@dataclass(frozen=True)
class Run:
    """One layer as a pass met it."""

    name: str
    kind: str
    shape: tuple[int, ...]  # of its first output tensor, batch dimension included
    calls: int


def sequence(module: nn.Module, run: Callable[[], object]) -> tuple[Run, ...]:
    """Every run of every layer that puts out a tensor while ``run()`` runs the module, in the order in which they end.

    ``calls`` counts a layer's runs up to this one.
    """
    seen: list[Run] = []
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(part: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is not None:
                calls[name] = calls.get(name, 0) + 1
                seen.append(Run(name, type(part).__name__, tuple(tensor.shape), calls[name]))

        return hook

    with ExitStack() as stack:
        for name, part in module.named_modules():
            if name:
                stack.callback(part.register_forward_hook(note(name)).remove)
        run()
    return tuple(seen)


def outline(module: nn.Module, run: Callable[[], object]) -> tuple[Run, ...]:
    """The layers that put out a tensor while ``run()`` runs the module, in the order in which they last finished."""
    seen: dict[str, Run] = {}
    for each in sequence(module, run):
        seen.pop(each.name, None)
        seen[each.name] = each
    return tuple(seen.values())


# ---- a network that someone else runs


Seen = Callable[[str, nn.Module, Tensor], None]


class _Eye:
    """A hook that looks at one module's output and hands nothing on; in a copy or a file of the module it is blind."""

    def __init__(self, name: str, part: nn.Module, see: Seen) -> None:
        self._name, self._part, self._see = name, part, see

    def __call__(self, part: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = first_tensor(output)
        if part is self._part and tensor is not None:
            with torch.no_grad():
                self._see(self._name, part, tensor.detach())

    def __reduce__(self) -> tuple[Any, ...]:
        return _Blind, ()


class _Blind:
    def __call__(self, _module: nn.Module, _inputs: Any, _output: Any) -> None:
        pass


def watch(module: nn.Module, names: Collection[str], see: Seen) -> Callable[[], None]:
    """Show what the named parts put out while someone else runs the module, a training loop for instance.

    ``see(name, part, output)`` is called behind each run of each part, without a graph; it must not change the
    output, behind which an in-place layer may stand, and must not keep it. ``""`` names the module itself.

    Returns what ends it. A copy or a saved file of the module that is made meanwhile shows nothing.
    """
    parts = dict(module.named_modules())
    handles = [parts[name].register_forward_hook(_Eye(name, parts[name], see)) for name in names]

    def end() -> None:
        for handle in handles:
            handle.remove()

    return end
