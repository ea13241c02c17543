"""The network that comes with convscope: 100 classes of Caltech-101, trained by ``training/train_builtin.py``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from convscope.errors import NetworkError
from convscope.zoo.architecture import CODE, build
from convscope.zoo.blueprint import Blueprint, Description, State
from convscope.zoo.weights import build_with, check_values, read_weights

FILE = Path(__file__).with_name("builtin.safetensors")
#: as it was trained; the file's metadata says the same
DESCRIPTION = Description(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), input_size=(128, 128), crop=1.0)
CLASSES = 100


def _build(classes: int | None, code: int = CODE) -> nn.Module:
    return build(classes or CLASSES, code=code)


def _adapted(state: State) -> Blueprint:
    """With as many units in the code layer as the weights have: training cuts off those that stay silent."""
    found = state.get("fc5.weight")
    code = CODE if found is None else len(found)
    return replace(blueprint(), build=partial(_build, code=code))


def _pretrained() -> tuple[nn.Module, str]:
    weights = read_weights(_present())
    module, _ = build_with(blueprint(), weights)
    check_values(module, "builtin")
    return module, weights.source


def _present() -> Path:
    if FILE.is_file():
        return FILE
    raise NetworkError(
        f"this installation of convscope lacks {FILE.name}; install it again, or pass --weights FILE or random"
    )


def blueprint() -> Blueprint:
    """The built-in network; its labels are the file's."""
    description = read_weights(FILE).description.over(DESCRIPTION) if FILE.is_file() else DESCRIPTION
    return Blueprint("builtin", _build, _pretrained, CLASSES, description, adapt=_adapted)
