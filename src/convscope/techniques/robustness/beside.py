"""Two networks beside each other on one photograph: their gradients, and what each imagines for its class."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from convscope import progress
from convscope.backward import gradient
from convscope.hooks import OUTPUT, observe
from convscope.network import Network
from convscope.registry import Seed, Target, technique
from convscope.results import Pictures
from convscope.techniques.robustness._attack import attack, enlarged, logits_of
from convscope.zoo import load_network

BUDGET, STRIDE, SIDE = 40.0, 1.0, 224  # L2 length and step of Santurkar et al., for pictures of that side
NOISE = 0.02  # standard deviation of the noise that class images start from


@technique(
    family="robustness",
    order=40,
    paper="gradients arXiv:1805.12152, section 3.1; class images arXiv:1906.09453, section 3",
    see="The gradient of the network that was trained on pictures that fool it follows the object's outlines, where "
    "that of the plain one looks like grain. From the same noise, by the same steps without any prior, it makes shapes "
    "that a person can name.",
    caution="Readable is not right: the robust network pays for it with accuracy, and both pictures show what raises a "
    "score, not why this photograph got it.",
    quick={"other": "random", "steps": 1},
)
def beside(
    network: Network,
    images: Tensor,
    *,
    other: Annotated[
        str,
        Field(description="the other network, as --network takes it; SPEC=FILE for weights, random for its own anew"),
    ] = "builtin-robust",
    target: Target = None,
    steps: Annotated[int, Field(ge=0, description="steps of the class images; 0 leaves them out")] = 60,
    seed: Seed = 0,
) -> Pictures:
    """Two networks on the same photographs: the gradient of each, and what each makes of noise for the class.

    The gradient of the class's logit by the pixels is shown in its own colours around grey, cut at three of its
    standard deviations. The class image maximises the class's probability from noise by steps along the gradient, each
    of one length, within an L2 ball, and with no prior on pictures at all.

    Args:
        network: a classifier.
        images: (3, H, W) or (N, 3, H, W) in [0, 1]; both networks get them as they are.
        other: the second network; it needs a label of the same name, or without labels a class of the same index.
        target: class to explain; what the first network says if left out.
        steps: of the class images, of 1 in L2 within 40 for pictures of 224 pixels, in proportion for others.
        seed: of the noise that class images start from.

    Returns:
        ``values`` (N, 2, 3, H, W): the gradients, in logits per unit of pixel value. Tiles are the photograph, both
        gradients and both class images. Each summary holds what both say, and how alike
        neighbouring values of each gradient are (``smoothness``, the correlation of neighbours, 0 for grain).

    Raises:
        UnknownTarget: the second network has no such label.
        NetworkError: the second network does not take pictures of this size.
    """
    second = _loaded(other, network, seed)
    own = network.targets(target, logits_of(network, images)).tolist()
    names, pair = [network.label(i) for i in own], [network, second]
    alike = second.labels == network.labels  # where two classes may share a name, as ImageNet's cardigans do
    others = [second.target(i if alike or not network.labels else name) for i, name in zip(own, names, strict=True)]
    classes = [torch.tensor(own), torch.tensor(others)]
    slopes = torch.stack([_gradient(n, images, c) for n, c in zip(pair, classes, strict=True)], 1)
    rows = [images.float().cpu(), *(_shown(slope) for slope in slopes.unbind(1))]
    if steps:
        drawn = progress.over(list(zip(pair, classes, strict=True)), "class images")
        rows += [_imagined(each, c, images, steps, seed) for each, c in drawn]
    said = [[_says(n, logits, c) for logits, c in zip(logits_of(n, images), classes[i].tolist(), strict=True)]
            for i, n in enumerate(pair)]  # fmt: skip
    return _result(pair, names, slopes, torch.stack(rows, 1), said)


def _loaded(spec: str, network: Network, seed: int) -> Network:
    if spec == "random":
        module = copy.deepcopy(network.module).float()  # so that the same is drawn in every precision
        drawn = load_network(replace(network, module=module), "random", seed=seed).module
        like = next((p for p in network.module.parameters()), torch.zeros(()))
        return replace(network, module=drawn.to(like.dtype), name=f"{network.name}, random", weights="random")
    name, _, weights = spec.partition("=")
    return load_network(name, weights=weights or "default")


def _gradient(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """(N, 3, H, W) of each picture's class logit."""
    pixels = images.detach().clone().requires_grad_()
    logits = network.check_logits(observe(network, pixels, [OUTPUT])[OUTPUT])
    return gradient(logits.gather(1, classes.to(logits.device)[:, None])[:, 0], pixels).detach().cpu().float()


def _shown(slopes: Tensor) -> Tensor:
    """In [0, 1]: zero is mid-grey, three standard deviations the ends."""
    spread = slopes.flatten(1).std(1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return (0.5 + slopes / (6 * spread)).clamp(0, 1)


def _imagined(network: Network, classes: Tensor, images: Tensor, steps: int, seed: int) -> Tensor:
    """(N, 3, H, W): one class image a picture, all from the same noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[-2:]
    coarse = torch.randn(1, 3, max(2, height // 8), max(2, width // 8), generator=generator)
    noise = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = noise.to(images)
    start = (0.5 + NOISE * noise).clamp(0, 1).expand(len(images), -1, -1, -1).contiguous()
    share = (height * width) ** 0.5 / SIDE
    found = attack(
        network.drawing, start, classes, epsilon=BUDGET * share, norm="l2", steps=steps, rate=STRIDE * share,
        targeted=True,
    )  # fmt: skip
    return found.float().cpu()


def _says(network: Network, logits: Tensor, index: int) -> dict[str, Any]:
    shares = logits.double().softmax(0)
    best = int(shares.argmax())
    return {
        "label": network.label(best), "index": best, "probability": float(shares[best]),
        "probability_of_target": float(shares[index]),
    }  # fmt: skip


def smoothness(slopes: Tensor) -> float:
    """The correlation of a gradient (3, H, W) with itself one pixel aside and below: 0 for grain, 1 for smooth."""
    ends = [(slopes[:, :, 1:], slopes[:, :, :-1]), (slopes[:, 1:], slopes[:, :-1])]
    pairs = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in ends]
    return float(torch.stack(pairs).nan_to_num().mean())


def _titles(pair: Sequence[Network], target: str, said: Sequence[dict[str, Any]]) -> list[str]:
    """What stands over the five tiles of a photograph."""
    says = [f"{n.name}: gradient\nsays {s['label']} {s['probability']:.0%}" for n, s in zip(pair, said, strict=True)]
    return ["photograph", *says, *(f"{n.name}: from\nnoise to {target}" for n in pair)]


def _result(
    pair: Sequence[Network],
    names: Sequence[str],
    slopes: Tensor,
    rows: Tensor,
    said: Sequence[Sequence[dict[str, Any]]],
) -> Pictures:
    smooth = [[smoothness(slope) for slope in each] for each in slopes]
    titles = [title for i, name in enumerate(names) for title in _titles(pair, name, [each[i] for each in said])]
    titles = [t for i, t in enumerate(titles) if i % 5 < rows.shape[1]]
    summaries = [
        {
            "target": name,
            "networks": [
                {"network": n.name, "weights": n.weights, **said[k][i], "smoothness": smooth[i][k]}
                for k, n in enumerate(pair)
            ],
        }
        for i, name in enumerate(names)
    ]
    return Pictures(
        values=slopes, tiles=enlarged(rows), columns=rows.shape[1], titles=list(names), tile_titles=titles,
        summaries=summaries, quantity="logit per unit of pixel value",
    )  # fmt: skip
