"""Stylists in files: half-precision safetensors, with names, shape and recipe as JSON in the metadata."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from convscope.errors import NetworkError, OptionError, nearest
from convscope.feedforward.stylist import Shape, Stylist
from convscope.images import atomic_write
from convscope.zoo.weights import Weights, check_values, load_into

FOLDER = Path(__file__).with_name("styles")
SUFFIX = ".safetensors"
_KIND = "convscope stylist"


def shipped() -> list[str]:
    """Names of the styles that come with convscope."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def find(style: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file of a style, and which of its styles: ``starry-night``, ``FILE`` or ``FILE:NAME``.

    Raises :class:`OptionError` when there is neither a shipped style of that name nor a file.
    """
    text = os.fspath(style)
    own = FOLDER / f"{text}{SUFFIX}"
    if own.parent == FOLDER and own.is_file():
        return own, None
    path, colon, name = text.rpartition(":")
    if colon and not Path(text).exists():
        return _present(path), name
    return _present(text), None


def _present(text: str) -> Path:
    if Path(text).is_file():
        return Path(text)
    known = shipped()
    raise OptionError(
        f"there is no style {text!r}{nearest(text, known)}; give one of {', '.join(known)}, or a FILE that "
        "`convscope train-style` wrote"
    )


def save_stylist(path: str | os.PathLike[str], stylist: Stylist, recipe: Mapping[str, Any]) -> None:
    """Write the weights in half precision, with everything that they were made by; whole or not at all."""
    weights = {name: value.detach().cpu().half().contiguous() for name, value in stylist.state_dict().items()}
    metadata = {
        "kind": _KIND, "names": json.dumps(stylist.names), "shape": json.dumps(stylist.shape.noted()),
        "recipe": json.dumps(dict(recipe)),
    }  # fmt: skip
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(weights, metadata))


def read_stylist(path: str | os.PathLike[str]) -> Stylist:
    """The stylist in a file, in float32, in evaluation mode, its weights frozen.

    Raises :class:`NetworkError` when the file is damaged or holds something else.
    """
    name = Path(path).name
    state, metadata = _read(Path(path))
    try:
        if metadata.get("kind") != _KIND:
            raise ValueError("other weights are in it")
        shape, names = Shape.of(json.loads(metadata["shape"])), list(map(str, json.loads(metadata["names"])))
        if len(names) != shape.styles:
            raise ValueError(f"{len(names)} names for {shape.styles} styles")
    except (ValueError, TypeError, KeyError) as error:
        raise NetworkError(
            f"{name} is no style ({error}); give a file that `convscope train-style` wrote, or one of "
            f"{', '.join(shipped())}"
        ) from error
    stylist = Stylist(shape, names)
    load_into(stylist, Weights(state, name), "a stylist of the shape that it names")
    check_values(stylist, name)
    stylist.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return stylist


def read_recipe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How the weights in a file were made."""
    found: dict[str, Any] = json.loads(_read(Path(path))[1].get("recipe", "{}"))
    return found


def digest(path: Path) -> str:
    """``sha256:`` and the first 16 digits of a file's digest."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise NetworkError(
            f"{path.name} is no whole safetensors file; give a style that `convscope train-style` wrote"
        ) from error
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror or error}") from error


def chosen(stylist: Stylist, name: str | None, source: str) -> int:
    """The index of a style by name; the first of a stylist that knows one only.

    Raises :class:`OptionError` for an unknown name, or where one must be named.
    """
    if name is None and len(stylist.names) == 1:
        return 0
    if name in stylist.names:
        return stylist.names.index(name)
    known = ", ".join(f"{source}:{each}" for each in stylist.names)
    told = "holds several styles" if name is None else f"holds no style {name!r}"
    raise OptionError(f"{source} {told}; give one of {known}")
