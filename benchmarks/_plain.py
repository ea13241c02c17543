"""Passes as torch makes them: for floors and peers, which get nothing that is convscope's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch


@contextmanager
def plainly() -> Iterator[None]:
    """The first convolution's gradient by torch's own means in this block."""
    with patch("convscope.network.stems", lambda _images: nullcontext()):
        yield
