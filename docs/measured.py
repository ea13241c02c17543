"""The tables of the page of benchmarks: ``benchmarks/results/*.json`` as Markdown, whatever is in them.

    python docs/measured.py      # to look at them

Files differ, so nothing is known of their contents but this: a name for each number, in mappings in mappings. Where
several mappings stand side by side (networks, attacks, sizes) they become the columns of a table, or its rows where
they are many. Rows of ratios come first, in bold; the rest is folded away.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
RESULTS = BENCHMARKS / "results"
RATIO = re.compile(r"\btimes\b|of the floor|\bfloors\b|over passes|\bratio|of bare|a forward pass")  # what is compared
MOST = 6  # columns; of more cases each gets a row
AROUND = ("settings", "machine", "quick")  # what describes the run and not what it found

Flat = dict[tuple[str, ...], Any]


def sections() -> str:
    """A section for each script in ``benchmarks/``; names that begin with ``_`` are what scripts share."""
    return "\n\n".join(section(script) for script in sorted(BENCHMARKS.glob("[!_]*.py")))


def section(script: Path, results: Path = RESULTS) -> str:
    """What a script measures, how to run it, and what it found; or that its results are missing."""
    says = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem
    found = [path for path in sorted(results.glob("*.json")) if path.stem.partition("-")[0] == script.stem]
    parts = [f"## {script.stem}", f"{_first(says)}"]
    parts += [f"```sh\n{line}\n```" for line in _commands(says)[:1]]
    parts += [_results(path) for path in found] or ["**Missing**: no results of this benchmark have been kept yet."]
    return "\n\n".join(parts)


def _first(docstring: str) -> str:
    """The first paragraph, in one line."""
    return " ".join(docstring.split("\n\n")[0].split())


def _commands(docstring: str) -> list[str]:
    """How the script is called, without what is said beside it."""
    found = re.findall(r"^\s*(python benchmarks/\S+(?: \S+)*)", docstring, re.MULTILINE)
    return [re.split(r"\s{2,}|\s#", line)[0] for line in found]


def _results(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    around, inside = parted(found)
    quick = "**A quick run, of little: its ratios are rough.** " if around.get(("quick",)) is True else ""
    about = "; ".join(f"{' '.join(name)} {shown(value)}" for name, value in around.items() if name != ("quick",))
    return "\n\n".join([f"{quick}*{path.name}*: {about or 'nothing is said of the machine'}.", *_tables(inside, ())])


def parted(found: Mapping[str, Any]) -> tuple[Flat, dict[str, Any]]:
    """What a file says of the run, flat, and what the run found."""
    around: Flat = {}
    inside: dict[str, Any] = {}
    for name, value in found.items():
        if name in AROUND and isinstance(value, Mapping):
            around |= flat(value)
        elif isinstance(value, Mapping):
            inside[name] = value
        else:
            around[(name,)] = value
    return around, inside


def flat(found: Mapping[str, Any], above: tuple[str, ...] = ()) -> Flat:
    """Every number with the names above it."""
    result: Flat = {}
    for name, value in found.items():
        several = isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value)
        inside = {str(number): each for number, each in enumerate(value, 1)} if several else value
        result |= flat(inside, (*above, name)) if isinstance(inside, Mapping) else {(*above, name): value}
    return result


def _tables(found: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    """One table for the cases that have a name in common, and so on until none is left."""
    cases = {name: value for name, value in found.items() if isinstance(value, Mapping)}
    while cases:
        first = flat(next(iter(cases.values())))
        group = {name: flat(value) for name, value in cases.items() if set(flat(value)) & set(first)}
        only = next(iter(group))
        inside = cases[only]
        if len(group) == 1 and len(inside) > 1 and all(isinstance(value, Mapping) for value in inside.values()):
            yield from _tables(inside, (*above, only))
        else:
            yield _table(group, above)
        cases = {name: value for name, value in cases.items() if name not in group}


def _table(cases: Mapping[str, Flat], above: tuple[str, ...]) -> str:
    """Cases as columns, or as rows where they are many; ratios first."""
    names = list(dict.fromkeys(name for case in cases.values() for name in case))
    title = f"{', '.join(above)}:\n\n" if above else ""
    if len(cases) > MOST:
        head = ["", *(" · ".join(name) for name in names)]
        return title + _markdown(head, [[case, *(shown(found.get(n)) for n in names)] for case, found in cases.items()])
    rows = {name: [" · ".join(name), *(shown(found.get(name)) for found in cases.values())] for name in names}
    ratios = [[f"**{cell}**" if cell else "" for cell in row] for name, row in rows.items() if _ratio(name)]
    rest = [row for name, row in rows.items() if not _ratio(name)]
    head = ["", *cases]
    if not ratios or not rest:
        return title + _markdown(head, ratios or rest)
    folded = "\n".join(f"    {line}" for line in _markdown(head, rest).splitlines())
    return f'{title}{_markdown(head, ratios)}\n\n??? note "All its numbers"\n\n{folded}'


def _ratio(name: tuple[str, ...]) -> bool:
    return any(RATIO.search(part) for part in name)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def shown(value: Any) -> str:
    """A value in a cell: four digits of a number, nothing for what is not there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.1e}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    print(sections())
