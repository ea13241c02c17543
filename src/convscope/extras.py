"""Optional dependencies: imported when first needed, and a missing one answered with the exact command."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from convscope.errors import MissingExtra, OutputError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


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


def summary_writer(folder: str | Path) -> SummaryWriter:
    """What writes files for TensorBoard into a folder, which is made if need be.

    Raises :class:`OutputError` where it cannot be made, :class:`MissingExtra` where TensorBoard is not installed.
    """
    make_folder(folder)
    require("tensorboard", "monitor")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def make_folder(folder: str | Path) -> None:
    """Make a folder; :class:`OutputError` where that cannot be done."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}); choose another folder") from error
