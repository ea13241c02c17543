"""The monitor of a training loop: when it looks, and where what it saw goes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from convscope.errors import OptionError
from convscope.extras import make_folder, summary_writer
from convscope.images import atomic_write
from convscope.monitor.measure import KINDS, Record, Watcher
from convscope.monitor.page import filter_tiles, page
from convscope.views.pixels import on_paper
from convscope.views.style import LIGHT

LONGEST = 1000  # records that the page keeps; of more, every second of the older ones goes
PAUSE = 10.0  # seconds from one writing of the page to the next


class Monitor:
    """Watches a module learn, and writes what it sees to a page and to TensorBoard.

    Args:
        module: what is trained. Only passes in training mode count.
        folder: made if need be; ``monitor.html`` and TensorBoard's files go there.
        every: a step is looked at when its number is a multiple of this.
        layers: names of layers with weights; all of them for None.
        tensorboard: whether to write for it; needs ``pip install 'convscope[monitor]'``.
        name: heading of the page; the module's class if left out.

    Raises:
        NetworkError: a layer is unknown, or nothing has weights.
        MissingExtra: TensorBoard is not installed.
        OutputError: the folder cannot be made.
    """

    def __init__(
        self, module: nn.Module, folder: str | Path, *, every: int = 20, layers: Sequence[str] | None = None,
        tensorboard: bool = True, name: str = "",
    ) -> None:  # fmt: skip
        if every < 1:
            raise OptionError(f"every={every} is no number of steps; give 1 or more")
        self._watcher = Watcher(module, layers)
        self.folder: Path = Path(folder)
        self.every: int = every
        self.name: str = name or type(module).__name__
        self.records: list[Record] = []
        self._silent = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._silent = self._silent and torch.distributed.get_rank() > 0  # one of many processes is enough
        self._board = self._open(tensorboard)
        self._step, self._began, self._written = 0, time.perf_counter(), -math.inf
        self._first = self._watcher.filters()
        self._open_record = False
        self._closed = self._silent
        self._prepare()

    def _open(self, tensorboard: bool) -> Any:
        if self._silent:
            return None
        make_folder(self.folder)
        return summary_writer(self.folder) if tensorboard else None

    @property
    def page(self) -> Path:
        """Where the page is."""
        return self.folder / "monitor.html"

    def _prepare(self) -> None:
        if not self._closed and self._step % self.every == 0:
            self._watcher.begin()

    def step(self, loss: Tensor | float | None = None) -> None:
        """Say that a backward pass has run and that the optimiser comes next.

        With a gradient scaler, unscale first. ``loss`` is drawn if it is given.
        """
        if self._closed:
            return
        start = time.perf_counter()
        if self._open_record:
            self._complete()
        if self._step % self.every == 0:
            layers = self._watcher.finish()
            number = math.nan if loss is None else float(loss.detach() if isinstance(loss, Tensor) else loss)
            filled = {name: {kind: values.get(kind, math.nan) for kind in KINDS} for name, values in layers.items()}
            self.records.append(Record(self._step, number, filled, self._watcher.seconds))
            self._open_record = True
        self._step += 1
        self._prepare()
        self._count(time.perf_counter() - start)

    def _count(self, seconds: float) -> None:
        if self.records and self._open_record:
            self.records[-1] = replace(self.records[-1], seconds=self.records[-1].seconds + seconds)

    def _complete(self) -> None:
        """Add what the optimiser did to the last record, and hand it on."""
        updates, last = self._watcher.updated(), self.records[-1]
        layers = {name: {**each, "update": updates.get(name, math.nan)} for name, each in last.layers.items()}
        self.records[-1] = last = replace(last, layers=layers)
        self._open_record = False
        if self._board is not None:
            self._to_board(last)
        if len(self.records) > LONGEST:
            self.records = [*self.records[: LONGEST // 2 : 2], *self.records[LONGEST // 2 :]]
        if time.perf_counter() - self._written >= PAUSE:
            self.write()

    def _to_board(self, record: Record) -> None:
        if math.isfinite(record.loss):
            self._board.add_scalar("loss", record.loss, record.step)
        for layer, numbers in record.layers.items():
            for kind, value in numbers.items():
                if math.isfinite(value):
                    self._board.add_scalar(f"{kind}/{layer}", value, record.step)
        filters = self._watcher.filters()
        if filters is not None:
            drawn = on_paper(filter_tiles(filters), LIGHT.paper)
            self._board.add_image("filters of the first layer", drawn, record.step, dataformats="HWC")

    def write(self) -> Path:
        """Write the page now; whole or not at all, so that a browser never sees half of it."""
        elapsed = time.perf_counter() - self._began
        text = page(self.name, self.records, self._first, self._watcher.filters(), elapsed, running=not self._closed)
        with atomic_write(self.page) as temporary:
            temporary.write_text(text, encoding="utf-8")
        self._written = time.perf_counter()
        return self.page

    def close(self) -> None:
        """Write the page for the last time and watch no more; the module is as if it had never been watched."""
        self._watcher.cease()
        if self._closed:
            return
        if self._open_record:
            self._complete()
        self._closed = True
        if self._board is not None:
            self._board.close()
        self.write()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self.close()
