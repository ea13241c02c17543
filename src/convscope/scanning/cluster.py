"""Chunks by the actors of a Ray cluster: each reads and scans chunks of its own, and they come back in order.

Actors, and not the blocks of Ray Data, since a chunk is the unit that must not be cut otherwise: its batches and its
state decide the bits of the answer. An actor that dies is started again and does its chunk again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle, islice
from typing import Any

import torch

from convscope.errors import ConvscopeError, IndexUnusable, OptionError
from convscope.extras import require
from convscope.index import digest_of
from convscope.network import Network, Precision
from convscope.scanning.chunks import Chunk, Options, Scanner
from convscope.scanning.pictures import Loader, prefetched
from convscope.sources import Entry, PictureSource
from convscope.zoo import load_network

AHEAD = 2  # chunks an actor has been given: one that it works on, one that waits


@dataclass(frozen=True)
class Told:
    """What an actor is told beside the network, which may be of a file that only it can import."""

    options: Options
    source: PictureSource
    precision: Precision
    digest: str
    threads: int
    more: Sequence[Any]


class Worker:
    """What an actor does: loads the network once, then chunk after chunk."""

    def __init__(self, loaded: Mapping[str, Any], network: Network | None, told: Told) -> None:
        self._loaded, self._given, self._told = loaded, network, told

    @cached_property
    def _network(self) -> Network:
        torch.set_num_threads(self._told.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        made = load_network(self._given, device=device) if self._given else None
        made = made or load_network(**{**self._loaded, "device": device})
        made = replace(made, precision=self._told.precision)
        if digest_of(made) != self._told.digest:
            raise IndexUnusable("a worker of the cluster loads another network; give all of them the same files")
        return made

    @cached_property
    def _scanner(self) -> Scanner:
        return Scanner(self._network, self._told.options, self._told.more)

    def scan(self, first: int, entries: list[Entry]) -> Chunk:
        """The chunk of these pictures, the first of which has the id ``first``."""
        told = self._told
        loader = Loader(told.source, self._network, told.options.thumbnail)
        ahead = 2 * told.options.batch + told.threads
        return self._scanner.scan(first, prefetched(loader, entries, told.threads, ahead))


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray: as it is; else the cluster of RAY_ADDRESS, or one of this machine, left again behind."""
    ray = require("ray", "ray")
    mine = not ray.is_initialized()
    if mine:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            cause = " ".join(str(error).split())[:200]
            raise OptionError(
                f"Ray does not start at {where} ({cause}); check RAY_ADDRESS, and `ray status`"
            ) from error
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def chunks(
    scanner: Scanner, source: PictureSource, entries: Iterator[Entry], first: int, loaded: Mapping[str, Any]
) -> Iterator[Chunk]:
    """The chunks in order, from as many actors as the cluster has GPUs, or processors in shares of the same threads."""
    with _connected() as ray:
        count, needs = _count(ray)
        network = scanner.network
        threads = int(needs["num_cpus"])
        told = Told(scanner.options, source, network.precision, digest_of(network), threads, scanner.more)
        given = None if loaded else ray.put(_on_cpu(network))
        remote = ray.remote(Worker).options(max_restarts=-1, max_task_retries=-1, **needs)
        actors = cycle([remote.remote(dict(loaded), given, told) for _ in range(count)])
        waiting: deque[Any] = deque()
        while part := list(islice(entries, scanner.options.chunk)):
            waiting.append(next(actors).scan.remote(first, part))
            first += len(part)
            if len(waiting) >= AHEAD * count:
                yield _result(ray, waiting.popleft())
        while waiting:
            yield _result(ray, waiting.popleft())


def _result(ray: Any, reference: Any) -> Chunk:
    """What an actor found; of its error the sentence, without the report around it."""
    try:
        found: Chunk = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ConvscopeError):
            raise error.cause from None
        raise
    return found


def _count(ray: Any) -> tuple[int, dict[str, float]]:
    """How many actors, and what each needs."""
    there = ray.cluster_resources()
    graphics = int(there.get("GPU", 0))
    if graphics:
        return graphics, {"num_gpus": 1, "num_cpus": max(1, int(there.get("CPU", 1)) // graphics)}
    threads = min(torch.get_num_threads(), int(there.get("CPU", 1)))
    return max(1, int(there.get("CPU", 1)) // threads), {"num_cpus": threads}


def _on_cpu(network: Network) -> Network:
    return network if network.device.type == "cpu" else load_network(network, device="cpu")
