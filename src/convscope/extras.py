"""Optional dependencies: imported when first needed, and a missing one answered with the exact command."""

from __future__ import annotations

import importlib
from types import ModuleType

from convscope.errors import MissingExtra


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which ``pip install 'convscope[extra]'`` brings.

    Raises :class:`MissingExtra` with that command when it is absent.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(f"this needs {module.split('.')[0]}: pip install 'convscope[{extra}]'") from None
