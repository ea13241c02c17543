"""convscope: what a convolutional network has learned, and why it decided as it did.

    import convscope
    network = convscope.load_network("builtin")
    image = network.prepare(convscope.read_image("cat.jpg"))
    convscope.saliency(network, image).save("saliency.png")

Every technique is a function of this package, of its command's name with underscores. Nothing is imported before it
is used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope.backward import DECONVNET as DECONVNET
    from convscope.backward import GUIDED as GUIDED
    from convscope.backward import PLAIN as PLAIN
    from convscope.backward import gradient as gradient
    from convscope.errors import ConvscopeError as ConvscopeError
    from convscope.errors import ImageError as ImageError
    from convscope.errors import NetworkError as NetworkError
    from convscope.hooks import OUTPUT as OUTPUT
    from convscope.hooks import observe as observe
    from convscope.images import read_image as read_image
    from convscope.index import Index as Index
    from convscope.index import open_index as open_index
    from convscope.monitor import LightningMonitor as LightningMonitor
    from convscope.monitor import Monitor as Monitor
    from convscope.network import Network as Network
    from convscope.registry import technique as technique
    from convscope.scanning import scan as scan
    from convscope.zoo import load_network as load_network

__version__ = _version("convscope")

_PUBLIC = {
    "OUTPUT": "hooks",
    "observe": "hooks",
    "ConvscopeError": "errors",
    "ImageError": "errors",
    "NetworkError": "errors",
    "DECONVNET": "backward",
    "GUIDED": "backward",
    "PLAIN": "backward",
    "gradient": "backward",
    "read_image": "images",
    "Index": "index",
    "open_index": "index",
    "LightningMonitor": "monitor",
    "Monitor": "monitor",
    "Network": "network",
    "technique": "registry",
    "scan": "scanning",
    "load_network": "zoo",
}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"convscope.{_PUBLIC[name]}"), name)
    command = name.replace("_", "-")
    if not name.startswith("_") and command in importlib.import_module("convscope.registry").discover():
        return _technique(command)
    raise AttributeError(f"module 'convscope' has no attribute {name!r}")


def _technique(command: str) -> Any:
    """The technique, whose results can draw themselves from now on."""
    result = importlib.import_module("convscope.results").Result
    if result.views is None:
        result.views = staticmethod(lambda shown: importlib.import_module("convscope.views").figure(shown))
        result.pages = staticmethod(lambda shown: importlib.import_module("convscope.views").page(shown))
    return importlib.import_module("convscope.registry").load(command)


def __dir__() -> list[str]:
    techniques = importlib.import_module("convscope.registry").discover()
    return sorted({*globals(), *_PUBLIC, *(name.replace("-", "_") for name in techniques)})
