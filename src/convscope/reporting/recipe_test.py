from __future__ import annotations

from typing import Annotated, Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from convscope.network import Network
from convscope.registry import technique
from convscope.reporting import recipe
from convscope.results import Result


@technique(family="look")
def on_pictures(
    network: Network, images: Tensor, *, top: Annotated[int, Field(description="how many")] = 5, deep: bool = False
) -> Result:
    """Something about pictures."""
    return Result(values=torch.zeros(1), summaries=[{}])


@technique(family="look")
def alone(network: Network) -> Result:
    """Something about the network."""
    return Result(values=torch.zeros(1), summaries=[{}])


def network(name: str, weights: str) -> Network:
    return Network(nn.Identity(), name=name, weights=weights)


BUILTIN = network("builtin", "builtin.safetensors sha256:0123abcd…")


@pytest.mark.parametrize(
    ("given", "options", "line"),
    [
        (BUILTIN, {}, "convscope on-pictures PHOTO.jpg --output on-pictures.png"),
        (BUILTIN, {"top": 5, "deep": False}, "convscope on-pictures PHOTO.jpg --output on-pictures.png"),
        (BUILTIN, {"top": 3, "deep": True}, "convscope on-pictures PHOTO.jpg --top 3 --deep --output on-pictures.png"),
        (network("builtin", "random, seed 0"), {},
         "convscope on-pictures PHOTO.jpg --weights random --output on-pictures.png"),
        (network("timm:vgg11", "a b.safetensors sha256:01…"), {},
         "convscope on-pictures PHOTO.jpg --network timm:vgg11 --weights 'a b.safetensors' --output on-pictures.png"),
        (network("torchvision:vgg11", "IMAGENET1K_V1"), {},
         "convscope on-pictures PHOTO.jpg --network torchvision:vgg11 --output on-pictures.png"),
        (network("MyNet", "as given"), {},
         "convscope on-pictures PHOTO.jpg --network FILE.py:FACTORY --output on-pictures.png"),
    ],
)  # fmt: skip
def test_lines_for_the_shell(given: Network, options: dict[str, Any], line: str) -> None:
    assert recipe.command(on_pictures, given, options) == line


def test_a_technique_without_pictures_names_none() -> None:
    assert recipe.command(alone, BUILTIN) == "convscope alone --output alone.png"
    assert recipe.python(alone, BUILTIN).splitlines() == [
        "import convscope", "", "network = convscope.load_network('builtin')",
        'convscope.alone(network).save("alone.png")',
    ]  # fmt: skip


@technique(family="look", together=True)
def of_many(network: Network, images: Tensor) -> Result:
    """Something about many pictures."""
    assert len(images) == 8 * 6
    return Result(values=torch.zeros(1), summaries=[{}])


def test_what_takes_dozens_of_pictures_gets_a_folder_and_parts_of_the_photographs() -> None:
    assert recipe.command(of_many, BUILTIN) == "convscope of-many PHOTOGRAPHS/ --output of-many.png"
    lines = recipe.python(of_many, BUILTIN).replace("convscope.of_many", "run").replace('.save("of-many.png")', "")
    exec(compile(lines, "recipe", "exec"), {"run": of_many})


def test_lines_of_python_compile_and_hold_the_options() -> None:
    text = recipe.python(on_pictures, network("timm:vgg11", "random, seed 0"), {"top": 3})
    compile(text, "recipe", "exec")
    assert "network = convscope.load_network('timm:vgg11', weights='random')" in text
    assert 'convscope.on_pictures(network, images, top=3).save("on-pictures.png")' in text
