"""Colours of a photograph in the style of a painting (Gatys et al. 2016, arXiv:1606.05897, sections 3 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the Y of YIQ


def luminance(images: Tensor) -> Tensor:
    """(..., 1, H, W): the Y of YIQ, of (..., 3, H, W)."""
    return (images * torch.tensor(LUMA).to(images).view(3, 1, 1)).sum(-3, keepdim=True)


def same_spread(values: Tensor, like: Tensor) -> Tensor:
    """Values with the mean and standard deviation of others (arXiv:1606.05897, equation 10); not clipped."""
    spread = values.std()
    share = like.std() / spread if spread > 0 else 0.0
    return (values - values.mean()) * share + like.mean()


def matched(picture: Tensor, like: Tensor) -> Tensor:
    """(3, h, w) with the mean and covariance of the colours of another picture (3, H, W); not clipped.

    x -> S_like^(1/2) S^(-1/2) (x - m) + m_like, the linear map of arXiv:1606.05897, section 3, with symmetric roots.
    Variances along the colour axes count as at least 1e-7, so that a grey picture has an inverse.
    """
    (mean, spread), (mean_like, spread_like) = _colours(picture), _colours(like)
    root = _power(spread_like, 0.5) @ _power(spread, -0.5)
    pixels = root @ (picture.flatten(1).double() - mean) + mean_like
    return pixels.view_as(picture).to(picture)


def _colours(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (3, 1) and covariance (3, 3) in double precision."""
    pixels = picture.flatten(1).double()
    mean = pixels.mean(1, keepdim=True)
    return mean, (pixels - mean) @ (pixels - mean).T / pixels.shape[1]


def _power(spread: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(spread)
    return vectors * values.clamp(min=1e-7) ** exponent @ vectors.T
