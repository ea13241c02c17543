"""Write networks.md: what works on every classification network of torchvision and one of each of timm's families.

python docs/make.py networks   # some minutes on two cores
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from convscope.matrix_test import CHECKS, Outcome, examine, timm_networks, torchvision_networks

PAGE = Path(__file__).parent / "networks.md"
HEAD = """# Networks

Every classification network of torchvision {torchvision} and the smallest of each of timm {timm}'s families, with
random weights and the smallest picture that it takes, by the same function as the tests. *Default layer* is the one
that Grad-CAM and the like look at when none is named, here for the picture's size in the second column. What does not
work says so in one sentence, below the table. [Every technique on one network of each family](matrix.md).

| {columns} |
|{rule}|
"""


def row(outcome: Outcome, notes: list[str]) -> str:
    """One line of the table; sentences go to ``notes``."""
    layer = outcome.default
    shown = f"`{layer.name}` {layer.kind} {'×'.join(map(str, layer.shape))}" if layer else ""
    answers = [_mark(outcome.answers.get(check, outcome.answers.get("load", "")), notes) for check in CHECKS]
    side = f"{outcome.side} px" if outcome.side else ""
    return f"| {outcome.spec} | {side} | {outcome.layers or ''} | {shown} | {' | '.join(answers)} |"


def _mark(answer: str, notes: list[str]) -> str:
    if answer == "works":
        return "✓"
    if answer not in notes:
        notes.append(answer)
    return f"({notes.index(answer) + 1})"


def page(specs: Sequence[str]) -> str:
    """The whole page, by running every network."""
    import timm
    import torchvision

    columns = ["network", "picture", "layers", "default layer", *CHECKS]
    head = HEAD.format(
        torchvision=torchvision.__version__.partition("+")[0],
        timm=timm.__version__,
        columns=" | ".join(columns),
        rule="---|" * (len(columns) - 1) + "---",
    )
    notes: list[str] = []
    rows = []
    for number, spec in enumerate(specs, start=1):
        rows.append(row(examine(spec), notes))
        print(f"\r{number}/{len(specs)} {spec:60}", end="", file=sys.stderr, flush=True)
    said = "".join(f"\n{number}. {note}" for number, note in enumerate(notes, start=1))
    return head + "\n".join(rows) + "\n" + (said + "\n" if said else "")


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page([*torchvision_networks(), *timm_networks()]), encoding="utf-8")
