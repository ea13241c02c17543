"""Whether a network errs where people err (Geirhos, Meding & Wichmann 2020, NeurIPS).

People's answers come as the usual table (see ``convscope.behaviour.responses``), and the network answers to the same
pictures, choosing among the same names. Accuracy alone says how often each errs; error consistency says whether on the
same pictures, beyond what their accuracies make happen by chance (see ``convscope.behaviour.scoring``). Within several
conditions it is computed in each and averaged, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.behaviour.categories import choices_for, entry_level, knows_imagenet, logits_of
from convscope.behaviour.responses import Response, Responses, collected, read_responses
from convscope.behaviour.scoring import accuracy, by_participant, confusion, consistency, mean_consistency
from convscope.errors import OptionError
from convscope.images import find_images, read_image
from convscope.intervals import Interval
from convscope.network import Network
from convscope.registry import technique
from convscope.results import Agreement

PART = 64  # pictures that are read at once


def _quick() -> dict[str, Any]:
    pictures = torch.rand(6, 3, 32, 40, generator=torch.Generator().manual_seed(4))
    truths, answers = ("ant", "bee", "cat") * 2, ("ant", "bee", "bee", "ant", "na", "cat")
    rows = [
        {"subj": subj, "session": 1, "trial": n, "rt": 0.5, "object_response": answer, "category": truth,
         "condition": "0", "imagename": f"{n}.png"}
        for subj in ("ann", "bob") for n, (truth, answer) in enumerate(zip(truths, answers, strict=True))
    ]  # fmt: skip
    return {"responses": rows, "pictures": {f"{n}.png": picture for n, picture in enumerate(pictures)}}


@technique(
    family="robustness",
    order=21,
    paper="Geirhos, Meding & Wichmann 2020, arXiv:2006.16736; Geirhos et al. 2018, arXiv:1808.08750",
    see="A network may be right as often as people and yet err on other pictures: then the marks on the right lie low.",
    caution=(
        "Consistency is of right and wrong, not of what was answered instead. With few errors it rests on few "
        "pictures, and people who saw a picture for a fifth of a second err otherwise than at leisure."
    ),
    quick=_quick(),
)
def humans(
    network: Network,
    *,
    responses: Annotated[
        Any,
        Field(description="people's answers: CSV with subj, session, trial, rt, object_response, category and so on"),
    ] = None,
    pictures: Annotated[Any, Field(description="folder in which the pictures of the column imagename lie")] = None,
) -> Agreement:
    """Whether a network is right as often as people, and errs on the same pictures.

        kappa = (agreement seen - agreement by chance) / (1 - agreement by chance)

    of being right or wrong, picture by picture. The network chooses among the names in the table, categories
    and answers: for one on ImageNet among the 16 entry-level categories, by the mean probability of each one's classes;
    else among its own labels.

    Args:
        network: a classifier that knows the categories.
        responses: a file, or in Python a list of rows as mappings. Rows that cannot be read are counted and skipped.
        pictures: a folder, searched at any depth, or a mapping from name to (3, H, W). A picture is found by its path
            in it, by its path in the folder of its condition, or by its name where that is the only one.

    Returns:
        ``values`` (participants, 4): accuracy with the ends of its 95 % interval (Wilson's) and kappa with the network;
        of the network itself, which comes last, the mean kappa with people. ``confusions`` (2, K, K + 1) count what
        people together and the network answered (columns; anything else last) to each category (rows). The summary has
        all of it, each condition by itself, and the rows that were skipped.

    Raises:
        OptionError: a file without the columns or without any readable row, categories that the network lacks, a folder
            with none of the pictures.
    """
    if responses is None or pictures is None:
        raise OptionError("humans needs people's answers and their pictures: --responses FILE.csv --pictures FOLDER")
    found = _responses(responses)
    rows, sources, notes = _with_pictures(found.rows, pictures)
    told = _answers(network, rows, sources)
    return _result(network, rows, told, [*found.notes, *notes], found)


def _responses(given: Any) -> Responses:
    if isinstance(given, (str, Path)):
        return read_responses(given)
    found = collected(enumerate(given, 1))
    if not found.rows:
        raise OptionError(f"there is no answer among the responses{': ' if found.notes else ''}{' '.join(found.notes)}")
    return found


# ---- pictures


def _with_pictures(
    rows: Sequence[Response], given: Any
) -> tuple[list[Response], dict[tuple[str, str], Any], list[str]]:
    """The rows whose picture is there, what it is for each, and a note about the others."""
    find = _in_memory(given) if isinstance(given, Mapping) else _Files(Path(given)).find
    sources = {stimulus: find(*stimulus) for stimulus in dict.fromkeys(row.stimulus for row in rows)}
    absent = [name for (_, name), source in sources.items() if source is None]
    kept = [row for row in rows if sources[row.stimulus] is not None]
    if not kept:
        raise OptionError(
            f"none of the pictures is there, the first being {absent[0]!r}; name the folder that holds them"
        )
    count = len(absent)
    said = (
        f"{count} of {len(sources)} pictures are not there, so their answers are left out (the first is {absent[0]})"
        if absent
        else ""
    )
    return (
        kept,
        {stimulus: source for stimulus, source in sources.items() if source is not None},
        [said] if said else [],
    )


def _in_memory(given: Mapping[str, Tensor]) -> Any:
    return lambda condition, name: given.get(name)


@dataclass
class _Files:
    """Pictures of a folder by path and by name."""

    root: Path

    def __post_init__(self) -> None:
        self._paths, self._names = {}, {}  # type: dict[str, Path], dict[str, list[Path]]
        for path in find_images(self.root):
            self._paths[path.relative_to(self.root).as_posix()] = path
            self._names.setdefault(path.name, []).append(path)

    def find(self, condition: str, name: str) -> Path | None:
        for inside in (f"{condition}/{name}", name):
            if inside in self._paths:
                return self._paths[inside]
        named = self._names.get(Path(name).name, [])
        return named[0] if len(named) == 1 else None


def _answers(network: Network, rows: Sequence[Response], sources: Mapping[tuple[str, str], Any]) -> list[Response]:
    """What the network answers, a row for each picture."""
    choices = choices_for(network, _names(network, rows))
    truths = {row.stimulus: row.category for row in rows}
    stimuli = list(sources)
    answers: list[str] = []
    for start in progress.over(range(0, len(stimuli), PART), "parts"):
        shown = [network.prepare(read_image(sources[stimulus])) for stimulus in stimuli[start : start + PART]]
        answers += choices.answers(logits_of(network, shown))
    return [
        Response(network.name, 1, number, math.nan, answer, truths[stimulus], *stimulus)
        for number, (stimulus, answer) in enumerate(zip(stimuli, answers, strict=True), 1)
    ]


def _names(network: Network, rows: Sequence[Response]) -> list[str]:
    """What there is to choose among: the categories, and what people said instead where that is a label, too.

    Of pictures of a few classes that were shown with more names, the network gets no easier question than people.
    """
    names = {row.category for row in rows}
    if names <= set(entry_level()) and knows_imagenet(network):
        return sorted(names)  # which stand for all 16
    taken = {index for index, label in enumerate(network.labels) if label in names}
    said = {row.object_response for row in rows} - names
    return sorted(names | {label for i, label in enumerate(network.labels) if label in said and i not in taken})


# ---- what is said


@dataclass(frozen=True)
class _Line:
    """A participant: how many pictures, how often right, and kappa with the network and with (other) people."""

    name: str
    count: int
    accuracy: Interval
    network: Interval
    people: float


def _lines(network: Network, rows: Sequence[Response], told: Sequence[Response]) -> list[_Line]:
    people = by_participant(rows)
    found = []
    for name, own in people.items():
        among = [mean_consistency(own, other) for other_name, other in people.items() if other_name != name]
        kappa = consistency(own, told).kappa
        several = len({row.condition for row in own}) > 1
        kappa = Interval(mean_consistency(own, told), math.nan, math.nan) if several else kappa
        found.append(_Line(name, len(own), accuracy(own), kappa, _mean(among)))
    with_people = _mean([line.network.mean for line in found])
    nothing = Interval(math.nan, math.nan, math.nan)
    return [*found, _Line(network.name, len(told), accuracy(told), nothing, with_people)]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _result(
    network: Network, rows: Sequence[Response], told: Sequence[Response], notes: Sequence[str], found: Responses
) -> Agreement:
    lines = _lines(network, rows, told)
    names = sorted({row.category for row in rows})
    confusions = torch.stack([torch.from_numpy(confusion(each, names)) for each in (rows, told)])
    kappas = [*(line.network.mean for line in lines[:-1]), lines[-1].people]
    values = [
        [line.accuracy.mean, line.accuracy.low, line.accuracy.high, k] for line, k in zip(lines, kappas, strict=True)
    ]
    return Agreement(
        values=torch.tensor(values), per_picture=False, notes=notes, names=names, confusions=confusions,
        columns=("participant", "pictures", "right", "95 % interval", "consistency with the network", "with people"),
        rows=[_row(line) for line in lines], participants=[line.name for line in lines],
        kappa_ends=torch.tensor([[line.network.low, line.network.high] for line in lines]),
        summaries=[_summary(network, rows, told, lines, names, confusions, found)],
    )  # fmt: skip


def _row(line: _Line) -> list[Any]:
    ends = f"{line.accuracy.low:.0%} to {line.accuracy.high:.0%}"
    return [line.name, line.count, f"{line.accuracy.mean:.0%}", ends, _number(line.network.mean), _number(line.people)]


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"


def _summary(
    network: Network, rows: Sequence[Response], told: Sequence[Response], lines: Sequence[_Line], names: Sequence[str],
    confusions: Tensor, found: Responses,
) -> dict[str, Any]:  # fmt: skip
    return {
        "network": network.name,
        "accuracy": {"people": accuracy(rows).mean, "network": accuracy(told).mean},
        "consistency": {
            "people with network": _known(lines[-1].people),
            "people with people": _known(_mean([line.people for line in lines[:-1]])),
        },
        "participants": [_participant(line) for line in lines],
        "conditions": [_condition(name, rows, told) for name in sorted({row.condition for row in rows})],
        "confusion": {"categories": names, "people": confusions[0].tolist(), "network": confusions[1].tolist()},
        "skipped": [asdict(row) for row in found.skipped],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _participant(line: _Line) -> dict[str, Any]:
    return {
        "name": line.name, "pictures": line.count, "accuracy": line.accuracy.mean, "low": line.accuracy.low,
        "high": line.accuracy.high, "consistency with network": _known(line.network.mean),
        "consistency with people": _known(line.people),
    }  # fmt: skip


def _condition(name: str, rows: Sequence[Response], told: Sequence[Response]) -> dict[str, Any]:
    people = [row for row in rows if row.condition == name]
    network = [row for row in told if row.condition == name]
    kappas = [consistency(own, network).kappa.mean for own in by_participant(people).values()]
    return {
        "condition": name, "pictures": len(network), "people": accuracy(people).mean, "network": accuracy(network).mean,
        "consistency": _known(_mean(kappas)),
    }  # fmt: skip
