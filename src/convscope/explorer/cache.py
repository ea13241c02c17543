"""The folder of what has been computed: what was not asked for the longest goes first when it grows too large."""

from __future__ import annotations

import os
import shutil
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

RESULTS, PICTURES = "results", "pictures"


def used(entry: Path) -> None:
    """Say that a result or a picture was asked for just now."""
    with suppress(OSError):
        os.utime(entry)


def trim(folder: Path, most: int, spared: Container[Path] = ()) -> int:
    """Delete results and pictures until at most ``most`` bytes are left; how many bytes that freed.

    ``spared`` and the entry that was asked for last stay in any case.
    """
    found = sorted(((*_looked(entry), entry) for entry in _entries(folder)), key=lambda each: each[0])
    total = sum(size for _, size, _ in found)
    freed = 0
    for _, size, entry in found[:-1]:
        if total - freed <= most:
            break
        if entry not in spared:
            _delete(entry)
            freed += size
    return freed


def _entries(folder: Path) -> list[Path]:
    """A folder for each result and a file for each picture; also what a worker that died has left behind."""
    results = folder / RESULTS
    return [*(results.iterdir() if results.is_dir() else ()), *(folder / PICTURES).glob("*/*.png")]


def _looked(entry: Path) -> tuple[float, int]:
    """When it was asked for last, and its bytes; another process may delete it meanwhile."""
    try:
        parts = [entry, *entry.iterdir()] if entry.is_dir() else [entry]
        return entry.stat().st_mtime, sum(part.stat().st_size for part in parts if part.is_file())
    except OSError:
        return 0.0, 0


def _delete(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        entry.unlink(missing_ok=True)
