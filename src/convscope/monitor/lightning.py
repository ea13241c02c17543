"""The monitor as a callback of Lightning's Trainer, which need not be installed to import this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from convscope.monitor.loop import Monitor


class LightningMonitor:
    """``Trainer(callbacks=[LightningMonitor("runs/digits", every=50)])``.

    It is no subclass of either package's ``Callback``, and so works with ``lightning`` and ``pytorch_lightning``: the
    Trainer calls hooks by name, and those that are not defined here do nothing. The options are those of
    :class:`Monitor`, which is :attr:`monitor` from the start of the training on.
    """

    def __init__(self, folder: str | Path, **options: Any) -> None:
        self._folder, self._options = folder, options
        self.monitor: Monitor | None = None
        self._loss: Tensor | None = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        self.monitor = Monitor(pl_module, self._folder, **self._options)

    def on_before_backward(self, trainer: Any, pl_module: nn.Module, loss: Tensor) -> None:
        self._loss = loss.detach()

    def on_before_optimizer_step(self, trainer: Any, pl_module: nn.Module, optimizer: Any) -> None:
        if self.monitor is not None:
            self.monitor.step(self._loss)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        if self.monitor is not None:
            self.monitor.close()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    # ---- what a Trainer asks of every callback

    @property
    def state_key(self) -> str:
        return "convscope.LightningMonitor"

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_") or name in ("setup", "teardown"):
            return _nothing
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def _nothing(*_args: Any, **_options: Any) -> None:
    pass
