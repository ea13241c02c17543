"""The networks that come with convscope: 100 classes of Caltech-101, trained by ``training/train_builtin.py``.

``builtin-robust`` is ``builtin``, trained on by ``convscope train-robust`` on pictures that fool it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from convscope.errors import NetworkError
from convscope.zoo.architecture import CODE, build
from convscope.zoo.blueprint import Blueprint, Description, State
from convscope.zoo.weights import build_with, check_values, read_weights

#: name to the file of its weights
FILES = {name: Path(__file__).with_name(f"{name}.safetensors") for name in ("builtin", "builtin-robust")}
#: as it was trained; the file's metadata says the same
DESCRIPTION = Description(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), input_size=(128, 128), crop=1.0)
CLASSES = 100


def _build(classes: int | None, code: int = CODE) -> nn.Module:
    return build(classes or CLASSES, code=code)


def _adapted(state: State, name: str) -> Blueprint:
    """With as many units in the code layer as the weights have: training cuts off those that stay silent."""
    found = state.get("fc5.weight")
    code = CODE if found is None else len(found)
    return replace(blueprint(name), build=partial(_build, code=code))


def _pretrained(name: str) -> tuple[nn.Module, str]:
    weights = read_weights(_present(name))
    module, _ = build_with(blueprint(name), weights)
    check_values(module, name)
    return module, weights.source


def _present(name: str) -> Path:
    if FILES[name].is_file():
        return FILES[name]
    raise NetworkError(
        f"this installation of convscope lacks {FILES[name].name}; install it again, or pass --weights FILE or random"
    )


def blueprint(name: str = "builtin") -> Blueprint:
    """One of the built-in networks; its labels are the file's."""
    there = FILES[name].is_file()
    description = read_weights(FILES[name]).description.over(DESCRIPTION) if there else DESCRIPTION
    pretrained, adapted = partial(_pretrained, name), partial(_adapted, name=name)
    return Blueprint(name, _build, pretrained, CLASSES, description, adapt=adapted)
