"""Every map of one photograph beside the others, each with what the randomisation check says of its method.

Maps are in different units, so each is divided by its own end: the size below which 99.5 % of its values lie. All are
then drawn on one scale, from cold through a neutral zero to warm. Maps without a sign have only the warm half, from the
lowest of their values on, as none of these need be near zero: the paper's RISE has probabilities.
"""

from __future__ import annotations

import time
import typing
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from convscope import progress, registry
from convscope.errors import ConvscopeError, OptionError
from convscope.evaluate.methods import Given, Method, all_methods, methods_of
from convscope.evaluate.randomisation import STAGES, Verdict, cascade, checked
from convscope.evaluate.sample import Sample, sample, without_nan
from convscope.evaluate.together import MARK
from convscope.network import Network
from convscope.results import Heatmap, Pictures, Provenance, Regions
from convscope.zoo import load_network

END = 0.995  # share of a map's values that lie below the end of its scale
LONGEST = 14  # letters of a name on one line
SECONDS = 60.0  # that a check may take; what would take longer is not checked


def beside(
    network: Network,
    images: Tensor,
    *,
    methods: str | Sequence[Given] | None = None,
    names: Sequence[str] | None = None,
    seconds: float = SECONDS,
    seed: int = 0,
) -> Pictures:
    """Maps of the first picture by many methods, on one scale, marked where they hardly depend on the weights.

    Args:
        network: a classifier, or whatever ``load_network`` takes.
        images: (N, 3, H, W) in [0, 1]. The first is shown, for the class that the network predicts; methods are
            checked on all, so give at least three.
        methods: as :func:`convscope.evaluate.evaluate` takes them; for None every technique that makes a heat map,
            with the options of its example.
        names: what to call the pictures.
        seconds: that the check of a method may take; one that would take longer is said to be unchecked.
        seed: of the random weights.

    Returns:
        ``values`` (M, H, W), the untouched maps of the first picture, signed ones first. ``tiles`` (1, M, 1, H, W),
        each over its own end. ``marks`` are the methods that fail the check; the summary has each one's verdict.

    Raises:
        OptionError: no method works on this network; what does not is a note.
    """
    given = sample(load_network(network), images, names=names, seed=seed)
    with torch.inference_mode(False):
        stages = [random for _, random in cascade(given.network, seed=seed)]
        chosen = examples() if methods is None else methods_of(methods)
        found, notes = [], []
        for method in progress.over(chosen, "methods"):
            try:
                found.append(_Shown.of(method, given, stages, seconds))
            except ConvscopeError as error:
                notes.append(f"{method.name} is left out: {error}")
    if not found:
        raise OptionError(f"no method works on {given.network.name}; {'; '.join(notes)}")
    found.sort(key=lambda shown: not shown.heat.signed)
    return _result(found, notes, given)


def examples() -> list[Method]:
    """Every technique that makes a heat map and not a part of one, with the options of its example."""
    techniques = [registry.load(method.technique) for method in all_methods()]
    return [Method(t.name, t.example) for t in techniques if not _of_parts(t)]


def _of_parts(technique: registry.Technique[..., Any]) -> bool:
    return issubclass(typing.get_type_hints(technique.function)["return"], Regions)


class _Shown:
    """A method's map of the first picture, and its verdict."""

    def __init__(self, name: str, heat: Heatmap, verdict: Verdict) -> None:
        self.name, self.heat, self.verdict = name, heat, verdict

    @classmethod
    def of(cls, method: Method, given: Sample, stages: Sequence[Network], seconds: float) -> _Shown:
        start = time.process_time()
        heat = method.result(given.network, given.images[:1], given.targets[:1])
        taken = (time.process_time() - start) * len(given) * (STAGES + 1)
        return cls(method.name, heat, _verdict(method, given, stages) if taken <= seconds else Verdict("–"))

    @property
    def tile(self) -> Tensor:
        """(1, H, W) over its own end, in [-1, 1]; what has no sign begins at its lowest value."""
        values = self.heat.values[:1].double()
        values = values if self.heat.signed else values - values.min()
        sizes = values.abs().flatten()
        end = float(sizes.kthvalue(max(1, round(END * len(sizes)))).values) or float(sizes.max())
        return (values / (end or 1.0)).clamp(-1, 1).float()

    @property
    def title(self) -> str:
        """Its short name, and the verdict below it."""
        word = {"–": "not checked"}.get(self.verdict.word, self.verdict.word)
        return f"{_broken(self.short)}\n{word}"

    @property
    def short(self) -> str:
        """Its technique, and the values of options that are not those of the example."""
        technique, *options = self.name.split(" ")
        example = registry.load(technique).example
        more = [o for o in options if o not in {f"{name}={value}" for name, value in example.items()}]
        return " ".join([technique, *(o.partition("=")[2] for o in more)])


def _broken(name: str) -> str:
    """A name on two lines where one is too long for a tile."""
    place = next((i for i, letter in enumerate(name) if letter in " -"), -1)
    return name if len(name) <= LONGEST or place < 0 else f"{name[: place + 1].strip()}\n{name[place + 1 :]}"


def _verdict(method: Method, given: Sample, stages: Sequence[Network]) -> Verdict:
    trained = method(given.network, given.images, given.targets)
    return checked(stages, method, given.images, given.targets, trained)


def _result(found: Sequence[_Shown], notes: Sequence[str], given: Sample) -> Pictures:
    known = given.network.label(given.targets[0])
    sizes = [shown.short for shown in found if not shown.heat.signed]
    said = [f"maps that have no signs, and begin at their lowest value: {', '.join(sizes)}"] if sizes else []
    check = f"below each name stands the randomisation check on {len(given)} photographs"
    return Pictures(
        values=torch.cat([shown.heat.values[:1].float() for shown in found]),
        tiles=torch.stack([shown.tile for shown in found])[None],
        tile_titles=[shown.title for shown in found], titles=[f"{known}, {100 * given.probabilities[0]:.0f} %"],
        marks=torch.tensor([[shown.verdict.word == "fails" for shown in found]]), mark=MARK,
        images=given.images[:1], signed=True, quantity="share of each map's own end", notes=[check, *said, *notes],
        summaries=[{"target": known, "methods": [_told(shown) for shown in found]}], per_picture=False,
        provenance=Provenance(
            technique="maps", options={"methods": [shown.name for shown in found]}, network=given.network.name,
            weights=given.network.weights, layer=None, seed=given.seed, precision=given.network.arithmetic,
            device=str(given.network.device), photographs=tuple(given.names[:1]),
        ),
    )  # fmt: skip


def _told(shown: _Shown) -> dict[str, Any]:
    like = without_nan([shown.verdict.likeness])[0]
    return {"name": shown.name, "signed": shown.heat.signed, "check": shown.verdict.word, "likeness": like}
