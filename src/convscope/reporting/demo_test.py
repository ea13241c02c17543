from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from convscope.errors import NetworkError, OptionError, OutputError
from convscope.network import Network
from convscope.registry import Entry, Target, Technique, discover, load, technique
from convscope.reporting import demo as demo_module
from convscope.reporting import page, parts, samples
from convscope.reporting.demo import demo
from convscope.reporting.page_test import check
from convscope.reporting.samples import PHOTOGRAPHS, photographs
from convscope.results import Heatmap, Result, Table
from convscope.zoo import load_network


@technique(family="attribute", paper="arXiv:1312.6034", see="bright spots", caution="nothing")
def from_outside(network: Network, images: Tensor) -> Heatmap:
    """What another package adds."""
    return Heatmap(values=images.mean(1), summaries=[{}] * len(images), images=images, signed=False, quantity="grey")


@technique(family="look")
def rows(network: Network) -> Table:
    """Of the network alone."""
    return Table(values=torch.zeros(1, 1), summaries=[{}], per_picture=False, columns=["a"], rows=[["<1>"]])


@technique(family="look")
def wrong(network: Network, images: Tensor) -> Table:
    """One that cannot."""
    raise OptionError("there is no layer 'x'; did you mean 'y'?")


@technique(family="look")
def broken(network: Network, images: Tensor) -> Table:
    """One with a fault."""
    raise ZeroDivisionError("division by zero")


@technique(family="robustness", together=True)
def at_once(network: Network, images: Tensor) -> Table:
    """What needs dozens of pictures."""
    if len(images) < 24 or len(images.unique(dim=0)) < len(images):
        raise OptionError("give dozens of different pictures")
    return Table(values=torch.zeros(1, 1), summaries=[{}], per_picture=False, columns=["a"], rows=[[len(images)]])


@pytest.fixture
def network() -> Network:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Network(module, name="toy", input_size=(24, 32))


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes these the only techniques."""

    def only(*techniques: Technique[..., Any]) -> None:
        known = {t.name: t for t in techniques}
        entries: Mapping[str, Entry] = {
            t.name: Entry(t.name, __name__, t.function.__name__, t.family, t.summary, t.order) for t in techniques
        }
        monkeypatch.setattr(demo_module, "discover", lambda: entries)
        monkeypatch.setattr(demo_module, "load", known.__getitem__)
        monkeypatch.setattr(demo_module, "REPORTED", ())

    return only


def article(text: str, name: str) -> str:
    start = text.index(f'<article id="{name}">')
    return text[start : text.index("</article>", start)]


def test_the_photographs_are_there_without_a_download() -> None:
    found = photographs()
    assert [name for name, _ in found] == ["cat", "coffee", "rocket", "astronaut", "temple", "flower"]
    assert all(path.is_file() for _, path in found)


def test_without_scikit_learn_two_are_left_out_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, install: Install, network: Network, tmp_path: Path
) -> None:
    find = samples.importlib.util.find_spec
    monkeypatch.setattr(samples.importlib.util, "find_spec", lambda n: None if n == "sklearn" else find(n))
    assert len(photographs()) == 4
    install(rows)
    text = demo(network, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Without scikit-learn, which is not installed, these are left out: temple, flower." in text
    assert "on four free photographs" in text


def test_every_technique_gets_what_it_takes_and_a_section(install: Install, network: Network, tmp_path: Path) -> None:
    install(rows, from_outside)
    said: list[str] = []
    path = demo(network, tmp_path / "page.html", progress=said.append, seconds=math.inf)
    text = path.read_text(encoding="utf-8")
    check(text)
    assert said == ["the report", "rows", "from-outside", "writing the page"]
    assert "<td>&lt;1&gt;</td>" in article(text, "rows")
    section = article(text, "from-outside")
    assert section.count("<figure>") == len(PHOTOGRAPHS)
    assert re.findall(r'alt="Photograph: (\w+)"', section) == [p.name for p in PHOTOGRAPHS]
    assert "<b>What to see</b>bright spots" in section
    assert "convscope from-outside PHOTO.jpg" in section


def test_photographs_are_credited(install: Install, network: Network, tmp_path: Path) -> None:
    install(rows)
    text = demo(network, tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(photograph.credit in text for photograph in PHOTOGRAPHS)


def test_a_technique_that_fails_says_so_and_spares_the_others(
    install: Install, network: Network, tmp_path: Path
) -> None:
    install(wrong, broken, from_outside)
    text = demo(network, tmp_path / "page.html", seconds=math.inf).read_text(encoding="utf-8")
    assert "Not shown here: there is no layer &#x27;x&#x27;; did you mean &#x27;y&#x27;?" in article(text, "wrong")
    assert "This one failed unexpectedly (ZeroDivisionError: division by zero)" in article(text, "broken")
    assert "<figure>" in article(text, "from-outside")


def test_a_slow_technique_gets_fewer_photographs_and_says_so(
    install: Install, network: Network, tmp_path: Path
) -> None:
    install(from_outside)
    text = demo(network, tmp_path / "page.html", seconds=0.0).read_text(encoding="utf-8")
    section = article(text, "from-outside")
    assert section.count("<figure>") == 1
    assert "so only 1 of 6 are used" in section


def test_what_takes_dozens_of_pictures_gets_parts_of_the_photographs_and_says_so(
    install: Install, network: Network, tmp_path: Path
) -> None:
    install(at_once)
    section = article(demo(network, tmp_path / "page.html").read_text(encoding="utf-8"), "at-once")
    assert "<td>48</td>" in section or '<td class="number">48</td>' in section
    assert "Made of 48 pictures, which are parts of the 6 photographs" in section


@technique(family="look", example={"target": "sunflower"})
def of_a_class(network: Network, *, target: Target = None) -> Table:
    """What the example asks for may be absent."""
    found = network.label(network.target(target))
    return Table(values=torch.zeros(1, 1), summaries=[{}], per_picture=False, columns=["a"], rows=[[found]])


def test_a_class_that_the_network_lacks_is_replaced_by_one_that_it_has(
    install: Install, network: Network, tmp_path: Path
) -> None:
    install(of_a_class)
    cases: list[tuple[tuple[str, ...], str, object]] = [
        (("rose", "sunflower", "tulip"), "sunflower", "sunflower"),
        (("rose", "tulip", "lily"), "rose", 0),
        ((), "class 0", 0),
    ]
    for labels, word, target in cases:
        told = demo(replace(network, labels=labels), tmp_path / "page.html").read_text(encoding="utf-8")
        assert f"<td>{word}</td>" in article(told, "of-a-class")
        assert f"convscope of-a-class --target {target}" in article(told, "of-a-class")


@technique(family="attribute")
def by_weights(network: Network, images: Tensor) -> Heatmap:
    """Noise that the last layer's weights decide."""
    seed = int(network.module[4].weight.detach().abs().sum() * 1e6)  # type: ignore[index]
    values = torch.rand(len(images), *images.shape[2:], generator=torch.Generator().manual_seed(seed))
    return Heatmap(values=values, summaries=[{}] * len(images), images=images, signed=False, quantity="noise")


def test_a_heat_map_that_the_weights_do_not_change_is_marked(
    install: Install, network: Network, tmp_path: Path
) -> None:
    install(from_outside, rows)
    text = demo(network, tmp_path / "page.html", seconds=math.inf).read_text(encoding="utf-8")
    check(text)
    section = article(text, "from-outside")
    assert '<p class="verdict doubtful"><b>Hardly depends on the weights</b>With the weights made random' in section
    assert "(rank correlation 1 over 6 photographs, above 0.4)" in section
    assert "verdict" not in article(text, "rows")


def test_a_heat_map_that_changes_with_the_weights_passes(install: Install, network: Network, tmp_path: Path) -> None:
    install(by_weights)
    text = demo(network, tmp_path / "page.html", seconds=math.inf).read_text(encoding="utf-8")
    assert '<p class="verdict"><b>Depends on the weights</b>' in article(text, "by-weights")
    assert "below 0.4)" in article(text, "by-weights")


def test_what_takes_too_long_is_not_checked_and_says_so(
    install: Install, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "CHECK_SECONDS", 0.0)
    install(from_outside)
    section = article(demo(network, tmp_path / "page.html").read_text(encoding="utf-8"), "from-outside")
    assert "<b>Dependence on the weights not checked</b>Too slow, " in section
    assert "doubtful" not in section


def test_a_network_that_cannot_be_copied_is_not_checked_and_says_so(
    install: Install, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_copy(network: Network) -> list[tuple[int, Network]]:
        raise NetworkError("toy cannot be copied")

    monkeypatch.setattr(demo_module, "cascade", no_copy)
    install(from_outside)
    section = article(demo(network, tmp_path / "page.html").read_text(encoding="utf-8"), "from-outside")
    assert "Not for this network: toy cannot be copied" in section


def test_a_page_that_grows_too_large_is_made_of_smaller_pictures(
    install: Install, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(from_outside)
    network = replace(network, input_size=(96, 128))
    large = demo(network, tmp_path / "large.html", seconds=math.inf).stat().st_size
    monkeypatch.setattr(page, "LIMIT", large - 1)
    assert demo(network, tmp_path / "small.html", seconds=math.inf).stat().st_size < large


def test_nothing_is_left_where_the_page_cannot_be_written(install: Install, network: Network, tmp_path: Path) -> None:
    install(rows)
    with pytest.raises(OutputError):
        demo(network, tmp_path / "absent" / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("error")  # of any technique, with the options of its picture, and of what draws it
def test_every_registered_technique_is_on_the_page_of_the_built_in_network_and_shows_itself_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in discover():  # what they take in a moment, and not the minutes of their examples
        technique = load(name)
        monkeypatch.setattr(technique, "example", {**technique.example, **technique.quick})
    board = Board()
    draw = Result.figure

    def figure(result: Result) -> Figure:
        drawn = draw(result)
        assert isinstance(drawn, Figure)
        return drawn

    monkeypatch.setattr(Result, "figure", figure)
    monkeypatch.setattr(parts, "html", lambda result, *, quality: shows_itself(result, board))
    monkeypatch.setattr(demo_module, "DEFAULT", "gradcam")
    network = replace(load_network("builtin", weights="random"), input_size=(64, 64))
    path = demo(network, tmp_path / "page.html", seconds=0.0)
    text = path.read_text(encoding="utf-8")
    check(text)
    assert '<article id="photograph-1-maps">' in text
    assert "convscope explore --weights random" in text[text.index("To walk around in it") :]
    for name in discover():
        assert "failed unexpectedly" not in article(text, name), name
        left_out = re.search("Not for this network|Not shown here", article(text, name))
        assert name in board.logged or left_out, name
    assert path.stat().st_size < 10_000_000
    assert str(Path.home()) not in text


class Board:
    """Takes what is logged, as TensorBoard's writer does."""

    def __init__(self) -> None:
        self.logged: list[str] = []

    def add_image(self, tag: str, image: np.ndarray[Any, Any], step: int, dataformats: str) -> None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.min() < image.max()
        assert (step, dataformats) == (7, "HWC")
        self.logged.append(tag)

    def add_text(self, tag: str, text: str, step: int) -> None:
        assert '"provenance"' in text
        assert (tag, step) == (self.logged[-1], 7)


def shows_itself(result: Result, board: Any) -> str:
    """What a notebook shows of it, after everything that a result must be able to do."""
    np.testing.assert_array_equal(np.asarray(result), result.numpy())
    assert np.asarray(result, dtype=np.float64).shape == tuple(result.values.shape)
    result.log(board, step=7)
    cell = result._repr_html_()
    assert len(cell) < 2_200_000
    return cell
