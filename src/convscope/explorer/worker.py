"""The process in which techniques run, so that a heavy one never freezes the page, and a killed one harms nothing.

It gets one job after another over a pipe, tells how far it is, sends pictures on the way of an optimisation, and
writes what it found into the cache: a fragment of a page, JSON, the raw numbers, a picture.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from convscope.memory import resident

HTML, RAW, SUMMARY, PICTURE, STATE = "result.html", "result.npz", "result.json", "result.png", "result.state"
OUT_OF_MEMORY = 77  # exit status
FRAME_EVERY = 0.25  # seconds
QUALITY = 88


@dataclass(frozen=True)
class Order:
    """One job, as it goes to the worker: ``pictures`` and ``named`` are files that the server has chosen."""

    job: str
    technique: str
    options: Mapping[str, Any]
    pictures: tuple[str, ...]
    titles: tuple[str, ...]
    named: Mapping[str, Any]  # options that are pictures
    resume: str | None
    control: bool  # also with random weights, beside it
    folder: str


def main(pipe: Connection, loaded: Mapping[str, Any], index: str | None, memory: int) -> None:
    """Work until the pipe closes; the network is loaded with the first job that needs it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    threading.Thread(target=_watch_memory, args=(memory,), daemon=True).start()
    bench = _Bench(pipe, loaded, index)
    while True:
        try:
            order = pipe.recv()
        except (EOFError, OSError):
            return
        if isinstance(order, Order):
            bench.do(order)


def _watch_memory(most: int) -> None:
    """End the process when it has grown too large: better than the system's choosing whom to end."""
    while True:
        time.sleep(0.5)
        if resident() > most:
            os._exit(OUT_OF_MEMORY)


class _Bench:
    """Where jobs are done."""

    def __init__(self, pipe: Connection, loaded: Mapping[str, Any], index: str | None) -> None:
        self._pipe, self._loaded, self._index = pipe, loaded, index
        self._network: Any = None
        self._frame = 0.0

    def _tell(self, kind: str, **said: Any) -> None:
        self._pipe.send((kind, said))

    def do(self, order: Order) -> None:
        """One job; whatever goes wrong is told in a sentence."""
        from convscope.errors import ConvscopeError
        from convscope.progress import Cancelled

        self._tell("began", job=order.job)
        try:
            self._tell("done", job=order.job, **self._result(order))
        except (Cancelled, KeyboardInterrupt):
            self._tell("cancelled", job=order.job)
        except ConvscopeError as error:
            self._tell("failed", job=order.job, error=str(error))
        except MemoryError:
            self._tell("failed", job=order.job, error="memory ran out; make the picture or the batch smaller")
        except Exception as error:
            self._tell("failed", job=order.job, error=f"unexpected {type(error).__name__}: {error}")

    def _result(self, order: Order) -> dict[str, Any]:
        import convscope
        from convscope import progress
        from convscope.images import read_image
        from convscope.optimize import watching

        technique = getattr(convscope, order.technique.replace("-", "_"))
        images = [read_image(path) for path in order.pictures]
        options = {**order.options, **order.named}
        if order.resume is not None:
            options["resume"] = order.resume
        network = self._opened() if technique.takes_network else None
        with ExitStack() as stack:
            stack.enter_context(progress.listening(lambda now: self._heard(order.job, now)))
            stack.enter_context(watching(lambda step: self._seen(order.job, step)))
            result = technique.on(network, _stacked(images) if images else None, index=self._index, **options)
            if order.control:
                other = technique.on(self._random, _stacked(images), **_same(options, result))
                result = _beside(result, other)
        return self._kept(order, _titled(result, order.titles * (2 if order.control else 1)))

    @cached_property
    def _random(self) -> Any:
        """A copy of the network with all weights drawn anew: what still shows in its maps is not what was learned."""
        from convscope.evaluate.randomisation import cascade

        return list(cascade(self._opened(), stages=1))[-1][1]

    def _opened(self) -> Any:
        from convscope import load_network

        if self._network is None:
            self._network = load_network(**self._loaded)
        return self._network

    # ---- on the way

    def _heard(self, job: str, now: Any) -> None:
        self._obey(job)
        self._tell("progress", job=job, fraction=now.fraction, remaining=now.remaining, label=now.label)

    def _seen(self, job: str, step: Any) -> None:
        """A step of an optimisation: its score always, its picture a few times a second."""
        from convscope.explorer.pictures import jpeg

        told: dict[str, Any] = {"number": step.number, "score": float(step.score.mean())}
        if time.monotonic() - self._frame > FRAME_EVERY:
            told["frame"] = jpeg(step.images[0])
            self._frame = time.monotonic()
        self._tell("step", job=job, **told)
        self._obey(job)

    def _obey(self, job: str) -> None:
        """What the server says meanwhile: to stop, to wait, to go on."""
        from convscope.progress import Cancelled

        waits = False
        while waits or self._pipe.poll():
            said, about = self._pipe.recv()
            if about != job:
                continue
            if said == "cancel":
                raise Cancelled
            if said in ("pause", "resume") and waits != (said == "pause"):
                waits = said == "pause"
                self._tell("paused" if waits else "resumed", job=job)

    # ---- at the end

    def _kept(self, order: Order, result: Any) -> dict[str, Any]:
        """Write the result into its folder, which appears whole or not at all."""
        from convscope import views
        from convscope.optimize import save_state

        folder = Path(order.folder)
        made = folder.with_name(f".{folder.name}.{os.getpid()}")
        made.mkdir(parents=True, exist_ok=True)
        (made / HTML).write_text(views.html(result), encoding="utf-8")
        for name in (RAW, SUMMARY, PICTURE):
            result.save(made / name)
        stopped = getattr(result, "state", None) is not None
        if stopped:
            save_state(made / STATE, result.state)
        _replace(made, folder)
        return {"notes": list(result.notes), "stopped": stopped, "layer": result.layer}


def _replace(made: Path, folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    made.replace(folder)


def _same(options: dict[str, Any], result: Any) -> dict[str, Any]:
    """The options with the class that was explained: the random network would choose another."""
    target = result.summaries[0].get("target")
    return {**options, "target": target["index"]} if isinstance(target, dict) and "index" in target else options


def _beside(result: Any, other: Any) -> Any:
    """Two heat maps as one result, on one scale."""
    import torch

    from convscope.errors import OptionError
    from convscope.results import Heatmap

    if not isinstance(result, Heatmap) or type(result) is not type(other):
        raise OptionError("only heat maps can be compared with those of random weights")
    cells = None if result.cells is None or other.cells is None else torch.cat([result.cells, other.cells])
    first = [f"as trained: {title}" for title in result.titles] or ["as trained"] * len(result.values)
    return replace(
        result, values=torch.cat([result.values, other.values]), images=torch.cat([result.images, other.images]),
        titles=[*first, *["with random weights"] * len(other.values)], cells=cells, shared=True,
        summaries=[*result.summaries, *({**summary, "weights": "random"} for summary in other.summaries)],
    )  # fmt: skip


def _stacked(images: list[Any]) -> Any:
    import torch

    return torch.stack(images)


def _titled(result: Any, titles: tuple[str, ...]) -> Any:
    """The photographs' names, where the result says which they are."""
    if result.provenance is None or not titles:
        return result
    return replace(result, provenance=replace(result.provenance, photographs=titles))
