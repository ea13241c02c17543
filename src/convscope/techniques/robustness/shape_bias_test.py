from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convscope
from convscope.errors import ConvscopeError, ImageError, OptionError
from convscope.images import read_image, to_uint8, write_image
from convscope.network import Network
from convscope.techniques.robustness import _stimuli
from convscope.techniques.robustness.shape_bias import shape_bias

LABELS = ("red", "green", "blue")


class Colours(nn.Module):
    """Names the strongest colour of the picture's middle: what the tests decide for is what they paint there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(20 * torch.eye(3).view(3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, 4:-4, 4:-4]).mean((2, 3))


@pytest.fixture
def network() -> Network:
    return Network(Colours(), labels=LABELS, name="colours", input_size=(16, 16))


def painted(colour: str) -> Tensor:
    picture = torch.full((3, 16, 16), 0.2)
    picture[LABELS.index(colour)] = 0.9
    return picture


#: shape, texture, and the colour that is painted, which is what the network decides for
TRIALS = [
    ("red", "green", "red"), ("red", "blue", "blue"), ("red", "green", "blue"), ("red", "blue", "red"),
    ("green", "red", "red"), ("green", "blue", "blue"), ("blue", "blue", "blue"),
]  # fmt: skip


def folder_of(trials: Sequence[tuple[str, str, str]], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (shape, texture, answer) in enumerate(trials):
        write_image(painted(answer), folder / f"{shape}{number}-{texture}{number + 1}.png")
    return folder


def test_the_count_against_trials_made_by_hand(network: Network, tmp_path: Path) -> None:
    result = shape_bias(network, stimuli=str(folder_of(TRIALS, tmp_path)))
    assert result.values.tolist() == [[0, 2, 0], [2, 1, 1], [2, 3, 1]]
    assert [row[:5] for row in result.rows] == [
        ["green", 0, 2, 0, "0%"],
        ["red", 2, 1, 1, "67%"],
        ["all", 2, 3, 1, "40%"],
    ]
    assert "1 pictures in which shape and texture agree are not counted" in result.notes
    summary = result.summaries[0]
    assert summary["all"]["bias"] == 0.4
    low, high = summary["all"]["low"], summary["all"]["high"]
    z = 1.959964
    assert (low, high) == pytest.approx(
        tuple((0.4 + z * z / 10 + s * z * math.sqrt(0.24 / 5 + z * z / 100)) / (1 + z * z / 5) for s in (-1, 1)),
        abs=1e-6,
    )


def test_tensors_do_as_well_as_files(network: Network) -> None:
    trials = [(painted(answer), shape, texture) for shape, texture, answer in TRIALS]
    result = shape_bias(network, stimuli=trials)
    assert result.values.tolist() == [[0, 2, 0], [2, 1, 1], [2, 3, 1]]


def test_names_that_say_nothing_are_counted_and_left_out(network: Network, tmp_path: Path) -> None:
    folder = folder_of(TRIALS[:3], tmp_path)
    write_image(painted("red"), folder / "holiday.png")
    result = shape_bias(network, stimuli=folder)
    assert any(note.startswith("1 of 4 pictures were left out: holiday.png does not say") for note in result.notes)


def test_networks_stand_beside_each_other(network: Network, tmp_path: Path) -> None:
    folder = folder_of(TRIALS, tmp_path / "stimuli")
    first = convscope.shape_bias(network, stimuli=folder)
    written = first.save(tmp_path / "first.json")
    (tmp_path / "people.csv").write_text(
        "subj,session,trial,rt,object_response,category,condition,imagename\n"
        "ann,1,1,0.5,red,red,0,red0-green1.png\nann,1,2,0.5,red,red,0,red1-blue2.png\n"
    )
    second = convscope.shape_bias(network, stimuli=folder, beside=[str(written), str(tmp_path / "people.csv")])
    assert [name for name, _ in second.series] == ["colours", "colours", "people"]
    assert list(second.series[1][1]) == list(second.series[0][1])
    assert second.series[2][1][-1].bias.mean == 1
    assert second.save(tmp_path / "chart.png").stat().st_size > 10_000
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(OptionError, match="holds no shape bias of a network"):
        shape_bias(network, stimuli=folder, beside=str(tmp_path / "other.json"))


# ---- pictures that are made


def classes(root: Path, names: Sequence[str] = LABELS, count: int = 3) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            write_image(painted(name), root / name / f"{number}.png")
    return root


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Style transfer that hands back the texture, and keeps what it was asked."""
    asked: list[dict[str, Any]] = []

    class Made:
        def __init__(self, values: Tensor) -> None:
            self.values = values

    def style(network: Network, content: Tensor, **options: Any) -> Made:
        asked.append({"content": content, **options})
        return Made(options["style"][None])

    monkeypatch.setattr(_stimuli, "style", style)
    return asked


def test_conflicts_are_made_of_two_folders(network: Network, tmp_path: Path, transfers: list[dict[str, Any]]) -> None:
    root = classes(tmp_path / "photos")
    result = shape_bias(network, shapes=root, limit=6, weight=7.0, steps=3, save=tmp_path / "made")
    assert result.values.tolist() == [[0, 2, 0]] * 3 + [[0, 6, 0]]
    assert not any("made these pictures itself" in note for note in result.notes)
    assert any(
        "made these pictures itself" in note
        for note in shape_bias(network, shapes=root, maker="colours", limit=3).notes
    )
    del transfers[6:]
    assert [(call["beta"], call["steps"], call["size"]) for call in transfers] == [(7.0, 3, 16)] * 6
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert len(names) == 6
    again = shape_bias(network, stimuli=tmp_path / "made")
    assert torch.equal(again.values, result.values)
    for path in (tmp_path / "made").iterdir():
        _, texture = path.stem.split("-")
        assert torch.equal(read_image(path), read_image(root / texture.rstrip("123") / "0.png"))


def test_each_shape_and_texture_comes_about_as_often(
    network: Network, tmp_path: Path, transfers: list[dict[str, Any]]
) -> None:
    made, _ = _stimuli.made_stimuli(
        network, classes(tmp_path), tmp_path, wanted=(), limit=7, how=_stimuli.Transfer("colours", 1.0, 1.0, 1, 0)
    )
    assert all(each.shape != each.texture for each in made)
    for cue in ("shape", "texture"):
        counts = [sum(getattr(each, cue) == name for each in made) for name in LABELS]
        assert sum(counts) == 7
        assert max(counts) - min(counts) <= 1
    assert len({each.name for each in made}) == 7


def test_only_what_the_network_recognises_is_taken(
    network: Network, tmp_path: Path, transfers: list[dict[str, Any]]
) -> None:
    root = classes(tmp_path, count=2)
    for number in range(2):
        write_image(painted("red"), root / "blue" / f"{number}.png")
    result = shape_bias(network, shapes=root, limit=6)
    assert [row[0] for row in result.rows] == ["green", "red", "all"]
    assert any("no photograph of blue among the shapes is recognised" in note for note in result.notes)


@pytest.mark.slow
def test_the_transfer_really_runs(tmp_path: Path) -> None:
    """Each picture is what ``style`` makes of the two photographs that its name says."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1))
    module = nn.Sequential(Both(body), nn.Flatten())
    net = Network(module, labels=LABELS, name="toy", input_size=(64, 64))
    root = classes(tmp_path / "photos", count=1)
    result = shape_bias(net, shapes=root, limit=3, steps=5, middle=1.0, save=tmp_path / "made")
    assert int(result.values[-1].sum()) == 3
    for path in (tmp_path / "made").iterdir():
        content, surface = (read_image(root / part[:-1] / "0.png") for part in path.stem.split("-"))
        content, surface = net.prepare(content), net.prepare(surface)
        expected = convscope.style(
            convscope.load_network("builtin"), content, style=surface, beta=30.0, steps=5, size=64
        )
        assert torch.equal(read_image(path), read_image(to_uint8(expected.values[0])))
        assert not torch.equal(read_image(path), read_image(to_uint8(content)))


class Both(nn.Module):
    """The colour decides; a body of convolutions is there for the features."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.mean((2, 3)) + 0.0 * self.body(x).mean((1, 2, 3))[:, None]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "needs pictures: --stimuli FOLDER"),
        ({"stimuli": "STIMULI", "shapes": "CLASSES"}, "needs pictures"),
        ({"stimuli": "EMPTY"}, "holds no pictures"),
        ({"stimuli": "CLASSES"}, "does not say its shape and texture"),
        ({"stimuli": "UNKNOWN"}, "colours knows no 'cat'"),
        ({"stimuli": "ALIKE"}, "shape and texture agree in every picture"),
        ({"stimuli": [1, 2]}, "a folder, or a list of"),
        ({"shapes": "STIMULI"}, "holds no folders of classes"),
        ({"shapes": "CLASSES", "classes": "red, violet"}, "has no class 'violet'; it has blue, green, red"),
        ({"shapes": "CLASSES", "classes": "red"}, "leaves no choice"),
    ],
)
def test_bad_input_gets_a_remedy(network: Network, tmp_path: Path, options: dict[str, Any], remedy: str) -> None:
    classes(tmp_path / "CLASSES", count=1)
    folder_of(TRIALS, tmp_path / "STIMULI")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "UNKNOWN").mkdir()
    (tmp_path / "ALIKE").mkdir()
    write_image(painted("red"), tmp_path / "UNKNOWN" / "cat1-red1.png")
    write_image(painted("red"), tmp_path / "ALIKE" / "red1-red2.png")
    write_image(painted("red"), tmp_path / "ALIKE" / "blue1-blue2.png")
    given = {name: tmp_path / value if str(value).isupper() else value for name, value in options.items()}
    with pytest.raises((OptionError, ImageError, ConvscopeError), match=remedy) as caught:
        shape_bias(network, **given)
    assert "\n" not in str(caught.value)
