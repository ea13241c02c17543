"""What an explorer is started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """Everything that an explorer is started with.

    Attributes:
        loaded: what ``load_network`` takes, as keywords; picklable, since a second process loads the network, too.
        index: folder of an index, or None.
        host, port: where it listens. On an address that others can reach, ``token`` has to be set.
        token: what a browser must show once, in the address, to be let in; empty for none.
        cache: folder of what has been computed, by the hash of what it was computed from.
        kept: bytes that it may take; what was not asked for the longest goes first.
        upload: largest picture that is taken, in bytes, and ``pixels`` in pixels.
        queue: jobs that may wait or run at once; ``seconds`` and ``memory`` (bytes of the worker) bound each.
        patience: seconds that a client may take to send its request.
    """

    loaded: Mapping[str, Any] = field(default_factory=lambda: {"network": "builtin"})
    index: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    token: str = ""
    cache: Path = field(default_factory=lambda: default_cache())
    kept: int = 2 * 2**30
    upload: int = 20_000_000
    pixels: int = 50_000_000
    queue: int = 32
    seconds: float = 900.0
    memory: int = 8 * 2**30
    patience: float = 20.0

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOCAL

    @property
    def hosts(self) -> frozenset[str]:
        """What the Host header may say: anything else is a page that has this address under another name."""
        names = {f"[{name}]" if ":" in name else name for name in (*LOCAL, self.host)}
        return frozenset([*(f"{name}:{self.port}" for name in names), *names])


def default_cache() -> Path:
    """Where programs of this user keep what can be computed again."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "convscope"
