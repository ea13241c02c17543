"""Asking a person at a terminal: a question a picture, its answer at once in the table.

A terminal cannot show pictures, so each is written to one file, which a viewer shows. Questions go to standard error,
and answers are read from standard input, a line each, so that a script can give them too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from convscope.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from convscope.behaviour.responses import Response
    from convscope.behaviour.study import Question, Study

STOP = ("q", "quit")
LISTED = 30  # names that are shown with each question; more only when asked for


@dataclass
class Sitting:
    """One person, one sitting: where the picture is shown, and where answers go.

    ``show`` makes of a question what is seen, (3, H, W).
    """

    console: Console
    subj: str
    output: Path
    picture: Path
    opens: bool
    show: Callable[[Question], Tensor]

    def earlier(self) -> list[Response]:
        """What the table holds already, of whoever."""
        from convscope.behaviour.responses import read_responses

        return list(read_responses(self.output).rows) if self.output.exists() else []

    def asked(self, study: Study) -> list[Response]:
        """The answers of this sitting, each written as it comes; fewer where the person stops."""
        session = 1 + max((row.session for row in self.earlier() if row.subj == self.subj), default=0)
        found: list[Response] = []
        for row in self._answers(study.questions, session):
            self._keep(row)
            found.append(row)
        return found

    def _keep(self, row: Response) -> None:
        from convscope.behaviour.responses import Writer

        new = not self.output.exists()
        with open(self.output, "a", encoding="utf-8", newline="") as file:
            Writer(file, header=new).add(row)

    def _answers(self, questions: Sequence[Question], session: int) -> Iterator[Response]:
        from convscope.images import write_image

        for number, question in enumerate(questions, 1):
            write_image(self.show(question), self.picture)
            if self.opens:
                click.launch(str(self.picture))
            self._say(f"{number} of {len(questions)}: look at {self.picture}, and say what it is")
            self._list(question.names)
            begun = time.monotonic()
            answer = self._read(question.names)
            if answer is None:
                self._say("stopped; what was answered is kept")
                return
            seconds = time.monotonic() - begun
            yield question.answered(answer, subj=self.subj, session=session, trial=number, seconds=seconds)

    def _read(self, names: Sequence[str]) -> str | None:
        """One of the names, ``na`` for an empty line, None at the end or where the person stops."""
        from convscope.behaviour.study import understood

        while True:
            click.echo("> ", nl=False, err=True)
            line = sys.stdin.readline()
            if not line or line.strip().lower() in STOP:
                return None
            if line.strip() == "?":
                self._list(names, every=True)
                continue
            meant = understood(line, names)
            if meant is not None:
                return meant
            self._say(f"{line.strip()!r} is none of the names, or several; give its number or more of it, ? lists them")

    def _list(self, names: Sequence[str], *, every: bool = False) -> None:
        if len(names) > LISTED and not every:
            self._say(f"one of {len(names)} names; ? lists them, an empty line is no answer, q stops")
            return
        self._say("   ".join(f"{number} {name}" for number, name in enumerate(names, 1)))

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)


def check_table(output: Path) -> None:
    """:class:`OptionError` where answers cannot be added to that file, before anybody is asked."""
    from convscope.behaviour.responses import read_responses

    if output.exists():
        read_responses(output)
    elif not output.parent.is_dir():
        raise OptionError(f"{output}: there is no folder {output.parent}; make it, or name another file")
