"""The file on the page of how to add a technique, behind an entry point: the command, the page and the form appear."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
import make

import convscope
from convscope import registry
from convscope.cli.group import main_group
from convscope.explorer.forms import described
from convscope.images import read_recipe, write_image
from convscope.network import Network

PAGE = (Path(__file__).parent / "own-technique.md").read_text(encoding="utf-8")


def block(kind: str) -> str:
    """The page's first block of this kind, as it stands."""
    found = re.search(rf"^```{kind}[^\n]*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found, kind
    return found[1]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the page, as pip would leave it: its modules, and its entry points as it declares them."""
    package = tmp_path / "my_techniques"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rim.py").write_text(block("python"), encoding="utf-8")
    declared = block("toml")
    group, line = re.search(r'entry-points\."([\w.]+)"\]\n(\w+ = "\w+")', declared).groups()
    about = tmp_path / "my_techniques-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-techniques\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry.discover.cache_clear()
    yield tmp_path
    registry.discover.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_techniques"]:
        del sys.modules[name]


def test_the_file_on_the_page_is_a_command_a_page_and_a_form(installed: Path) -> None:
    entry = registry.discover()["rim"]
    assert (entry.module, entry.family) == ("my_techniques.rim", "attribute")
    said = CliRunner().invoke(main_group, ["rim", "--help"])
    assert said.exit_code == 0
    assert "--frames" in said.output
    assert "Bright frames are those whose hiding costs most" in " ".join(said.output.split())
    page = make.text(registry.load("rim"), {})
    assert "| `--frames` | 8 | frames, from the rim to the middle |" in page
    form = described(registry.load("rim"))
    assert [(o["name"], o["kind"], o.get("ge"), o.get("le")) for o in form["options"]] == [
        ("target", "target", None, None),
        ("frames", "integer", 1, 64),
    ]


def test_its_command_and_its_python_lines_run(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(installed)
    write_image(torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)), "cat.png")
    command = block("sh").splitlines()[0].split()
    assert CliRunner().invoke(main_group, command[1:], catch_exceptions=False).exit_code == 0
    by_command = json.loads(read_recipe("rim.png"))
    network = convscope.load_network("builtin")
    cat = network.prepare(convscope.read_image("cat.png"))
    Path("rim.png").unlink()
    exec(re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0], {
        "convscope": convscope, "network": network, "cat": cat,
    })  # fmt: skip
    by_python = json.loads(read_recipe("rim.png"))
    assert by_command["technique"] == by_python["technique"] == "rim"
    assert by_command["options"] == by_python["options"] == {"target": None, "frames": 6}


def test_its_numbers_are_those_of_a_network_that_can_be_worked_out(installed: Path) -> None:
    """A network whose score is the sum of the picture loses, frame by frame, what was above grey there."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 6 * 8, 1, bias=False))
    torch.nn.init.ones_(module[1].weight)
    images = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(1))
    found = registry.load("rim")(Network(module, input_size=(6, 8)), images, target=0, frames=3).values
    rims = torch.zeros(6, 8)
    rims[1:-1, 1:-1] = 1
    rims[2:-2, 2:-2] = 2
    for frame in range(3):
        lost = ((images - 0.5) * (rims == frame)).sum((1, 2, 3))
        expected = lost[:, None].expand(-1, int((rims == frame).sum()))
        torch.testing.assert_close(found[:, rims == frame], expected, rtol=0, atol=1e-4)
