"""Editors and type checkers know every name of the package, though nothing is imported before it is used."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import convscope
from convscope import registry


def listed() -> dict[str, str]:
    """Name to module of what the package imports for type checkers only."""
    tree = ast.parse(Path(convscope.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in blocks[0].body if isinstance(node, ast.ImportFrom)]
    assert all(alias.name == alias.asname for node in imports for alias in node.names), "re-exported only with 'as'"
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_every_built_in_technique_is_listed() -> None:
    built_in = {e.function: e.module for e in registry.discover().values() if e.module.startswith("convscope.")}
    there = {name: module for name, module in listed().items() if ".techniques." in module}
    missing = [f"from {built_in[name]} import {name} as {name}" for name in sorted(set(built_in) - set(there))]
    assert there == built_in, f"add to TYPE_CHECKING in convscope/__init__.py: {missing}"


def test_everything_listed_is_what_the_package_gives() -> None:
    others = {name: f"convscope.{module}" for name, module in convscope._PUBLIC.items()}
    assert {name: module for name, module in listed().items() if ".techniques." not in module} == others
    assert [*sorted(listed()), "__version__"] == sorted(dir(convscope), key=lambda name: (name[0] == "_", name))
    assert convscope.__all__ == dir(convscope)
    for name in dir(convscope):
        assert getattr(convscope, name) is not None


def test_help_and_signature_are_the_functions_own() -> None:
    assert inspect.signature(convscope.gradcam) == inspect.signature(convscope.gradcam.function)
    assert (inspect.getdoc(convscope.gradcam) or "").startswith("Where a layer finds evidence for a class")


def test_a_name_that_there_is_not_is_an_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        convscope.nonsense  # type: ignore[attr-defined]  # noqa: B018
