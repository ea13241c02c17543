"""How many photographs a network still tells right, against how far each may be changed; and when they are spoiled.

    subjects = read_subjects([plain, robust], ["photos"])
    robustness(subjects, defences=["jpeg:75", "noise:0.1"])     # accuracy against epsilon
    corruption(subjects)                                        # accuracy by corruption and severity

Every attack is judged on pictures of 8 bits, in float32. A picture that is fooled within a budget is fooled within any
larger one. A defence gets two curves: under an attack that does not know it, made on the network alone, and under one
that goes through it, by the straight-through estimate and over several draws of what is random (Athalye, Carlini and
Wagner 2018, arXiv:1802.00420). Only the second says what it is worth. Who knows a defence can also do what one does who
does not know it, so that the adaptive curve counts a picture as fallen if either attack fells it (Carlini et al. 2019,
arXiv:1902.06705); how many stand the attack through the defence alone is kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from convscope import progress
from convscope.batching import batched
from convscope.defences import Defence, defence
from convscope.errors import ImageError, OptionError
from convscope.evaluate.photographs import drawn
from convscope.images import find_images, read_image
from convscope.intervals import Interval, proportion
from convscope.network import Network
from convscope.results import Comparison, Curve, Provenance
from convscope.robust.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupted
from convscope.robust.pictures import classes_of
from convscope.techniques.robustness._attack import LEVEL, attack, logits_of, on_grid, quantised, started

Attack = Literal["pgd", "fgsm"]
EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
LIMIT, STEPS, DRAWS = 100, 20, 8
WHOLE, CHECKED = 0.5, 16  # the budget with which anything should fall, and the pictures that this is tried on


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with labelled photographs, prepared for it: ``images`` (N, 3, H, W) as 8 bits hold them."""

    network: Network
    images: Tensor
    labels: Tensor
    files: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def right(self, network: Network, images: Tensor) -> Tensor:
        """(N,): whether ``network``, this one or it behind a defence, tells these pictures right."""
        return logits_of(network, images).argmax(1) == self.labels

    def part(self, chosen: Tensor) -> Subject:
        """Some of the photographs, by a mask."""
        return Subject(self.network, self.images[chosen], self.labels[chosen])


def read_subjects(
    networks: Sequence[Network], paths: Sequence[str | Path], *, limit: int = LIMIT, seed: int = 0
) -> list[Subject]:
    """The same photographs for each network, at most ``limit``, of several classes about as many each.

    Raises:
        ImageError: no photographs, or one that cannot be read.
        OptionError: a photograph lies in a folder with the name of no label of some network.
    """
    found = [inside for path in map(Path, paths) for inside in (find_images(path) if path.is_dir() else [path])]
    if not found:
        raise ImageError("there are no pictures; give folders that hold one folder of photographs a class")
    names = [path.parent for path in found]
    chosen = drawn([sorted(set(names)).index(name) for name in names], limit, seed)
    kept = [found[place] for place in chosen]
    labels = [classes_of(network, found) for network in networks]
    images = [read_image(path) for path in progress.over(kept, "photographs")]
    return [
        Subject(
            network, on_grid(torch.stack([network.prepare(image) for image in images])),
            torch.tensor([known[path.parent] for path in kept]), [str(path) for path in kept],
        )
        for network, known in zip(networks, labels, strict=True)
    ]  # fmt: skip


# ---- accuracy against epsilon


@dataclass(frozen=True)
class _Row:
    """One line: a network, perhaps behind a defence, under one attack; how many stand clean and at each epsilon."""

    network: str
    defence: str
    attack: Attack
    hits: Sequence[int]
    total: int
    knows: bool = True
    falls: int | None = None  # of the pictures checked, how many fall without a bound
    through: Sequence[int] = ()  # of an adaptive row, how many stand the attack through the defence alone
    several: bool = False  # whether there are other attacks beside it

    @property
    def name(self) -> str:
        """Its name among the series."""
        behind = f" + {self.defence}" if self.defence else ""
        naive = "" if self.knows else ", naive"
        return f"{self.network}{behind}{f', {self.attack}' if self.several else ''}{naive}"

    def ends(self) -> list[Interval]:
        """The shares with their intervals."""
        return [proportion(hits, self.total) for hits in self.hits]


def robustness(
    subjects: Sequence[Subject],
    *,
    attacks: Sequence[Attack] = ("pgd",),
    defences: Sequence[str | Defence] = (),
    epsilons: Sequence[float] = EPSILONS,
    steps: int = STEPS,
    draws: int = DRAWS,
    seed: int = 0,
) -> Curve:
    """Accuracy against the budget in L-inf, clean accuracy first, with 95 % Wilson intervals.

    Args:
        subjects: from :func:`read_subjects`.
        attacks: ``pgd``, of ``steps`` from a random start; ``fgsm``, one step.
        defences: each is put in front of each network, and gets the naive and the adaptive curve.
        epsilons: budgets, of [0, 1].
        steps: of pgd.
        draws: over which the adaptive attack averages what is random, anew at each step.
        seed: of starts and draws; what is random in a defence when it is judged is drawn by ``seed`` + 1.

    Returns:
        ``values`` (series, 1 + epsilons), with ``lows`` and ``highs``. The adaptive curve counts what stands both
        attacks, so that it is never above the naive one. Notes say where the attack through the defence was by itself
        the weaker one, and where pictures stand even without a bound: both are signs of gradients still hidden.

    Raises:
        OptionError: an epsilon out of range, or no defence of that name.
    """
    known = [defence(each, seed=seed + 1) for each in defences]
    names = [subject.network.name for subject in subjects]
    if len(set(names)) < len(names):
        raise OptionError(f"two networks are called {max(names, key=names.count)!r}; load one with another name=")
    budgets = sorted(set(epsilons))
    if not budgets or not all(LEVEL * (1 - 1e-4) <= each <= 1 for each in budgets):
        raise OptionError(
            f"epsilons lie from 1/255, one level of an 8-bit file, to 1, since pictures are in [0, 1]; they are "
            f"{', '.join(f'{each:g}' for each in budgets) or 'none'}"
        )
    plan = _Plan(budgets, steps, draws, seed)
    rows = []
    jobs = [(subject, how) for subject in subjects for how in attacks]
    for subject, how in progress.over(jobs, "networks"):
        rows += [replace(row, several=len(attacks) > 1) for row in _rows(subject, how, known, plan)]
    return _curve(subjects, rows, budgets, known, {"attacks": list(attacks), "steps": steps, "draws": draws}, seed)


@dataclass(frozen=True)
class _Plan:
    """What all attacks share."""

    epsilons: Sequence[float]
    steps: int
    draws: int
    seed: int

    def pictures(self, network: Network, given: Subject, epsilon: float, how: Attack) -> Tensor:
        """The photographs, changed on ``network`` within ``epsilon``, as 8 bits hold them."""
        steps, start = (1, None) if how == "fgsm" else (self.steps, None)
        if how == "pgd":
            start = started(given.images, epsilon, "linf", self.seed)
        found = attack(
            network.drawing, given.images, given.labels, epsilon=epsilon, steps=steps,
            rate=epsilon if how == "fgsm" else None, start=start,
        )  # fmt: skip
        return quantised(given.images, found, epsilon, "linf")

    def through(self, network: Network, given: Defence) -> Network:
        """The network behind a defence as an attack that knows it sees it."""
        if not given.random:
            return network.defended(given)
        made = network.defended(replace(given, views=self.draws * given.views))
        return replace(made, defence=made.defence.fresh(self.seed)) if made.defence else made


def _rows(subject: Subject, how: Attack, defences: Sequence[Defence], plan: _Plan) -> list[_Row]:
    """The network alone, and naive and adaptive behind each defence."""
    alone = [plan.pictures(subject.network, subject, epsilon, how) for epsilon in plan.epsilons]
    falls = _falls(subject, subject.network, subject.network, plan)
    found = [_row(subject, subject.network, how, _stands(subject, subject.network, alone), falls=falls)]
    for each in progress.over(defences, "defences"):
        behind = subject.network.defended(each)
        naive = _stands(subject, behind, alone)
        found.append(_row(subject, behind, how, naive, knows=False))
        found.append(_adaptive(subject, behind, plan.through(subject.network, each), how, plan, naive))
    return found


def _stands(subject: Subject, network: Network, pictures: Sequence[Tensor]) -> Tensor:
    """(1 + budgets, N): which are told right as they are, and still at each budget."""
    found = [subject.right(network, subject.images)]
    for each in pictures:
        found.append(found[-1] & subject.right(network, each))
    return torch.stack(found)


def _row(subject: Subject, network: Network, how: Attack, stands: Tensor, **more: Any) -> _Row:
    hits = stands.sum(1).tolist()
    return _Row(subject.network.name, str(network.defence or ""), how, hits, len(subject), **more)


def _adaptive(
    subject: Subject, network: Network, through: Network, how: Attack, plan: _Plan, naive: Tensor
) -> _Row:  # fmt: skip
    """The same, attacked through the defence; what falls to who does not know it has fallen to who knows it, too."""
    standing = naive[0].clone()
    found = [naive[0]]
    for epsilon in plan.epsilons:  # only what still stands has to be attacked again
        if standing.any():
            left = subject.part(standing)
            standing[standing.clone()] = left.right(network, plan.pictures(through, left, epsilon, how))
        found.append(standing.clone())
    alone = torch.stack(found)
    falls = _falls(subject, network, through, plan)
    return _row(subject, network, how, naive & alone, falls=falls, through=alone.sum(1).tolist())


def _falls(subject: Subject, network: Network, through: Network, plan: _Plan) -> int | None:
    """How many of the first pictures that it tells right fall when the budget is half of all there is."""
    right = subject.right(network, subject.images).nonzero().flatten()[:CHECKED]
    if not len(right):
        return None
    mask = torch.zeros(len(subject), dtype=torch.bool)
    mask[right] = True
    left = subject.part(mask)
    fallen = ~left.right(network, plan.pictures(through, left, WHOLE, "pgd"))
    return round(100 * int(fallen.sum()) / len(right))


# ---- what is said


def budget(epsilon: float) -> str:
    """As k/255 where it is one."""
    levels = epsilon * 255
    return f"{round(levels)}/255" if abs(levels - round(levels)) < 1e-6 else f"{epsilon:.3g}"


def _curve(
    subjects: Sequence[Subject], rows: Sequence[_Row], epsilons: Sequence[float], defences: Sequence[Defence],
    options: Mapping[str, Any], seed: int,
) -> Curve:  # fmt: skip
    ends = [row.ends() for row in rows]
    values, lows, highs = (
        torch.tensor([[getattr(each, kind) for each in line] for line in ends], dtype=torch.float64)
        for kind in ("mean", "low", "high")
    )
    told = {"epsilons": [budget(each) for each in epsilons], "defences": [str(each) for each in defences], **options}
    points = ["clean", *told["epsilons"]]
    summary = {"pictures": len(subjects[0]), "points": points, "series": [_said(row) for row in rows]}
    return Curve(
        values=values, lows=lows, highs=highs, summaries=[summary], per_picture=False,
        series=[row.name for row in rows], points=points, panels=_panels(subjects, rows),
        dashed=[row.name for row in rows if not row.knows], dash="the attack does not know the defence",
        axis="largest change of a value (L-inf)", notes=_notes(rows, len(subjects[0])),
        provenance=_provenance("robustness", subjects, told, seed),
    )  # fmt: skip


def _panels(subjects: Sequence[Subject], rows: Sequence[_Row]) -> list[tuple[str, list[str], bool]]:
    """The networks by themselves, and each with its defences."""
    alone = [row.name for row in rows if not row.defence]
    found = [("accuracy", alone, False)]
    for subject in subjects:
        mine = [row for row in rows if row.network == subject.network.name]
        if any(row.defence for row in mine):
            ordered = [row.name for row in sorted(mine, key=lambda row: (row.defence, not row.knows))]
            found.append((subject.network.name, ordered, False))
    return found


def _said(row: _Row) -> dict[str, Any]:
    """A series in JSON."""
    ends = [{"mean": each.mean, "low": each.low, "high": each.high} for each in row.ends()]
    return {
        "network": row.network, "defence": row.defence or None, "attack": row.attack,
        "attack_knows_defence": row.knows, "right": list(row.hits), "of": row.total, "accuracy": ends,
        "percent_that_fall_without_bound": row.falls,
        **({"right_attacked_through_it_alone": list(row.through)} if row.through else {}),
    }  # fmt: skip


def _notes(rows: Sequence[_Row], total: int) -> list[str]:
    notes = [f"{total} photographs; shaded: 95 % intervals (Wilson)"]
    pairs = [(naive, known) for naive, known in pairwise(rows) if known.knows and not naive.knows]
    for naive, known in pairs:
        if any(n < k for n, k in zip(naive.hits, known.through, strict=True)):
            notes.append(
                f"at some budget the attack through {known.defence} in front of {known.network} is by itself weaker "
                "than the one that does not know it; the curve counts what stands both"
            )
    notes += [
        f"{row.name}: {row.falls} % of the pictures fall where half of all change is allowed, and all should: its "
        "gradients are still hidden, and what it stands means little"
        for row in rows
        if row.falls is not None and row.falls < 95
    ]
    return notes


def _provenance(technique: str, subjects: Sequence[Subject], options: Mapping[str, Any], seed: int) -> Provenance:
    networks = [subject.network for subject in subjects]
    return Provenance(
        technique=technique, options=dict(options), network=", ".join(each.name for each in networks),
        weights=", ".join(each.weights for each in networks), layer=None, seed=seed,
        precision=networks[0].arithmetic, device=str(networks[0].device), photographs=tuple(subjects[0].files),
    )  # fmt: skip


# ---- corruptions


def corruption(
    subjects: Sequence[Subject], *, names: Sequence[str] | None = None, defences: Sequence[str | Defence] = (),
    seed: int = 0,
) -> Comparison:  # fmt: skip
    """Accuracy on spoiled photographs, by group and over the five severities, clean accuracy first.

    Args:
        subjects: from :func:`read_subjects`.
        names: of :data:`convscope.robust.corruptions.CORRUPTIONS`; all if left out.
        defences: each is put in front of each network as well.
        seed: of noise, angles and clouds.

    Returns:
        One row a network or defended network; columns are clean accuracy, the mean over all corruptions and
        severities, and the mean of each group. Intervals are Wilson's with the number of photographs, as if each
        photograph answered once. Summaries hold every corruption and severity.
    """
    chosen = list(names or CORRUPTIONS)
    known = [defence(each, seed=seed + 1) for each in defences]
    runs = [(s, s.network.defended(d) if d else s.network) for s in subjects for d in (None, *known)]
    found = [_by_corruption(subject, network, chosen, seed) for subject, network in progress.over(runs, "networks")]
    return _compared(subjects, runs, found, chosen, known, seed)


def _by_corruption(subject: Subject, network: Network, names: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Corruption to the number of right answers at each severity; ``clean`` to that without any."""

    def hits(name: str, severity: int) -> int:
        def run(part: slice) -> Tensor:
            spoiled = corrupted(subject.images[part], name, severity, seed=seed)
            return logits_of(network, on_grid(spoiled)).argmax(1) == subject.labels[part]

        return int(torch.cat(list(batched(run, len(subject), 64))).sum())

    clean = {"clean": [int(subject.right(network, subject.images).sum())]}
    spoiled = progress.over(list(names), "corruptions")
    return clean | {name: [hits(name, severity) for severity in SEVERITIES] for name in spoiled}


def _compared(
    subjects: Sequence[Subject], runs: Sequence[tuple[Subject, Network]], found: Sequence[Mapping[str, list[int]]],
    names: Sequence[str], defences: Sequence[Defence], seed: int,
) -> Comparison:  # fmt: skip
    groups = [group for group in GROUPS if any(CORRUPTIONS[name][2] == group for name in names)]
    columns = {"clean": ["clean"], "all corruptions": list(names)}
    columns |= {group: [name for name in names if CORRUPTIONS[name][2] == group] for group in groups}
    total = len(subjects[0])
    methods = [f"{n.name} behind {n.defence}" if n.defence else n.name for _, n in runs]
    ends = [[_mean([c for name in mine for c in each[name]], total) for mine in columns.values()] for each in found]
    values, lows, highs = (
        torch.tensor([[getattr(one, kind) for one in line] for line in ends], dtype=torch.float64)
        for kind in ("mean", "low", "high")
    )
    said = [
        {"name": name, "right": {k: list(v) for k, v in each.items()}, "of": total}
        for name, each in zip(methods, found, strict=True)
    ]
    cells = [[f"{100 * one.mean:.0f} ± {100 * one.half:.0f} %" for one in line] for line in ends]
    options = {"corruptions": list(names), "defences": [str(each) for each in defences]}
    return Comparison(
        values=values, lows=lows, highs=highs, per_picture=False, methods=methods, measures=list(columns),
        better=[1] * len(columns), chances=[None] * len(columns), columns=["network", *columns],
        rows=[[name, *line] for name, line in zip(methods, cells, strict=True)], numeric=list(columns), each="network",
        summaries=[{"pictures": total, "networks": said}],
        notes=[f"{total} photographs, each at severities 1 to 5; our own corruptions, not the files of ImageNet-C"],
        provenance=_provenance("corruptions", subjects, options, seed),
    )  # fmt: skip


def _mean(hits: Sequence[int], total: int) -> Interval:
    """The mean share, its interval that of one answer a photograph."""
    return proportion(round(sum(hits) / len(hits)), total) if total else proportion(0, 0)
