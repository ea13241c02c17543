"""Networks to look into: the built-in one, torchvision's, timm's, and one's own."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from convscope.defences import Defence
from convscope.errors import MissingExtra, NetworkError, nearest
from convscope.network import Network, Precision
from convscope.zoo import builtin, files, timm_models, torchvision_models
from convscope.zoo.blueprint import Blueprint, Description
from convscope.zoo.labels import read_labels
from convscope.zoo.options import numbers, on_device, precise, seeded, share, side, statistics
from convscope.zoo.weights import build_with, check_values, load_into, randomise, read_weights

__all__ = ["load_network"]

_SPECS = "'builtin', 'builtin-robust', 'torchvision:NAME', 'timm:NAME' or 'path/to/file.py:factory'"
_WeightsOption: TypeAlias = "str | os.PathLike[str] | Mapping[str, Tensor]"


@dataclass(frozen=True)
class _Source:
    """A module with its weights and what is known of it, before the caller's options."""

    module: nn.Module
    name: str
    weights: str  # provenance
    description: Description
    fresh: bool  # made here: it may be changed and moved
    moves: bool  # named by a string: it goes to the best device
    labelled: bool = False  # the labels are a file's, so that their number is to be checked
    base: Network | None = None


def load_network(
    network: str | os.PathLike[str] | nn.Module | Network,
    weights: str | os.PathLike[str] | Mapping[str, Tensor] = "default",
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    input_size: int | tuple[int, int] | None = None,
    crop: float | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "auto",
    output: str | None = None,
    defence: str | Defence | None = None,
    seed: int = 0,
    name: str | None = None,
) -> Network:
    """A network with its labels and the way in which pictures enter it.

    Args:
        network: ``"builtin"``; ``"builtin-robust"``, the same trained to stand attacks; ``"torchvision:NAME"``;
            ``"timm:NAME"``; ``"path/to/file.py:factory"`` or ``"package.module:factory"``, a function or class that
            takes no arguments and gives an ``nn.Module``; an ``nn.Module``; or a :class:`Network`, of which the options
            given here are replaced. A module that is handed over is never changed or moved: where another device or
            other weights are asked for, a copy is.
        weights: ``"default"`` for those that the network's own hub publishes (an own network: as it is); ``"random"``
            for fresh ones, drawn by ``seed``; a FILE of safetensors or of ``torch.save(state_dict)``, which is read
            without running code; or a state dict. With a file or a state dict, networks of torchvision, timm and
            ``builtin`` take on the number of classes that it was trained for. A safetensors file may say ``labels``,
            ``mean``, ``std``, ``input_size`` and ``crop`` in its metadata, each as JSON.
        labels: one name a class, or a FILE: ``.txt``, one name a line, or ``.json``, a list or a dict from index to
            name. The default is what the weights' metadata say.
        mean, std: of the pictures that the network was trained on, in [0, 1], one number for all channels or one each.
            A network whose first convolution has one channel gets pictures turned to grey. The default is what the
            weights' metadata say, and for an own network mean 0 and standard deviation 1: no normalisation.
        input_size: side, or (height, width), in pixels, that pictures are prepared to. The default is what the
            metadata say, and for an own network 224. Architectures that are made for one size are built for this one.
        crop: share of the resized picture's side that is kept, in (0, 1].
        device: where it runs. The default for a name is CUDA, else MPS, else the CPU; a module stays where it is.
        precision: ``"float32"``, or ``"bfloat16"`` by autocast. ``"auto"`` is float32, since attributions are
            differences of small numbers, and bfloat16 for pictures made by optimisation where the device is fast at it.
        output: key or attribute that holds the class scores where the module returns a dict or an object.
        defence: what stands in front of it, as ``"jpeg:75"``; see :mod:`convscope.defences`.
        seed: of random weights, and of a random defence. The generators of torch are left as they were.
        name: how messages and provenance call it.

    Raises:
        NetworkError: an unknown name (the nearest ones are named), or weights or labels that do not fit.
        OptionError: an option outside its range.
        MissingExtra: torchvision or timm is not installed.
    """
    options = (labels, mean, std, input_size, crop, device, output, defence, name)
    if isinstance(network, Network) and weights == "default" and precision == "auto" and options == (None,) * 9:
        return network  # with all that it has found out about its layers
    wanted, size = precise(precision), side(input_size)
    names = None if labels is None else read_labels(labels)
    asked = Description(numbers("mean", mean), numbers("std", std), size, share(crop), names)
    if isinstance(network, (str, os.PathLike)):
        source = _named(os.fspath(network), weights, size, seed)
    else:
        source = _given(network, weights, seed)
    found = _assembled(source, _placed(source, device), asked)
    wanted = wanted or (found.precision if source.base else "auto")
    found = replace(found, name=name or found.name, precision=wanted, output=output or found.output)
    if names is not None or source.labelled:
        _check_labels(found)
    return found if defence is None else found.defended(defence, seed=seed)


# ---- where the module comes from


def _named(spec: str, weights: _WeightsOption, size: tuple[int, int] | None, seed: int) -> _Source:
    place, _, name = spec.partition(":")
    if spec in builtin.FILES:
        return _built(builtin.blueprint(spec), weights, seed)
    if place == "torchvision":
        return _built(torchvision_models.blueprint(name, size), weights, seed)
    if place == "timm":
        return _built(timm_models.blueprint(name, size), weights, seed)
    if not files.is_own(spec):
        raise NetworkError(_unknown(spec))
    with seeded(seed):
        made, fresh = files.build_own(spec)
    source = _given(made, weights, seed, fresh=fresh, moves=True)
    return source if source.base else replace(source, name=os.path.basename(spec))


def _unknown(spec: str) -> str:
    if os.path.isfile(spec):
        return (
            f"{spec!r} is a file and no network; name the network that its weights belong to, and pass --weights {spec}"
        )
    known = []
    for place, listing in (("torchvision", torchvision_models), ("timm", timm_models)):
        with suppress(MissingExtra):
            known += [f"{place}:{name}" for name in listing.names()]
    same = [name for name in known if name.partition(":")[2] == spec]
    if same:
        return f"there is no network {spec!r}; did you mean {' or '.join(same)}?"
    return f"there is no network {spec!r}; give {_SPECS}{nearest(spec, [*builtin.FILES, *known])}"


def _built(blueprint: Blueprint, weights: _WeightsOption, seed: int) -> _Source:
    description, labelled = blueprint.description, False
    with seeded(seed):
        if isinstance(weights, str) and weights == "default":
            module, provenance = blueprint.pretrained()
        elif isinstance(weights, str) and weights == "random":
            module, provenance = blueprint.build(None), f"random, seed {seed}"
        else:
            read = read_weights(weights)
            module, blueprint = build_with(blueprint, read)
            description, provenance = read.description.over(blueprint.description), read.source
            labelled = read.description.labels is not None
    return _Source(module, blueprint.name, provenance, description, fresh=True, moves=True, labelled=labelled)


def _given(
    network: nn.Module | Network, weights: _WeightsOption, seed: int, *, fresh: bool = False, moves: bool = False
) -> _Source:
    base = network if isinstance(network, Network) else None
    module = _plain(base.module if base else network)
    name = base.name if base else type(module).__name__
    source = _Source(module, name, base.weights if base else "as given", _said_by(base), fresh, moves, base=base)
    if isinstance(weights, str) and weights == "default":
        return source
    module = module if fresh else _copy(module, name)
    if isinstance(weights, str) and weights == "random":
        with seeded(seed):
            randomise(module)
        return replace(source, module=module, weights=f"random, seed {seed}", fresh=True)
    read = read_weights(weights)
    load_into(module, read, name)
    description, labelled = read.description.over(source.description), read.description.labels is not None
    return replace(source, module=module, weights=read.source, description=description, fresh=True, labelled=labelled)


def _said_by(network: Network | None) -> Description:
    if network is None:
        return Description(input_size=(224, 224))
    mean, std = tuple(network.mean.tolist()), tuple(network.std.tolist())
    return Description(mean, std, network.input_size, network.crop, network.labels)


def _plain(module: object) -> nn.Module:
    """The module behind ``torch.compile`` and ``DataParallel``, whose layers can be looked at."""
    if not isinstance(module, nn.Module):
        raise NetworkError(f"load_network() takes {_SPECS}, an nn.Module or a Network, not a {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise NetworkError(
            f"{module.original_name} is a TorchScript module, whose layers cannot be looked at; "
            "hand over the Python module that it was made from"
        )
    inner = getattr(module, "_orig_mod", None)
    if isinstance(inner, nn.Module):
        return _plain(inner)
    if isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return _plain(module.module)
    if getattr(module, "_compiled_call_impl", None) is not None:  # after module.compile()
        return copy.copy(module)  # the same layers and parameters, called as they are written
    return module


# ---- where it runs


def _placed(source: _Source, device: str | torch.device | None) -> nn.Module:
    module = source.module
    check_values(module, source.name)
    if device is not None or source.moves:
        target = on_device(device)
        if any(tensor.device != target for tensor in (*module.parameters(), *module.buffers())):
            module = (module if source.fresh else _copy(module, source.name)).to(target)
    return module.eval() if source.moves and source.fresh else module


def _copy(module: nn.Module, name: str) -> nn.Module:
    try:
        return copy.deepcopy(module)
    except (RuntimeError, TypeError, ValueError) as error:
        raise NetworkError(
            f"{name} is not changed in place and cannot be copied ({error}); give it its device and weights beforehand"
        ) from error


# ---- what is said about it


def _assembled(source: _Source, module: nn.Module, asked: Description) -> Network:
    said = asked.over(source.description)
    mean, std = statistics(asked, source.description, module)
    base = source.base or Network(module, name=source.name)
    return replace(
        base,
        module=module,
        mean=mean,
        std=std,
        labels=said.labels or (),
        input_size=said.input_size or base.input_size,
        crop=said.crop or base.crop,
        weights=source.weights,
    )


def _check_labels(network: Network) -> None:
    if len(network.labels) != network.classes:
        raise NetworkError(
            f"{len(network.labels)} labels for the {network.classes} classes of {network.name}; "
            "give one a class, in their order"
        )
