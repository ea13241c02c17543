"""How far heat maps can be trusted: measures of any technique that makes them, on any network and pictures.

    from convscope.evaluate import evaluate
    evaluate(network, images, methods="saliency, saliency rule=guided, gradcam").save("evaluate.png")

Each measure is a file of this package; ``together`` runs them all, and ``planted`` makes networks of which it is known
what they look at.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscope.evaluate.photographs import read_sample as read_sample
    from convscope.evaluate.sheet import beside as beside
    from convscope.evaluate.together import evaluate as evaluate
    from convscope.evaluate.together import judge as judge

__all__ = ["beside", "evaluate", "judge", "read_sample"]

_PLACES = {"beside": "sheet", "evaluate": "together", "judge": "together", "read_sample": "photographs"}


def __getattr__(name: str) -> Any:
    """Imported when first used, so that a result can be drawn without what measured it."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
