"""Sittings of a person at the page: what is in a picture, or what the network will say of it.

Pictures to label come from an index, since only there it is known what they show; what the network answers can be
guessed of any picture that is open or scanned. A sitting lives as long as the server; its answers can be saved as the
usual table (``behaviour.responses``) at any time.
"""

from __future__ import annotations

import io
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from convscope.behaviour.categories import logits_of
from convscope.behaviour.responses import Response, Writer
from convscope.behaviour.scoring import WITH, WITHOUT
from convscope.behaviour.study import CLASSES, TIMELESS, Question, Study, as_shown
from convscope.errors import OptionError
from convscope.network import Network
from convscope.reporting.explained import beside, helped, shown_with

Kind = Literal["label", "predict"]
KEPT = 50  # sittings
ALTERNATIVES = 5
ASKED = 200  # questions of a sitting at most


@dataclass
class Sitting:
    """Questions, those answered so far, and how each is shown."""

    kind: Kind
    subject: str
    study: Study
    show: Callable[[Question], Tensor]
    answers: list[Response] = field(default_factory=list)
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    def told(self) -> dict[str, Any]:
        """Where the sitting is: the next question without its answer, or the scores at its end."""
        number = len(self.answers)
        questions = self.study.questions
        found: dict[str, Any] = {"id": self.id, "kind": self.kind, "number": number, "count": len(questions)}
        if number < len(questions):
            question = questions[number]
            return {**found, "names": list(question.names), "explained": question.condition == WITH, "scores": []}
        return {**found, "names": [], "explained": False, "scores": self.scores()}

    def answer(self, number: int, name: str, seconds: float) -> dict[str, Any]:
        """Take one answer; what was right is told afterwards."""
        if number != len(self.answers) or number >= len(self.study.questions):
            raise OptionError(f"question {number} is not the one that is open; load the page again")
        question = self.study.questions[number]
        if name not in question.names:
            raise OptionError(f"{name!r} is none of the names to choose among")
        row = question.answered(name, subj=self.subject, session=1, trial=number + 1, seconds=seconds)
        self.answers.append(row)
        network = self.study.network[number].object_response
        return {**self.told(), "right": question.right, "network": network, "correct": row.correct}

    def scores(self) -> list[str]:
        """The person's score, and the network's or what the explanation did."""
        if self.kind == "predict":
            return helped(self.subject, self.answers)
        return beside(self.subject, self.answers, self.study.network)

    def table(self) -> str:
        """The answers as CSV, the network's beside those to the same questions."""
        text = io.StringIO()
        writer = Writer(text)
        for row in [*self.answers, *(self.study.network[: len(self.answers)] if self.kind == "label" else [])]:
            writer.add(row)
        return text.getvalue()


@dataclass
class Studies:
    """Those of this session."""

    _sittings: OrderedDict[str, Sitting] = field(default_factory=OrderedDict)

    def begin(self, sitting: Sitting) -> Sitting:
        """Keep it."""
        self._sittings[sitting.id] = sitting
        while len(self._sittings) > KEPT:
            self._sittings.popitem(last=False)
        return sitting

    def get(self, name: str) -> Sitting | None:
        return self._sittings.get(name)


def label_sitting(network: Network, index: Any, *, limit: int, subject: str, seed: int) -> Sitting:
    """Pictures of an index whose classes the network knows, about as many of each of at most 16 classes."""
    chance = random.Random(seed)
    labels = index.labels()
    known = sorted({int(label) for label in labels if label >= 0})
    if len(known) < 2:
        raise OptionError("this index knows no classes of its pictures; scan folders that have the names of classes")
    chosen = sorted(chance.sample(known, min(CLASSES, len(known))))
    piles = {label: [int(i) for i, of in zip(index.ids, labels, strict=True) if of == label] for label in chosen}
    for pile in piles.values():
        chance.shuffle(pile)
    turns = [(label, pile[n]) for n in range(max(map(len, piles.values()))) for label, pile in piles.items()
             if n < len(pile)][: min(limit, ASKED)]  # fmt: skip
    chance.shuffle(turns)
    names = tuple(network.label(label) for label in chosen)
    questions = [Question(str(place), index.prepared(place), names, network.label(of), "label") for of, place in turns]
    logits = logits_of(network, [question.picture for question in questions])
    answers = [names[place] for place in logits[:, chosen].argmax(1).tolist()]
    return Sitting("label", subject, _study(network, questions, answers), lambda question: as_shown([question.picture]))


def predict_sitting(
    network: Network, pictures: Sequence[tuple[str, Tensor]], *, limit: int, subject: str, method: str, seed: int
) -> Sitting:
    """Prepared pictures by name; half of them are shown with the explanation of the network's answer."""
    if not network.labels:
        raise OptionError(f"{network.name} has no labels, so nobody can say what it will answer; give --labels FILE")
    if len(pictures) < 2:
        raise OptionError("half of the pictures are shown with an explanation, so at least two are needed; open more")
    chance = random.Random(seed)
    drawn = chance.sample(list(pictures), min(limit, len(pictures), ASKED))
    best = logits_of(network, [picture for _, picture in drawn]).topk(min(ALTERNATIVES, network.classes), 1).indices
    conditions = ([WITH, WITHOUT] * len(drawn))[: len(drawn)]
    chance.shuffle(conditions)
    questions = []
    for (name, picture), indices, condition in zip(drawn, best.tolist(), conditions, strict=True):
        names = [network.label(index) for index in indices]
        questions.append(Question(name, picture, tuple(chance.sample(names, len(names))), names[0], condition))
    study = _study(network, questions, [question.right for question in questions])
    return Sitting("predict", subject, study, shown_with(network, method))


def _study(network: Network, questions: Sequence[Question], answers: Sequence[str]) -> Study:
    told = [
        question.answered(answer, subj=network.name, session=1, trial=number, seconds=TIMELESS)
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True), 1)
    ]
    return Study(questions, told)
