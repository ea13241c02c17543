"""Passes as torch makes them: for floors and peers, which get nothing that is convscope's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest.mock import patch


@contextmanager
def plainly() -> Iterator[None]:
    """The first convolution's gradient and the rounding of weights by torch's own means in this block."""

    def nothing(*_given: object) -> AbstractContextManager[None]:
        return nullcontext()

    with patch("convscope.network.stems", nothing), patch("convscope.network.at_hand", nothing):
        yield
