"""Which layers to ask, on a network whose names nobody knows: the last of each resolution, from shallow to deep."""

from __future__ import annotations

from collections.abc import Sequence

from convscope.errors import NetworkError
from convscope.network import LayerInfo, Network

_IDLE = ("Dropout", "Identity")  # kinds that put out what they got


def stages(network: Network, *, each: int = 1) -> list[str]:
    """The last layer of each resolution, behind its rectifier, from shallow to deep.

    A resolution counts where something with weights runs in it, up to where the network pools its maps away; what puts
    out one map a class is left out while there is something before it.

    Args:
        network: any network.
        each: how many layers of a resolution, evenly spread over those of the same kind and ending with the last;
            fewer where there are fewer.

    Returns:
        Names in the order in which the network reaches them; the last layer with spatial extent of a network that has
        no weights before it.
    """
    found: list[str] = []
    for group in _groups(network):
        last = _last(group, found, _classes(network))
        if last is not None:
            found += _spread(_mates(group, last), each)
    return found or [network.default_layer]


def _groups(network: Network) -> list[list[LayerInfo]]:
    """The layers of each grid in which something with weights runs."""
    groups: dict[tuple[int, int] | None, list[LayerInfo]] = {}
    for info in network.layers():
        if info.spatial:
            groups.setdefault(info.grid, []).append(info)
        if info.name == network.default_layer:
            break
    modules = dict(network.module.named_modules())
    return [
        group for group in groups.values()
        if any(p.ndim > 1 for i in group for p in modules[i.name].parameters(recurse=False))
    ]  # fmt: skip


def _last(group: Sequence[LayerInfo], before: Sequence[str], classes: int | None) -> LayerInfo | None:
    """The last that changes something; none that holds an earlier stage, since it ends with a layer inside it."""
    own = [i for i in group if not any(name.startswith(f"{i.name}.") for name in before)]
    own = [i for i in own if not i.kind.startswith(_IDLE)]
    wide = [i for i in own if i.channels != classes] or own
    return wide[-1] if wide else None


def _classes(network: Network) -> int | None:
    try:
        return network.classes
    except NetworkError:
        return None


def _mates(group: Sequence[LayerInfo], last: LayerInfo) -> list[str]:
    """Layers like the last one: of its kind, as deep in the tree of modules."""
    depth = last.name.count(".")
    return [i.name for i in group if i.kind == last.kind and i.name.count(".") == depth]


def _spread(names: Sequence[str], count: int) -> list[str]:
    most = min(count, len(names))
    return [names[round((i + 1) * len(names) / most) - 1] for i in range(most)]


def codes(network: Network) -> list[str]:
    """What lies behind the maps: the layer that the scores are computed from, where it has no place any more, and the
    scores themselves."""
    modules = dict(network.module.named_modules())
    leaves = [i for i in network.layers() if not any(True for _ in modules[i.name].children())]
    leaves = [i for i in leaves if not i.kind.startswith(_IDLE)]
    heavy = [n for n, i in enumerate(leaves) if any(p.ndim > 1 for p in modules[i.name].parameters(recurse=False))]
    found = [leaves[n - 1] for n in heavy[-1:] if n > 0] + leaves[-1:]
    return list(dict.fromkeys(i.name for i in found if not i.spatial))
