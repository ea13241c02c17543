"""What is said about a heat map in words, the same for every technique that makes one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from convscope.objectives import Question


def describe(question: Question, values: Tensor, scores: Tensor, targets: Tensor) -> dict[str, Any]:
    """Summaries, notes and titles, one a picture, for the result's fields of those names.

    Args:
        question: what was asked.
        values: (N, H, W) map. scores: (N,) what was explained. targets: (N,) class indices or -1.
    """
    summaries: list[dict[str, Any]] = []
    for heat, score, target in zip(values, scores.tolist(), targets.tolist(), strict=True):
        asked = {"label": question.answer_name(target), "index": None if target < 0 else target}
        summaries.append({"target": asked, "score": score, **extremes(heat)})
    titles = [s["target"]["label"] for s in summaries]
    return {"summaries": summaries, "notes": remarks(titles, values), "titles": titles}


def extremes(heat: Tensor) -> dict[str, Any]:
    """Range of a map (H, W), and where its largest size is."""
    peak = int(heat.abs().argmax())
    return {
        "minimum": float(heat.min()),
        "maximum": float(heat.max()),
        "strongest": {"row": peak // heat.shape[1], "column": peak % heat.shape[1]},
    }


def remarks(titles: Sequence[str], values: Tensor) -> list[str]:
    """What the reader must not miss of maps (N, H, W): that one is constant, or nowhere positive."""
    notes = []
    for number, (name, heat) in enumerate(zip(titles, values, strict=True)):
        low, high = float(heat.min()), float(heat.max())
        which = f"picture {number + 1}: " if len(values) > 1 else ""
        if low == high:
            notes.append(f"{which}the map for {name} is constant ({low:g}): no pixel stands out")
        elif high <= 0:
            notes.append(f"{which}no position speaks for {name}: the whole map is negative")
    return notes
