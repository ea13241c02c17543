"""Whether a network goes by shape or by texture (Geirhos et al. 2019, ICLR).

A picture with the shape of a cat and the texture of an elephant is shown. Of the decisions for either, the share of
those for the shape is the shape bias: people decide so 95.9 times in a hundred, networks trained on ImageNet 17 to 43
times (the paper's section 3.1).

Departures: texture photographs are cut to their middle, since backgrounds are textures too; and the transfer is by the
built-in network, where the paper takes VGG-19. Who makes the pictures matters as much as who judges them: the transfer
moves the maker's own layers, and a maker that judges its own pictures sees little but texture. For several networks
make the pictures once, ``save`` them, and show them to each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from convscope.behaviour.categories import choices_for
from convscope.behaviour.conflict import Count, Decision, counted, cues, over_all
from convscope.behaviour.responses import read_responses
from convscope.errors import OptionError
from convscope.network import Network
from convscope.registry import Seed, technique
from convscope.results import Bias
from convscope.techniques.robustness._stimuli import (
    Stimulus,
    Transfer,
    answers_to,
    given_stimuli,
    made_stimuli,
    write_stimuli,
)

EXAMPLES = 12
OWN = (
    "{} made these pictures itself, until its own layers agreed with the texture, so it is bound to see the texture; "
    "judge it on pictures that another network made (maker), or on published ones"
)
Folder = str | Path | None


def _quick() -> list[tuple[torch.Tensor, str, str]]:
    pictures = torch.rand(4, 3, 32, 40, generator=torch.Generator().manual_seed(3))
    return list(zip(pictures, ("ant", "bee", "cat", "ant"), ("bee", "cat", "ant", "cat"), strict=True))


@technique(
    family="robustness",
    order=20,
    paper="Geirhos et al. 2019, arXiv:1811.12231, sections 2 and 3.1",
    see="Right of the middle a class is decided by its texture, left of it by its shape, where people decide.",
    caution=(
        "Style transfer keeps some texture of the shape's photograph and bends some contours, and a network "
        "that makes its own pictures makes textures that it knows. Decisions for neither are not counted."
    ),
    quick={"stimuli": _quick()},
)
def shape_bias(
    network: Network,
    *,
    stimuli: Annotated[
        Any, Field(description="folder of pictures whose names say shape and texture, as cat7-elephant1.png")
    ] = None,
    shapes: Annotated[
        Folder, Field(description="instead: folder with a folder of photographs for each class, which give shapes")
    ] = None,
    textures: Annotated[Folder, Field(description="the same for textures; that of the shapes if left out")] = None,
    classes: Annotated[str | None, Field(description="only these classes of the folders, separated by commas")] = None,
    limit: Annotated[int, Field(ge=1, description="pictures that are made at most")] = 48,
    weight: Annotated[float, Field(gt=0, description="weight of the texture; the shape has 1")] = 30.0,
    middle: Annotated[
        float, Field(gt=0, le=1, description="share of a texture's photograph that is taken, around its middle")
    ] = 0.6,
    steps: Annotated[int, Field(ge=1, description="steps of the transfer at each size")] = 60,
    maker: Annotated[
        str | None, Field(description="network that makes the pictures, as --network names it; builtin if left out")
    ] = None,
    save: Annotated[Folder, Field(description="folder to write the pictures to, for other networks")] = None,
    beside: Annotated[
        str | Sequence[str] | None,
        Field(description="another network on the same pictures, as -o FILE.json wrote it, or people's answers as CSV"),
    ] = None,
    seed: Seed = 0,
) -> Bias:
    """Whether a network decides by shape or by texture where the two disagree.

        shape bias = decisions for the shape / (decisions for the shape + decisions for the texture)

    Pictures whose shape and texture are of one class do not count. A network on ImageNet chooses among 16 entry-level
    categories, by the mean probability of each one's classes; another one among the names that occur.

    Args:
        network: a classifier that knows the classes.
        stimuli: a folder, or in Python also a list of (picture, shape, texture).
        shapes, textures: folders of classes, from which pictures are made by ``style``.
        classes, limit: which classes, and how many pictures in all, about as many of each shape.
        weight, middle, steps: of the transfer: ``beta`` of ``style``, the texture's part, and the steps.
        maker: which network makes them. One that makes its own decides for the texture nearly always, since the
            transfer goes on until its layers agree with it.
        save: the folder gets one PNG a picture.
        beside: files that ``-o FILE.json`` wrote, or tables of people's answers (see ``humans``) whose picture names
            say both classes.
        seed: of the choice of photographs.

    Returns:
        ``values`` (classes + 1, 3): decisions for shape, texture and neither by class of the shape, all together last.
        ``rows`` say the same with the bias and its 95 % interval (Wilson's). The summary holds them under ``classes``
        and ``all``.

    Raises:
        ImageError, OptionError for folders without pictures, names that say nothing, classes that the network lacks,
        and a file ``beside`` that is none of this technique.
    """
    how = Transfer(maker or "builtin", weight, middle, steps, seed)
    shown, notes = _shown(network, stimuli, shapes, textures, classes, limit, how)
    choices = choices_for(network, [name for each in shown for name in (each.shape, each.texture)])
    answers = answers_to(network, choices, shown)
    if save is not None:
        write_stimuli(shown, save)
    decisions = [Decision(each.shape, each.texture, answer) for each, answer in zip(shown, answers, strict=True)]
    counts = counted(decisions)
    if not counts:
        raise OptionError("shape and texture agree in every picture, so there is nothing to decide; give conflicts")
    agreeing = sum(d.shape == d.texture for d in decisions)
    notes += [f"{agreeing} pictures in which shape and texture agree are not counted"] if agreeing else []
    return _result(network, shown, decisions, counts, [_other(path) for path in _listed(beside)], notes)


def _shown(
    network: Network, stimuli: Any, shapes: Folder, textures: Folder, classes: str | None, limit: int, how: Transfer
) -> tuple[list[Stimulus], list[str]]:
    if (stimuli is None) == (shapes is None):
        raise OptionError(
            "shape-bias needs pictures: --stimuli FOLDER of cue conflicts, or --shapes FOLDER to make them from classes"
        )
    if stimuli is not None:
        return given_stimuli(network, stimuli)
    assert shapes is not None
    wanted = [name.strip() for name in (classes or "").split(",") if name.strip()]
    found, notes = made_stimuli(network, shapes, textures or shapes, wanted=wanted, limit=limit, how=how)
    return found, [*notes, *([OWN.format(network.name)] if network.name == how.maker else [])]


def _result(
    network: Network, shown: Sequence[Stimulus], decisions: Sequence[Decision], counts: Sequence[Count],
    others: Sequence[tuple[str, list[Count]]], notes: Sequence[str],
) -> Bias:  # fmt: skip
    every = [*counts, over_all(counts)]
    values = torch.tensor([[c.shape, c.texture, c.neither] for c in every], dtype=torch.float32)
    conflicts = [n for n, d in enumerate(decisions) if d.shape != d.texture]
    place = conflicts[:: max(1, len(conflicts) // EXAMPLES)][:EXAMPLES]
    sizes = {tuple(shown[n].picture.shape) for n in place}
    return Bias(
        values=values, columns=("class of the shape", "shape", "texture", "neither", "shape bias", "95 % interval"),
        rows=[_row(c) for c in every], numeric=("shape", "texture", "neither"), per_picture=False,
        series=[(network.name, every), *others],
        examples=torch.stack([shown[n].picture for n in place]) if len(sizes) == 1 else None,
        example_titles=[_lines(decisions[n]) for n in place],
        notes=notes, summaries=[_summary(network, counts)],
    )  # fmt: skip


def _lines(decision: Decision) -> str:
    return f"shape {decision.shape}\ntexture {decision.texture}\n→ {decision.answer}"


def _row(count: Count) -> list[Any]:
    bias = count.bias
    known = count.shape + count.texture > 0
    ends = f"{bias.low:.0%} to {bias.high:.0%}" if known else "–"
    return [count.name, count.shape, count.texture, count.neither, f"{bias.mean:.0%}" if known else "–", ends]


def _summary(network: Network, counts: Sequence[Count]) -> dict[str, Any]:
    return {"network": network.name, "all": _said(over_all(counts)), "classes": [_said(count) for count in counts]}


def _said(count: Count) -> dict[str, Any]:
    bias = count.bias
    found: dict[str, Any] = {
        "name": count.name, "shape": count.shape, "texture": count.texture, "neither": count.neither,
    }  # fmt: skip
    if count.shape + count.texture:
        found |= {"bias": bias.mean, "low": bias.low, "high": bias.high}
    return found


# ---- networks beside


def _listed(given: str | Sequence[str] | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else list(given)


def _other(path: str) -> tuple[str, list[Count]]:
    """Name and counts of what another run wrote, or of people."""
    if Path(path).suffix.lower() == ".csv":
        return _people(path)
    try:
        found = json.loads(Path(path).read_text("utf-8"))
        counts = [_count(each) for each in [*found["classes"], found["all"]]]
        return str(found["network"]), counts
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OptionError(
            f"{path} holds no shape bias of a network ({type(error).__name__}); write one with shape-bias -o FILE.json"
        ) from error


def _count(said: Mapping[str, Any]) -> Count:
    return Count(str(said["name"]), int(said["shape"]), int(said["texture"]), int(said["neither"]))


def _people(path: str) -> tuple[str, list[Count]]:
    decisions = []
    for row in read_responses(path).rows:
        decisions.append(Decision(row.category, cues(row.imagename)[1], row.object_response))
    counts = counted(decisions)
    return "people", [*counts, over_all(counts)]
