"""Attributes of pictures against what scipy and scikit-image say, and against the published formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data
from skimage.color import rgb2gray

from convscope.images import read_image
from convscope.scanning.attributes import NAMES, measure


def by_hand(image: np.ndarray) -> dict[str, float]:
    """(H, W, 3) of 0 to 255."""
    red, green, blue = image.astype(float).transpose(2, 0, 1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    first, second = red - green, (red + green) / 2 - blue
    laplacian = ndimage.laplace(255 * luma)[1:-1, 1:-1]
    slopes = [ndimage.sobel(luma, axis)[1:-1, 1:-1] / 8 for axis in (0, 1)]
    return {
        "brightness": luma.mean(),
        "contrast": luma.std(),
        "colourfulness": np.hypot(first.std(), second.std()) + 0.3 * np.hypot(first.mean(), second.mean()),
        "sharpness": laplacian.var(),
        "clutter": (np.hypot(*slopes) > 0.1).mean(),
    }


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket"])
def test_photographs(name: str) -> None:
    image = getattr(data, name)()[::2, ::2]
    found = dict(zip(NAMES, measure(read_image(image), 1.5), strict=True))
    for attribute, value in by_hand(image).items():
        assert found[attribute] == pytest.approx(value, rel=1e-3), attribute
    assert found["aspect"] == 1.5
    assert found["brightness"] == pytest.approx(rgb2gray(image).mean(), abs=0.02)  # with other weights of the colours


def test_attributes_move_as_their_names_say() -> None:
    image = read_image(data.coffee()[::2, ::2])
    blurred = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    grey = image.mean(0, keepdim=True).expand(3, -1, -1)
    sharp, smooth, dull, dark = (
        dict(zip(NAMES, measure(each, 1.0), strict=True)) for each in (image, blurred, grey, image / 2)
    )
    assert smooth["sharpness"] < sharp["sharpness"] / 3
    assert smooth["clutter"] < sharp["clutter"]
    assert dull["colourfulness"] == pytest.approx(0, abs=1e-3)
    assert dark["brightness"] == pytest.approx(sharp["brightness"] / 2, rel=1e-4)
    assert dark["contrast"] == pytest.approx(sharp["contrast"] / 2, rel=1e-4)
