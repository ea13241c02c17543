"""Chunks by the actors of a Ray cluster: each reads and scans chunks of its own, and they come back in order.

Actors, and not the blocks of Ray Data, since a chunk is the unit that must not be cut otherwise: its batches and its
state decide the bits of the answer. An actor that dies is started again and does its chunk again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import torch

from convscope.errors import IndexUnusable
from convscope.extras import require
from convscope.index import digest_of
from convscope.network import Network
from convscope.scanning.chunks import Chunk, Scanner
from convscope.scanning.pictures import Loader, prefetched
from convscope.sources import Entry
from convscope.zoo import load_network

AHEAD = 2  # chunks an actor has been given: one that it works on, one that waits


class Worker:
    """What an actor does: loads the network once, then chunk after chunk."""

    def __init__(
        self, loaded: Mapping[str, Any], network: Network | None, scanner: Scanner, loader: Loader, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        made = network or load_network(**{**loaded, "device": device})
        made = load_network(made, device=device) if made.device.type != device else made
        made = replace(made, precision=scanner.network.precision)
        if digest_of(made) != digest_of(scanner.network):
            raise IndexUnusable("a worker of the cluster loads another network; give all of them the same files")
        self._scanner, self._loader, self._threads = (
            replace(scanner, network=made),
            replace(loader, network=made),
            threads,
        )

    def scan(self, first: int, entries: list[Entry]) -> Chunk:
        """The chunk of these pictures, the first of which has the id ``first``."""
        ahead = 2 * self._scanner.options.batch + self._threads
        return self._scanner.scan(first, prefetched(self._loader, entries, self._threads, ahead))


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray: as it is; else the cluster of RAY_ADDRESS, or one of this machine, left again behind."""
    ray = require("ray", "ray")
    mine = not ray.is_initialized()
    if mine:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def chunks(
    scanner: Scanner, loader: Loader, entries: Iterator[Entry], first: int, loaded: Mapping[str, Any]
) -> Iterator[Chunk]:
    """The chunks in order, from as many actors as the cluster has GPUs, or processors in shares of the same threads."""
    with _connected() as ray:
        actors = cycle(_started(ray, scanner, loader, loaded))
        waiting: deque[Any] = deque()
        most = AHEAD * _count(ray)[0]
        while part := list(islice(entries, scanner.options.chunk)):
            waiting.append(next(actors).scan.remote(first, part))
            first += len(part)
            if len(waiting) >= most:
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())


def _count(ray: Any) -> tuple[int, dict[str, float]]:
    """How many actors, and what each needs."""
    there = ray.cluster_resources()
    graphics = int(there.get("GPU", 0))
    if graphics:
        return graphics, {"num_gpus": 1, "num_cpus": max(1, int(there.get("CPU", 1)) // graphics)}
    threads = min(torch.get_num_threads(), int(there.get("CPU", 1)))
    return max(1, int(there.get("CPU", 1)) // threads), {"num_cpus": threads}


def _started(ray: Any, scanner: Scanner, loader: Loader, loaded: Mapping[str, Any]) -> list[Any]:
    count, needs = _count(ray)
    threads = int(needs["num_cpus"])
    plain = _on_cpu(scanner.network)
    given = ray.put(plain if not loaded else None)
    parts = ray.put((replace(scanner, network=plain), replace(loader, network=plain)))
    remote = ray.remote(_Actor).options(max_restarts=-1, max_task_retries=-1, **needs)
    return [remote.remote(dict(loaded), given, parts, threads) for _ in range(count)]


class _Actor(Worker):
    def __init__(
        self, loaded: Mapping[str, Any], network: Network | None, parts: tuple[Scanner, Loader], threads: int
    ) -> None:
        super().__init__(loaded, network, *parts, threads)


def _on_cpu(network: Network) -> Network:
    return network if network.device.type == "cpu" else load_network(network, device="cpu")
