"""Generated pages are in step with the registry, and the page of benchmarks with whatever results there are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import hooks
import make
import matrix
import measured

from convscope import registry

NAMES = list(registry.discover())


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_every_technique_is_up_to_date(name: str) -> None:
    made = make.kept(make.PAGES).get(name)
    assert made, f"python docs/make.py {name} makes its page and its picture"
    technique = registry.load(name)
    assert made["command"] == make.shell(technique), f"its example has changed: python docs/make.py {name}"
    page = (make.PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page == make.text(technique, made), "python docs/make.py pages writes it again"
    assert (make.GALLERY / f"{name}.webp").is_file()
    assert technique.see
    assert technique.caution
    assert technique.paper or technique.family == "look"


def test_there_are_no_pages_of_techniques_that_are_gone() -> None:
    assert {path.stem for path in make.PAGES.glob("*.md")} == {*NAMES, "index"}
    assert (make.PAGES / "index.md").read_text(encoding="utf-8") == make.index()
    assert set(make.kept(make.PAGES)) == set(NAMES)


def test_the_table_of_networks_and_techniques_is_what_was_found() -> None:
    found = json.loads(matrix.FOUND.read_text(encoding="utf-8"))
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.page(found["networks"], found["torchvision"])
    assert list(found["networks"]) == list(matrix.NETWORKS)


# ---- benchmarks


def test_every_result_is_on_the_page_of_benchmarks_with_all_its_numbers() -> None:
    source = (make.DOCS / "benchmarks.md").read_text(encoding="utf-8")
    page = hooks.on_page_markdown(source)
    assert hooks.MARKER in source
    assert hooks.MARKER not in page
    for path in measured.RESULTS.glob("*.json"):
        part = page[page.index(f"*{path.name}*") :]
        for name, value in measured.flat(json.loads(path.read_text(encoding="utf-8"))).items():
            assert measured.shown(value).replace("|", "\\|") in part, (path.name, name)
    for script in measured.BENCHMARKS.glob("[!_]*.py"):
        assert f"## {script.stem}\n" in page
        assert f"python benchmarks/{script.name}" in page


SCRIPT = """'''Ours against theirs.

    python benchmarks/speed.py      # minutes
    python benchmarks/speed.py --quick
'''
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "speed.py"
    path.write_text(SCRIPT)
    return path


def test_cases_become_columns_and_ratios_come_first(script: Path) -> None:
    found = {
        "machine": {"cores": 2},
        "quick": True,
        "networks": {
            "a": {"seconds": {"ours": 1.0}, "times theirs": 3.21},
            "b": {"seconds": {"ours": 2.0}, "times theirs": 4.0},
        },
    }
    (script.parent / "speed.json").write_text(json.dumps(found))
    section = measured.section(script, script.parent)
    assert section.splitlines()[:2] == ["## speed", ""]
    assert "```sh\npython benchmarks/speed.py\n```" in section
    assert "*speed.json*: cores 2." in section
    assert "A quick run" in section
    table = section[section.index("|  | a | b |") :]
    assert table.splitlines()[2] == "| **times theirs** | **3.21** | **4** |"
    assert '??? note "All its numbers"' in table
    assert "    | seconds · ours | 1 | 2 |" in table


def test_many_cases_become_rows(script: Path) -> None:
    found = {f"case {n}": {"of": n, "fooled": n * 0.5} for n in range(8)}
    (script.parent / "speed.json").write_text(json.dumps(found))
    section = measured.section(script, script.parent)
    assert "|  | of | fooled |" in section
    assert "| case 7 | 7 | 3.5 |" in section


def test_a_benchmark_without_results_says_so(script: Path) -> None:
    assert "**Missing**" in measured.section(script, script.parent)
