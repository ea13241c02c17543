"""How far a heat map can be trusted, and why something could not be shown: in words for readers of a page."""

from __future__ import annotations

from convscope.errors import ConvscopeError, MissingExtra, OptionError
from convscope.evaluate.randomisation import THRESHOLD, Verdict
from convscope.views.style import number


def in_words(verdict: Verdict) -> str:
    """The verdict of the randomisation check, its head before the colon."""
    if verdict.word == "–":
        return f"Dependence on the weights not checked: {verdict.reason or 'the maps are constant'}."
    side = {"passes": "below", "fails": "above"}.get(verdict.word, "too near")
    over = "one photograph only" if verdict.pictures == 1 else f"{verdict.pictures} photographs"
    measured = f"(rank correlation {number(verdict.likeness)} over {over}, {side} {THRESHOLD:g})"
    when = "with the weights made random, layer by layer from the last to the first"
    if verdict.word == "passes":
        return f"Depends on the weights: {when}, the maps change {measured}."
    if verdict.word == "unclear":
        return f"Unclear whether it depends on the weights: {when}, the maps stay partly alike {measured}."
    return (
        f"Hardly depends on the weights: {when}, the maps stay alike {measured}. They show more of the "
        "picture than of what the network has learned."
    )


def sentence(error: Exception, of: str = "network") -> str:
    """Why a technique has no result, of a network or of an index."""
    message = " ".join(str(error).split())
    if isinstance(error, MissingExtra):
        return f"Not installed: {message}"
    if isinstance(error, OptionError) and of == "network":  # as where files of one's own are needed
        return f"Not shown here: {message}"
    if isinstance(error, ConvscopeError):
        return f"Not for this {of}: {message}"
    return f"This one failed unexpectedly ({type(error).__name__}{': ' if message else ''}{message})"
