"""layers against sizes and receptive fields worked out by hand."""

from __future__ import annotations

import math

from torch import nn

from convscope.network import Network
from convscope.techniques.look.layers import layers

CHAIN = nn.Sequential(
    nn.Sequential(nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.ReLU()),
    nn.MaxPool2d(3, 2, 1),
    nn.Conv2d(4, 6, 3, padding=1),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(6, 5),
)
NETWORK = Network(CHAIN, name="chain", input_size=(32, 40))


def test_names_shapes_parameters_and_fields() -> None:
    found = layers(NETWORK)
    first, _, pool, second, average, _, last = found.summaries[0]["layers"]
    assert (first["name"], first["kind"], first["shape"], first["parameters"]) == ("0.0", "Conv2d", (4, 16, 20), 592)
    assert (pool["name"], pool["shape"]) == ("1", (4, 8, 10))
    # size grows by (kernel - 1) x stride so far: 7, then 7 + 2 x 2, then 11 + 2 x 4
    assert [r["receptive_field"]["size"] for r in (first, pool, second)] == [(7, 7), (11, 11), (19, 19)]
    assert [r["receptive_field"]["stride"] for r in (first, pool, second)] == [(2, 2), (4, 4), (4, 4)]
    assert average["receptive_field"]["whole"]
    assert last["parameters"] == 6 * 5 + 5
    assert found.summaries[0]["default_layer"] == "2"


def test_values_hold_the_numbers_of_the_rows() -> None:
    found = layers(NETWORK)
    assert found.numeric[:4] == ["parameters", "channels", "field rows", "field columns"]
    assert found.values[0].tolist() == [592, 4, 7, 7, 2, 2]
    assert len(found.values) == len(found.rows) == 7


def test_containers_come_on_request() -> None:
    shown = [r["name"] for r in layers(NETWORK, all=True).summaries[0]["layers"]]
    assert shown == ["0.0", "0.1", "0", "1", "2", "3", "4", "5"]


def test_a_layer_that_ignores_the_picture_has_no_field() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Linear(2, 3)

        def forward(self, x):  # type: ignore[no-untyped-def]
            return x.mean((2, 3)) + self.table(x.new_ones(1, 2))

    found = layers(Network(Constant(), name="constant", input_size=(8, 8)))
    assert found.summaries[0]["layers"][0]["receptive_field"] is None
    assert math.isnan(found.values[0, 2])
    assert found.summaries[0]["default_layer"] is None
