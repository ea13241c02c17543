"""A network of one's own: ``path/to/file.py:factory`` or ``package.module:factory``."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from torch import nn

from convscope.errors import NetworkError, nearest
from convscope.network import Network
from convscope.zoo.blueprint import first_line
from convscope.zoo.torchvision_models import import_torchvision

T = TypeVar("T")


def is_own(spec: str) -> bool:
    """Whether ``spec`` looks like a factory in a file or in an importable module."""
    source, _, factory = spec.rpartition(":")
    if spec.endswith(".py") or source.endswith(".py"):
        return True
    return bool(source) and factory.isidentifier() and _found(source)


def _found(module: str) -> bool:
    with _on_path(Path.cwd()):
        try:
            return importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            return False


def build_own(spec: str) -> tuple[nn.Module | Network, bool]:
    """What the factory of ``spec`` returns; it takes no arguments. A module that is there already is taken as it is.

    Returns the network and whether it is new, so that nobody else holds it.

    Raises :class:`NetworkError`: no such file or factory, an error in it (with its file and line), or no module.
    """
    source, _, name = spec.rpartition(":") if not spec.endswith(".py") else (spec, "", "")
    module = _read_file(Path(source), name) if source.endswith(".py") else _import(source)
    made = getattr(module, name, None)
    if made is None:
        raise NetworkError(f"{source} defines no {name!r}{nearest(name, vars(module))}")
    new = source.endswith(".py")
    if callable(made) and not isinstance(made, (nn.Module, Network)):
        new = True
        _check_arguments(made, spec)
        with _on_path(Path(source).parent if source.endswith(".py") else Path.cwd()), _explained(source):
            made = _mended(made)
    if not isinstance(made, (nn.Module, Network)):
        raise NetworkError(f"{spec} gives a {type(made).__name__}; it must return an nn.Module")
    return made, new


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Lets a file import its neighbours, as ``python file.py`` does."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except SyntaxError as error:
        raise NetworkError(f"{error.filename}, line {error.lineno}: {error.msg}; mend it and try again") from error
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{_where(error, source)}: {type(error).__name__}: {first_line(error)}") from error


def _where(error: BaseException, source: str) -> str:
    """File and line of the last step that was the user's own, and not a library's."""
    steps = traceback.extract_tb(error.__traceback__)
    own = [s for s in steps if Path(s.filename).name == Path(source).name] or list(steps[-1:])
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else source


def _read_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise NetworkError(f"there is no file {str(path)!r}; --network takes path/to/file.py:factory")
    if not name:
        known = _factories(path)
        raise NetworkError(f"say which factory of {path} makes the network: {path}:{known[0] if known else 'NAME'}")
    spec = importlib.util.spec_from_file_location(f"_convscope_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look themselves up there
    with _on_path(path.parent), _explained(str(path)):
        loader = spec.loader
        _mended(lambda: loader.exec_module(module))
    return module


def _mended(run: Callable[[], T]) -> T:
    """``run()``, once more after torchvision is mended where its compiled operators do not match torch."""
    try:
        return run()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    import_torchvision()
    return run()


def _factories(path: Path) -> list[str]:
    """Functions and classes at the top of a file, found without running it."""
    try:
        body = ast.parse(path.read_text("utf-8")).body
    except (SyntaxError, UnicodeDecodeError, OSError):
        return []
    found = [step for step in body if isinstance(step, (ast.FunctionDef, ast.ClassDef))]
    functions = [step.name for step in found if isinstance(step, ast.FunctionDef) and not step.args.args]
    return functions + [step.name for step in found if isinstance(step, ast.ClassDef)]


def _import(source: str) -> ModuleType:
    with _on_path(Path.cwd()), _explained(source):
        return _mended(lambda: importlib.import_module(source))


def _check_arguments(made: Any, spec: str) -> None:
    try:
        inspect.signature(made).bind()
    except TypeError as error:
        raise NetworkError(
            f"{spec} is called without arguments, and {first_line(error)}; give them defaults"
        ) from error
    except ValueError:
        pass  # no signature to look at
