"""The command line, as a user meets it: what is printed where, exit status, files."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import convscope
from convscope import cli, progress, registry
from convscope.cli import bar, work
from convscope.conftest import colour_pictures
from convscope.images import read_image, read_recipe
from convscope.index import Index
from convscope.reporting import dataset
from convscope.reporting.recipe import flags
from convscope.scanning import scan
from convscope.zoo import load_network

FACTORY = """
    import torch
    from torch import nn

    class Means(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) * 10

    def means():
        return Means()

    def small():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 5), nn.ReLU(inplace=True), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(6, 3),
        )

    def nan():
        net = small()
        net[0].weight.data[1, 0, 0, 0] = float("nan")
        return net
"""


class Ran(NamedTuple):
    status: int
    out: str
    err: str


ANSWERS = """\
subj,session,trial,rt,object_response,category,condition,imagename
ann,1,1,0.5,red,red,,a.png
ann,1,2,0.5,red,blue,,b.jpg
"""


class Desk:
    """A folder with a network, labels and two photographs, and a way to run commands there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._capture = folder, monkeypatch, capsys
        (folder / "nets.py").write_text(textwrap.dedent(FACTORY))
        (folder / "labels.txt").write_text("red\ngreen\nblue\n")
        Image.new("RGB", (40, 30), (200, 20, 20)).save(folder / "a.png")
        Image.new("RGB", (30, 40), (20, 20, 220)).save(folder / "b.jpg")
        (folder / "conflicts").mkdir()
        for name in ("red1-green1", "green1-blue2", "blue1-red1"):
            Image.new("RGB", (40, 30), (200, 20, 20)).save(folder / "conflicts" / f"{name}.png")
        (folder / "answers.csv").write_text(ANSWERS)
        self.data = {"stimuli": "conflicts", "responses": "answers.csv", "pictures": "."}  # what files stand for
        self.common = ["--network", "nets.py:small", "--labels", "labels.txt", "--input-size", "24,32"]

    def __call__(self, *arguments: str) -> Ran:
        self._patch.chdir(self.folder)
        self._patch.setattr(sys, "argv", ["convscope", *arguments])
        self._capture.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = self._capture.readouterr()
        return Ran(status, captured.out, captured.err)

    def files(self) -> set[str]:
        given = {"nets.py", "labels.txt", "a.png", "b.jpg", "conflicts", "answers.csv", "__pycache__"}
        return {path.name for path in self.folder.iterdir()} - given


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_classify_json_is_one_object_for_one_photograph_and_a_list_for_several(desk: Desk) -> None:
    means = ["--network", "nets.py:means", "--labels", "labels.txt", "--input-size", "8", "--json"]
    one = desk("classify", "a.png", *means)
    assert one.status == 0
    found = json.loads(one.out)
    assert [p["label"] for p in found["predictions"]] == ["red", "green", "blue"]
    assert found["provenance"]["technique"] == "classify"
    assert found["provenance"]["photographs"] == ["a.png"]
    several = json.loads(desk("classify", "a.png", "b.jpg", *means).out)
    assert [o["predictions"][0]["label"] for o in several] == ["red", "blue"]
    assert not desk.files()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, colour_spec: dict[str, Any]) -> Index:
    """An index with enough pictures of each class for every question."""
    folder = colour_pictures(tmp_path_factory.mktemp("asked") / "pictures", each=14)
    return scan(load_network(**colour_spec), folder, folder.parent / "asked.index", loaded=colour_spec)


@pytest.mark.parametrize("name", list(registry.discover()))
def test_every_command_answers_in_json_raw_and_picture(desk: Desk, name: str, asked: Index) -> None:
    technique = registry.load(name)
    given = [str(asked.path)] if technique.takes_index else []
    given += ["a.png"] if technique.takes_images else []
    pictures = {option.name for option in technique.options if registry.is_picture(option.annotation)}
    for option, value in technique.quick.items():
        value = desk.data.get(option, value)
        given += flags(option, "b.jpg" if option in pictures else value)
    given += desk.common if technique.takes_network else []
    ran = desk(name, *given, "--json", "--raw", "raw.npz", "-o", "picture.png", "--seed", "3")
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    found = found[0] if isinstance(found, list) else found
    assert set(found["provenance"]) >= {"technique", "options", "seed", "network", "layer", "versions"}
    assert found["provenance"]["seed"] == 3
    with np.load(desk.folder / "raw.npz") as saved:
        assert saved["values"].size
    made = technique.family == "synthesize"  # the picture itself, which may be small, and its recipe beside it
    with Image.open(desk.folder / "picture.png") as picture:
        assert made or min(picture.size) > 100
        assert json.loads(picture.info["convscope"])["technique"] == name
    assert desk.files() == {"raw.npz", "picture.png", *(["picture.json"] if made else [])}


@pytest.mark.parametrize("name", [*registry.discover(), "demo", "report"])
def test_every_command_has_help(desk: Desk, name: str) -> None:
    ran = desk(name, "--help")
    assert ran.status == 0
    network = ("--network", "--weights", "--labels", "--device", "--precision")
    known = registry.load(name) if name in registry.discover() else None
    takes_network = known is None or known.takes_network
    takes_index = name == "report" or (known is not None and known.takes_index)  # which knows its network
    assert takes_index or all((option in ran.out) == takes_network for option in network)
    assert ("INDEX" in ran.out) == takes_index
    assert "--quiet" in ran.out
    assert "--output" in ran.out


def test_help_has_what_is_the_techniques_own_first(desk: Desk) -> None:
    words = ("Options:", "--rotation", "Output:", "--json", "Network:", "--weights", "General:", "--help")
    places = [desk("patch", "--help").out.index(word) for word in words]
    assert places == sorted(places)


def test_help_tells_every_default_alike(desk: Desk) -> None:
    helped = " ".join(desk("patch", "--help").out.split())
    assert "[default: circle]" in helped
    assert "[default: 0.05, 0.1, 0.2, 0.3]" in helped
    assert "[default: builtin]" in helped


def test_a_report_is_a_page_that_tells_how_it_was_made(desk: Desk) -> None:
    ran = desk("report", "a.png", *desk.common, "--methods", "saliency", "--target", "red", "-o", "x.html")
    assert ran.status == 0, ran.err
    assert "wrote x.html: 0." in ran.err
    assert desk.files() == {"x.html"}
    text = (desk.folder / "x.html").read_text(encoding="utf-8")
    network = "--network nets.py:small --labels labels.txt --input-size 24,32"
    assert f"convscope report a.png --output x.html --target red --methods saliency {network}" in text
    assert f"convscope saliency a.png --target red {network} --output saliency.png" in text
    assert "network=convscope.load_network(&#x27;nets.py:small&#x27;, labels=&#x27;labels.txt&#x27;" in text
    refused = desk("report", "a.png", "-o", "x.txt")
    assert (refused.status, refused.err) == (1, "error: a report is a page: end the name in .html, not 'x.txt'\n")


def test_a_report_on_an_index_uses_its_network(desk: Desk, asked: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "TECHNIQUES", {"health": dataset.TECHNIQUES["health"]})
    ran = desk("report", str(asked.path), "--device", "cpu", "-o", "x.html")
    assert ran.status == 0, ran.err
    assert f"convscope report {asked.path} --output x.html<" in (desk.folder / "x.html").read_text(encoding="utf-8")


def test_saliency_equals_the_gradient_of_the_prepared_photograph(desk: Desk) -> None:
    desk("saliency", "a.png", *desk.common, "--target", "green", "--raw", "raw.npz")
    scope: dict = {}
    exec(textwrap.dedent(FACTORY), scope)
    with torch.random.fork_rng():
        module = scope["small"]()
    image = torch.nn.functional.interpolate(
        read_image(desk.folder / "a.png")[None], (24, 32), mode="bilinear", antialias=True
    )
    image.requires_grad_()
    expected = torch.autograd.grad(module(image)[0, 1], image)[0].abs().amax(1)
    with np.load(desk.folder / "raw.npz") as saved:
        np.testing.assert_allclose(saved["values"], expected.numpy(), rtol=1e-4, atol=1e-7)


def test_without_an_output_the_picture_is_named_after_the_command(desk: Desk) -> None:
    ran = desk("saliency", "a.png", *desk.common)
    assert ran.status == 0
    assert desk.files() == {"saliency.png"}
    assert "wrote saliency.png" in ran.err
    assert ran.out.strip()


def test_the_changed_picture_is_written_and_holds_what_was_said(desk: Desk) -> None:
    ran = desk("pgd", "a.png", "b.jpg", *desk.common, "--epsilon", "90/255", "--adversarial", "x.png", "--json")
    assert ran.status == 0, ran.err
    assert desk.files() == {"x-1.png", "x-2.png"}
    again = json.loads(desk("classify", "x-1.png", "x-2.png", *desk.common, "--json").out)
    for said, seen in zip(json.loads(ran.out), again, strict=True):
        assert seen["predictions"][0]["label"] == said["adversarial"]["label"]
        assert seen["predictions"][0]["probability"] == pytest.approx(said["adversarial"]["probability"])


def test_a_technique_that_needs_no_photograph_runs_without(desk: Desk) -> None:
    ran = desk("fool", "--start", "noise", "--steps", "2", *desk.common, "-o", "x.png")
    assert ran.status == 0, ran.err
    again = desk("rerun", "x.png")
    assert again.status == 0, again.err
    assert "equals x.png in every pixel" in again.err


def test_quiet_says_nothing_on_standard_error(desk: Desk) -> None:
    assert desk("saliency", "a.png", *desk.common, "--quiet").err == ""


def test_a_folder_stands_for_its_photographs(desk: Desk) -> None:
    assert len(json.loads(desk("classify", "conflicts", *desk.common, "--json").out)) == 3


BAD = [
    (["classify", "missing.png"], "missing.png"),
    (["classify", "labels.txt"], "labels.txt"),
    (["saliency", "a.png", "--target", "gren"], "did you mean 'green'"),
    (["saliency", "a.png", "--target", "17"], "classes 0 to 2, not 17"),
    (["saliency", "a.png", "--target", "e"], "'e' fits 'red' (0), 'green' (1), 'blue' (2); say which"),
    (["saliency", "a.png", "--layer", "2"], "layer needs unit"),
    (["saliency", "a.png", "--layer", "2", "--unit", "99"], "has channels 0 to 5, not 99"),
    (["saliency", "a.png", "--signed", "--reduce", "l2"], "reduce l2 has no sign"),
    (["gradcam", "a.png", "--layer", "6"], "has no spatial extent"),
    (["gradcam", "a.png", "--layer", "conv1"], "no layer 'conv1'"),
    (["activations", "a.png", "-o", "x.bmpx"], "must end in one of"),
    (["activations", "a.png", "-o", "nowhere/x.png"], "nowhere"),
    (["classify", "a.png", "--top", "0"], "greater than or equal to 1"),
    (["classify", "a.png", "--input-size", "a,b"], "--input-size takes numbers"),
    (["classify", "a.png", "--mean", "1,2"], "mean"),
    (["classify", "a.png", "--device", "toaster"], "toaster"),
    (["fool", "a.png", "--epsilon", "8"], "say 8/255"),
    (["fool", "a.png", "--epsilon", "1/0"], "a number or a fraction, as 0.016 or 4/255, not '1/0'"),
    (["fool", "a.png", "--epsilon", "1/300"], "less than one level of an 8-bit file"),
    (["fool", "a.png", "--target", "purple"], "knows no 'purple'"),
    (["fool", "a.png", "--label", "red", "--target", "red"], "already of the target 'red'"),
    (["fool", "a.png", "--start", "grey"], "not both"),
    (["fool", "a.png", "--steps", "1", "--adversarial", "x.jpg"], "only PNG keeps every level"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(b[0]) for b in BAD])
def test_bad_input_gets_one_line_and_exit_1_and_leaves_no_file(desk: Desk, arguments: list[str], message: str) -> None:
    ran = desk(*arguments, *(desk.common if "--input-size" not in arguments else desk.common[:4]))
    assert ran.status == 1
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not desk.files()


BAD_NETWORKS = [
    (["--network", "nowhere.py:net"], "nowhere.py"),
    (["--network", "nets.py:large"], "large"),
    (["--network", "resnet18"], "torchvision:resnet18"),
    (["--network", "nets.py:small", "--weights", "none.pt"], "none.pt"),
    (["--network", "nets.py:small", "--labels", "none.txt"], "none.txt"),
    (["--network", "nets.py:nan"], "0.weight"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_NETWORKS, ids=[" ".join(b[0]) for b in BAD_NETWORKS])
def test_bad_networks_get_one_line(desk: Desk, arguments: list[str], message: str) -> None:
    ran = desk("classify", "a.png", *arguments, "--input-size", "24,32")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert message in ran.err


def test_wrong_use_exits_2(desk: Desk) -> None:
    assert desk("saliency").status == 2
    assert desk("saliency", "a.png", "--no-such-option").status == 2
    wrong = desk("salience", "a.png")
    assert wrong.status == 2
    assert "did you mean 'saliency'" in wrong.err


def test_debug_shows_the_traceback(desk: Desk) -> None:
    from convscope.errors import ImageError

    with pytest.raises(ImageError):
        desk("classify", "missing.png", *desk.common, "--debug")


def test_an_interrupt_exits_1_and_leaves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("convscope.results.Heatmap._save_picture", interrupted)
    ran = desk("saliency", "a.png", *desk.common)
    assert ran.status == 1
    assert ran.err.splitlines()[-1] == "error: interrupted; nothing was half-written"
    assert not desk.files()


def test_help_lists_every_technique_without_importing_torch() -> None:
    code = """
import sys, runpy
sys.argv = ["convscope", "--help"]
from convscope import cli
try:
    cli.main()
finally:
    assert "torch" not in sys.modules and "matplotlib" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name in ran.stdout for name in [*registry.discover(), "demo", "report"])


def test_the_package_is_a_command_too() -> None:
    ran = subprocess.run([sys.executable, "-m", "convscope", "--version"], check=True, capture_output=True, text=True)
    assert convscope.__version__ in ran.stdout


class Constant(nn.Module):
    """Scores that do not depend on the picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3) + 0 * x.sum((1, 2, 3))[:, None]


def test_a_constant_map_is_said_to_be_constant() -> None:
    result = registry.load("saliency")(Constant(), torch.rand(3, 224, 224, generator=torch.Generator().manual_seed(0)))
    assert result.notes == ["the map for class 0 is constant (0): no pixel stands out"]


# ---- pictures that are made: sizes, films, and making them again

OUTSIDE = """
    import time
    from typing import Annotated

    import torch
    from pydantic import Field

    from convscope.progress import over
    from convscope.registry import Picture, Seed, Target, pictures_of, technique
    from convscope.results import Synthesis

    @technique(family="synthesize", see="s", caution="c")
    def painted(
        network, *, target: Target = None, steps: Annotated[int, Field(description="steps")] = 6,
        every: Annotated[int, Field(description="frames")] = 0, seed: Seed = 0,
        slow: Annotated[float, Field(description="seconds a step")] = 0.0,
    ) -> Synthesis:
        \"\"\"Paints.\"\"\"
        picture = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(seed))
        frames, trace = [], []
        for step in over(steps, "steps"):
            time.sleep(slow)
            picture = picture.clone().requires_grad_()
            score = network(picture)[0, network.target(target or 0)]
            picture = (picture + torch.autograd.grad(score, picture)[0].sign() / 50).detach().clamp(0, 1)
            trace.append(score.detach().view(1))
            if every and step % every == 0:
                frames.append((step, (picture * 255).byte()))
        return Synthesis(values=picture, summaries=[{"target": target}], frames=frames, trace=torch.stack(trace))

    @technique(family="synthesize", see="s", caution="c", keeps_size=True)
    def laid(
        images, *, other: Picture = None, size: Annotated[int, Field(description="longer side at most")] = 36
    ) -> Synthesis:
        \"\"\"Lays the mean colour of other pictures over.\"\"\"
        colours = [p.mean((1, 2)) for p in pictures_of(other)] or [torch.zeros(3)]
        values = (images + torch.stack(colours).mean(0).view(1, 3, 1, 1)) / 2
        return Synthesis(values=values, summaries=[{}] * len(images), originals=images)
"""


@pytest.fixture
def studio(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk with two techniques from outside that make pictures."""
    (desk.folder / "outside_studio.py").write_text(textwrap.dedent(OUTSIDE))
    monkeypatch.syspath_prepend(str(desk.folder))
    point = EntryPoint("mine", "outside_studio", registry.GROUP)
    known = registry.entry_points(group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*known, point])
    registry.discover.cache_clear()
    yield desk
    sys.modules.pop("outside_studio", None)
    registry.discover.cache_clear()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def files(desk: Desk) -> set[str]:
    return desk.files() - {"outside_studio.py"}


def test_a_made_picture_is_written_with_its_recipe_beside_it(studio: Desk) -> None:
    ran = studio("painted", *studio.common, "--target", "green", "--seed", "5", "-o", "x.png")
    assert ran.status == 0, ran.err
    assert files(studio) == {"x.png", "x.json"}
    assert pixels(studio.folder / "x.png").shape == (24, 32, 3)
    found = json.loads((studio.folder / "x.json").read_text())
    assert found["steps"] == 6
    assert found["objective_last"] > found["objective_first"]
    assert found["provenance"]["options"]["target"] == "green"
    loaded = {"network": "nets.py:small", "labels": "labels.txt", "input_size": "24,32"}
    assert found["provenance"]["loaded"] == loaded
    assert studio("saliency", "a.png", *studio.common, "-o", "map.png").status == 0
    assert files(studio) == {"x.png", "x.json", "map.png"}


@pytest.mark.parametrize("source", ["x.png", "x.json"])
def test_a_made_picture_can_be_made_again(studio: Desk, source: str) -> None:
    studio("painted", *studio.common, "--target", "green", "--seed", "5", "--raw", "x.npz", "-o", "x.png")
    ran = studio("rerun", source, "-o", "again.png", "--raw", "again.npz")
    assert ran.status == 0, ran.err
    assert (pixels(studio.folder / "again.png") == pixels(studio.folder / "x.png")).all()
    with np.load(studio.folder / "x.npz") as first, np.load(studio.folder / "again.npz") as second:
        assert first["values"].tobytes() == second["values"].tobytes()
    assert ("note: again.png equals x.png in every pixel" in ran.err) == (source == "x.png")


def test_a_heat_map_can_be_made_again_from_anywhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.folder / "sub").mkdir()
    random = ["--weights", "random", "--seed", "3"]
    desk("saliency", "a.png", "b.jpg", *desk.common, *random, "--signed", "-o", "sub/map.png", "--raw", "sub/map.npz")
    ran = desk("rerun", "sub/map.png", "--raw", "again.npz")
    assert ran.status == 0, ran.err
    assert "note: sub/map-again.png equals sub/map.png in every pixel" in ran.err
    with np.load(desk.folder / "sub/map.npz") as first, np.load(desk.folder / "again.npz") as second:
        assert first["values"].tobytes() == second["values"].tobytes()
        assert second["values"].min() < 0
    (desk.folder / "b.jpg").rename(desk.folder / "sub" / "b.jpg")  # beside the picture
    assert desk("rerun", "sub/map.png").status == 0


def test_a_stopped_picture_is_made_again_as_it_was_and_goes_on_to_its_end(desk: Desk) -> None:
    options = ["--target", "green", "--steps", "6", "--size", "16", *desk.common]
    assert desk("visualize", *options, "-o", "whole.png").status == 0
    with progress.counted(4):
        ran = desk("visualize", *options, "-o", "x.png")
    assert ran.status == 0, ran.err
    assert "note: stopped after 4 of 6 steps" in ran.err
    assert "wrote x.state" in ran.err
    assert (pixels(desk.folder / "x.png") != pixels(desk.folder / "whole.png")).any()
    again = desk("rerun", "x.png")
    assert "note: stopped after 4 of 6 steps" in again.err
    assert "note: x-again.png equals x.png in every pixel" in again.err
    assert desk("visualize", *options, "--resume", "x.state", "-o", "rest.png").status == 0
    assert (pixels(desk.folder / "rest.png") == pixels(desk.folder / "whole.png")).all()
    assert "rest-again.png equals rest.png in every pixel" in desk("rerun", "rest.png").err


def test_pictures_keep_their_size_and_are_worked_on_apart(studio: Desk) -> None:
    ran = studio("laid", "a.png", "b.jpg", "--other", "a.png", "--other", "b.jpg", "-o", "x.png", "--json")
    assert ran.status == 0, ran.err
    assert files(studio) == {"x-1.png", "x-1.json", "x-2.png", "x-2.json"}
    assert pixels(studio.folder / "x-1.png").shape == (27, 36, 3)  # of 30 x 40, at most 36
    assert pixels(studio.folder / "x-2.png").shape == (36, 27, 3)
    red, blue = np.array([200, 20, 20]), np.array([20, 20, 220])
    colour = (red + (red + blue) / 2) / 2
    assert np.abs(pixels(studio.folder / "x-1.png") - colour).max() <= 1.5
    found = json.loads(ran.out)
    assert [o["provenance"]["photographs"] for o in found] == [["a.png"], ["b.jpg"]]
    assert found[0]["provenance"]["options"]["other"] == ["a.png", "b.jpg"]
    assert set(found[0]["provenance"]["digests"]) == {"a.png", "b.jpg"}
    again = studio("rerun", "x-2.png")
    assert "x-2-again.png equals x-2.png in every pixel" in again.err
    whole = studio("laid", "a.png", "--size", "100", "-o", "whole.png")
    assert whole.status == 0, whole.err
    assert pixels(studio.folder / "whole.png").shape == (30, 40, 3)


def test_frames_become_a_film(studio: Desk) -> None:
    ran = studio("painted", *studio.common, "--every", "2", "-o", "x.gif")
    assert ran.status == 0, ran.err
    with Image.open(studio.folder / "x.gif") as film:
        assert film.n_frames == 4


def edited(path: Path, **changed: Any) -> None:
    """The JSON recipe, with parts of its provenance changed."""
    found = json.loads(path.read_text())
    found["provenance"].update(changed)
    path.write_text(json.dumps(found))


def test_what_cannot_be_made_again_gets_one_sentence(studio: Desk) -> None:
    def fails(*arguments: str) -> str:
        ran = studio("rerun", *arguments)
        assert (ran.status, ran.err.count("\n")) == (1, 1)
        return ran.err

    assert "a.png carries no recipe" in fails("a.png")
    assert "no.png: there is no such file" in fails("no.png")
    assert "labels.txt" in fails("labels.txt")
    studio("laid", "a.png", "--other", "b.jpg", "-o", "x.png")
    (studio.folder / "a.png").rename(studio.folder / "moved.png")
    assert "x.png was made from a.png, which is not there any more; say where it is: convscope rerun x.png PHOTO" in (
        fails("x.png")
    )
    assert studio("rerun", "x.png", "moved.png").status == 0
    assert "b.jpg is not what x.png was made from" in fails("x.png", "b.jpg")
    (studio.folder / "b.jpg").unlink()
    assert "put it back to repeat x.png" in fails("x.png", "moved.png")


def test_a_network_that_is_another_is_refused_or_said(studio: Desk) -> None:
    from safetensors.torch import save_file

    scope: dict[str, Any] = {}
    exec(textwrap.dedent(FACTORY), scope)
    weights = {name: tensor.contiguous() for name, tensor in scope["small"]().state_dict().items()}
    save_file(weights, studio.folder / "w.safetensors")
    studio("painted", *studio.common, "--weights", "w.safetensors", "-o", "x.png")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, studio.folder / "w.safetensors")
    ran = studio("rerun", "x.png")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert "x.png was made with the weights 'w.safetensors sha256:" in ran.err
    save_file(weights, studio.folder / "other.safetensors")
    edited(studio.folder / "x.json", versions={"torch": "1.0"}, weights="other.safetensors sha256:")
    assert "name the right ones with --weights FILE" in studio("rerun", "x.json").err
    save_file(weights, studio.folder / "w.safetensors")
    ran = studio("rerun", "x.png")
    assert "equals x.png in every pixel" in ran.err
    made = json.loads(registry_recipe(studio.folder / "x.png"))
    edited(studio.folder / "x.json", versions={"torch": "1.0"}, weights=made["weights"])
    ran = studio("rerun", "x.json", "-o", "y.png")
    assert ran.status == 0, ran.err
    assert f"note: not all is as it was, so that pixels may differ: torch 1.0 is now {torch.__version__}" in ran.err
    edited(studio.folder / "x.json", loaded={}, network="Small")
    assert "made in Python with a network called 'Small'; name it" in studio("rerun", "x.json").err
    edited(studio.folder / "x.json", technique="paintd")
    assert "made by 'paintd', which is not installed; did you mean 'painted'" in studio("rerun", "x.json").err


def registry_recipe(path: Path) -> str:
    found = read_recipe(path)
    assert found is not None
    return found


# ---- what it costs, and stopping


def test_what_takes_long_says_so_before_it_goes_on(studio: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar, "LONG", 0.3)
    monkeypatch.setattr(bar, "AFTER", 0.1)
    ran = studio("painted", *studio.common, "--steps", "20", "--slow", "0.03", "-o", "x.png")
    assert ran.status == 0, ran.err
    lines = ran.err.splitlines()
    assert re.fullmatch(r"about \d s: 20 steps", lines[0])
    assert lines[1:] == ["wrote x.png"]
    quiet = studio("painted", *studio.common, "--steps", "20", "--slow", "0.03", "-o", "x.png", "--quiet")
    assert quiet.err == ""


def test_a_slow_first_turn_does_not_count_for_the_others() -> None:
    def after(turns: int, spent: float) -> progress.Progress:
        share = turns / 100
        remaining = spent * (1 - share) / share if share else None
        return progress.Progress(share, spent, spent, remaining, [progress.Loop("steps", turns, 100)])

    forecast = bar._Forecast()
    assert forecast.seconds(after(0, 0.0)) is None
    assert forecast.seconds(after(1, 4.0)) is None  # a cold start, which makes 400 seconds of it
    assert forecast.seconds(after(2, 4.1)) is None
    assert forecast.seconds(after(11, 5.0)) == pytest.approx(4 + 99 * 0.1)
    assert forecast.seconds(after(1, 2.0)) is None  # another loop
    assert bar._Forecast().seconds(after(1, 30.0)) == pytest.approx(3000)  # long turns are believed at once


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (40.2, "40 s"), (130, "2 min"), (5400, "90 min"), (9000, "2.5 h")]
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert bar.duration(seconds) == text


def test_a_bar_on_a_terminal_shows_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(bar, "SHOWN", 0.0)
    monkeypatch.setattr(bar, "AFTER", 0.0)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, highlight=False)
    with bar.watched(console, "occlusion"):
        for _ in progress.over(20, "windows"):
            time.sleep(0.02)
    assert "occlusion: windows" in out.getvalue()
    assert re.search(r"\d+%, 0 s left", out.getvalue())


def test_an_interrupt_between_two_photographs_keeps_what_is_done(studio: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    read = work._read

    def interrupted(technique: Any, network: Any, path: Path, options: Any) -> Tensor:
        if path.name == "b.jpg":
            raise KeyboardInterrupt
        return read(technique, network, path, options)

    monkeypatch.setattr(work, "_read", interrupted)
    ran = studio("laid", "a.png", "b.jpg", "-o", "x.png")
    assert ran.err.splitlines()[-1] == "error: interrupted; nothing was half-written"
    assert files(studio) == {"x-1.png", "x-1.json"}
