"""The queue of techniques to run, the process that runs them, and what is known of each."""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from convscope.errors import OptionError
from convscope.explorer import cache, worker
from convscope.explorer.settings import Settings
from convscope.results import versions

KEY = re.compile(r"[0-9a-f]{64}")
State = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
REMEMBERED = 500  # jobs that have ended
POINTS = 2_000  # of a trace that are told
GRACE = 5.0  # seconds that a job has to stop by itself


class Full(OptionError):
    """The queue takes no more."""


@dataclass
class Job:
    """One run of a technique."""

    id: str
    technique: str
    options: Mapping[str, Any]
    pictures: tuple[str, ...]
    key: str  # of its result in the cache
    order: worker.Order | None = None
    state: State = "queued"
    fraction: float = 0.0
    remaining: float | None = None
    label: str = ""
    error: str = ""
    notes: Sequence[str] = ()
    stopped: bool = False  # what there is is not finished, and can be gone on with
    trace: list[float] = field(default_factory=list)
    frame: bytes | None = None
    frames: int = 0
    began: float | None = None
    stopping: float | None = None  # when it was told to stop
    version: int = 0  # rises with every change
    paused_for: float = 0.0
    paused_at: float | None = None

    def told(self) -> dict[str, Any]:
        """What the page shows of it."""
        step = max(1, len(self.trace) // POINTS)
        return {
            "id": self.id, "technique": self.technique, "options": dict(self.options), "pictures": list(self.pictures),
            "state": self.state, "fraction": self.fraction, "remaining": self.remaining, "label": self.label,
            "error": self.error, "notes": list(self.notes), "stopped": self.stopped, "trace": self.trace[::step],
            "steps": len(self.trace), "frames": self.frames, "result": self.key if self.state == "done" else None,
        }  # fmt: skip

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Jobs:
    """One worker, one queue; started and stopped with the server."""

    def __init__(
        self, settings: Settings, about: Mapping[str, Any], spared: Callable[[], Container[Path]] = frozenset
    ) -> None:
        """``about`` is what all results depend on: the network, its weights, the index.

        ``spared`` gives files that must stay in the cache.
        """
        self._settings, self._about, self._spared = settings, about, spared
        self._results = settings.cache / cache.RESULTS
        self._results.mkdir(parents=True, exist_ok=True)
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: list[Job] = []
        self._running: Job | None = None
        self._lock = threading.RLock()
        self._woken = threading.Event()
        self._closed = False
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._loops: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._thread = threading.Thread(target=self._tend, daemon=True, name="convscope jobs")
        self._thread.start()

    # ---- what the page asks for

    def submit(
        self, technique: str, options: Mapping[str, Any], pictures: Sequence[str], files: Mapping[str, Path],
        titles: Sequence[str], named: Mapping[str, Any], resume: Job | None = None, control: bool = False,
    ) -> Job:  # fmt: skip
        """Queue a run, or answer from the cache. ``files`` are of all pictures; :class:`Full` where too many wait."""
        again = "" if resume is None else resume.key
        about: dict[str, Any] = {
            "technique": technique,
            "options": dict(options),
            "pictures": list(pictures),
            "resume": again,
        }
        about["control"] = control
        key = _hash({**about, **self._about, "titles": list(titles), "versions": versions()})
        folder = self._results / key
        job = Job(secrets.token_hex(8), technique, options, tuple(pictures), key)
        job.trace += [] if resume is None else resume.trace  # its steps go on from there
        with self._lock:
            self._remember(job)
            if (folder / worker.HTML).is_file() and not (folder / worker.STATE).is_file():
                job.state, job.fraction = "done", 1.0
                cache.used(folder)
                return job
            if len(self._queue) + (self._running is not None) >= self._settings.queue:
                del self._jobs[job.id]
                raise Full(f"{self._settings.queue} jobs wait already; cancel some, or wait for them")
            state = None if resume is None else str(self._results / resume.key / worker.STATE)
            job.order = worker.Order(
                job.id, technique, dict(options), tuple(str(files[name]) for name in pictures), tuple(titles),
                dict(named), state, control, str(folder),
            )  # fmt: skip
            self._queue.append(job)
        self._woken.set()
        return job

    def get(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def all(self) -> list[Job]:
        """The latest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def say(self, job: Job, word: Literal["cancel", "pause", "resume"]) -> None:
        """Stop, halt or go on with a job; what has ended stays as it is."""
        with self._lock:
            if job in self._queue and word == "cancel":
                self._queue.remove(job)
                self._end(job, "cancelled")
            elif job is self._running and self._pipe is not None:
                job.stopping = time.monotonic() if word == "cancel" else job.stopping
                with suppress(OSError):
                    self._pipe.send((word, job.id))

    def file(self, key: str, name: str) -> Path | None:
        """A file of a result; None where there is none. Names are of a list, keys are hashes: no path is taken."""
        if not KEY.fullmatch(key) or name not in (worker.HTML, worker.RAW, worker.SUMMARY, worker.PICTURE):
            return None
        path = self._results / key / name
        if not path.is_file():
            return None
        cache.used(path.parent)
        return path

    async def events(self, job: Job) -> AsyncIterator[dict[str, Any]]:
        """What is known of a job, whenever that changes, until it has ended."""
        event = asyncio.Event()
        with self._lock:
            self._loops[event] = asyncio.get_running_loop()
        try:
            seen = -1
            while True:
                event.clear()
                if job.version != seen:
                    seen = job.version
                    yield job.told()
                    if job.ended:
                        return
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(event.wait(), 15)
        finally:
            with self._lock:
                self._loops.pop(event, None)

    def close(self) -> None:
        """End the worker."""
        self._closed = True
        self._woken.set()
        self._thread.join(10)

    # ---- the thread that tends the worker

    def _tend(self) -> None:
        cache.trim(self._settings.cache, self._settings.kept, self._spared())
        while not self._closed:
            self._start_next()
            if self._running is None:
                self._woken.wait(0.5)
                self._woken.clear()
            else:
                self._listen()
        self._kill()

    def _start_next(self) -> None:
        with self._lock:
            if self._running is not None or not self._queue:
                return
            self._running = job = self._queue.pop(0)
        try:
            self._worker().send(job.order)
            job.began = time.monotonic()
        except OSError:  # it has died since the last job: a new one takes this
            self._kill()
            with self._lock:
                self._queue.insert(0, job)
                self._running = None

    def _worker(self) -> Connection:
        if self._process is not None and self._process.is_alive() and self._pipe is not None:
            return self._pipe
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        index = None if self._settings.index is None else str(self._settings.index)
        process = context.Process(
            target=worker.main, args=(there, dict(self._settings.loaded), index, self._settings.memory), daemon=True,
            name="convscope worker",
        )  # fmt: skip
        process.start()
        there.close()
        self._process, self._pipe = process, here
        return here

    def _listen(self) -> None:
        """One message of the worker, or its end, or the end of its time."""
        job, pipe = self._running, self._pipe
        assert job is not None
        assert pipe is not None
        try:
            if pipe.poll(0.2):
                self._heard(job, *pipe.recv())
        except (EOFError, OSError):
            self._died(job)
            return
        if self._running is job:
            self._bound(job)

    def _heard(self, job: Job, kind: str, said: dict[str, Any]) -> None:
        if said.get("job") != job.id:
            return
        with self._lock:
            if kind in ("began", "resumed"):
                job.state = "running"
                if job.paused_at is not None:
                    job.paused_for, job.paused_at = job.paused_for + time.monotonic() - job.paused_at, None
            elif kind == "paused":
                job.state, job.paused_at = "paused", time.monotonic()
            elif kind == "progress":
                job.fraction, job.remaining, job.label = said["fraction"], said["remaining"], said["label"]
            elif kind == "step":
                job.trace.append(said["score"])
                if "frame" in said:
                    job.frame, job.frames = said["frame"], job.frames + 1
            elif kind == "done":
                job.notes, job.stopped, job.fraction = said["notes"], said["stopped"], 1.0
                self._end(job, "done")
                cache.trim(self._settings.cache, self._settings.kept, self._spared())
                return
            else:
                job.error = said.get("error", "")
                self._end(job, "failed" if kind == "failed" else "cancelled")
                return
        self._changed(job)

    def _bound(self, job: Job) -> None:
        """Kill what does not stop when told to, and what takes too long."""
        now = time.monotonic()
        spent = now - (job.began or now) - job.paused_for - (now - job.paused_at if job.paused_at else 0)
        if job.stopping is not None and now - job.stopping > GRACE:
            self._kill()
            self._end(job, "cancelled")
        elif spent > self._settings.seconds:
            self._kill()
            job.error = f"stopped after {self._settings.seconds:g} seconds; --seconds allows more"
            self._end(job, "failed")

    def _died(self, job: Job) -> None:
        process, self._process, self._pipe = self._process, None, None
        if process is not None:
            process.join(5)
        memory = process is not None and process.exitcode == worker.OUT_OF_MEMORY
        job.error = (
            f"it took more than {self._settings.memory / 2**30:.3g} GiB of memory and was ended; make the picture or "
            "the batch smaller, or allow more with --memory"
            if memory else "the process that ran it was ended; the next job gets a new one, so try again"
        )  # fmt: skip
        self._end(job, "failed")

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
        self._process, self._pipe = None, None

    def _end(self, job: Job, state: State) -> None:
        with self._lock:
            job.state, job.remaining, job.order = state, None, None
            if self._running is job:
                self._running = None
        self._changed(job)
        self._woken.set()

    def _changed(self, job: Job) -> None:
        with self._lock:
            job.version += 1
            listeners = list(self._loops.items())
        for event, loop in listeners:
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(event.set)

    def _remember(self, job: Job) -> None:
        self._jobs[job.id] = job
        ended = [name for name, each in self._jobs.items() if each.ended]
        for name in ended[: max(0, len(self._jobs) - REMEMBERED)]:
            del self._jobs[name]


def _hash(about: Any) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()
