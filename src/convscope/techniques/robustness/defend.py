"""A photograph behind every defence: what the network sees, what it says, and what attacks make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.defences import Defence, Noise, defence
from convscope.errors import OptionError
from convscope.network import Network
from convscope.registry import Seed, technique
from convscope.results import Pictures
from convscope.robust.smoothing import Certificate, certify
from convscope.techniques.robustness._attack import (
    Epsilon,
    Label,
    Steps,
    Task,
    attack,
    budget,
    enlarged,
    logits_of,
    quantised,
    started,
    task,
)

DEFENCES = ("jpeg:75", "bits:3", "median:3", "noise:0.1", "resize-pad:0.9")
VIEWS = 8  # draws over which an attack through a random defence averages at each step


@technique(
    family="robustness",
    order=30,
    paper="smoothing arXiv:1902.02918; squeezing arXiv:1704.01155; resize and pad arXiv:1711.01991; through them "
    "arXiv:1802.00420",
    see="The middle row, where an attack that does not know the defences often fails; and the last, where one that "
    "goes through each of them does not. What is taken for another class is outlined.",
    caution="One photograph says nothing about a rate: `convscope robustness` measures those. A certified radius is "
    "one of L2, and holds for the vote over noise, not for the network by itself.",
    quick={"by": ["bits:3", "noise:0.1"], "steps": 1, "draws": 20},
)
def defend(
    network: Network,
    images: Tensor,
    *,
    by: Annotated[
        str | Sequence[str] | None,
        Field(description="a defence, as jpeg:75; may be repeated, and five are chosen if left out"),
    ] = None,
    label: Label = None,
    epsilon: Epsilon = None,
    steps: Steps = 10,
    draws: Annotated[int, Field(ge=10, description="draws of noise that bound the share of a class")] = 500,
    alpha: Annotated[float, Field(gt=0, lt=0.5, description="probability that a certificate is wrong")] = 0.001,
    seed: Seed = 0,
) -> Pictures:
    """A photograph as each defence hands it on: as it is, attacked without knowing it, and attacked through it.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], rounded to 8 bits first.
        by: defences as :mod:`convscope.defences` lists them.
        label: class that the photograph is of.
        epsilon: budget of the attacks in L-inf; 4/255 if left out.
        steps: of projected gradient descent. Through a defence its gradient is the straight-through estimate where it
            has none, and the mean over 8 draws, anew at each step, where it is random.
        draws: for noise, those that bound the share of the most frequent class; a fifth as many choose it before.
        alpha: the certificate is right with probability 1 - alpha.
        seed: of starts and draws. What is random when the network is judged is drawn by ``seed`` + 1.

    Returns:
        ``values`` (N, 3, 1 + defences, 3, H, W): what enters the network; rows: photograph, naive attack, adaptive
        attack; first column without a defence. Each summary holds for each defence what the network says in the three
        cases, ``moved``, the L1 distance between the probabilities with and without it (Xu et al. 2018, section V,
        which tells attacked pictures by it), and for noise the certified L2 ``radius``.

    Raises:
        OptionError: no defence of that name; an epsilon out of range; a network that has a defence already.
    """
    if network.defence is not None:
        raise OptionError("defend puts defences in front of the network by itself: leave out --defence, and use --by")
    given = [defence(each, seed=seed + 1) for each in ([by] if isinstance(by, str) else by or DEFENCES)]
    most, job = budget(epsilon, "linf", images), task(network, images, label)
    plan = _Plan(network, most, steps, draws, alpha, seed)
    one = torch.arange(len(job.labels))
    shown = [_shown(plan, job.part(one[i : i + 1]), given) for i in progress.over(range(len(one)), "photographs")]
    return _result(network, job, given, shown)


@dataclass(frozen=True)
class _Plan:
    """What all photographs share."""

    network: Network
    epsilon: float
    steps: int
    draws: int
    alpha: float
    seed: int

    def attacked(self, job: Task, given: Defence | None) -> Tensor:
        """(1, 3, H, W): the photograph, changed on the network by itself or behind a defence, as 8 bits hold it."""
        seen = self.network if given is None else self.network.defended(self.known(given))
        start = started(job.originals, self.epsilon, "linf", self.seed)
        found = attack(
            seen.drawing, job.originals, job.classes, epsilon=self.epsilon, steps=self.steps, start=start
        )  # fmt: skip
        return quantised(job.originals, found, self.epsilon, "linf")

    def known(self, given: Defence) -> Defence:
        """A defence as an attack that knows it sees it."""
        return replace(given, views=VIEWS * given.views).fresh(self.seed) if given.random else given

    def certificate(self, job: Task, given: Defence) -> Certificate | None:
        """Of noise alone."""
        if len(given.parts) != 1 or not isinstance(given.parts[0], Noise):
            return None
        first = max(10, self.draws // 5)
        return certify(
            self.network, job.originals[0], sigma=given.parts[0].sigma, first=first, draws=self.draws,
            alpha=self.alpha, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class _Shown:
    """One photograph: (3, 1 + defences, 3, H, W) that enter the network, (3, 1 + defences, classes) that it says."""

    pictures: Tensor
    logits: Tensor
    certificates: Sequence[Certificate | None]


def _shown(plan: _Plan, job: Task, given: Sequence[Defence]) -> _Shown:
    naive = plan.attacked(job, None)
    adaptive = [naive, *(plan.attacked(job, each) for each in given)]
    columns = [None, *given]
    rows = [[job.originals] * len(columns), [naive] * len(columns), adaptive]
    pictures, logits = [], []
    for row in rows:
        behind = [plan.network if d is None else plan.network.defended(d) for d in columns]
        logits.append(torch.cat([logits_of(n, p) for n, p in zip(behind, row, strict=True)]))
        pictures.append(
            torch.cat([p if d is None else d(p)[:1].clamp(0, 1) for d, p in zip(columns, row, strict=True)])
        )
    return _Shown(torch.stack(pictures), torch.stack(logits), [plan.certificate(job, each) for each in given])


# ---- what is said

CASES = ("photograph", "naive", "adaptive")


def _result(network: Network, job: Task, given: Sequence[Defence], shown: Sequence[_Shown]) -> Pictures:
    labels = job.labels.tolist()
    wrong = torch.stack([each.logits.argmax(2).flatten() != label for each, label in zip(shown, labels, strict=True)])
    values = torch.stack([each.pictures for each in shown])
    return Pictures(
        values=values, tiles=enlarged(values.flatten(1, 2)), columns=1 + len(given), each=False,
        titles=[f"{network.label(label)}, without and with defences"
                for label in labels],
        tile_titles=[line for each in shown for line in _lines(network, given, each)],
        marks=wrong, mark="taken for another class",
        summaries=[_summary(network, label, given, each) for label, each in zip(labels, shown, strict=True)],
        notes=_notes(given, shown, labels),
    )  # fmt: skip


def _guess(network: Network, logits: Tensor) -> dict[str, Any]:
    best = int(logits.argmax())
    return {"label": network.label(best), "index": best, "probability": float(logits.double().softmax(0)[best])}


def _lines(network: Network, given: Sequence[Defence], shown: _Shown) -> list[str]:
    """What stands over each tile."""
    found = []
    for case, row in zip(("as it is", "attacked, naive", "attacked, adaptive"), shown.logits, strict=True):
        for head, logits in zip([case, *map(str, given)], row, strict=True):
            best = _guess(network, logits)
            found.append(f"{head}\n{best['label']} {best['probability']:.0%}")
    return found


def _summary(network: Network, label: int, given: Sequence[Defence], shown: _Shown) -> dict[str, Any]:
    shares = shown.logits.double().softmax(2)
    found = []
    for place, each in enumerate([None, *given]):
        said: dict[str, Any] = {"defence": None if each is None else str(each)}
        said |= {case: _guess(network, shown.logits[row, place]) for row, case in enumerate(CASES)}
        said["stands"] = bool(shown.logits[2, place].argmax() == label)
        if each is not None:
            said["moved"] = float((shares[0, place] - shares[0, 0]).abs().sum())
            said["moved_attacked"] = float((shares[1, place] - shares[1, 0]).abs().sum())
            said |= _certified(network, shown.certificates[place - 1])
        found.append(said)
    return {"label": network.label(label), "defences": found}


def _certified(network: Network, found: Certificate | None) -> dict[str, Any]:
    if found is None:
        return {}
    name = None if found.label is None else network.label(found.label)
    return {
        "certificate": {
            "label": name, "radius": found.radius, "share": found.share, "draws": int(found.votes.sum()),
            "votes": int(found.votes.max()),
        }
    }  # fmt: skip


def _notes(given: Sequence[Defence], shown: Sequence[_Shown], labels: Sequence[int]) -> list[str]:
    notes = []
    for place, each in enumerate(given):
        found = [one.certificates[place] for one in shown]
        radii = [c.radius for c, label in zip(found, labels, strict=True) if c is not None and c.label == label]
        if any(c is not None for c in found) and len(shown) == 1:
            held = f"no change shorter than {radii[0]:.3g} in L2 alters the vote" if radii else "nothing is certified"
            notes.append(f"for the vote over {each}: {held}")
        elif any(c is not None for c in found):
            mean = sum(radii) / len(shown)
            notes.append(
                f"for the vote over {each}: {len(radii)} of {len(shown)} certified, within {mean:.3g} in L2 on average"
            )
    return notes
