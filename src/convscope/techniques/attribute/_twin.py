"""A copy of a network in which each operation that an attribution rule is about is a module of its own.

Libraries that hang their rules on modules see neither functional nor reused rectifiers, and take sums, means and
batch norms for what they are not. ``twin`` follows a deep copy of the module with ``torch.fx`` and rewrites it: every
activation and pool becomes a module that runs once and never in place, sums of two maps become :class:`Sum`, means
over the map an average pool, and a batch norm goes into the convolution before it. The copy computes what the network
computes, which is checked; the network itself is not touched.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from convscope.errors import ConvscopeError, NetworkError
from convscope.hooks import OUTPUT, evaluation_mode, observe
from convscope.objectives import Question

_INSTEAD = "use integrated-gradients, which needs nothing but gradients"


class Sum(nn.Module):
    """The sum of two maps; ``total`` sums them as a stack over the last dimension, and rules can be put on it."""

    def __init__(self, total: nn.Module) -> None:
        super().__init__()
        self.total = total

    def forward(self, first: Any, second: Any) -> Any:
        if not isinstance(first, Tensor) or not isinstance(second, Tensor):
            return first + second  # sizes
        return self.total(torch.stack(torch.broadcast_tensors(first, second), -1))


class Total(nn.Module):
    """The sum over the last dimension."""

    def forward(self, stack: Tensor) -> Tensor:
        return stack.sum(-1)


class Scale(nn.Module):
    """Maps times a constant."""

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, maps: Any) -> Any:
        return maps * self.factor


class Mean(nn.Module):
    """The mean over a map, as a pool: (N, C, h, w) to (N, C, 1, 1), or to (N, C)."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.pool, self._keepdim = nn.AdaptiveAvgPool2d(1), keepdim

    def forward(self, maps: Tensor) -> Tensor:
        pooled: Tensor = self.pool(maps)
        return pooled if self._keepdim else pooled.flatten(1)


#: Functions and tensor methods as modules, whose arguments have the same names.
_MODULES: Mapping[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    **dict.fromkeys((torch.sigmoid, torch.sigmoid_, F.sigmoid, "sigmoid", "sigmoid_"), nn.Sigmoid),
    **dict.fromkeys((torch.tanh, torch.tanh_, F.tanh, "tanh", "tanh_"), nn.Tanh),
    F.relu6: nn.ReLU6, F.leaky_relu: nn.LeakyReLU, F.elu: nn.ELU, F.hardtanh: nn.Hardtanh, F.gelu: nn.GELU,
    F.silu: nn.SiLU, F.mish: nn.Mish, F.softplus: nn.Softplus, F.hardswish: nn.Hardswish,
    F.hardsigmoid: nn.Hardsigmoid, F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}  # fmt: skip
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_MEANS = (torch.mean, "mean")
_MULTIPLICATIONS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
_PRODUCTS = (*_MULTIPLICATIONS, operator.matmul, torch.matmul, torch.bmm, "matmul")
_IN_PLACE = (torch.relu_, torch.sigmoid_, torch.tanh_, operator.iadd)
_SIZES = ("size", "dim", "numel", getattr)
_OF_SIZES = (operator.getitem, operator.floordiv, operator.mul, operator.add, operator.sub)
_RULELESS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d, nn.MultiheadAttention, nn.Softmax)


class _Tracer(fx.Tracer):
    """Takes layers that others derived from torch's, such as a convolution that pads by itself, as wholes."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        childless = not any(True for _ in m.children())
        own = childless and isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d))
        return own or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class Twin:
    """A copy of a question's network that takes normalised pictures and ends at what is asked about.

    ``ruleless`` names what it holds that no rule is known for.
    """

    module: fx.GraphModule
    question: Question
    ruleless: tuple[str, ...]

    def normalised(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as the module takes them, in at least float32."""
        inputs = self.question.network.normalise(images)
        return inputs.to(torch.promote_types(inputs.dtype, torch.float32)).contiguous()

    def scores(self, inputs: Tensor, question: Question) -> Tensor:
        """(N,) of normalised pictures; ``question`` is the twin's own, perhaps held to other targets."""
        original = question.network
        network = replace(
            original, module=self.module, precision="float32", mean=torch.zeros(inputs.shape[1]),
            std=torch.ones(inputs.shape[1]), output=None if question.layer else original.output, defence=None,
        )  # fmt: skip
        found = observe(network, inputs, [OUTPUT])[OUTPUT]
        return question.scores(dict.fromkeys(question.layers, found))[0]

    def check(self, images: Tensor, question: Question, expected: Tensor) -> None:
        """:class:`NetworkError` when it does not score pictures (N, 3, H, W) as the network does, (N,)."""
        with torch.no_grad():
            found = self.scores(self.normalised(images), question).cpu()
        network = question.network
        types = {p.dtype for p in network.module.parameters()}
        coarse = network.precision == "bfloat16" or bool(types & {torch.half, torch.bfloat16})
        wanted = expected.detach().cpu().to(found.dtype)
        if not torch.allclose(found, wanted, rtol=0.1 if coarse else 1e-2, atol=0.3 if coarse else 1e-3):
            raise NetworkError(
                f"{network.name} gives {float(wanted[0]):g} and its copy, on which rules are put, {float(found[0]):g}: "
                f"torch.fx cannot follow it; {_INSTEAD}"
            )

    def remarks(self) -> list[str]:
        """What the reader must know of a map that passed through what has no rule."""
        if not self.ruleless:
            return []
        return [f"no rule is known for {', '.join(self.ruleless)}: there the plain gradient passes"]


def twin(question: Question, *, total: Callable[[], nn.Module] = Total) -> Twin:
    """The copy of a question's network; ``total`` makes the module that sums over the last dimension.

    Raises :class:`NetworkError` when torch.fx cannot follow the network.
    """
    network = question.network
    if network.views > 1:
        raise NetworkError(
            f"{network.defence} averages over {network.views} draws, and rules follow one: give it without the number "
            f"behind the second colon, or {_INSTEAD}"
        )
    try:
        module = copy.deepcopy(network.module).requires_grad_(False)
        with evaluation_mode(module):
            traced = fx.GraphModule(module, _Tracer().trace(module))
        if question.layer is not None:
            _end_at(traced, question.layer)
        _Rewriter(traced, total).run()
    except ConvscopeError:
        raise
    except Exception as error:  # whatever a network's own code says to being followed
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NetworkError(f"torch.fx cannot follow {network.name} ({cause}); {_INSTEAD}") from error
    if any(p.dtype in (torch.half, torch.bfloat16) for p in traced.parameters()):
        traced.float()  # rules divide small numbers by each other
    # Made anew, its modules are in the order in which they run.
    return Twin(fx.GraphModule(traced, traced.graph).eval(), question, _ruleless(traced))


def _end_at(traced: fx.GraphModule, layer: str) -> None:
    """Cut off what lies behind a layer's last run, or behind the run that ``layer:0`` names."""
    name, _, call = layer.rpartition(":")
    name, run = (name, int(call)) if name and call.isdecimal() else (layer, -1)
    runs = [node for node in traced.graph.nodes if node.op == "call_module" and node.target == name]
    if not runs:  # a layer of layers, which ends with the last of them
        inside = [n for n in traced.graph.nodes if name in _path(n)]
        runs = inside[-1:]
    if not -len(runs) <= run < len(runs):
        raise NetworkError(f"torch.fx does not see layer {layer!r}; name a layer inside it, or the one behind it")
    *nodes, output = traced.graph.nodes
    output.args = (runs[run],)
    for node in reversed(nodes[nodes.index(runs[run]) + 1 :]):  # else what works in place behind it would count
        traced.graph.erase_node(node)


def _path(node: fx.Node) -> list[str]:
    """The modules that a node is in."""
    return [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]


class _Rewriter:
    """Makes a module of each operation that rules are about, node by node."""

    def __init__(self, traced: fx.GraphModule, total: Callable[[], nn.Module]) -> None:
        self._traced, self._graph, self._total = traced, traced.graph, total
        self._used: set[str] = set()

    def run(self) -> None:
        for node in list(self._graph.nodes):
            module = self._called(node) if node.op == "call_module" else self._module_for(node)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) and self._fused(node, module):
                continue
            if module is not None:
                self._replace(node, module)
        self._graph.eliminate_dead_code()
        self._traced.recompile()

    def _called(self, node: fx.Node) -> nn.Module | None:
        """A module of its own where it runs again or in place."""
        found = self._traced.get_submodule(str(node.target))
        again = str(node.target) in self._used
        self._used.add(str(node.target))
        if again or getattr(found, "inplace", False):
            return copy.deepcopy(found)
        return found if isinstance(found, nn.BatchNorm2d | nn.BatchNorm1d) else None

    def _module_for(self, node: fx.Node) -> nn.Module | None:
        if node.op not in ("call_function", "call_method"):
            return None
        of_sizes = any(map(_is_size, node.args))
        if node.target in _ADDITIONS and not node.kwargs and _computed(node.args) == 2 and not of_sizes:
            return Sum(self._total())
        if node.target in _MULTIPLICATIONS and _computed(node.args) == 1 and not of_sizes:
            return Scale(next(self._constant(a) for a in node.args if not _computed([a])))
        given = self._arguments(node)
        if given is None:
            return None
        if node.target in _MEANS and _over_maps(given.get("dim")) and given.get("dtype") is None:
            return Mean(bool(given.get("keepdim")))
        if node.target is F.batch_norm:
            return self._batch_norm(given)
        maker = _MODULES.get(node.target)
        if maker is None or given.get("return_indices"):
            return None
        names = inspect.signature(maker).parameters
        return maker(**{name: value for name, value in given.items() if name in names and name != "inplace"})

    def _arguments(self, node: fx.Node) -> dict[str, Any] | None:
        """All but the first by their names; None where one is only known when it runs, or has no name."""
        if node.target in _MEANS:
            names = ("dim", "keepdim")
            given = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
        elif (node.op == "call_function" and len(node.args) > 1) or node.kwargs:
            found = node.normalized_arguments(self._traced, normalize_to_only_use_kwargs=True)
            if found is None:
                return None
            given = dict(found.kwargs)
            given.pop("input", None)
        else:
            given = {}
        fixed = all(not isinstance(value, fx.Node) or value.op == "get_attr" for value in given.values())
        return given if fixed else None

    def _constant(self, value: Any) -> Any:
        return operator.attrgetter(str(value.target))(self._traced) if isinstance(value, fx.Node) else value

    def _batch_norm(self, given: Mapping[str, Any]) -> nn.Module | None:
        """F.batch_norm on tensors of the network as a module."""
        names = ("running_mean", "running_var", "weight", "bias")
        held = {name: self._constant(given.get(name)) for name in names}
        if held["running_mean"] is None or given.get("training"):
            return None
        norm = nn.BatchNorm2d(len(held["running_mean"]), eps=given.get("eps", 1e-5)).eval().requires_grad_(False)
        norm.running_mean, norm.running_var = held["running_mean"], held["running_var"]
        for name in ("weight", "bias"):
            setattr(norm, name, None if held[name] is None else nn.Parameter(held[name], requires_grad=False))
        return norm

    def _fused(self, node: fx.Node, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> bool:
        """Whether a batch norm went into the convolution or linear layer before it."""
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module":
            return False
        if any(user is not node and user.target not in _SIZES for user in before.users):
            return False
        linear = self._traced.get_submodule(str(before.target))
        fuses: Mapping[Any, Callable[..., nn.Module]] = {nn.Conv2d: fuse_conv_bn_eval, nn.Linear: fuse_linear_bn_eval}
        fuse = fuses.get(type(linear))
        if fuse is None or norm.running_mean is None:
            return False
        before.target = self._add(fuse(linear.eval(), norm.eval()).requires_grad_(False))
        node.replace_all_uses_with(before)
        self._graph.erase_node(node)
        return True  # sizes are the same before the norm and behind it

    def _replace(self, node: fx.Node, module: Any) -> None:
        in_place = self._in_place(node)
        if hasattr(module, "inplace"):
            module.inplace = False
        inputs = [a for a in (*node.args, node.kwargs.get("input")) if isinstance(a, fx.Node) and a.op != "get_attr"]
        inputs = inputs[: 2 if isinstance(module, Sum) else 1]
        with self._graph.inserting_before(node):
            new = self._graph.call_module(self._add(module), tuple(inputs))
        node.replace_all_uses_with(new)
        if in_place:
            self._let_later_read(inputs[0], new)
        self._graph.erase_node(node)

    def _let_later_read(self, before: fx.Node, after: fx.Node) -> None:
        """Whoever reads what was changed in place, once it was changed, reads the result."""
        places = {node: place for place, node in enumerate(self._graph.nodes)}
        for user in [user for user in before.users if places[user] > places[after]]:
            user.replace_input_with(before, after)

    def _in_place(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return bool(getattr(self._traced.get_submodule(str(node.target)), "inplace", False))
        named = node.op == "call_method" and str(node.target).endswith("_")
        return named or node.target in _IN_PLACE or bool(node.kwargs.get("inplace"))

    def _add(self, module: nn.Module) -> str:
        name = f"_module{len(self._used)}"
        self._used.add(name)
        self._traced.add_submodule(name, module)
        return name


def _computed(values: Sequence[Any]) -> int:
    """How many of these depend on the picture."""
    return sum(isinstance(v, fx.Node) and v.op != "get_attr" for v in values)


def _over_maps(dim: Any) -> bool:
    return isinstance(dim, (tuple, list)) and sorted(dim) in ([2, 3], [-2, -1])


def _ruleless(traced: fx.GraphModule) -> tuple[str, ...]:
    found = set()
    for node in traced.graph.nodes:
        if node.op == "call_module":
            module = traced.get_submodule(str(node.target))
            found |= {type(module).__name__} if isinstance(module, _RULELESS) else set()
        elif node.target in (F.layer_norm, F.softmax, "softmax", F.scaled_dot_product_attention):
            found.add(str(getattr(node.target, "__name__", node.target)))
        elif node.target in _PRODUCTS and _computed(node.args) == 2 and not any(_is_size(a) for a in node.args):
            found.add("products of activations")
    return tuple(sorted(found))


def _is_size(value: Any) -> bool:
    """Whether a value is the size of a map, or computed from sizes."""
    if not isinstance(value, fx.Node):
        return False
    nodes = [each for each in value.args if isinstance(each, fx.Node)]
    return value.target in _SIZES or (value.target in _OF_SIZES and bool(nodes) and all(map(_is_size, nodes)))
