"""What a technique's form shows: its options as JSON, read from its signature as the command line reads it."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convscope import registry
from convscope.errors import OptionError
from convscope.registry import Layer, Option, Target, Technique, UnitOption

ASKED = {"target": Target, "layer": Layer, "unit": UnitOption}  # for which the page offers what there is


def described(technique: Technique[..., Any]) -> dict[str, Any]:
    """A technique with its form, as JSON."""
    return {
        "name": technique.name, "family": technique.family, "summary": technique.summary, "see": technique.see,
        "caution": technique.caution, "paper": technique.paper, "function": technique.function.__name__,
        "pictures": technique.takes_images, "network": technique.takes_network, "index": technique.takes_index,
        "example": {n: value for n, value in technique.example.items() if isinstance(value, (int, float, str, bool))},
        "options": [field(option) for option in technique.options if offered(option)],
    }  # fmt: skip


def offered(option: Option) -> bool:
    """Whether a request may set it: not where it names a file of this machine, or takes any object."""
    return registry.is_picture(option.annotation) or bool(option.info.examples) or not _takes_files(option.annotation)


def field(option: Option) -> dict[str, Any]:
    """One option: ``kind`` is number, integer, text, flag, choice, picture, target, layer or unit."""
    kind, choices, several = _kind(option)
    limits = _limits(option.annotation)
    default: Any = option.default if isinstance(option.default, (int, float, str, bool)) else None
    if isinstance(option.default, (list, tuple)):
        default = [part for part in option.default if isinstance(part, (int, float, str))]
    return {
        "name": option.name, "flag": f"--{option.name.replace('_', '-')}", "kind": kind, "choices": choices,
        "several": several, "default": default, "description": option.description, **limits,
    }  # fmt: skip


def _limits(annotation: Any) -> dict[str, Any]:
    """The bounds of a number, wherever in the annotation they stand."""
    found: dict[str, Any] = {}
    for inside in typing.get_args(annotation):
        found |= _limits(inside) if typing.get_origin(inside) is not None else {}
        for item in getattr(inside, "metadata", ()):
            found |= {n: value for n in ("ge", "gt", "le", "lt") if (value := getattr(item, n, None)) is not None}
    return found


def _kind(option: Option) -> tuple[str, list[str], bool]:
    annotation = option.annotation
    kinds, several, choices = _plain(annotation)
    if registry.is_picture(annotation):
        return "picture", [], True
    if option.info.examples:
        return "choice", [str(example) for example in option.info.examples], False
    if option.name in ASKED and str in kinds:
        return option.name, [], several
    if choices:
        return "choice", choices, several
    if bool in kinds:
        return "flag", [], False
    if str in kinds:
        return "text", [], several
    return ("number" if float in kinds else "integer" if int in kinds else "text"), [], several


def _plain(annotation: Any) -> tuple[set[Any], bool, list[str]]:
    """The plain types in an annotation, whether it takes several, and the choices that it names."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain(inside[0])
    if origin is typing.Literal:
        return {str}, False, [str(choice) for choice in inside]
    if origin in (typing.Union, types.UnionType):
        parts = [_plain(part) for part in inside if part is not type(None)]
        choices = [choice for part in parts for choice in part[2]]
        return set().union(*(part[0] for part in parts)), any(part[1] for part in parts), choices
    if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
        return _plain(inside[0])[0], True, []
    return {annotation}, False, []


def _takes_files(annotation: Any) -> bool:
    kinds = _plain(annotation)[0]
    return Path in kinds or Any in kinds


def taken(technique: Technique[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request: only those that its form offers, pictures still as names.

    Raises :class:`OptionError` for one that a request may not set. Values are checked where the technique runs.
    """
    options = {option.name: option for option in technique.options}
    found = {}
    for name, value in given.items():
        option = options.get(name)
        if option is None or not offered(option):
            known = ", ".join(o.name for o in technique.options if offered(o)) or "none"
            raise OptionError(f"{technique.name} has no option {name!r} here; there are: {known}")
        examples = option.info.examples
        if examples and value not in examples:
            raise OptionError(f"{technique.name}: {name} is one of {', '.join(map(str, examples))}, not {value!r}")
        if value is not None and value != "" and value != []:
            found[name] = value
    return found
