"""What convscope raises: one sentence that names the thing and says what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConvscopeError(Exception):
    """Base of every error that a user can cause and mend; the command line prints it as one line and exits 1."""


class ImageError(ConvscopeError):
    """A picture cannot be read, is too large, or holds values that no network should see."""


class NetworkError(ConvscopeError):
    """A network cannot be loaded, or does not do what a classifier does."""


class UnknownLayer(NetworkError):
    """No layer of that name."""


class UnknownTarget(ConvscopeError):
    """No class of that index or label, or more than one."""


class OptionError(ConvscopeError):
    """An option has a value that the technique cannot work with."""


class RuleError(ConvscopeError):
    """A backward rule found nothing that it could rewrite."""


class MissingExtra(ConvscopeError):
    """An optional dependency is not installed."""


class OutputError(ConvscopeError):
    """A result cannot be written."""


class IndexUnusable(ConvscopeError):
    """A folder holds no index that can be read, or one of another network, version or place."""


def nearest(name: str, known: Iterable[str], n: int = 3) -> str:
    """``" did you mean 'a' or 'b'?"``, or an empty string when nothing comes close."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n, 0.5) or [k for k in names if name.lower() in k.lower()][:n]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
