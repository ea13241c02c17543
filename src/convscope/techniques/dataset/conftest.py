"""The small made-up data set with a tag, and the network that has learned it."""

from __future__ import annotations

import pytest

from convscope import example
from convscope.index import Index
from convscope.network import Network


@pytest.fixture(scope="session")
def shapes_network() -> Network:
    """A network that has learned the shapes, and the tag; do not change it."""
    return example.train(example.shapes(600))


@pytest.fixture(scope="session")
def shapes_index(tmp_path_factory: pytest.TempPathFactory, shapes_network: Network) -> Index:
    """240 other pictures of them, scanned by it."""
    folder = tmp_path_factory.mktemp("shapes")
    pictures = example.write(example.shapes(240, seed=1), folder / "pictures")
    return example.scan(shapes_network, pictures, folder / "shapes.index")
