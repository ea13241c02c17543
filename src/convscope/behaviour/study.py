"""Asking a person: what is in a picture, or what a network will say of it.

Both studies give rows of the usual table (see ``responses``), whoever asks the questions: a terminal or a page.

*Label*: the person sees what the network sees, cut and scaled as it is, and chooses among the same names, so that both
scores mean the same. *Predict*: the person guesses which of several classes the network named, half of the time with
its explanation shown. If the explanation tells how the network decides, guesses are better with it (Doshi-Velez & Kim
2017, arXiv:1702.08608, section 3, forward simulation).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from convscope.behaviour.categories import Choices, choices_for, logits_of
from convscope.behaviour.responses import NO_ANSWER, Response
from convscope.behaviour.scoring import WITH, WITHOUT
from convscope.errors import ImageError, OptionError, nearest
from convscope.images import find_images, read_image
from convscope.network import Network

CLASSES = 16  # names to choose among at most, as many as in the experiments
TIMELESS = float("nan")


@dataclass(frozen=True, eq=False)
class Question:
    """One picture as it is shown.

    ``picture`` (3, H, W) is what the network gets; ``names`` are the possible answers, ``right`` is the right one, and
    ``condition`` says how the picture is shown.
    """

    name: str
    picture: Tensor
    names: tuple[str, ...]
    right: str
    condition: str

    def answered(self, answer: str, *, subj: str, session: int, trial: int, seconds: float) -> Response:
        """The row for an answer."""
        return Response(subj, session, trial, seconds, answer, self.right, self.condition, self.name)


@dataclass(frozen=True)
class Study:
    """Questions, and what the network answers to each."""

    questions: Sequence[Question]
    network: Sequence[Response]


# ---- what is in the picture


def label_study(
    network: Network,
    folder: str | Path,
    *,
    limit: int,
    classes: Sequence[str] = (),
    done: Sequence[str] = (),
    seed: int = 0,
) -> Study:
    """Pictures of a folder with a folder for each class, about as many of each, in random order.

    Args:
        network: whose labels fit the folders' names.
        folder: its folders are the names to choose among, at most 16 of them, drawn.
        limit: pictures.
        classes: instead of drawing, these.
        done: names of pictures that are not asked again.
        seed: of what is drawn.

    Raises ImageError for a folder without classes; OptionError for names that the network lacks, and where all is done.
    """
    root, chance = Path(folder), random.Random(seed)
    pool = _classes(root, classes, chance)
    choices = choices_for(network, list(pool))
    drawn = _drawn(pool, limit, chance, lambda path: path.relative_to(root).as_posix() in set(done))
    if not drawn:
        raise OptionError(f"all pictures of {folder} have been answered; name another folder, or another --output")
    names = tuple(sorted(pool))
    questions = [
        Question(path.relative_to(root).as_posix(), network.prepare(read_image(path)), names, name, "label")
        for name, path in drawn
    ]
    answers = _among(choices, names, logits_of(network, [q.picture for q in questions]))
    return Study(questions, _told(network, questions, answers))


def _classes(root: Path, wanted: Sequence[str], chance: random.Random) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in find_images(root):
        inside = path.relative_to(root).parts
        if len(inside) > 1:
            found.setdefault(inside[0], []).append(path)
    if not found:
        raise ImageError(f"{root} holds no folders of classes; put the photographs of each class into one of its name")
    for name in wanted:
        if name not in found:
            raise OptionError(f"{root} has no class {name!r}{nearest(name, found)}")
    chosen = wanted or (sorted(chance.sample(sorted(found), CLASSES)) if len(found) > CLASSES else sorted(found))
    return {name: found[name] for name in chosen}


def _drawn(
    pool: dict[str, list[Path]], limit: int, chance: random.Random, done: Callable[[Path], bool]
) -> list[tuple[str, Path]]:
    """In turn from each class, then shuffled, so that the order says nothing."""
    piles = {name: chance.sample(paths, len(paths)) for name, paths in pool.items()}
    piles = {name: [path for path in pile if not done(path)] for name, pile in piles.items()}
    turns = [
        (name, pile[n]) for n in range(max(map(len, piles.values()))) for name, pile in piles.items() if n < len(pile)
    ]
    drawn = turns[:limit]
    chance.shuffle(drawn)
    return drawn


def _among(choices: Choices, names: Sequence[str], logits: Tensor) -> list[str]:
    """The network's answer among those names only, as the person's."""
    shares = choices.shares(logits)[:, [choices.names.index(name) for name in names]]
    return [names[place] for place in shares.argmax(1).tolist()]


def _told(network: Network, questions: Sequence[Question], answers: Sequence[str]) -> list[Response]:
    return [
        question.answered(answer, subj=network.name, session=1, trial=number, seconds=TIMELESS)
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True), 1)
    ]


# ---- what the network will say


def predict_study(
    network: Network,
    paths: Sequence[Path],
    *,
    limit: int,
    alternatives: int = 5,
    done: Sequence[str] = (),
    seed: int = 0,
) -> Study:
    """Pictures with the network's first answer among its next ones, half of them with the explanation shown.

    Args:
        network: a classifier with labels.
        paths: of photographs.
        limit: pictures.
        alternatives: names to choose among: the network's likeliest.
        done: names of pictures that are not asked again.
        seed: of what is drawn, of the order of names and of which half.

    Raises OptionError where all is done, and for a network without labels.
    """
    if not network.labels:
        raise OptionError(f"{network.name} has no labels, so nobody can say what it will answer; give --labels FILE")
    chance = random.Random(seed)
    left = [path for path in paths if path.as_posix() not in set(done)]
    if not left:
        raise OptionError("all of these pictures have been answered; name others, or another --output")
    drawn = chance.sample(left, min(limit, len(left)))
    pictures = [network.prepare(read_image(path)) for path in drawn]
    best = logits_of(network, pictures).topk(min(alternatives, network.classes), 1).indices.tolist()
    conditions = [WITH, WITHOUT] * (len(drawn) // 2 + 1)
    conditions = conditions[: len(drawn)]
    chance.shuffle(conditions)
    questions = []
    for path, picture, indices, condition in zip(drawn, pictures, best, conditions, strict=True):
        names = [network.label(index) for index in indices]
        shuffled = tuple(chance.sample(names, len(names)))
        questions.append(Question(path.as_posix(), picture, shuffled, names[0], condition))
    return Study(questions, _told(network, questions, [question.right for question in questions]))


# ---- reading what was typed


def understood(typed: str, names: Sequence[str]) -> str | None:
    """The name that is meant: by its number from 1, by itself, or by a part that only it has; ``na`` for nothing.

    None where it fits no name, or several.
    """
    text = typed.strip().lower()
    if not text:
        return NO_ANSWER
    if text.isdecimal() and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    plain = {name: " ".join(name.lower().replace("_", " ").split()) for name in names}
    wanted = " ".join(text.replace("_", " ").split())
    tests: Sequence[Callable[[str], bool]] = (
        lambda own: own == wanted, lambda own: own.startswith(wanted), lambda own: wanted in own,
    )  # fmt: skip
    for fits in tests:
        found = [name for name, own in plain.items() if fits(own)]
        if len(found) == 1:
            return found[0]
        if found:
            return None
    return None


def as_shown(pictures: Sequence[Tensor]) -> Tensor:
    """(3, H, W): pictures of one size side by side, with a white gap, enlarged by a whole factor to be seen well."""
    gap = torch.ones(3, pictures[0].shape[1], max(4, pictures[0].shape[2] // 32))
    row = [part for picture in pictures for part in (gap, picture.float())][1:]
    factor = max(1, round(448 / pictures[0].shape[1]))
    return torch.cat(row, 2).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
