"""What can be measured of a picture without a network, on the prepared picture that the network sees.

==============  ================================================================================================
attribute       what it is
==============  ================================================================================================
brightness      mean of the luma (ITU-R BT.601), 0 black to 1 white
contrast        standard deviation of the luma
colourfulness   Hasler & Süsstrunk 2003, equation for M3 (their \\ :sup:`(3)`), on channels of 0 to 255: grey is 0,
                33 moderately, 59 quite, 109 extremely colourful
sharpness       variance of the luma's Laplacian (four neighbours), on luma of 0 to 255 (Pech-Pacheco et al. 2000)
clutter         edge density: the share of pixels where the luma's gradient (Sobel) exceeds 0.1 a pixel
aspect          width by height of the picture as it is stored, uncropped
==============  ================================================================================================
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NAMES = ("brightness", "contrast", "colourfulness", "sharpness", "clutter", "aspect")
_LUMA = (0.299, 0.587, 0.114)
_EDGE = 0.1  # of luma a pixel


def measure(image: Tensor, aspect: float) -> np.ndarray:
    """(6,) float32, as in :data:`NAMES`, of a picture (3, H, W) in [0, 1]."""
    red, green, blue = (255 * channel for channel in image.float())
    luma = (image.float() * torch.tensor(_LUMA).view(3, 1, 1)).sum(0)
    opponents = (red - green, 0.5 * (red + green) - blue)
    spread = sum(float(each.var(correction=0)) for each in opponents) ** 0.5
    mean = sum(float(each.mean()) ** 2 for each in opponents) ** 0.5
    found = (float(luma.mean()), float(luma.std(correction=0)), spread + 0.3 * mean, *_edges(luma), aspect)
    return np.array(found, np.float32)


def _edges(luma: Tensor) -> tuple[float, float]:
    """Variance of the Laplacian and share of edges, over the pixels that have all neighbours."""
    if min(luma.shape) < 3:
        return 0.0, 0.0
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    found = functional.conv2d(luma[None, None], torch.stack([laplacian * 255, sobel, sobel.T])[:, None])[0]
    return float(found[0].var(correction=0)), float((found[1:].square().sum(0) > _EDGE**2).double().mean())
