"""Randomised smoothing: what a network mostly says around a picture, and how far that is certain.

Cohen, Rosenfeld and Kolter (2019), arXiv:1902.02918. The smoothed network answers a picture by the class that the
network most often gives to the picture with Gaussian noise added. If that class has at least the share p > 1/2 of all
noise, no change of the picture of L2 length below

    radius = sigma * Phi^-1(p)                                       (their theorem 1, with p_B = 1 - p_A)

changes the answer, whatever the network. The share is not known; from n draws a lower bound of it is taken that holds
with probability 1 - alpha (Clopper and Pearson 1934), so that the certificate does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binomtest, norm
from torch import Tensor

from convscope.batching import batched
from convscope.network import Network

FIRST, DRAWS, ALPHA = 100, 1000, 0.001  # their n0, n and alpha, n a hundredth of theirs


@dataclass(frozen=True)
class Certificate:
    """What is certain about one picture.

    Attributes:
        label: the class that the smoothed network gives, None where the draws leave that open: it abstains.
        radius: L2 length, in values of [0, 1], within which nothing changes it; 0 where it abstains.
        share: of all noise, the lower bound for that class.
        votes: (classes,) of the draws that the bound comes from.
    """

    label: int | None
    radius: float
    share: float
    votes: Tensor


def lower_bound(hits: int, draws: int, alpha: float) -> float:
    """The one-sided lower Clopper-Pearson bound of a share, at confidence 1 - alpha."""
    return float(binomtest(hits, draws, alternative="greater").proportion_ci(1 - alpha, "exact").low)


def radius(share: float, sigma: float) -> float:
    """How far a class that has at least ``share`` of the noise cannot be left; 0 for a half or less."""
    return max(0.0, sigma * float(norm.ppf(share))) if share > 0.5 else 0.0


def votes(network: Network, image: Tensor, sigma: float, draws: int, generator: torch.Generator) -> Tensor:
    """(classes,): how often the network gives each class to (3, H, W) with noise of ``sigma`` added."""

    def run(part: slice) -> Tensor:
        noise = torch.randn(part.stop - part.start, *image.shape, generator=generator)
        return network(image + sigma * noise.to(image)).argmax(1).cpu()

    with torch.no_grad():
        found = torch.cat(list(batched(run, draws, network.at_once(image), "draws")))
    return found.bincount(minlength=network.classes)


def certify(
    network: Network, image: Tensor, *, sigma: float, first: int = FIRST, draws: int = DRAWS, alpha: float = ALPHA,
    seed: int = 0,
) -> Certificate:  # fmt: skip
    """The smoothed network's answer to (3, H, W) and how far it holds: their procedure CERTIFY.

    Args:
        network: in whose answers to noise the majority is sought; it needs to be used to noise of ``sigma``.
        image: in [0, 1].
        sigma: of the noise, in values of [0, 1].
        first: draws that choose the class.
        draws: others that bound its share.
        alpha: probability that the certificate is wrong.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    guess = int(votes(network, image, sigma, first, generator).argmax())
    counted = votes(network, image, sigma, draws, generator)
    share = lower_bound(int(counted[guess]), draws, alpha)
    certain = share > 0.5
    return Certificate(guess if certain else None, radius(share, sigma), share, counted)
