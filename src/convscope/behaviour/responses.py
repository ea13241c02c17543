"""The table in which experiments keep what a person or a network answered to each picture.

It is CSV with the columns ``subj, session, trial, rt, object_response, category, condition, imagename``, as the data of
Geirhos et al. (2018, arXiv:1808.08750) are published: who answered, in which session and trial, how long it took in
seconds (``NaN`` where nothing was measured), the answer (``na`` where there was none), what would have been right, how
the picture was shown, and its file. Other columns are allowed and ignored.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from convscope.errors import OptionError

NO_ANSWER = "na"
SAID = 3  # skipped rows that a note names


@dataclass(frozen=True)
class Response:
    """One answer; see the module for what the columns mean."""

    subj: str
    session: int
    trial: int
    rt: float
    object_response: str
    category: str
    condition: str
    imagename: str

    @property
    def correct(self) -> bool:
        return self.object_response == self.category

    @property
    def stimulus(self) -> tuple[str, str]:
        """Which picture, shown how: what two participants must share to be compared."""
        return self.condition, self.imagename


COLUMNS = tuple(field.name for field in fields(Response))


@dataclass(frozen=True)
class Skipped:
    """A row that could not be read: its line in the file, counted from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Responses:
    """What a file holds: the answers, and the rows that are none."""

    rows: Sequence[Response]
    skipped: Sequence[Skipped] = ()

    @property
    def notes(self) -> list[str]:
        """One sentence about the rows that were skipped, or nothing."""
        if not self.skipped:
            return []
        count, total = len(self.skipped), len(self.skipped) + len(self.rows)
        named = ", ".join(f"line {row.line} ({row.reason})" for row in self.skipped[:SAID])
        more = f" and {count - SAID} more" if count > SAID else ""
        verb = "was" if count == 1 else "were"
        return [f"{count} of {total} rows {verb} skipped: {named}{more}; mend them or leave them out"]


def read_responses(path: str | Path) -> Responses:
    """Read a table of answers; rows that cannot be understood are skipped and kept as such.

    Raises :class:`OptionError` where there is no such file, where it lacks a column, or where no row can be read.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as a table of answers ({_cause(error)})") from error
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    header = [name.strip() for name in next(reader, [])]
    lacking = [name for name in COLUMNS if name not in header]
    if lacking:
        raise OptionError(
            f"{path} lacks the column {', '.join(lacking)}; its first line must name {', '.join(COLUMNS)}, as "
            "`convscope label` writes them"
        )
    found = collected(_numbered(reader, header))
    if not found.rows:
        why = f": {found.notes[0]}" if found.skipped else ""
        raise OptionError(f"{path} holds no answer that can be read{why}")
    return found


def _cause(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _numbered(reader: Any, header: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str] | str]]:
    """(line, row by column), or why it is no row."""
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        fits = len(cells) == len(header)
        why = f"{len(cells)} cells under {len(header)} columns"
        yield reader.line_num, dict(zip(header, cells, strict=True)) if fits else why


def collected(rows: Iterable[tuple[int, Mapping[str, Any] | str]]) -> Responses:
    """Rows by their lines as answers; a second answer of somebody to the same picture is skipped too."""
    found: list[Response] = []
    skipped: list[Skipped] = []
    seen: set[tuple[str, str, str]] = set()
    for line, row in rows:
        try:
            answer = _response(row)
            key = (answer.subj, *answer.stimulus)
            if key in seen:
                raise ValueError(f"a second answer of {answer.subj} to {answer.imagename}")
        except ValueError as error:
            skipped.append(Skipped(line, str(error)))
        else:
            seen.add(key)
            found.append(answer)
    return Responses(found, skipped)


def _response(row: Mapping[str, Any] | str) -> Response:
    """One row; ``ValueError`` says what is wrong with it."""
    if isinstance(row, str):
        raise ValueError(row)
    cells = {name: str(row[name]).strip() for name in COLUMNS}
    for name in ("subj", "object_response", "category", "imagename"):
        if not cells[name]:
            raise ValueError(f"no {name}")
    session, trial = (_whole(cells, name) for name in ("session", "trial"))
    answer = NO_ANSWER if cells["object_response"].lower() in ("na", "nan", "none") else cells["object_response"]
    return Response(
        cells["subj"], session, trial, _seconds(cells["rt"]), answer, cells["category"], cells["condition"],
        cells["imagename"],
    )  # fmt: skip


def _whole(cells: Mapping[str, str], name: str) -> int:
    try:
        return int(float(cells[name]))
    except (ValueError, OverflowError):
        raise ValueError(f"{name} {cells[name]!r} is no whole number") from None


def _seconds(text: str) -> float:
    if text.lower() in ("", "na", "nan", "none"):
        return math.nan
    try:
        found = float(text)
    except ValueError:
        raise ValueError(f"rt {text!r} is no time in seconds") from None
    if not 0 <= found < math.inf:
        raise ValueError(f"rt {text!r} is no time in seconds")
    return found


def write_responses(rows: Iterable[Response], path: str | Path) -> None:
    """Write a table of answers anew."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = Writer(file)
        for row in rows:
            table.add(row)


class Writer:
    """Writes answers one by one, so that those given so far are kept whatever happens."""

    def __init__(self, file: TextIO, *, header: bool = True) -> None:
        self._file, self._table = file, csv.writer(file, lineterminator="\n")
        if header:
            self._table.writerow(COLUMNS)

    def add(self, row: Response) -> None:
        cells = list(astuple(row))
        cells[COLUMNS.index("rt")] = "NaN" if math.isnan(row.rt) else f"{row.rt:.3f}"
        self._table.writerow(cells)
        self._file.flush()
