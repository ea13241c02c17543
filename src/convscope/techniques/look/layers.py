"""The layers of a network, with what each unit sees of the picture."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field

from convscope.network import LayerInfo, Network
from convscope.receptive_field import ReceptiveField
from convscope.registry import technique
from convscope.results import Table


@technique(
    family="look",
    order=2,
    paper="receptive fields: Araujo 2019, Distill, doi:10.23915/distill.00021",
    see="Follow the receptive field down the table: where it passes the size of an object, a unit can know the object.",
    caution=(
        "The receptive field is what a unit could see. What moves it is usually a smaller patch in the middle "
        "(Luo 2016)."
    ),
)
def layers(
    network: Network,
    *,
    all: Annotated[bool, Field(description="also the containers, not only the layers that do the work")] = False,
) -> Table:
    """Every layer that runs: name, kind, output shape, parameters, and the receptive field of its units.

    Args:
        network: any network; one pass over a grey picture of ``network.input_size`` is traced.
        all: also modules that only hold other modules.

    Returns:
        ``values`` (layers, 6): parameters, channels, rows and columns of the receptive field, its row and column
        stride in pixels; NaN where a layer does not depend on the picture. The summary holds ``layers``, in the
        order in which they finish, and ``default_layer``.
    """
    fields = network.receptive_fields
    modules = dict(network.module.named_modules())
    shown = [i for i in network.layers() if all or not any(True for _ in modules[i.name].children())]
    records = [_record(info, fields.get(info.name)) for info in shown]
    spatial = any(info.spatial for info in network.layers())
    return Table(
        values=torch.tensor([_numbers(info, fields.get(info.name)) for info in shown], dtype=torch.float64),
        summaries=[{"layers": records, "default_layer": network.default_layer if spatial else None}],
        per_picture=False,
        columns=["layer", "kind", "output", "parameters", "receptive field", "stride"],
        rows=[_row(r) for r in records],
        numeric=["parameters", "channels", "field rows", "field columns", "stride rows", "stride columns"],
    )


def _record(info: LayerInfo, field: ReceptiveField | None) -> dict[str, Any]:
    seen = (
        None
        if field is None
        else {"size": field.size, "stride": field.stride, "offset": field.offset, "whole": field.whole}
    )
    return {
        "name": info.name, "kind": info.kind, "shape": info.shape, "parameters": info.parameters,
        "calls": info.calls, "layout": info.layout, "receptive_field": seen,
    }  # fmt: skip


def _numbers(info: LayerInfo, field: ReceptiveField | None) -> list[float]:
    seen = [math.nan] * 4 if field is None else [*field.size, *field.stride]
    return [info.parameters, info.channels, *seen]


def _row(record: dict[str, Any]) -> list[str]:
    seen = record["receptive_field"]
    size = "–" if seen is None else "whole picture" if seen["whole"] else " × ".join(f"{s:g}" for s in seen["size"])
    stride = "–" if seen is None or seen["whole"] else f"{max(seen['stride']):g}"
    shape = " × ".join(map(str, record["shape"]))
    parameters = f"{record['parameters']:,}" if record["parameters"] else "–"
    return [record["name"], record["kind"], shape, parameters, size, stride]
