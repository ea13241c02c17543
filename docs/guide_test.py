"""The guide does what it says: its commands and its lines of Python run, without a warning, and write its pictures.

Steps are cut to what each technique does in a moment (``quick``), and a blank figure stands for every drawing: how
results are drawn is tested beside the views, and ``docs/make.py guide``, which draws them in full, ends at any warning.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
import make
import walk

from convscope.registry import Technique

PAGES = {page.stem: page for page in walk.pages()}
STEPS = {step.picture: step for page in PAGES.values() for step in walk.steps(page)}


def test_every_picture_of_the_guide_was_made_by_the_code_above_it() -> None:
    made = make.kept(make.GUIDE)
    stale = [name for name, step in STEPS.items() if made.get(name) != make.fingerprint(step)]
    assert not stale, f"python docs/make.py guide PAGE makes these again: {', '.join(stale)}"
    assert {path.stem for path in make.GUIDE.glob("*.webp")} == set(STEPS) == set(made)


def test_every_picture_has_a_command_and_its_python_lines() -> None:
    for name, step in STEPS.items():
        assert {block.kind for block in step.blocks} == {"sh", "python"}, name


@pytest.mark.parametrize("page", PAGES)
def test_every_step_says_how_to_read_it_and_what_it_does_not_prove(page: str) -> None:
    text = PAGES[page].read_text(encoding="utf-8")
    assert (
        text.count("**How to read it.**") == text.count("**What it does not prove.**") == len(walk.steps(PAGES[page]))
    )


def brief(technique: Technique[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options with as few steps as ``quick`` takes: numbers only, so that what is asked for stays."""
    numbers = {name: value for name, value in technique.quick.items() if name != "target" and _is_number(value)}
    return {**given, **{name: value for name, value in numbers.items() if name in given}}


def _is_number(value: object) -> bool:
    each = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(one, (int, float)) for one in each)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("page", PAGES)
def test_every_step_of_the_guide_runs_without_a_warning(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Technique.check
    monkeypatch.setattr(Technique, "check", lambda self, options: brief(self, check(self, options)))
    monkeypatch.setattr("convscope.views.figure", lambda result: Figure(figsize=(1, 1)))
    threads = torch.get_num_threads()
    try:
        done = [step.picture for step in walk.walk(PAGES[page], tmp_path)]
    finally:
        torch.set_num_threads(threads)
    assert done == [step.picture for step in walk.steps(PAGES[page])]


@pytest.mark.parametrize(("said", "code"), [
    ("runs convscope only", "```sh\nrm -r x\n```"),
    ("nothing wrote a.png", "```python\nx = 1\n```"),
    ("No such option '--nope'", "```sh\nconvscope filters --nope -o a.png\n```"),
    ("made differently", "```sh\nconvscope filters -o a.png\n```\n```python\nconvscope.layers(network).save('a.png')\n```"),  # noqa: E501
])  # fmt: skip
def test_a_page_that_does_not_do_what_it_says_is_found(
    said: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convscope.views.figure", lambda result: Figure(figsize=(1, 1)))
    page = tmp_path / "page.md"
    page.write_text(f"{code}\n\n![a](pictures/a.webp)\n")
    with pytest.raises(ValueError, match=said):
        list(walk.walk(page, tmp_path))
