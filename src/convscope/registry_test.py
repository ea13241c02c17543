"""The registry: a technique from outside, options from annotations, errors in one sentence."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from convscope import registry
from convscope.errors import ConvscopeError, OptionError
from convscope.network import Network
from convscope.registry import Fraction, Picture, Technique, pictures_of, technique
from convscope.results import Heatmap, Result, Synthesis

OUTSIDE = '''
    """A technique from another package."""
    from typing import Annotated
    from pydantic import Field
    from convscope.registry import technique
    from convscope.results import Heatmap

    raise RuntimeError("looking for techniques must not run their code")

    @technique(family="attribute", see="grey", caution="nothing")
    def brightness(network, images, *, gain: Annotated[float, Field(description="factor")] = 1.0) -> Heatmap:
        """How bright each pixel is.

        More about it.
        """
'''


@technique(family="attribute", see="what", caution="not")
def brightness(
    network: Network,
    images: Tensor,
    *,
    gain: Annotated[float, Field(gt=0, description="factor")] = 1.0,
    colour: Annotated[Literal["red", "green"], Field(description="which")] = "red",
) -> Heatmap:
    """How bright each pixel is."""
    values = images[:, 0 if colour == "red" else 1] * gain
    return Heatmap(values=values, images=images, signed=False, quantity="light", summaries=[{}] * len(images))


NETWORK = Network(nn.Flatten(), name="flat", input_size=(2, 2))
PICTURE = torch.linspace(0, 1, 12).view(3, 2, 2)


@technique(family="robustness", see="what", caution="not")
def anywhere(
    network: Network,
    images: Tensor | None = None,
    *,
    share: Annotated[Fraction | None, Field(description="how much")] = None,
) -> Heatmap:
    """With or without pictures."""
    found = torch.full((1, 2, 2), share or 0.0) if images is None else images[:, 0]
    return Heatmap(values=found, images=found[:, None], signed=False, quantity="light", summaries=[{}])


def test_a_technique_may_do_without_pictures() -> None:
    assert (anywhere.takes_images, anywhere.needs_images, brightness.needs_images) == (True, False, True)
    torch.testing.assert_close(anywhere(NETWORK, PICTURE).values[0], PICTURE[0])
    assert not anywhere(NETWORK).values.any()
    assert not anywhere.on(NETWORK, None).values.any()
    with pytest.raises(OptionError, match="brightness needs pictures"):
        brightness.on(NETWORK)


@pytest.mark.parametrize(("given", "value"), [("4/255", 4 / 255), ("0.016", 0.016), (" 1 / 4 ", 0.25), (0.5, 0.5)])
def test_fractions_are_read(given: object, value: float) -> None:
    assert anywhere(NETWORK, share=given).provenance.options == {"share": value}


@pytest.mark.parametrize(("given", "message"), [
    ("much", "share should be a number or a fraction, as 0.016 or 4/255, not 'much'"), ("1/0", "a fraction"),
    ("-1/4", "greater than 0"), ("inf", "finite"),
])  # fmt: skip
def test_what_is_no_fraction_is_said(given: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        anywhere(NETWORK, share=given)


def test_a_technique_from_outside_is_found_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_techniques.py").write_text(textwrap.dedent(OUTSIDE))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("mine", "outside_techniques", registry.GROUP)
    known = registry.entry_points(group=registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [*known, point])
    registry.discover.cache_clear()
    try:
        entry = registry.discover()["brightness"]
    finally:
        registry.discover.cache_clear()
    assert (entry.module, entry.family, entry.summary) == (
        "outside_techniques",
        "attribute",
        "How bright each pixel is.",
    )


def test_the_built_in_techniques_come_by_the_entry_point() -> None:
    assert "saliency" in registry.discover()
    assert list(registry.discover()) == [e.name for e in registry.discover().values()]


def test_a_technique_is_called_as_its_function_with_options_checked() -> None:
    found = brightness(NETWORK, PICTURE, gain=2.0, colour="green")
    torch.testing.assert_close(found.values[0], PICTURE[1] * 2)
    assert found.provenance is not None
    assert found.provenance.options == {"gain": 2.0, "colour": "green"}
    torch.testing.assert_close(brightness(network=NETWORK, images=PICTURE).values[0], PICTURE[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": -1.0}, "brightness: gain should be greater than 0, not -1.0"),
        ({"gain": "much"}, "brightness: gain should be a valid number, unable to parse string as a number, not 'much'"),
        ({"colour": "blue"}, "brightness: colour should be 'red' or 'green', not 'blue'"),
        ({"loud": True}, "brightness has no option 'loud'; its options are: gain, colour"),
    ],
)
def test_wrong_options_get_one_sentence(options: dict, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        brightness(NETWORK, PICTURE, **options)
    assert str(caught.value) == message


@technique(family="robustness")
def of_nothing() -> Result:
    """By itself."""
    return Result(values=torch.zeros(1), summaries=[{}])


def test_what_takes_nothing_says_so() -> None:
    with pytest.raises(OptionError, match=r"^of-nothing takes no network and no pictures: of-nothing\(\)$"):
        of_nothing(NETWORK)  # type: ignore[call-arg]


def test_pictures_are_asked_for_and_refused() -> None:
    with pytest.raises(OptionError, match="needs pictures"):
        brightness(NETWORK)
    with pytest.raises(OptionError, match="takes no pictures"):
        registry.load("layers")(NETWORK, PICTURE)


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(OptionError, match="no family"):
        technique(family="cook")


def test_nan_in_a_result_is_named() -> None:
    def broken(network: Network, images: Tensor) -> Heatmap:
        """Breaks."""
        return Heatmap(values=images[:, 0] / 0 * 0, images=images, signed=False, quantity="", summaries=[{}])

    with pytest.raises(ConvscopeError, match="broken gave NaN or Inf: flat overflows"):
        Technique(broken, "look")(NETWORK, PICTURE)


def test_finding_techniques_imports_no_torch() -> None:
    code = "import sys; from convscope import registry; registry.discover(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bare_module_is_taken_to_be_made_for_the_pictures_it_gets() -> None:
    only_small = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 8 * 6, 3))
    found = registry.load("gradcam")(only_small, torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(0)))
    assert found.layer == "1"
    assert found.values.shape == (1, 8, 6)


# ---- without a network; options that are pictures


@technique(family="synthesize", keeps_size=True)
def mixed(
    images: Tensor,
    *,
    other: Annotated[Picture, Field(description="what is mixed in")] = None,
    share: Annotated[float, Field(description="of it")] = 0.5,
) -> Synthesis:
    """Two pictures in one."""
    mean = torch.stack([p.mean((1, 2)) for p in pictures_of(other)]).mean(0) if other is not None else torch.zeros(3)
    values = images * (1 - share) + share * mean.view(1, 3, 1, 1)
    return Synthesis(values=values, summaries=[{}] * len(images))


def test_a_technique_may_take_no_network() -> None:
    assert (mixed.takes_network, mixed.takes_images, mixed.keeps_size) == (False, True, True)
    assert (brightness.takes_network, brightness.keeps_size) == (True, False)
    for found in (mixed(PICTURE), mixed(images=PICTURE), mixed.on(NETWORK, PICTURE)):
        torch.testing.assert_close(found.values[0], PICTURE / 2)
        assert found.provenance is not None
        assert (found.provenance.network, found.provenance.weights) == ("", "")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixed(NETWORK, PICTURE), "mixed is called as mixed(images); its options have names"),
        (lambda: mixed(), "mixed needs pictures: mixed(images)"),
        (lambda: mixed(PICTURE, network=NETWORK), "mixed has no option 'network'"),
        (lambda: brightness(images=PICTURE), "brightness needs a network: brightness(network, images)"),
        (lambda: brightness(NETWORK, PICTURE, 2.0), "its options have names"),
        (lambda: mixed(PICTURE, other=7), "other should be a picture file or a tensor (3, H, W), or several"),
        (lambda: mixed(PICTURE, other="no.png"), "no.png: there is no such file"),
    ],
)
def test_wrong_calls_get_one_sentence(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConvscopeError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_are_read_at_their_own_sizes(tmp_path: Path) -> None:
    colours = {"a.png": (4, 6, 255), "b.png": (9, 5, 51)}
    for name, (width, height, level) in colours.items():
        Image.new("RGB", (width, height), (level,) * 3).save(tmp_path / name)
    found = pictures_of([tmp_path / "a.png", str(tmp_path / "b.png"), torch.zeros(3, 2, 2)])
    assert [tuple(p.shape) for p in found] == [(3, 6, 4), (3, 5, 9), (3, 2, 2)]
    assert [round(float(p.mean()), 3) for p in found] == [1.0, 0.2, 0.0]
    assert [tuple(p.shape) for p in pictures_of(torch.zeros(2, 3, 4, 4))] == [(3, 4, 4)] * 2
    assert pictures_of(None) == []


def test_provenance_names_pictures_by_path_and_tensors_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 6), (255, 0, 0)).save(path)
    noted = mixed(PICTURE, other=[path, torch.zeros(3, 2, 2)]).provenance
    again = mixed(PICTURE, other=[path, torch.zeros(3, 2, 2)]).provenance
    other = mixed(PICTURE, other=torch.ones(3, 2, 2)).provenance
    assert noted is not None
    assert other is not None
    assert noted == again
    assert noted.options["other"][0] == str(path)
    assert re.fullmatch(r"tensor \(3, 2, 2\) sha256:[0-9a-f]{16}", noted.options["other"][1])
    assert other.options["other"] != noted.options["other"][1]
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert noted.digests == {str(path): f"sha256:{expected}"}


def test_a_technique_may_say_more_of_a_common_option() -> None:
    (other, _) = mixed.options
    assert other.description == "what is mixed in"
    assert registry.is_picture(other.annotation)


class Asked:
    """Stands for an opened index: a path, where it came from, and a network that is not loaded unless asked for."""

    path = Path("photos.index")
    provenance: ClassVar = {
        "network": "flat", "weights": "as given", "precision": "float32", "device": "cpu", "loaded": {"network": "x"}
    }  # fmt: skip


@technique(family="dataset", see="what", caution="not")
def brighter(index: Asked, images: Tensor, *, gain: Annotated[float, Field(description="factor")] = 1.0) -> Heatmap:
    """Of an index and pictures."""
    return Heatmap(values=images[:, 0] * gain, images=images, signed=False, quantity=str(index.path), summaries=[{}])


def test_a_question_takes_an_index_and_says_so_in_its_provenance() -> None:
    assert (brighter.takes_index, brighter.takes_network, brighter.takes_images) == (True, False, True)
    found = brighter(Asked(), PICTURE, gain=0.5)
    torch.testing.assert_close(found.values[0], PICTURE[0] * 0.5)
    assert found.provenance is not None
    assert (found.provenance.index, found.provenance.network) == ("photos.index", "flat")
    assert found.provenance.loaded == {"network": "x"}
    assert found.provenance.options == {"gain": 0.5}
    torch.testing.assert_close(brighter.on(None, PICTURE, index=Asked()).values, brighter(Asked(), PICTURE).values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "brighter needs an index, which `convscope scan` writes: brighter(index, images)"),
        ((NETWORK, PICTURE), "an index is the folder that `convscope scan` writes"),
        ((Asked(),), "brighter needs pictures: brighter(index, images)"),
        ((Asked(), PICTURE, 3), "brighter is called as brighter(index, images)"),
    ],
)
def test_a_question_without_what_it_needs_says_what(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        brighter(*arguments)  # type: ignore[arg-type]
