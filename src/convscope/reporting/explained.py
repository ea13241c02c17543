"""Studies with people: the explanation beside a picture, and what their answers come to, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from convscope import registry
from convscope.behaviour.responses import Response
from convscope.behaviour.scoring import WITH, WITHOUT, accuracy, consistency, helpfulness
from convscope.behaviour.study import Question, as_shown
from convscope.errors import OptionError, nearest
from convscope.network import Network
from convscope.results import Heatmap
from convscope.views.heatmaps import rows


def shown_with(network: Network, method: str) -> Callable[[Question], Tensor]:
    """The picture, and beside it the explanation of the network's answer where it is shown; nothing names the class.

    Raises OptionError for a technique that explains nothing, here or when the first explanation is made.
    """
    known = [name for name, entry in registry.discover().items() if entry.family == "attribute"]
    if method not in known:
        raise OptionError(f"{method!r} is no technique that explains an answer{nearest(method, known)}")
    technique = registry.load(method)

    def show(question: Question) -> Tensor:
        if question.condition != WITH:
            return as_shown([question.picture])
        result = technique.on(network, question.picture[None], target=network.labels.index(question.right))
        if not isinstance(result, Heatmap):
            raise OptionError(f"{method} makes no heat map to show; choose another --method, as gradcam")
        laid = torch.from_numpy(rows(result)[0].overlay).movedim(2, 0).float() / 255
        return as_shown([question.picture, laid])

    return show


def helped(subj: str, answers: Sequence[Response]) -> list[str]:
    """How often the network's answer was guessed, with the explanation and without."""
    found, lines = helpfulness(answers), []
    for condition, share in ((WITH, found.with_explanation), (WITHOUT, found.without)):
        if found.counts[condition]:
            ends = f"{share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"
            lines.append(f"{subj}, {condition}: {ends} of {found.counts[condition]} guessed")
    gain = found.difference
    if gain.mean == gain.mean:
        lines.append(f"difference {gain.mean:+.0%} ({gain.low:+.0%} to {gain.high:+.0%}): {found.verdict}")
    return lines or ["nothing was answered"]


def beside(subj: str, answers: Sequence[Response], network: Sequence[Response]) -> list[str]:
    """Both scores on the pictures that the person answered, and whether both err on the same ones."""
    if not answers:
        return ["nothing was answered"]
    seen = {row.stimulus for row in answers}
    told = [row for row in network if row.stimulus in seen]
    kappa = consistency(answers, told).kappa
    known = f"{kappa.mean:.2f} ({kappa.low:.2f} to {kappa.high:.2f})" if kappa.mean == kappa.mean else "unknown"
    if accuracy(answers).mean == accuracy(told).mean == 1:
        known += ": neither erred"
    return [_score(subj, answers), _score(told[0].subj, told), f"error consistency {known}"]


def _score(name: str, answers: Sequence[Response]) -> str:
    share = accuracy(answers)
    right = sum(row.correct for row in answers)
    return f"{name}: {right} of {len(answers)} right, {share.mean:.0%} ({share.low:.0%} to {share.high:.0%})"
