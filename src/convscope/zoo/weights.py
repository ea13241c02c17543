"""Weights from files and mappings: read without running anything, checked, and put into a module.

A file of PyTorch is a pickle, and a pickle may run code; here it is read by ``torch.load(weights_only=True)``, which
makes tensors and plain containers and refuses the rest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from convscope.errors import NetworkError
from convscope.zoo.blueprint import Blueprint, Description, State, first_line
from convscope.zoo.labels import labels_of

#: under which training scripts keep the weights beside optimizers and epochs
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "module", "params", "model_ema")
#: what wrappers put before every name: DataParallel, torch.compile, Lightning and others
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")


@dataclass(frozen=True)
class Weights:
    """A state dict, what its file says about the network, and where it came from."""

    state: State
    source: str  # for messages and provenance
    description: Description = field(default_factory=Description)


def read_weights(weights: str | os.PathLike[str] | Mapping[str, Tensor]) -> Weights:
    """The tensors of a file or mapping, wrappers of training scripts taken off.

    Raises :class:`NetworkError` when the file is missing, is broken, or holds more than tensors.
    """
    if isinstance(weights, Mapping):
        return Weights(unwrap(weights, "the given mapping"), "given state dict")
    if not isinstance(weights, (str, os.PathLike)):
        raise NetworkError(f"weights are 'default', 'random', a FILE or a state dict, not a {type(weights).__name__}")
    path = Path(weights)
    if not path.is_file():
        raise NetworkError(
            f"there is no file of weights {str(path)!r}; give a .safetensors or .pt FILE, 'default' or 'random'"
        )
    try:
        if _is_safetensors(path):
            state, metadata = _read_safetensors(path)
        else:
            state, metadata = _read_torch(path), {}
    except OSError as error:
        raise NetworkError(f"the weights in {str(path)!r} cannot be read: {error.strerror or error}") from error
    return Weights(unwrap(state, path.name), f"{path.name} sha256:{_digest(path)}…", _described(metadata, path.name))


def _digest(path: Path, digits: int = 8) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:digits]


def _is_safetensors(path: Path) -> bool:
    """By its name, or by a header that is the length of a JSON object and its first brace."""
    with path.open("rb") as file:
        head = file.read(9)
    fits = len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size
    return fits or path.suffix.lower() == ".safetensors"


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise NetworkError(
            f"{path.name} is not a whole safetensors file ({first_line(error)}); fetch it again"
        ) from error


def _harmless() -> AbstractContextManager[Any]:
    """Lets ``argparse.Namespace`` through, in which training scripts keep their options; it runs nothing."""
    allow = getattr(torch.serialization, "safe_globals", None)  # from torch 2.5 on
    return allow([argparse.Namespace]) if allow else nullcontext()


def _read_torch(path: Path) -> Any:
    try:
        with _harmless(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on TorchScript archives, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NetworkError(_refused(path)) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        if "TorchScript" in str(error):
            raise NetworkError(
                f"{path.name} is a TorchScript archive; save the state_dict() of its Python module"
            ) from error
        raise NetworkError(
            f"{path.name} is no file of weights that PyTorch can read ({first_line(error)}); "
            "give a .safetensors file, or what torch.save(model.state_dict(), FILE) writes"
        ) from error


def _refused(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(2)
    if head[:1] != b"\x80" and head != b"PK":
        return (
            f"{path.name} is no file of weights; give a .safetensors file, "
            "or what torch.save(model.state_dict(), FILE) writes"
        )
    return (
        f"{path.name} is a pickle that holds more than tensors, and convscope runs no code from a file; "
        "save the weights alone: torch.save(model.state_dict(), FILE)"
    )


def unwrap(content: Any, source: str) -> State:
    """The state dict in a checkpoint: itself, or under one of the keys that training scripts use."""
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if tensors and not inner:
            return tensors
        if not inner:
            break
        content = inner[0]
    raise NetworkError(f"{source} holds no state dict: no names with tensors, nor under {', '.join(_WRAPPERS)}")


def _described(metadata: Mapping[str, str], source: str) -> Description:
    """What the metadata of a safetensors file says: JSON under labels, mean, std, input_size and crop."""
    known: dict[str, Any] = {}
    for key in ("labels", "mean", "std", "input_size", "crop"):
        if key in metadata:
            try:
                value = json.loads(metadata[key])
                known[key] = _METADATA[key](value)
            except (ValueError, TypeError) as error:
                raise NetworkError(f"the metadata {key!r} of {source} is not what it should be ({error})") from error
    return Description(**known)


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in (value if isinstance(value, list) else [value]))


def _size(value: Any) -> tuple[int, int]:
    height, width = (int(side) for side in (value if isinstance(value, list) else [value, value]))
    return height, width


_METADATA: dict[str, Callable[[Any], Any]] = {
    "labels": labels_of,
    "mean": _numbers,
    "std": _numbers,
    "input_size": _size,
    "crop": float,
}


# ---- into a module


def unprefixed(state: State, wanted: Sequence[str]) -> State:
    """``state`` without what wrappers put before every name, unless the module's own names begin so."""
    while state:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None)
        if prefix is None or any(name.startswith(prefix) for name in wanted):
            return state
        state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state


def load_into(module: nn.Module, weights: Weights, name: str) -> None:
    """Copy ``weights`` into ``module``, in the module's own precision.

    Raises :class:`NetworkError` that counts what is missing, unexpected or of another shape, and names a few.
    """
    wanted = module.state_dict()
    state = unprefixed(weights.state, list(wanted))
    shapes = _other_shapes(wanted, state)
    if not shapes:
        result = module.load_state_dict(state, strict=False)
        missing, unexpected = result.missing_keys, result.unexpected_keys
    else:
        missing = [key for key in wanted if key not in state]
        unexpected = [key for key in state if key not in wanted]
    kinds = [key for key in wanted if key in state and wanted[key].is_floating_point() > state[key].is_floating_point()]
    problems = [
        _counted(missing, "missing"),
        _counted(unexpected, "unexpected"),
        _counted([f"{key} {_by(state[key])} and not {_by(wanted[key])}" for key in shapes], "of another shape"),
        _counted(kinds, "not of floating point"),
    ]
    if any(problems):
        raise NetworkError(f"{weights.source} does not fit {name}: {', '.join(filter(None, problems))}")


def _other_shapes(wanted: Mapping[str, Tensor], state: State) -> list[str]:
    return [key for key, value in wanted.items() if key in state and state[key].shape != value.shape]


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _counted(names: Sequence[str], what: str, most: int = 3) -> str:
    shown = ", ".join(names[:most]) + (", …" if len(names) > most else "")
    return f"{len(names)} {what} ({shown})" if names else ""


def classes_of(module: nn.Module, classes: int | None, state: State) -> int | None:
    """How many classes ``state`` was trained for, when that is all in which it differs from ``module``; else None.

    It is, when every tensor of another shape has the module's number of classes as its first side, and one other
    number in its place.
    """
    wanted = module.state_dict()
    state = unprefixed(state, list(wanted))
    differing = _other_shapes(wanted, state)
    found = set()
    for key in differing:
        mine, theirs = wanted[key].shape, state[key].shape
        if not mine or not theirs or mine[0] != classes or mine[1:] != theirs[1:]:
            return None
        found.add(theirs[0])
    return found.pop() if len(found) == 1 else None


def build_with(blueprint: Blueprint, weights: Weights) -> tuple[nn.Module, Blueprint]:
    """The network of ``blueprint`` with ``weights``, which decide how many classes it has.

    Returns the blueprint as well, with what the weights changed about it.
    """
    if blueprint.translate is not None:
        weights = replace(weights, state=blueprint.translate(unprefixed(weights.state, ())))
    if blueprint.adapt is not None:
        blueprint = blueprint.adapt(weights.state)
    module = blueprint.build(None)
    classes = classes_of(module, blueprint.classes, weights.state) if blueprint.classes else None
    if classes is not None:
        module = blueprint.build(classes)
        blueprint = replace(blueprint, classes=classes, description=replace(blueprint.description, labels=None))
    try:
        load_into(module, weights, blueprint.name)
    except NetworkError:
        converted = _converted(blueprint, weights.state)
        if converted is None:
            raise
        module = converted
    return module, blueprint


def _converted(blueprint: Blueprint, state: State) -> nn.Module | None:
    if blueprint.convert is None:
        return None
    try:
        return blueprint.convert(state, blueprint.classes)
    except Exception:  # whatever a foreign converter meets in keys that it does not know: the misfit itself is reported
        return None


# ---- checks and fresh weights


def check_values(module: nn.Module, name: str) -> None:
    """Raise :class:`NetworkError` for a parameter without values, or with NaN or infinite ones.

    Buffers are held to it where they are statistics; an attention mask may well be infinite.
    """
    statistics = ((k, b) for k, b in module.named_buffers() if k.endswith(("running_mean", "running_var")))
    for key, value in (*module.named_parameters(), *statistics):
        if isinstance(value, (nn.UninitializedParameter, nn.UninitializedBuffer)):
            raise NetworkError(f"{key!r} of {name} has no shape yet; run the network once before handing it over")
        if value.is_meta:
            raise NetworkError(f"{key!r} of {name} has no values (it is on the meta device); load its weights first")
        if value.is_floating_point() and not _finite(value):
            kind = "NaN" if bool(value.isnan().any()) else "infinite"
            raise NetworkError(f"{key!r} of {name} holds {kind} values; the network is damaged, load other weights")


def _finite(value: Tensor) -> bool:
    # One pass and no mask as large as the weights: a sum is finite unless an entry is not (or it overflows).
    return bool(value.detach().sum().isfinite()) or bool(value.detach().isfinite().all())


def randomise(module: nn.Module) -> None:
    """Draw new weights from torch's generator: by each layer's own ``reset_parameters``, else from N(0, 0.02²)."""
    with torch.no_grad():
        for part in module.modules():
            again = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(again):
                again()
            else:
                for parameter in part.parameters(recurse=False):
                    parameter.normal_(0, 0.02)
