"""One self-contained page of pictures about a network, made from the registry."""

from convscope.reporting.samples import photographs

__all__ = ["photographs"]
