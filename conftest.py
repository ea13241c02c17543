"""Markers: ``real`` tests skip where ``../shared`` is absent, ``slow`` ones run last."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parent.parent / "shared"


def pytest_configure() -> None:
    """Where the tests run in a shell's background, an interrupt is ignored, and those of Ctrl-C would see nothing."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    if SHARED.is_dir():
        return
    absent = pytest.mark.skip(reason="needs ../shared beside the project (data sets and weights)")
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(absent)
