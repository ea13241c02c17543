"""The registry: a technique from outside, options from annotations, errors in one sentence."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from convscope import registry
from convscope.errors import ConvscopeError, OptionError
from convscope.network import Network
from convscope.registry import Technique, technique
from convscope.results import Heatmap

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
