"""Do what a page of the guide says: run its commands and its lines of Python, in order, in one folder.

A page is a list of steps: a block ``sh`` of convscope commands, a block ``python``, or both, and the picture that they
write. Commands run in this process, through the same entry as on the command line.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from convscope.cli.group import main_group
from convscope.images import read_recipe

GUIDE = Path(__file__).parent / "guide"
START = GUIDE / "index.md"  # what every page begins with: photographs, the network, a photograph as it gets it
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[[^\]]+\]\(pictures/([\w-]+)\.webp\)")


@dataclass(frozen=True)
class Block:
    """A block of code of a page; ``kind`` is sh or python."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    """What writes a picture: every block between the picture before it and this one."""

    picture: str
    blocks: tuple[Block, ...]

    @property
    def text(self) -> str:
        return "\n".join(block.text for block in self.blocks)


def pages() -> list[Path]:
    """The pages of the guide; the one that every other begins with comes first."""
    return [START, *sorted(path for path in GUIDE.glob("*.md") if path != START)]


def blocks(text: str) -> list[tuple[int, Block]]:
    """The blocks that can be run, each with where it begins."""
    found = FENCE.finditer(text)
    return [(m.start(), Block(m[1], m[2], text.count("\n", 0, m.start()) + 2)) for m in found]


def steps(page: Path) -> list[Step]:
    """The pictures of a page, each with the code that makes it."""
    text = page.read_text(encoding="utf-8")
    code, found, begin = blocks(text), [], 0
    for picture in PICTURE.finditer(text):
        found.append(Step(picture[1], tuple(block for at, block in code if begin <= at < picture.start())))
        begin = picture.end()
    return found


def command(line: str) -> None:
    """A line of the shell: ``convscope`` with its options, nothing else."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["convscope"]:
        raise ValueError(f"the guide runs convscope only, not {line!r}")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            main_group.main(words[1:], standalone_mode=False)
    except click.ClickException as error:
        raise ValueError(f"{line}: {error.format_message()}") from error


def lines(text: str) -> Iterator[str]:
    """The commands of a block, those that go on behind a backslash joined."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def run(block: Block, names: dict[str, Any], page: Path) -> None:
    """One block, in the folder that is the current one."""
    if block.kind == "sh":
        for line in lines(block.text):
            command(line)
        return
    exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)


def begin(folder: Path) -> dict[str, Any]:
    """What the first page leaves: photographs in the folder, and names in Python."""
    names: dict[str, Any] = {}
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else _chdir(folder):
        for _, block in blocks(START.read_text(encoding="utf-8")):
            if block.kind == "python":
                run(block, names, START)
                break
    return names


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    """As ``contextlib.chdir``, which Python 3.10 lacks."""
    import os

    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def walk(page: Path, folder: Path) -> Iterator[Step]:
    """Run a page's steps in a folder; each comes when its picture is there.

    Raises :class:`ValueError` where a picture is missing, or where the command and the lines of Python beside it were
    not the same technique with the same options.
    """
    names = begin(folder)
    for step in steps(page):
        target, made = folder / f"{step.picture}.png", []
        with _chdir(folder):
            for block in step.blocks:
                target.unlink(missing_ok=True)
                run(block, names, page)
                made += [_recipe(target)] if target.exists() else []
        if not made:
            raise ValueError(f"{page.name}: nothing wrote {target.name}")
        if any(recipe != made[0] for recipe in made[1:]):
            raise ValueError(f"{page.name}: {target.name} is made differently from the shell and from Python: {made}")
        yield step


def _recipe(picture: Path) -> tuple[Any, ...]:
    """What a picture says of how it was made, apart from whose photographs and files they were."""
    import json

    made = json.loads(read_recipe(picture) or "{}")
    options = {name: str(value) for name, value in made.get("options", {}).items()}  # 128 is written as "128", too
    return (made.get("technique"), options, made.get("network"), made.get("layer"))
