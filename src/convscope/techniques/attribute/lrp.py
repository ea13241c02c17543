"""Layer-wise relevance propagation, by zennit (Bach 2015; rules by layer: Montavon 2019, Kohlbrenner 2020).

The score is handed back as relevance, from layer to layer, each unit's R_k divided among the units j below it that it
was computed from, in shares that the rules define:

    epsilon    R_j = sum over k of a_j w_jk / (z_k + epsilon sign z_k) R_k        z_k = sum over j of a_j w_jk + b_k
    z+         the same of the products a_j w_jk above zero alone, and biases above zero
    alpha2-beta1   2 times the shares among products above zero, less those among the ones below
    flat       R_j = the same share for every j that k sees
    gamma      w_jk + gamma max(w_jk, 0) instead of w_jk
    box        a_j w_jk - low max(w_jk, 0) - high min(w_jk, 0), for pixels between low and high

Linear layers take the epsilon rule; convolutions what the composite is named for, and the first layer the last part of
its name. Activations hand relevance through, pools and sums divide it in proportion. Relevance that biases take is
lost, so the map's sum misses the score by what the summary says.

The rules are zennit's and are put on a copy of the network: its batch norms are put into the convolutions before them
(others hand relevance through), and functional or reused rectifiers are seen, as are sums. The copy runs in float32 at
least. The relevance of a picture is that of its normalised values, summed over colours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from convscope.backward import gradient
from convscope.batching import batched
from convscope.errors import NetworkError
from convscope.extras import require
from convscope.network import Network
from convscope.objectives import Question, ask
from convscope.registry import Layer, Target, UnitOption, technique
from convscope.results import Heatmap
from convscope.techniques.attribute._heat import describe
from convscope.techniques.attribute._path import answers, held
from convscope.techniques.attribute._twin import Scale, Twin, twin
from convscope.zoo.torchvision_models import import_torchvision

Composite = Literal[
    "epsilon-plus-flat", "epsilon-plus", "epsilon-alpha2-beta1-flat", "epsilon-alpha2-beta1", "epsilon-gamma-box"
]


@technique(
    family="attribute",
    exact=True,
    paper="Bach et al. 2015, doi:10.1371/journal.pone.0130140; Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10",
    see="Warm pixels took part in raising the score, cold ones in lowering it; the first layer's rule smooths them.",
    caution=(
        "The shares follow from rules that were chosen, not measured: maps of the z+ family hardly depend on the class "
        "and on the last layers (Sixt et al. 2020). Compare two classes, and two composites."
    ),
)
def lrp(
    network: Network,
    images: Tensor,
    *,
    target: Target = None,
    layer: Layer = None,
    unit: UnitOption = None,
    composite: Annotated[
        Composite, Field(description="rules of linear layers, of convolutions, and of the first layer")
    ] = "epsilon-plus-flat",
    epsilon: Annotated[float, Field(gt=0, description="what steadies the division in linear layers")] = 1e-6,
    biases: Annotated[bool, Field(description="let biases take their share, which is lost to the map")] = True,
) -> Heatmap:
    """Each pixel's share in the score, handed back from layer to layer by rules that conserve it.

    Args:
        network: one that torch.fx can follow; a classifier unless a unit is given.
        images: (3, H, W) or (N, 3, H, W) in [0, 1], used at their own size.
        target: class index, label, or an unambiguous part of one; the predicted class for None; or one a picture.
        layer, unit: a unit inside the network instead of a class; without a position, the channel's strongest.
        composite: which layers take which rule.
        epsilon: of the epsilon rule; more takes relevance away from weak evidence.
        biases: whether they count among what a unit was computed from; without them hardly any relevance is lost.

    Returns:
        ``values`` (N, H, W), signed, in score, summed over colours. Each summary holds ``conservation``: the map's
        ``sum``, the ``wanted`` score and the ``error`` between them, which biases and the epsilon take.

    Raises:
        UnknownTarget, UnknownLayer, OptionError; MissingExtra without zennit; NetworkError for a network that torch.fx
        cannot follow.
    """
    zennit = _zennit()
    question = ask(network, target, layer=layer, unit=unit)
    scores, targets = answers(question, images)
    asked = held(question, targets)
    copied = twin(asked, total=zennit.layer.Sum)
    if "MultiheadAttention" in copied.ruleless:
        raise _no_rules(copied)
    rules = _rules(zennit, network, composite, epsilon, biases)
    passes = batched(
        lambda part: _relevance(copied, asked.of_part(part, len(images)), images[part], scores[part], rules),
        len(images),
        network.max_batch,
    )
    values = torch.cat(list(passes))
    if copied.ruleless and not bool(values.isfinite().all()):
        raise _no_rules(copied)
    said = describe(question, values, scores, targets)
    said["summaries"] = [_with_conservation(s, heat) for s, heat in zip(said["summaries"], values, strict=True)]
    said["notes"] = [*said["notes"], *copied.remarks()]
    return Heatmap(
        values=values, images=images, signed=True, quantity="share in the score", layer=question.layer, **said
    )


def _no_rules(copied: Twin) -> NetworkError:
    return NetworkError(
        f"{copied.question.network.name} has {', '.join(copied.ruleless)}, for which zennit has no rule that keeps "
        "relevance; use integrated-gradients"
    )


def _zennit() -> Any:
    """zennit, which imports torchvision."""
    import_torchvision()
    return require("zennit", "lrp")


def _rules(zennit: Any, network: Network, name: Composite, epsilon: float, biases: bool) -> Any:
    """The composite of that name."""
    given: dict[str, Any] = {"epsilon": epsilon, "zero_params": [] if biases else ["bias"]}
    if name.endswith("box"):
        ends = {"low": torch.zeros(1, 3, 1, 1), "high": torch.ones(1, 3, 1, 1)}
        given |= {end: network.undefended.normalise(bound).float() for end, bound in ends.items()}
    chosen = zennit.composites.COMPOSITES[name.replace("-", "_")]
    return chosen(layer_map=[(Scale, zennit.rules.Pass())], **given)


def _relevance(copied: Twin, question: Question, images: Tensor, expected: Tensor, rules: Any) -> Tensor:
    """(N, H, W), on the CPU."""
    copied.check(images, question, expected)
    inputs = copied.normalised(images).requires_grad_()
    with rules.context(copied.module):
        scores = copied.scores(inputs, question)
        relevance = gradient(scores * scores.detach(), inputs)  # each picture's whole score comes in at the top
    return relevance.sum(1).cpu()


def _with_conservation(summary: dict[str, Any], heat: Tensor) -> dict[str, Any]:
    total = float(heat.double().sum())
    return {**summary, "conservation": {"sum": total, "wanted": summary["score"], "error": total - summary["score"]}}
