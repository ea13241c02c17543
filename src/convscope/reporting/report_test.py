from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope import registry
from convscope.errors import ConvscopeError
from convscope.evaluate.methods import Method, methods_of
from convscope.evaluate.randomisation import cascade
from convscope.images import write_image
from convscope.index import Index
from convscope.network import Network
from convscope.registry import technique
from convscope.reporting import dataset, maps, photos
from convscope.reporting.demo_test import article
from convscope.reporting.page_test import Reader, check
from convscope.results import Heatmap
from convscope.views.colour import upper_end

METHODS = "saliency, gradcam"


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()]
        module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return Network(module.eval(), name="toy", input_size=(24, 32), labels=("sun", "sea", "<sand>"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs, and a text that is none."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, name in enumerate(("one.png", "two.png", "three <3>.png")):
        write_image(torch.rand(3, 30, 40, generator=torch.Generator().manual_seed(number)), folder / name)
    (folder / "text.txt").write_text("no picture")
    (folder / "empty").mkdir()
    (folder / "photos.index").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check goes over the given photographs only."""
    monkeypatch.setattr(maps, "CHECKED", 1)


@pytest.fixture(scope="module")
def single(network: Network, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of one photograph."""
    output = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "CHECKED", 1)
        assert convscope.report(folder / "one.png", output, network=network, methods=METHODS, target="sea") == output
    assert output.stat().st_size < 10_000_000
    return output.read_text(encoding="utf-8")


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html.replace("<code>", "`").replace("</code>", "`")).split())


def test_a_photograph_gets_its_sections_and_nothing_is_fetched(single: str) -> None:
    read = check(single)
    anchors = ["photograph-1", "photograph-1-maps", "photograph-1-fool", "photograph-1-layerwise"]
    assert read.identifiers == anchors
    assert [link for link in read.links if link.startswith("#")][:4] == [f"#{anchor}" for anchor in anchors]
    assert "<h1>What toy sees in one.png</h1>" in single
    assert re.search(r"<strong>(sun|sea|&lt;sand&gt;)</strong>, with a probability of \d+\.\d %", single)


def test_every_section_says_how_to_read_it_and_what_it_does_not_prove(single: str) -> None:
    for name in ("photograph-1-fool", "photograph-1-layerwise"):
        known = registry.load(name.rpartition("-")[2])
        assert known.see in words(article(single, name))
        assert known.caution in words(article(single, name))
    section = article(single, "photograph-1-maps")
    assert all(registry.load(name).caution in words(section) for name in ("saliency", "gradcam"))
    assert section.count("<b>What it does not prove</b>") == 3


def test_every_section_has_the_lines_that_make_it_again(single: str, folder: Path) -> None:
    file = str(folder / "one.png")
    section = article(single, "photograph-1-maps")
    line = f"convscope gradcam {file} --target sea --network FILE.py:FACTORY --output gradcam.png"
    assert f"<code>{line}</code>" in section
    assert f"image = network.prepare(convscope.read_image(&#x27;{file}&#x27;))" in section
    assert f"<code>convscope fool {file} " in article(single, "photograph-1-fool")
    end = single[single.index("Make this page again") :]
    assert f"convscope report {file} --output " in end
    assert "--target sea --methods &#x27;saliency, gradcam&#x27;" in end


def test_verdicts_stand_beside_the_maps(single: str) -> None:
    section = article(single, "photograph-1-maps")
    assert section.count('<p class="verdict') == 2
    assert len(re.findall(r"rank correlation [−\d.]+ over one photograph only", section)) == 2
    assert section.count("the same method, random weights; rank correlation") == 2


def test_maps_share_one_bar(single: str) -> None:
    section = article(single, "photograph-1-maps")
    assert section.count('class="ticks"') == 1
    assert section.count('<div class="method">') == 2


@pytest.fixture(scope="module")
def looked(network: Network) -> list[maps.Looked]:
    images = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maps, "CHECKED", 1)
        return maps.Looking(network, images, [1, 2]).by(methods_of("saliency, gradcam, gradient-x-input"))


def test_the_scale_is_that_of_all_maps_in_shares_of_their_averages(looked: list[maps.Looked]) -> None:
    by_hand = []
    for each in looked:
        for result in (each.results[0], each.controls[0]):
            values = result.values[0].double()
            by_hand.append(values / values.abs().mean())
            torch.testing.assert_close(maps.relative(result)[0], by_hand[-1])
    end = upper_end(torch.stack(by_hand).abs().numpy())
    scale = maps.common_scale(looked, 0)
    assert scale.signed
    assert (-scale.low, scale.high) == (pytest.approx(end), pytest.approx(end))
    rows = [row for each in looked for row in maps.drawn(each, 0, torch.rand(3, 48, 64), scale)]
    assert len(rows) == 6
    assert {(row.scale.low, row.scale.high) for row in rows} == {(scale.low, scale.high)}
    cells = looked[1].results[0].cells
    assert cells is not None
    assert rows[2].cells == tuple(cells.shape[1:])


def test_the_control_is_the_method_on_a_network_with_random_weights(
    network: Network, looked: list[maps.Looked]
) -> None:
    *_, (layers, last) = cascade(network)
    assert layers == 3
    saliency = looked[0]
    for place, target in ((0, 1), (1, 2)):
        picture = saliency.results[place].images
        torch.testing.assert_close(saliency.controls[place].values, Method("saliency")(last, picture, [target]))
        torch.testing.assert_close(saliency.results[place].values, Method("saliency")(network, picture, [target]))
        assert not torch.allclose(saliency.controls[place].values, saliency.results[place].values)


def test_few_photographs_are_helped_out_for_the_check(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "CHECKED", 3)
    monkeypatch.setattr(maps, "CHECK_SECONDS", 1000.0)
    (each,) = maps.Looking(network, torch.rand(1, 3, 24, 32), [0]).by([Method("saliency")])
    assert each.verdict.pictures == 3
    assert len(each.results) == len(each.controls) == 1
    monkeypatch.setattr(maps, "CHECK_SECONDS", 0.0)
    (each,) = maps.Looking(network, torch.rand(1, 3, 24, 32), [0]).by([Method("saliency")])
    assert each.verdict.pictures == 1


@technique(family="attribute")
def edges(network: Network, images: Tensor) -> Heatmap:
    """What knows nothing of the network."""
    return Heatmap(values=images.mean(1), summaries=[{}] * len(images), images=images, signed=False, quantity="grey")


@technique(family="attribute")
def broken(network: Network, images: Tensor) -> Heatmap:
    """One with a fault."""
    raise ZeroDivisionError("division by zero")


def test_a_map_without_the_network_is_marked_and_a_fault_spares_the_others(network: Network) -> None:
    found = maps.Looking(network, torch.rand(1, 3, 24, 32), [0]).by([Method.of(edges), Method.of(broken)])
    assert [each.verdict.word for each in found] == ["fails", "–"]
    html = maps.html([_known(each) for each in found], 0, torch.rand(3, 24, 32), "x", [("a", "b")] * 2, 90)
    assert '<p class="verdict doubtful"><b>Hardly depends on the weights</b>' in html
    assert "rank correlation 1 over one photograph" in html
    assert "This one failed unexpectedly (ZeroDivisionError: division by zero)" in html
    Reader(html)


class _Known(maps.Looked):
    @property
    def technique(self) -> registry.Technique[..., Heatmap]:
        return edges


def _known(each: maps.Looked) -> maps.Looked:
    """The same, of a technique that is not registered."""
    return _Known(each.method, each.results, each.controls, each.verdict, each.error)


def test_a_map_that_is_zero_everywhere_is_drawn_as_nothing(network: Network) -> None:
    zero = Heatmap(
        values=torch.zeros(1, 24, 32), summaries=[{}], images=torch.rand(1, 3, 24, 32), signed=True, quantity="score"
    )
    some = replace(zero, values=torch.linspace(-1, 1, 24 * 32).view(1, 24, 32))
    looked = [maps.Looked(Method("saliency"), [some], [zero])]
    drawn = maps.drawn(looked[0], 0, torch.rand(3, 24, 32), maps.common_scale(looked, 0))
    assert (drawn[1].map == 0xEB).all()


def test_several_photographs_have_a_chapter_each(
    network: Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "TECHNIQUES", {})
    output = convscope.report(
        [folder / "three <3>.png", folder / "one.png"], tmp_path / "x.html", network=network, methods="saliency"
    )
    text = output.read_text(encoding="utf-8")
    check(text)
    assert "<h1>What toy sees in 2 photographs</h1>" in text
    assert '<h2 id="photograph-1">three &lt;3&gt;.png</h2>' in text
    assert '<a href="#photograph-2">one.png</a>' in text
    assert "over 2 photographs" in text


def test_of_many_photographs_some_are_shown_and_that_is_said(
    network: Network, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "TECHNIQUES", {})
    output = convscope.report(folder, tmp_path / "x.html", network=network, methods="saliency", limit=2)
    text = output.read_text(encoding="utf-8")
    assert "2 of 3 photographs are shown." in text
    assert re.findall(r'<h2 id="photograph-\d">([^<]*)<', text) == ["one.png", "three &lt;3&gt;.png"]


def test_an_index_is_asked_everything_and_what_it_cannot_say_is_a_sentence(colour_index: Index, tmp_path: Path) -> None:
    output = convscope.report(colour_index.path, tmp_path / "x.html", limit=2)
    text = output.read_text(encoding="utf-8")
    check(text)
    for name in dataset.TECHNIQUES:
        section = article(text, f"index-{name}")
        assert "failed unexpectedly" not in section
        assert registry.load(name).caution in words(section)
        assert f"convscope {name} {colour_index.path}" in section
    assert all("<img" in article(text, f"index-{name}") for name in ("embed", "neighbors", "patches"))
    few = article(text, "index-strategies")
    assert re.search(r'<p class="failed">Not for this index: [^<\n]* has 8 pictures [^<\n]*, and groups need 12', few)
    right = sum(colour_index.pictures(["correct"], "error is null")["correct"].to_pylist())
    assert re.search(rf"is right on <strong>[\d.]+ %</strong> of the 24 pictures: {right} of them", text)
    assert "<dt>Unreadable</dt><dd>1</dd>" in text
    assert output.stat().st_size < 10_000_000


def test_neighbours_are_those_of_the_given_photographs(
    colour_index: Index, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "TECHNIQUES", {"neighbors": dataset.TECHNIQUES["neighbors"]})
    monkeypatch.setattr(photos, "TECHNIQUES", {})
    paths = [str(folder / "two.png"), str(colour_index.path)]
    text = convscope.report(paths, tmp_path / "x.html", methods="saliency").read_text(encoding="utf-8")
    assert ">two.png<" in article(text, "index-neighbors")
    assert "and over 24 pictures</h1>" in text
    assert f"convscope neighbors {paths[1]} {paths[0]}" in text
    assert f"convscope report {paths[0]} {paths[1]} " in text


@pytest.mark.parametrize(
    ("given", "options", "remedy"),
    [
        (["one.png"], {"output": "x.png"}, "end the name in .html, not 'x.png'"),
        (["one.png"], {"output": "no/x.html"}, "there is no folder no; make it first"),
        (["no.png"], {}, "no.png"),
        (["text.txt"], {}, "text.txt"),
        (["empty"], {}, "empty holds no pictures"),
        (["photos.index"], {}, "photos.index is no index; `convscope scan PHOTOS -o photos.index` makes one"),
        ([], {}, "a report needs photographs"),
        (["one.png"], {"methods": "gradcm"}, "there is no technique 'gradcm'; did you mean 'gradcam'"),
        (["one.png"], {"methods": "filters"}, "filters makes no heat map"),
        (["one.png"], {"target": "moon"}, "moon"),
        (["one.png"], {"limit": 0}, "limit should be at least 1, not 0"),
    ],
)
def test_bad_input_gets_a_sentence_and_no_page(
    given: list[str], options: dict[str, object], remedy: str, network: Network, folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    report: Callable[..., Path] = convscope.report
    with pytest.raises(ConvscopeError) as raised:
        report(given, **{"output": "x.html", "network": network, **options})
    assert remedy in str(raised.value)
    assert sorted(folder.iterdir()) == before


def test_several_indexes_are_too_many(colour_index: Index, tmp_path: Path) -> None:
    with pytest.raises(ConvscopeError, match="a report is about one index, and these are 2"):
        convscope.report([colour_index.path, colour_index.path], tmp_path / "x.html")
